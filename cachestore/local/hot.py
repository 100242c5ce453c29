"""The hot map: what this process handed out and may hand out again for the price of a `stat`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from cachestore.local.board import Board
from cachestore.locks import ForkLock
from cachestore.model import ObjectInfo

MAX_ENTRIES = 16384
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)


class HotEntry:
    """A file that was right when the slot's token was `token`.

    It is right still if the token is the same and the file has the same size, mtime and inode.
    `expires` in wall seconds; `kind` as in `events.Hit`. `prepared`: what a layer above made of
    `info` and wants to find again; `body`: its bytes, where they are kept in memory.
    """

    __slots__ = (
        "body", "expires", "hits", "info", "inode", "kind", "mtime_ns", "path", "prepared",
        "since", "size", "slot", "text", "token",
    )  # fmt: skip

    def __init__(
        self,
        path: Path,
        stat: os.stat_result,
        *,
        slot: int,
        token: int,
        since: float,
        expires: float,
        kind: str,
        info: ObjectInfo,
    ) -> None:
        self.path = path
        self.text = str(path)
        self.size, self.mtime_ns, self.inode = stat.st_size, stat.st_mtime_ns, stat.st_ino
        self.slot, self.token = slot, token
        self.since, self.expires = since, expires
        self.kind, self.info = kind, info
        self.hits = 0
        self.prepared: object = None
        self.body: bytes | None = None

    def describes(self, stat: os.stat_result) -> bool:
        """True if this is the file as it was when it was remembered."""
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino) == (
            self.mtime_ns, self.size, self.inode,
        )  # fmt: skip


class HotMap:
    """Entries by key. Lookups take no lock; hits are counted in the entry and collected later.

    `memory`: bytes of small files that `read` may keep.
    """

    def __init__(self, board: Board, now: Callable[[], float] = time.time, memory: int = 0) -> None:
        self._entries: dict[str, HotEntry] = {}
        self._tokens = board.tokens
        self._handed = board.handed
        self._now = now
        self._lock = ForkLock()
        self._left: list[tuple[str, HotEntry]] = []
        self._memory = memory
        self._held = 0
        self._bodies: dict[HotEntry, int] = {}

    def path(self, key: str, *, hand_out: bool = True) -> Path | None:
        """The key's file if it is still right; counts a hit.

        `hand_out`: its path goes to the app, which is noted.
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self._now()
        if hand_out:
            # Noted before the token is looked at: an unlinker changes the token first.
            self._handed[entry.slot] = int(now)
        try:
            stat = os.stat(entry.text)
        except OSError:
            return None
        if (
            self._tokens[entry.slot] != entry.token
            or stat.st_mtime_ns != entry.mtime_ns
            or stat.st_size != entry.size
            or stat.st_ino != entry.inode
            or not entry.since <= now < entry.expires
        ):
            return None
        entry.hits += 1
        return entry.path

    def read(self, entry: HotEntry) -> bytes | None:
        """All bytes of an entry's file if it is still right; counts a hit. No path goes out."""
        now = self._now()
        try:
            stat = os.stat(entry.text)
            data = entry.body or _bytes_of(entry)
        except OSError:
            return None
        if (
            data is None
            or self._tokens[entry.slot] != entry.token
            or stat.st_mtime_ns != entry.mtime_ns
            or stat.st_size != entry.size
            or stat.st_ino != entry.inode
            or not entry.since <= now < entry.expires
        ):
            return None
        if entry.hits and entry.body is None and entry.size <= self._memory:
            self._keep(entry, data)  # not what is asked for once
        entry.hits += 1
        return data

    def _keep(self, entry: HotEntry, data: bytes) -> None:
        """Keep bytes in memory; those kept longest leave for them."""
        with self._lock:
            if entry.body is not None:
                return
            while self._held + len(data) > self._memory and self._bodies:
                self._drop(next(iter(self._bodies)))
            entry.body, self._bodies[entry] = data, len(data)
            self._held += len(data)

    def _drop(self, entry: HotEntry) -> None:
        """Its bytes are in memory no more (caller: the lock)."""
        self._held -= self._bodies.pop(entry, 0)
        entry.body = None

    def entry(self, key: str) -> HotEntry | None:
        """What is remembered of the key, without any check."""
        return self._entries.get(key)

    def remember(self, key: str, entry: HotEntry) -> None:
        with self._lock:
            self._leave(key)
            self._entries[key] = entry
            if len(self._entries) > MAX_ENTRIES:
                for name in list(self._entries)[: MAX_ENTRIES // 4]:
                    self._leave(name)

    def forget(self, key: str) -> None:
        with self._lock:
            self._leave(key)

    def _leave(self, key: str) -> None:
        """Take an entry out; its hits are still to be collected (caller: the lock)."""
        old = self._entries.pop(key, None)
        if old is not None:
            self._drop(old)
            if old.hits:
                self._left.append((key, old))

    def collect(self) -> list[tuple[str, HotEntry, int]]:
        """Hits since the last call: key, entry and how many."""
        with self._lock:
            items = [*self._left, *self._entries.items()]
            self._left = []
        found = []
        for key, entry in items:
            count = entry.hits
            if count:
                entry.hits -= count
                found.append((key, entry, count))
        return found

    def clear(self) -> None:
        with self._lock:
            for entry in list(self._bodies):
                self._drop(entry)
            self._entries = {}


def _bytes_of(entry: HotEntry) -> bytes | None:
    """The file's bytes; None if it is not the one that was remembered."""
    fd = os.open(entry.text, _READ)
    try:
        data = os.read(fd, entry.size + 1)
        return data if entry.describes(os.fstat(fd)) and len(data) == entry.size else None
    finally:
        os.close(fd)
