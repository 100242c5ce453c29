"""Files in a folder of the user's: written under a hidden name, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cachestore.errors import CacheStoreError
from cachestore.files import Files, unlink_unlocked
from cachestore.ingest.placing import HIDDEN, is_folded
from cachestore.local.names import parents_are_folders


class InTheWay(CacheStoreError):
    """What lies in the folder cannot be replaced, or must not be."""


@dataclass(slots=True)
class Staged:
    """A file without its name yet, locked while it is written."""

    path: Path
    fd: int


class Landing:
    """One folder that files come to. Safe to share by threads and processes.

    Unfinished files lie in a hidden folder in it, locked; what a killed process left there is
    removed by the next one.
    """

    def __init__(self, root: Path, files: Files) -> None:
        self.root = root
        self._files = files
        self._hidden = root / HIDDEN

    def begin(self) -> bool:
        """Make the folder, and remove what the dead left; True if the disk is case-blind.

        Raises `OSError`.
        """
        self._make()
        for name in self._files.list(self._hidden):
            with contextlib.suppress(OSError):
                unlink_unlocked(self._files, self._hidden / name)
        return is_folded(self._hidden)

    def _make(self) -> None:
        self._files.make_folder(self.root, 0o777)
        with contextlib.suppress(FileExistsError):
            self._files.mkdir(self._hidden)

    def stage(self) -> Staged:
        """An empty file of our own. Raises `OSError`."""
        while True:
            path = self._hidden / secrets.token_hex(12)
            try:
                fd = self._files.create(path, 0o666)
            except FileNotFoundError:
                self._make()  # another process ended, and took the folder with it
                continue
            if self._files.try_lock(fd) and path.exists():
                return Staged(path, fd)
            os.close(fd)  # somebody swept it away before it was locked

    def drop(self, staged: Staged) -> None:
        """Give up a file, or close one that was published."""
        if staged.fd >= 0:
            with contextlib.suppress(OSError):
                self._files.unlink(staged.path)
            os.close(staged.fd)
            staged.fd = -1

    def look(self, path: str) -> os.stat_result | None:
        """The file that has this path now, if any. Raises `InTheWay` for what is no file."""
        target = self.root / path
        if not parents_are_folders(self.root, target):
            raise InTheWay(f"{target.parent} is no folder, or leads out of {self.root}")
        try:
            info = os.lstat(target)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not os.path.isfile(target) or os.path.islink(target):
            raise InTheWay(f"{target} is no file; move it away")
        return info

    def publish(self, staged: Staged, path: str, modified_ns: int) -> os.stat_result:
        """Give a file its name, once it is durable. Raises `OSError`, `InTheWay`."""
        target = self.root / path
        os.utime(staged.fd, ns=(modified_ns, modified_ns))
        self._files.fsync(staged.fd)
        self._files.make_folder(target.parent, 0o777)
        if not parents_are_folders(self.root, target):
            raise InTheWay(f"{target.parent} leads out of {self.root}")
        self._files.rename(staged.path, target)
        info = os.fstat(staged.fd)
        os.close(staged.fd)
        staged.fd = -1
        return info

    def end(self) -> None:
        """Remove the hidden folder, unless somebody still uses it."""
        with contextlib.suppress(OSError):
            os.rmdir(self._hidden)
