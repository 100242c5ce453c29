"""Replays of request traces, metadata only, through the policy objects that the product uses."""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from cachestore.local.learned import SAMPLE
from cachestore.options import Objective
from cachestore.policy.hazard import GDSF, Hazard, Seen, ghosts, refit_after, refit_share
from cachestore.policy.tournament import Tournament, name_of

_TOLD = 4096


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one replay saw. Ratios are fractions; `peak`: bytes at most, over the limit.

    Microseconds are of processor time, so that other work on the machine does not count.
    """

    object_hit_ratio: float
    byte_hit_ratio: float
    peak_ratio: float
    us_per_request: float


def replay(
    cache: Cache,
    keys: Sequence[int],
    sizes: Sequence[int],
    tell: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Every request in order. A file larger than the limit is never kept.

    `tell` is called with how many requests were made since the last call.
    """
    hits = hit_bytes = peak = 0
    start = time.process_time()
    for tick, (key, size) in enumerate(zip(keys, sizes, strict=True)):
        if tick % _TOLD == 0:
            tell(_TOLD)
        if cache.request(key, size, tick):
            hits += 1
            hit_bytes += size
        if cache.used > peak:
            peak = cache.used
    took = time.process_time() - start
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
    """`policy.hazard` and `policy.tournament`, as the catalog drives them: the least valuable of a
    random sample leaves, the newcomer competes, and files that left are remembered."""

    def __init__(self, limit: int, objective: Objective = "time", seed: int = 1) -> None:
        super().__init__(limit)
        self._model = Hazard(objective)
        self._tournament = Tournament(self._model, limit, seed)
        self._random = random.Random(seed).random
        self._seen: dict[int, Seen] = {}
        self._ghosts: OrderedDict[int, None] = OrderedDict()
        self._here: list[int] = []
        self._at: dict[int, int] = {}
        self._refit_at = refit_after(0, 0)

    def request(self, key: int, size: int, tick: int) -> bool:
        model, tournament = self._model, self._tournament
        if tick >= self._refit_at:
            self._refit(tick)
        name = name_of(str(key))
        if tournament.takes(name):
            tournament.request(name, size, tick)
        seen = model.touch(self._seen.get(key), size, tick, tournament.floor)
        self._seen[key] = seen
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

    def _refit(self, tick: int) -> None:
        known = [(seen.kind, seen.tick) for seen in self._seen.values()]
        share = refit_share(len(known))
        if share > 1:
            known = [each for each in known if self._random() * share < 1]
        self._model.refit(known, tick, weight=share)
        self._refit_at = tick + refit_after(len(self._seen), tick)

    def _make_room(self, newcomer: Seen, tick: int) -> bool:
        """False, and nothing left, if the newcomer is worth less than what would have to go."""
        bar = self._model.value(newcomer, tick, self._tournament.rule)
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
            self._model.evicted(seen.tick, tick)
            self.used -= seen.size
            self._left(key)
        return True

    def _sample(self, chosen: dict[int, Seen], tick: int) -> Iterator[tuple[float, int]]:
        here, count = self._here, len(self._here)
        keys: list[int] = []
        while len(keys) < min(SAMPLE, count - len(chosen)):
            key = here[int(self._random() * count)]
            if key not in chosen:
                keys.append(key)
        seen = self._seen
        found = self._model.values([seen[key] for key in keys], tick, self._tournament.rule)
        return zip(found, keys, strict=True)

    def _remove(self, key: int) -> None:
        at, last = self._at.pop(key), self._here.pop()
        if last != key:
            self._here[at] = last
            self._at[last] = at

    def _left(self, key: int) -> None:
        self._ghosts[key] = None
        while len(self._ghosts) > ghosts(len(self._here)):
            del self._seen[self._ghosts.popitem(last=False)[0]]


class Gdsf(Cache):
    """`gdsf`, as the catalog drives it: the lowest rank leaves, and the newcomer competes."""

    def __init__(self, limit: int, objective: Objective = "time") -> None:
        super().__init__(limit)
        self._model = Hazard(objective)
        self._floor = 0.0
        self._seen: dict[int, Seen] = {}
        self._ghosts: OrderedDict[int, None] = OrderedDict()
        self._ranks: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def request(self, key: int, size: int, tick: int) -> bool:
        seen = self._model.touch(self._seen.get(key), size, tick, self._floor)
        self._seen[key] = seen
        rank = self._model.value(seen, tick, GDSF)
        here = key in self._ranks
        self._ghosts.pop(key, None)
        if not here and (size > self.limit or not self._make_room(size, rank)):
            self._left(key)
            return False
        if not here:
            self.used += size
        self._ranks[key] = rank
        heappush(self._heap, (rank, key))
        return here

    def _make_room(self, size: int, bar: float) -> bool:
        """False, and nothing left, if the newcomer ranks below what would have to go."""
        need, chosen = self.used + size - self.limit, []
        while need > 0:
            rank, key = heappop(self._heap)
            if self._ranks.get(key) != rank:
                continue  # asked for since, or gone
            chosen.append((rank, key))
            self._floor = max(self._floor, min(rank, bar))
            need -= self._seen[key].size
            if bar < rank:
                for each in chosen:
                    heappush(self._heap, each)
                return False
        for _, key in chosen:
            del self._ranks[key]
            self.used -= self._seen[key].size
            self._left(key)
        return True

    def _left(self, key: int) -> None:
        self._ghosts[key] = None
        while len(self._ghosts) > ghosts(len(self._ranks)):
            del self._seen[self._ghosts.popitem(last=False)[0]]


POLICIES: dict[str, Callable[[int, Objective], Cache]] = {
    "lru": lambda limit, objective: Lru(limit),
    "hz": Hz,
    "gdsf": Gdsf,
}
