"""Replays of request traces, metadata only, through the policy objects that the product uses."""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cachestore.local.evictors import SAMPLE
from cachestore.options import Objective
from cachestore.policy.hazard import Hazard, Seen

GHOSTS = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one replay saw. Ratios are fractions; `peak`: bytes at most, over the limit."""

    object_hit_ratio: float
    byte_hit_ratio: float
    peak_ratio: float
    us_per_request: float


def replay(cache: Cache, keys: Sequence[int], sizes: Sequence[int]) -> Outcome:
    """Every request in order. A file larger than the limit is never kept."""
    hits = hit_bytes = peak = 0
    start = time.perf_counter()
    for tick, (key, size) in enumerate(zip(keys, sizes, strict=True)):
        if cache.request(key, size, tick):
            hits += 1
            hit_bytes += size
        peak = max(peak, cache.used)
    took = time.perf_counter() - start
    return Outcome(
        hits / len(keys), hit_bytes / sum(sizes), peak / cache.limit, took / len(keys) * 1e6
    )


class Cache:
    """A cache of `limit` bytes that holds no bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def request(self, key: int, size: int, tick: int) -> bool:
        """True for a hit; on a miss the file comes in if it may, and others leave first."""
        raise NotImplementedError


class Lru(Cache):
    """The longest unread files leave."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._here: OrderedDict[int, int] = OrderedDict()

    def request(self, key: int, size: int, tick: int) -> bool:
        if key in self._here:
            self._here.move_to_end(key)
            return True
        if size <= self.limit:
            while self.used + size > self.limit:
                self.used -= self._here.popitem(last=False)[1]
            self._here[key] = size
            self.used += size
        return False


class Hz(Cache):
    """`policy.hazard`, as the catalog drives it: the least valuable of a random sample leaves,
    the newcomer competes, and files that left are remembered."""

    def __init__(self, limit: int, objective: Objective = "time", seed: int = 1) -> None:
        super().__init__(limit)
        self._model = Hazard(objective)
        self._random = random.Random(seed).random
        self._seen: dict[int, Seen] = {}
        self._ghosts: OrderedDict[int, None] = OrderedDict()
        self._here: list[int] = []
        self._at: dict[int, int] = {}
        self._refit_at = self._model.refit_after(0)

    def request(self, key: int, size: int, tick: int) -> bool:
        model = self._model
        if tick >= self._refit_at:
            model.refit(self._seen.values(), tick)
            self._refit_at = tick + model.refit_after(len(self._seen))
        seen = self._seen[key] = model.touch(self._seen.get(key), size, tick)
        if key in self._at:
            return True
        self._ghosts.pop(key, None)
        if size > self.limit or not self._make_room(seen, tick):
            self._left(key)
            return False
        self._at[key] = len(self._here)
        self._here.append(key)
        self.used += size
        return False

    def _make_room(self, newcomer: Seen, tick: int) -> bool:
        """False, and nothing left, if the newcomer is worth less than what would have to go."""
        bar = self._model.value(newcomer, tick)
        chosen: dict[int, Seen] = {}
        need = self.used + newcomer.size - self.limit
        while need > 0:
            worth, key = min(self._sample(chosen, tick))
            if bar < worth:
                return False
            chosen[key] = self._seen[key]
            need -= chosen[key].size
        for key, seen in chosen.items():
            self._remove(key)
            self._model.evicted(seen, tick)
            self.used -= seen.size
            self._left(key)
        return True

    def _sample(self, chosen: dict[int, Seen], tick: int) -> Iterator[tuple[float, int]]:
        value, here, seen = self._model.value, self._here, self._seen
        count, found = len(here), 0
        while found < min(SAMPLE, count - len(chosen)):
            key = here[int(self._random() * count)]
            if key not in chosen:
                found += 1
                yield value(seen[key], tick), key

    def _remove(self, key: int) -> None:
        at, last = self._at.pop(key), self._here.pop()
        if last != key:
            self._here[at] = last
            self._at[last] = at

    def _left(self, key: int) -> None:
        self._ghosts[key] = None
        while len(self._ghosts) > GHOSTS * max(64, len(self._here)):
            del self._seen[self._ghosts.popitem(last=False)[0]]


POLICIES: dict[str, Callable[[int, Objective], Cache]] = {
    "lru": lambda limit, objective: Lru(limit),
    "hz": Hz,
}
