"""Remote facts: what the bucket last said, shared by all processes, on diskcache.

Facts carry the key's token (L2), so a change makes them void without touching them. They are JSON
text; pickles are never written or read (CVE-2025-69872). Any error is a miss.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from cachestore.files import Files, is_plain
from cachestore.keys import Place
from cachestore.local.board import Board
from cachestore.local.bookkeeping import FACTS_LOG
from cachestore.local.forks import inherited, watch_forks

_LIMIT = 64 << 20
_TIMEOUT = 0.2
_RETRY_SECONDS = 5.0
_SKEW = 60.0
_FORK_PATIENCE = 0.5
_DATABASE = "cache.db"
_PARTS = (_DATABASE, f"{_DATABASE}-wal", f"{_DATABASE}-shm")


class Facts:
    """A memo by key, kind and name, with a TTL."""

    def __init__(self, folder: Path, board: Board) -> None:
        self._folder = folder
        self._board = board
        self._lock = threading.Lock()
        self._cache: Any = None
        self._seen: tuple[int, int] | None = None
        self._closed_until = 0.0
        self._frozen = False
        watch_forks(self)

    def get(self, place: Place, kind: str, name: str) -> Any | None:
        """What was remembered, if nothing changed since and its time is not over."""
        text = self._try(lambda cache: cache.get(_name(place, kind, name)))
        if not isinstance(text, str):
            return None
        try:
            token, when, value = json.loads(text)
            # Learned in the future: the clock went back, and its time would not end soon enough.
            if token != self._board.token(place.slot) or when > time.time() + _SKEW:
                return None
        except (ValueError, TypeError, RecursionError):
            return None
        return value

    def put(self, place: Place, kind: str, name: str, value: Any, ttl: float, token: int) -> None:
        """Remember a JSON-able value for `ttl` seconds, learned while the token was `token`."""
        if ttl <= 0 or token != self._board.token(place.slot):
            return
        text = json.dumps([token, time.time(), value])
        self._try(lambda cache: cache.set(_name(place, kind, name), text, expire=ttl))

    # -- the database ----------------------------------------------------------------------------

    def _try(self, work: Any) -> Any:
        # One at a time, so that a fork can wait for the end of what is under way.
        with self._lock:
            try:
                cache = self._opened()
                return None if cache is None else work(cache)
            except Exception as error:  # whatever is wrong with the memo: not known
                self._give_up(error)
                return None

    def _opened(self) -> Any:
        cache = self._cache
        if cache is not None:
            if self._seen == self._identity():
                return cache
            self._close(0.0)  # the folder was removed: this memo is shared with nobody
        if time.monotonic() < self._closed_until:
            return None
        self._cache = self._open()
        self._seen = self._identity()
        return self._cache

    def _open(self) -> Any:
        from diskcache import Cache

        from cachestore.local.facts_disk import text_disk

        path = self._folder / _DATABASE
        if self._folder.is_symlink():
            raise OSError(f"{self._folder} is a symbolic link")
        Files().make_folder(self._folder)  # private, and so is the database
        os.close(Files().open_shared(path))
        if os.stat(path).st_size:
            # diskcache would wait a minute for a locked database; no reader may.
            with closing(sqlite3.connect(path, timeout=_TIMEOUT, isolation_level=None)) as probe:
                probe.execute("BEGIN IMMEDIATE")
                probe.execute("ROLLBACK")
        return Cache(
            os.fspath(self._folder),
            timeout=_TIMEOUT,
            disk=text_disk(),
            size_limit=_LIMIT,
            eviction_policy="least-recently-stored",
            sqlite_synchronous=0,
            sqlite_mmap_size=0,  # an error of the disk would come as a signal
            sqlite_wal_autocheckpoint=FACTS_LOG,
            sqlite_journal_size_limit=FACTS_LOG * 4096,
        )

    def _identity(self) -> tuple[int, int] | None:
        """Which database file there is."""
        try:
            stat = os.stat(self._folder / _DATABASE)
        except OSError:
            return None
        return stat.st_dev, stat.st_ino

    def _give_up(self, error: Exception) -> None:
        """Do without for a while; a database that is broken will not get better and goes."""
        broken = type(error) is sqlite3.DatabaseError  # its subclasses: locked, full, wrong use
        self._close(time.monotonic() + _RETRY_SECONDS)
        if not broken:
            return
        try:
            for name in _PARTS:
                if is_plain(self._folder / name):
                    os.unlink(self._folder / name)
        except OSError:
            return
        self._closed_until = 0.0

    def _close(self, until: float) -> None:
        cache, self._cache = self._cache, None
        self._closed_until = until
        if cache is not None:
            try:
                cache.close()
            except Exception:  # it is being thrown away
                return

    def close(self) -> None:
        with self._lock:
            self._close(0.0)

    # -- forks -----------------------------------------------------------------------------------

    def before_fork(self) -> None:
        self._frozen = self._lock.acquire(timeout=_FORK_PATIENCE)

    def after_fork(self, *, child: bool) -> None:
        if child:
            inherited.append(self._cache)
            self._cache, self._lock = None, threading.Lock()
        elif self._frozen:
            self._lock.release()
        self._frozen = False


def _name(place: Place, kind: str, name: str) -> str:
    return f"{place.digest} {kind} {name}"
