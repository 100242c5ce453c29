"""Records of LOCAL_DIR: which file holds a key, and whether the remote has that version.

One small JSON file for each key, in a hidden folder, holds a record for each remote that the
folder was used with (the name "" stands for none).
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cachestore.errors import SpoolBusy, SpoolError
from cachestore.files import Files, lock_holder, locked_folder, read_file, replace_file
from cachestore.model import Attributes
from cachestore.policy.newest import State

FORMAT = 1
_LIMIT = 1 << 18
# Younger times of a folder do not prove that its content is the one that was read.
_SETTLED = 2.0
_TEMPORARY = re.compile(r"[0-9a-f]{64}\.json\.[0-9a-f]{16}\.tmp")


class BadRecord(SpoolError):
    """Torn, junk or altered: the record does not say which version is the newest."""


@dataclass(frozen=True, slots=True)
class Record:
    """The last local put or delete of a key, for one remote.

    `file` is relative to LOCAL_DIR; `staged` is where its bytes are until they have moved there.
    `size`, `mtime_ns` and `inode` tell whether somebody else wrote the file since; of a delete
    they are those of the file that went. `replaces`: the pending ticket that this makes void.
    `etag`: what the remote answered, once sent.
    """

    key: str
    id: str
    operation: Literal["put", "delete"]
    remote_id: str
    time: float
    state: State = "unsent"
    replaces: str | None = None
    etag: str = ""
    file: str = ""
    staged: str = ""
    size: int = 0
    mtime_ns: int = 0
    inode: int = 0
    sha256: str = ""
    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=dict)
    cache_control: str | None = None

    @property
    def attributes(self) -> Attributes:
        return Attributes(self.content_type, self.metadata, self.cache_control)


def key_digest(key: str) -> str:
    """64 hex digits that name a key's files in the hidden folder."""
    return hashlib.sha256(key.encode()).hexdigest()


class Records:
    """The records of one LOCAL_DIR. They are changed under `lock`, since stores of several
    remotes, each with locks of its own, may share the folder."""

    def __init__(self, folder: Path, files: Files, lock_timeout: float) -> None:
        self._folder = folder
        self._files = files
        self._lock_timeout = lock_timeout
        self._known: dict[str, tuple[int, list[Record]]] = {}

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / f"{digest}.json"

    @contextmanager
    def lock(self, digest: str) -> Iterator[None]:
        """Nobody else changes this key's records, whatever remote they are for.

        Raises `SpoolBusy` or `OSError`.
        """
        folder = self._path(digest).parent
        self._files.make_folder(folder)

        def refused() -> SpoolBusy:
            pid = lock_holder(folder)
            who = f"process {pid}" if pid else "another process"
            return SpoolBusy(f"{who} has held the lock on {folder} for {self._lock_timeout:g} s")

        with locked_folder(self._files, folder, self._lock_timeout, refused):
            yield

    def all_of(self, key: str) -> dict[str, Record]:
        """A key's records by remote id. Raises `SpoolError` if they cannot be read."""
        return self.by_digest(key_digest(key))

    def by_digest(self, digest: str) -> dict[str, Record]:
        """The same by the key's digest."""
        path = self._path(digest)
        try:
            data = read_file(self._files, path, _LIMIT)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise SpoolError(f"cannot read {path}: {error}") from error
        return _decode(path, data)

    def write(self, key: str, records: Mapping[str, Record]) -> None:
        """Make a key's records durable; none removes the file. Raises `OSError`."""
        digest = key_digest(key)
        path = self._path(digest)
        if records:
            self._files.make_folder(path.parent)
            replace_file(self._files, path, _encode(records), unique=secrets.token_hex(8))
        elif self._files.unlink(path):
            self._files.fsync_dir(path.parent)

    def replaceable(self, key: str) -> tuple[dict[str, Record], Path | None]:
        """A key's records, about to be written anew, or where junk was kept in their place.

        Raises `SpoolError` or `OSError`: what cannot be read now, or is of a newer version, may
        be another remote's only trace, and is left as it is.
        """
        try:
            return self.all_of(key), None
        except BadRecord:
            path = self._path(key_digest(key))
            aside = path.with_name(f"{path.stem}.{secrets.token_hex(8)}.bad")
            try:
                self._files.link(path, aside)
            except OSError:  # a disk without links
                self._files.rename(path, aside)
            return {}, aside

    def take_back(self, key: str, before: Mapping[str, Record], junk: Path | None) -> None:
        """Undo a `write` after `replaceable`: junk too is better than to forget that it was there.

        Raises `OSError`.
        """
        if junk is None:
            self.write(key, before)
        else:
            self._files.rename(junk, self._path(key_digest(key)))

    def temporaries(self) -> Iterator[tuple[str, Path]]:
        """Digests and files of records that were being written, perhaps by a killed process."""
        for folder in self._files.list(self._folder):
            for name in self._files.list(self._folder / folder):
                if _TEMPORARY.fullmatch(name):
                    yield name[:64], self._folder / folder / name

    def unreadable(self) -> Iterator[tuple[Path, str]]:
        """Records that cannot be read, and why; of their keys nothing is known."""
        for folder in sorted(self._files.list(self._folder)):
            for name in sorted(self._files.list(self._folder / folder)):
                if not name.endswith(".json"):
                    continue
                try:
                    self.by_digest(name[:-5])
                except SpoolError as error:
                    yield self._folder / folder / name, str(error)

    def unsent(self) -> Iterator[Record]:
        """Every record whose version no remote has; unreadable ones are left out (their keys
        raise when they are asked for)."""
        for name in sorted(self._files.list(self._folder)):
            yield from self._unsent_below(name)

    def _unsent_below(self, name: str) -> list[Record]:
        folder = self._folder / name
        try:
            stamp = self._files.stat(folder).st_mtime_ns
            known = self._known.get(name)
            if known is not None and known[0] == stamp:
                return known[1]
            names = self._files.list(folder)
        except OSError:
            return []
        found: list[Record] = []
        for each in sorted(names):
            if not each.endswith(".json"):
                continue
            try:
                records = self.by_digest(each[:-5])
            except SpoolError:
                continue
            found += [record for record in records.values() if record.state == "unsent"]
        if time.time() - stamp / 1e9 > _SETTLED:
            self._known[name] = (stamp, found)
        else:
            self._known.pop(name, None)
        return found


_PLAIN = tuple(name for name in Record.__slots__ if name not in ("metadata", "remote_id", "key"))


def _encode(records: Mapping[str, Record]) -> bytes:
    plain: dict[str, Any] = {"format": FORMAT, "records": {}}
    for remote_id, record in records.items():
        plain["key"] = record.key
        entry = {name: getattr(record, name) for name in _PLAIN}
        plain["records"][remote_id] = entry | {"metadata": dict(record.metadata)}
    return json.dumps({"check": _check(plain), "local": plain}).encode()


def _check(plain: Mapping[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _decode(path: Path, data: bytes) -> dict[str, Record]:
    try:
        outer = json.loads(data)
        plain = outer["local"]
        if plain["format"] != FORMAT:
            raise SpoolError(f"{path} has format {plain['format']!r}, this version knows {FORMAT}")
        if outer["check"] != _check(plain):
            raise ValueError("its check value does not fit its content")
        if key_digest(plain["key"]) != path.stem:
            raise ValueError("it belongs to another key")
        return {
            remote_id: _checked(Record(**entry, key=plain["key"], remote_id=remote_id))
            for remote_id, entry in plain["records"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadRecord(
            f"the record {path} cannot be read ({error}), so the newest version of its key is"
            " unknown; put the file again, or move the record away to forget it"
        ) from error


def _checked(record: Record) -> Record:
    """A planted record must not name a file outside the folder."""
    for name in (record.file, record.staged):
        if name and (name.startswith("/") or {"", ".", ".."} & set(name.split("/"))):
            raise ValueError(f"it names {name!r}")
    return record


def moved(record: Record, *, state: State, etag: str, remote_id: str) -> Record:
    """The record after the remote got, or replaced, its version."""
    return replace(record, state=state, etag=etag, remote_id=remote_id)
