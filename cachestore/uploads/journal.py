"""Who leads, whether it still moves, and what it had on the wire: a lock and a small file."""

from __future__ import annotations

import json
import os
import secrets
import threading
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cachestore.clock import Clock
from cachestore.files import Files, lock_holder, read_file, replace_file

LOCK = "leader.lock"
STATE = "leader.state"
KEPT = 3600.0
"""Seconds for which a doubt about a key is remembered."""

_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True)
class LeaderInfo:
    """What a leader last said. `beat` in wall seconds, and `moved`: when a request last ended."""

    pid: int
    beat: float
    clean: bool
    remote_id: str
    remote: str
    wire: frozenset[str] = frozenset()
    doubts: Mapping[str, float] = field(default_factory=dict)
    moved: float | None = None


def read_leader(files: Files, root: Path) -> LeaderInfo | None:
    """The last leader of a spool folder; None if there was none or it cannot be read."""
    path = root / STATE
    try:
        plain: dict[str, Any] = json.loads(read_file(files, path, _LIMIT))
        return LeaderInfo(
            int(plain["pid"]),
            files.stat(path).st_mtime,
            bool(plain["clean"]),
            str(plain["remote_id"]),
            str(plain["remote"]),
            frozenset(str(digest) for digest in plain["wire"]),
            {str(digest): float(since) for digest, since in plain["doubts"].items()},
            None if plain.get("moved") is None else float(plain["moved"]),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def leading_pid(files: Files, root: Path) -> int | None:
    """The process that holds the leader's lock, None if nobody does (or it cannot be told)."""
    path = root / LOCK
    holder = lock_holder(path)
    if holder is not None:
        return holder
    info = read_leader(files, root)
    if info is None or info.clean or not _is_locked(files, path):
        return None
    return info.pid


def _is_locked(files: Files, path: Path) -> bool:
    try:
        fd = files.open_read(path)
    except OSError:
        return False
    try:
        return not files.try_lock(fd, shared=True)
    finally:
        files.close(fd)


class Journal:
    """The leader's lock, its heartbeat, and the keys with a request on the wire or in doubt.

    Keys are named by the digest of their place. The heartbeat is the file's mtime, so it needs
    no space. Nothing here is fsynced: it guards against a killed process, and a power cut takes
    longer than the doubt. A failure to write is not raised.
    """

    def __init__(self, root: Path, files: Files, clock: Clock, remote_id: str, name: str) -> None:
        self._root = root
        self._files = files
        self._clock = clock
        self._remote_id = remote_id
        self._name = name
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._wire: set[str] = set()
        self._doubts: dict[str, float] = {}
        self._stale = False
        self.since = 0.0
        self.moved: float | None = None
        _LIVE.add(self)

    # -- the lock --------------------------------------------------------------------------------

    @property
    def held(self) -> bool:
        """True while this process leads."""
        return self._fd is not None

    def take(self) -> bool:
        """Become the leader if nobody is. Doubts of the one before are taken over.

        Raises `OSError` if the lock's file cannot be opened.
        """
        fd = self._files.open_shared(self._root / LOCK)
        if not self._files.try_lock(fd):
            self._files.close(fd)
            return False
        before = read_leader(self._files, self._root)
        with self._lock:
            self._fd = fd
            self.since = self._clock.now()
            if before is not None:
                self.moved = before.moved
                self._doubts.update(before.doubts)
                # Requests of a leader that died may still arrive at the remote.
                self._doubts.update(dict.fromkeys(before.wire, self.since))
            self._write(clean=False)
        return True

    def still_ours(self) -> bool:
        """False if somebody removed the lock's file, so that another process may lead too."""
        if self._fd is None:
            return False
        try:
            there = self._files.stat(self._root / LOCK)
            mine = os.fstat(self._fd)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def release(self) -> None:
        """Stop leading; recorded as clean when nothing is on the wire."""
        with self._lock:
            if self._fd is None:
                return
            self._write(clean=not self._wire)
            self._files.close(self._fd)
            self._fd = None

    def forked(self) -> None:
        """In a forked child: the lock is the parent's, and is shared until we close it."""
        fd, self._fd = self._fd, None
        self._lock = threading.Lock()
        if fd is not None:
            os.close(fd)

    # -- what the next leader has to know ----------------------------------------------------------

    def beat(self) -> None:
        """Say that the leader moves."""
        now = self._clock.now()
        try:
            if self._stale:
                with self._lock:
                    self._write(clean=False)
            os.utime(self._root / STATE, (now, now))
        except FileNotFoundError:
            with self._lock:
                self._write(clean=False)
        except OSError:
            pass

    def enter(self, digests: Iterable[str]) -> None:
        """Requests for these keys are about to go out."""
        with self._lock:
            self._wire.update(digests)
            self._write(clean=False)

    def leave(self, digests: Iterable[str], *, doubt: bool = False) -> None:
        """Those requests ended; with `doubt`, they may still take effect.

        Without it the file is written a little later: if it never is, somebody looks once more.
        """
        with self._lock:
            self.moved = now = self._clock.now()
            for digest in digests:
                self._wire.discard(digest)
                if doubt:
                    self._doubts[digest] = now
            self._stale = True
            if doubt:
                self._write(clean=False)

    def doubt(self, digest: str) -> float | None:
        """Since when (wall seconds) an earlier request for the key may still take effect.

        What a clock says that was ahead is taken for now, once: a doubt has to end.
        """
        with self._lock:
            since, now = self._doubts.get(digest), self._clock.now()
            if since is not None and since > now:
                self._doubts[digest] = since = now
            return since

    def suspect(self, digest: str, since: float) -> None:
        """A doubt learned from a ticket's state, or from a claim."""
        known, now = self.doubt(digest), self._clock.now()
        if since > now:
            since = now if known is None else known
        with self._lock:
            self._doubts[digest] = max(since, known or 0.0)

    def settle(self, digest: str) -> None:
        """The remote was seen to have what we sent: the doubt is over."""
        if digest in self._doubts:
            with self._lock:
                self._doubts.pop(digest, None)
                self._write(clean=False)

    @property
    def doubts(self) -> int:
        """How many keys are in doubt."""
        return len(self._doubts)

    def _write(self, *, clean: bool) -> None:
        if self._fd is None:
            return
        self._stale = False
        oldest = self._clock.now() - KEPT
        self._doubts = {d: since for d, since in self._doubts.items() if since > oldest}
        plain = {
            "pid": os.getpid(), "clean": clean, "remote_id": self._remote_id,
            "remote": self._name, "wire": sorted(self._wire), "doubts": self._doubts,
            "moved": self.moved,
        }  # fmt: skip
        try:
            replace_file(
                self._files,
                self._root / STATE,
                json.dumps(plain).encode(),
                unique=secrets.token_hex(6),
                durable=False,
            )
        except OSError:
            pass  # a full disk must not stop uploads, which free it


_LIVE: weakref.WeakSet[Journal] = weakref.WeakSet()


def _after_fork() -> None:
    for journal in list(_LIVE):
        journal.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
