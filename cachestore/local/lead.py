"""Who looks after a cache folder: one process at a time, the one that holds a lock file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from cachestore.files import Files
from cachestore.local.forks import watch_forks


class Lead:
    """The lead of one folder. It ends with the process, however that ends."""

    def __init__(self, files: Files, path: Path) -> None:
        self._files = files
        self._path = path
        self._fd: int | None = None
        watch_forks(self)

    def held(self) -> bool:
        """True if this process has the lead, or takes it now.

        Where there can be no lock everybody leads, which costs work twice and does no harm.
        """
        try:
            if self._fd is not None and not self._is_there(self._fd):
                self.close()  # somebody removed the folder: whoever comes first makes a new file
            if self._fd is None:
                self._fd = self._taken()
        except OSError:
            return True
        return self._fd is not None

    def _is_there(self, fd: int) -> bool:
        try:
            return os.path.samestat(self._files.stat(self._path), os.fstat(fd))
        except FileNotFoundError:
            return False

    def _taken(self) -> int | None:
        fd = self._files.open_shared(self._path)
        try:
            taken = self._files.try_lock(fd) and self._is_there(fd)
        except OSError:
            self._files.close(fd)
            raise
        if taken:
            return fd
        self._files.close(fd)
        return None

    def close(self) -> None:
        """Give the lead up."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):
                # By name: a process forked meanwhile would keep it.
                self._files.unlock(fd)
                self._files.close(fd)

    # -- forks -----------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Nothing: the parent goes on leading."""

    def after_fork(self, *, child: bool) -> None:
        if child and self._fd is not None:
            os.close(self._fd)  # never unlocked: that would end the parent's lead
            self._fd = None
