"""Looking through a folder: plain files only, no links, nothing of the store's own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path

from cachestore.errors import ConfigError
from cachestore.options import Options

OnError = Callable[[str, OSError], None]


@dataclass(frozen=True, slots=True)
class Source:
    """A file that lies in a folder. `path`: from the folder on, with `/`; times in nanoseconds."""

    path: str
    full: str
    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def source_at(root: str, path: str) -> Source:
    """What lies at a relative path now. Raises `OSError`; does not look whether it is a file."""
    full = os.path.join(root, path)
    info = os.lstat(full)
    return source_of(path, full, info)


def source_of(path: str, full: str, info: os.stat_result) -> Source:
    """What was found at a path."""
    return Source(path, full, info.st_size, info.st_mtime_ns, info.st_ino, info.st_ctime_ns)


class Patterns:
    """Which files are taken: one of `include` (all if there is none), and none of `exclude`.

    As in `fnmatch`, upper and lower case told apart. A pattern without `/` is for names, with one
    for whole paths, in which `*` also stands for `/`; one that ends with `/` for all in a folder.
    """

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
        self.include = _many("include", include)
        self.exclude = _many("exclude", exclude)
        self._include = _regex(self.include)
        self._exclude = _regex(self.exclude)

    def excludes(self, path: str) -> bool:
        """True if a pattern keeps the path out."""
        return self._exclude is not None and self._exclude.match(path) is not None

    def takes(self, path: str) -> bool:
        """True for a file that is wanted."""
        if self._include is not None and self._include.match(path) is None:
            return False
        return not self.excludes(path)


def _many(what: str, patterns: Iterable[str]) -> tuple[str, ...]:
    if isinstance(patterns, str):
        raise ConfigError(f"{what} is a list of patterns, not one string: [{patterns!r}]")
    return tuple(patterns)


def _regex(patterns: Sequence[str]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    parts = []
    for pattern in patterns:
        whole = pattern + "*" if pattern.endswith("/") else pattern
        made = translate(whole.removeprefix("/"))
        parts.append(made if "/" in pattern else f"(?:.*/)?{made}")
    return re.compile("|".join(f"(?:{part})" for part in parts), re.DOTALL)


def own_folders(options: Options) -> tuple[Path, ...]:
    """The folders that are the store's own, of which nothing is ever taken."""
    return (options.cache_dir, options.spool_dir, options.local_dir)


class Scanner:
    """One folder, looked through as often as wanted. `root`: its real path; `narrowed`: True if
    patterns keep files out.

    `own`: folders that are left out. `on_error(path, error)` hears of what cannot be looked at.
    """

    def __init__(
        self, folder: str | os.PathLike[str], patterns: Patterns, own: Iterable[Path],
        on_error: OnError,
    ) -> None:  # fmt: skip
        """Raises `ConfigError` if `folder` is no folder, or one of the store's own."""
        self.root = os.path.realpath(folder)
        if not os.path.isdir(self.root):
            raise ConfigError(f"{os.fspath(folder)} is not a folder")
        self._patterns = patterns
        self.narrowed = bool(patterns.include or patterns.exclude)
        self._on_error = on_error
        self._own: set[str] = set()
        for each in own:
            real = os.path.realpath(each)
            if self.root == real or self.root.startswith(real + os.sep):
                raise ConfigError(f"{self.root} is in {real}, which is the store's own folder")
            self._own.add(real)

    def files(self) -> Iterator[Source]:
        """Every plain file that the patterns take, folder by folder, by name."""
        waiting = [""]
        while waiting:
            base = waiting.pop()
            names, folders = self._entries(base)
            yield from names
            waiting.extend(reversed(folders))

    def files_in(self, folders: Iterable[str]) -> Iterator[Source]:
        """The files that lie in these folders, by relative path, and in none below them."""
        for base in folders:
            if self.looks_into(base):
                yield from self._entries(base)[0]

    def excludes(self, path: str) -> bool:
        """True if a pattern keeps a file out."""
        return self._patterns.excludes(path)

    def looks_into(self, base: str) -> bool:
        """False for a folder that `files` would not come to."""
        here = os.path.join(self.root, base) if base else self.root
        return not self.leaves_out(base) and os.path.isdir(here) and os.path.realpath(here) == here

    def leaves_out(self, base: str) -> bool:
        """True if a folder is left out by its name, or lies in one that is."""
        names = base.split("/") if base else []
        paths = ["/".join(names[: count + 1]) for count in range(len(names))]
        return any(
            os.path.join(self.root, path) in self._own or self._patterns.excludes(path + "/")
            for path in paths
        )

    def _entries(self, base: str) -> tuple[list[Source], list[str]]:
        """The files of one folder, and the folders in it."""
        files: list[Source] = []
        folders: list[str] = []
        here = os.path.join(self.root, base) if base else self.root
        try:
            with os.scandir(here) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            self._on_error(base, error)
            return files, folders
        for entry in entries:
            path = f"{base}/{entry.name}" if base else entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    if entry.path not in self._own and not self._patterns.excludes(path + "/"):
                        folders.append(path)
                elif entry.is_file(follow_symlinks=False) and self._patterns.takes(path):
                    info = entry.stat(follow_symlinks=False)
                    files.append(source_of(path, entry.path, info))
            except FileNotFoundError:
                continue  # it went away while we looked
            except OSError as error:
                self._on_error(path, error)
        return files, folders
