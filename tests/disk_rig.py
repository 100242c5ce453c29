"""A disk that fails as told: one call, some, or all until it is mended."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cachestore.files import Files

_KEPT = re.compile(r"(leader|janitor)\.lock|board\.|\.db(-wal|-shm)?( \(deleted\))?$")

CALLS = (
    "create", "open_read", "open_shared", "write", "pwrite", "truncate", "close", "chmod",
    "start_writeback", "fsync", "fsync_dir", "rename", "link", "unlink", "make_folder", "stat",
    "list", "try_lock",
)  # fmt: skip

FOREVER = float("inf")

CHANGING = (
    "create", "open_shared", "write", "pwrite", "truncate", "chmod", "fsync", "fsync_dir",
    "rename", "link", "unlink", "make_folder",
)  # fmt: skip


class BrokenDisk(Files):
    """A file layer whose calls below a folder fail; nothing is synced but in name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed = False
        self.seen: list[str] = []

    def fail(
        self,
        below: Path,
        code: int,
        *,
        nth: int = 1,
        times: float = 1,
        calls: tuple[str, ...] = CALLS,
        threads: str = "",
    ) -> None:
        """Let `times` calls below a folder fail with `code`, from the `nth` on.

        `threads`: how the names of the threads begin whose calls count.
        """
        with self._lock:
            self._below, self._code, self._nth = str(below), code, nth
            self._times, self._calls, self._threads = times, calls, threads
            self.seen = []
            self._armed = True

    def mend(self) -> bool:
        """The disk works again; True if a call failed."""
        with self._lock:
            self._armed = False
            return len(self.seen) >= self._nth

    def _fails(self, name: str, where: Any) -> bool:
        if not self._armed or name not in self._calls:
            return False
        if not threading.current_thread().name.startswith(self._threads):
            return False
        path = os.readlink(f"/proc/self/fd/{where}") if isinstance(where, int) else str(where)
        with self._lock:
            if not self._armed or not path.startswith(self._below):
                return False
            self.seen.append(f"{name} {path[len(self._below) :]}")
            count = len(self.seen)
        return self._nth <= count < self._nth + self._times

    def _error(self) -> OSError:
        return OSError(self._code, os.strerror(self._code))

    def check(self, name: str, where: Any) -> None:
        if self._fails(name, where):
            raise self._error()

    def write(self, fd: int, data: bytes | memoryview) -> None:
        """A disk takes what it has room for and refuses the rest."""
        if self._fails("write", fd):
            super().write(fd, memoryview(data)[: len(data) // 2])
            raise self._error()
        super().write(fd, data)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        if self._fails("pwrite", fd):
            super().pwrite(fd, memoryview(data)[: len(data) // 2], offset)
            raise self._error()
        super().pwrite(fd, data, offset)

    def close(self, fd: int) -> None:
        """What fails to close is closed all the same."""
        failed = self._fails("close", fd)
        super().close(fd)
        if failed:
            raise self._error()

    def fsync(self, fd: int) -> None:
        self.check("fsync", fd)

    def rename(self, source: str | Path, target: str | Path) -> None:
        self.check("rename", target)
        super().rename(source, target)

    def link(self, source: str | Path, target: str | Path) -> None:
        self.check("link", target)
        super().link(source, target)


def _checked(name: str) -> Callable[..., Any]:
    def call(self: BrokenDisk, where: Any, *args: Any, **fields: Any) -> Any:
        self.check(name, where)
        return getattr(Files, name)(self, where, *args, **fields)

    return call


for _name in CALLS:
    if _name not in BrokenDisk.__dict__:
        setattr(BrokenDisk, _name, _checked(_name))


def open_below(folder: Path) -> list[str]:
    """What this process has open below a folder, but for what a store keeps open."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    inside = [link[len(f"{folder}/") :] for link in links if link.startswith(f"{folder}/")]
    return sorted(name for name in inside if not _KEPT.search(name))
