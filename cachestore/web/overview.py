"""What the dashboard shows, as plain values. Keys and errors in it are text of others."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from typing import Any
from weakref import WeakKeyDictionary

from cachestore.local.standing import hottest, largest
from cachestore.locks import ForkLock
from cachestore.model import PendingItem
from cachestore.policy.rates import summary
from cachestore.store import CacheStore

HOUR = 3600.0
_DAYS = 30
_MOST_PENDING = 200
_FIRST = 10
_REST = 10.0
_SHARE = 50.0


def overview(store: CacheStore) -> dict[str, Any]:
    """Everything at this moment; what is costly to find out may be some seconds old.

    Raises `SpoolError` when the spool cannot be read, and `StoreClosed`.
    """
    counts = store.stats().as_dict()
    pending = store.pending()
    return {
        "now": store.core.clock.now(),
        "pid": os.getpid(),
        "health": store.health(),
        "counts": counts,
        "minutes": [asdict(each) for each in store.minutes(HOUR)],
        "queue": [_shown(item) for item in pending[:_MOST_PENDING]],
        "queue_length": len(pending),
        **_memo_of(store).of(store),
    }


def _shown(item: PendingItem) -> dict[str, Any]:
    plain = asdict(item)
    # A path is of use only where no key can be told.
    plain["path"] = None if item.key or item.path is None else str(item.path)
    return plain


def _costly(store: CacheStore) -> dict[str, Any]:
    catalog = store.core.catalog
    return {
        "history": summary(store.history(_DAYS)),
        "largest": [asdict(each) for each in largest(catalog, _FIRST)],
        "hottest": [asdict(each) for each in hottest(catalog, _FIRST)],
    }


class _Memo:
    """What is costly, found out anew when it is some seconds old, or more if that took long."""

    def __init__(self) -> None:
        self._lock = ForkLock()
        self._value: dict[str, Any] = {}
        self._until = float("-inf")

    def of(self, store: CacheStore) -> dict[str, Any]:
        with self._lock:
            start = time.monotonic()
            if start >= self._until:
                self._value = _costly(store)
                took = time.monotonic() - start
                self._until = start + took + max(_REST, _SHARE * took)
            return self._value


def _memo_of(store: CacheStore) -> _Memo:
    with _guard:
        return _memos.setdefault(store, _Memo())


_memos: WeakKeyDictionary[CacheStore, _Memo] = WeakKeyDictionary()
_guard = ForkLock()
