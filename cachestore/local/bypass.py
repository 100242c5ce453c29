"""Where files go when the cache's disk does not work: a private folder in the system's temporary.

Nothing there outlives the store that made it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cachestore.clock import Clock
from cachestore.errors import CacheFull, CacheStoreError
from cachestore.files import Files, unlink_unlocked
from cachestore.keys import extension_of

T = TypeVar("T")
_LEAST_AGE = 60.0


class Bypass:
    """Files of one store. They stay for the hand-out grace and under a lease; later ones push
    older ones out.
    """

    def __init__(self, files: Files, clock: Clock, grace: float) -> None:
        self._files = files
        self._clock = clock
        self._age = max(grace, _LEAST_AGE)
        self._lock = threading.Lock()
        self._renew()

    def _mine(self) -> None:
        """A forked child begins anew: the parent's files are its own."""
        if self._pid != os.getpid():
            self._lock = threading.Lock()
            self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._folder: Path | None = None
        self._made: deque[tuple[Path, float]] = deque()
        self._taken: list[Path] = []

    def fill(self, key: str, write: Callable[[int], T]) -> tuple[Path, T]:
        """A new read-only file with what `write(fd)` writes, and what that returned.

        Raises `CacheFull` when this disk does not work either.
        """
        try:
            path, fd = self._create(key)
            try:
                result = write(fd)
                self._files.chmod(fd, 0o444)
            except BaseException:
                self._files.unlink(path)
                raise
            finally:
                self._files.close(fd)
        except OSError as error:
            if isinstance(error, CacheStoreError):
                raise
            raise CacheFull(
                f"neither the cache nor {tempfile.gettempdir()} has room for {key!r}: {error}"
            ) from error
        with self._lock:
            self._made.append((path, self._clock.monotonic()))
        return path, result

    def _create(self, key: str) -> tuple[Path, int]:
        self.tidy()
        with self._lock:
            if self._folder is None or not self._folder.is_dir():
                self._folder = Path(tempfile.mkdtemp(prefix="cachestore-"))
            path = self._folder / f"{secrets.token_hex(8)}{extension_of(key)}"
        return path, self._files.create(path)

    def tidy(self) -> None:
        """Remove files whose grace is over and that nobody holds."""
        self._mine()
        with self._lock:
            limit = self._clock.monotonic() - self._age
            held: list[tuple[Path, float]] = []
            while self._made and self._made[0][1] <= limit:
                path, when = self._made.popleft()
                if not unlink_unlocked(self._files, path):
                    held.append((path, when))
            self._made.extendleft(reversed(held))

    def take_over(self, other: Bypass) -> None:
        """Look after the files of another store that closes: their grace may not be over."""
        self._mine()
        other._mine()
        with other._lock:
            made, folders = list(other._made), other._folders()
            other._renew()
        with self._lock:
            self._made.extendleft(reversed(made))
            self._taken += folders

    def _folders(self) -> list[Path]:
        return self._taken if self._folder is None else [*self._taken, self._folder]

    def close(self) -> None:
        """Remove everything."""
        self._mine()
        with self._lock:
            for folder in self._folders():
                shutil.rmtree(folder, ignore_errors=True)
            self._renew()
