"""Other caches to compare with: real packages where there is one, else `benchmarks.reference`.

A package is imported when its peer is asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

from benchmarks.reference import S3Fifo, Sieve, WTinyLfu
from benchmarks.replay import Cache
from benchmarks.traces import Trace


class Diskcache(Cache):
    """How diskcache culls: whatever was set comes in, and if the limit is reached then, the ten
    files that are last in order leave, once. So it can pass its limit. A model, since diskcache
    writes all bytes; a test compares it with diskcache itself."""

    CULLED = 10

    def __init__(self, limit: int, *, recency: bool) -> None:
        super().__init__(limit)
        self._here: OrderedDict[int, int] = OrderedDict()
        self._recency = recency

    def request(self, key: int, size: int, tick: int) -> bool:
        if key in self._here:
            if self._recency:
                self._here.move_to_end(key)
            return True
        self._here[key] = size
        self.used += size
        if self.used >= self.limit:
            for _ in range(min(self.CULLED, len(self._here))):
                self.used -= self._here.popitem(last=False)[1]
        return False


class Cachetools(Cache):
    """A cache of cachetools that holds the sizes for values, limited by their sum."""

    def __init__(self, limit: int, kind: str) -> None:
        super().__init__(limit)
        import cachetools

        make = {"lru": cachetools.LRUCache, "lfu": cachetools.LFUCache}[kind]
        self._cache: Any = make(maxsize=limit, getsizeof=lambda size: size)

    def request(self, key: int, size: int, tick: int) -> bool:
        if self._cache.get(key) is not None:
            return True
        if size <= self.limit:
            self._cache[key] = size
            self.used = int(self._cache.currsize)
        return False


class _Held:
    """A value that tells its cache when nobody holds it any more."""

    __slots__ = ("_cache", "_size")

    def __init__(self, cache: Theine, size: int) -> None:
        self._cache, self._size = cache, size
        cache.used += size

    def __del__(self) -> None:
        self._cache.used -= self._size


class Theine(Cache):
    """theine counts entries, not bytes: it gets as many as files of the usual size would fit."""

    def __init__(self, limit: int, usual: int) -> None:
        super().__init__(limit)
        import theine

        self._cache: Any = theine.Cache(max(1, limit // usual))

    def request(self, key: int, size: int, tick: int) -> bool:
        _, found = self._cache.get(key)
        if not found:
            self._cache.set(key, _Held(self, size))
        return bool(found)


class Peer(NamedTuple):
    """How to make one for a limit and a trace, and the package that it is from."""

    make: Callable[[int, Trace], Cache]
    package: str | None = None

    @property
    def missing(self) -> bool:
        return self.package is not None and find_spec(self.package) is None


def _usual(trace: Trace) -> int:
    return max(1, trace.footprint // len(trace.files))


PEERS = {
    "diskcache-lrs": Peer(lambda limit, trace: Diskcache(limit, recency=False)),
    "diskcache-lru": Peer(lambda limit, trace: Diskcache(limit, recency=True)),
    "cachetools-lru": Peer(lambda limit, trace: Cachetools(limit, "lru"), "cachetools"),
    "cachetools-lfu": Peer(lambda limit, trace: Cachetools(limit, "lfu"), "cachetools"),
    "theine": Peer(lambda limit, trace: Theine(limit, _usual(trace)), "theine"),
    "s3fifo": Peer(lambda limit, trace: S3Fifo(limit)),
    "sieve": Peer(lambda limit, trace: Sieve(limit)),
    "wtinylfu": Peer(lambda limit, trace: WTinyLfu(limit)),
}
