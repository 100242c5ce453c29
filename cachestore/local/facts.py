"""Remote facts: what the bucket last said, shared by all processes, on diskcache.

Facts carry the key's token (L2), so a change makes them void without touching them. They are JSON
text; pickles are never written or read (CVE-2025-69872). Any error is a miss.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from cachestore.keys import Place
from cachestore.local.board import Board

_LIMIT = 64 << 20
_TIMEOUT = 0.2
_RETRY_SECONDS = 5.0


class Facts:
    """A memo by key, kind and name, with a TTL."""

    def __init__(self, folder: Path, board: Board) -> None:
        self._folder = folder
        self._board = board
        self._lock = threading.Lock()
        self._cache: Any = None
        self._pid = 0
        self._closed_until = 0.0

    def get(self, place: Place, kind: str, name: str) -> Any | None:
        """What was remembered, if nothing changed since and its time is not over."""
        text = self._try(lambda cache: cache.get(_name(place, kind, name)))
        if not isinstance(text, str):
            return None
        try:
            token, value = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            return None
        return value if token == self._board.token(place.slot) else None

    def put(self, place: Place, kind: str, name: str, value: Any, ttl: float, token: int) -> None:
        """Remember a JSON-able value for `ttl` seconds, learned while the token was `token`."""
        if ttl <= 0 or token != self._board.token(place.slot):
            return
        text = json.dumps([token, value])
        self._try(lambda cache: cache.set(_name(place, kind, name), text, expire=ttl))

    def _try(self, work: Any) -> Any:
        try:
            cache = self._opened()
            return None if cache is None else work(cache)
        except Exception:  # whatever is wrong with the memo, the answer is: not known
            self._close(time.monotonic() + _RETRY_SECONDS)
            return None

    def _opened(self) -> Any:
        if self._cache is not None and self._pid == os.getpid():
            return self._cache
        if time.monotonic() < self._closed_until:
            return None
        with self._lock:
            if self._cache is None or self._pid != os.getpid():
                from diskcache import Cache

                from cachestore.local.facts_disk import text_disk

                self._cache = Cache(
                    os.fspath(self._folder),
                    timeout=_TIMEOUT,
                    disk=text_disk(),
                    size_limit=_LIMIT,
                    eviction_policy="least-recently-stored",
                    sqlite_synchronous=0,
                )
                self._pid = os.getpid()
            return self._cache

    def _close(self, until: float) -> None:
        with self._lock:
            cache, self._cache = self._cache, None
            self._closed_until = until
        if cache is not None and self._pid == os.getpid():
            try:
                cache.close()
            except Exception:  # it is being thrown away
                return

    def close(self) -> None:
        self._close(0.0)


def _name(place: Place, kind: str, name: str) -> str:
    return f"{place.digest} {kind} {name}"
