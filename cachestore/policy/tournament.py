"""Which rule to choose by: small shadow caches, one for each, play it out on a sample of the files.

A shadow holds what a cache that follows its rule would hold, and no bytes. Only files whose name
hashes to a certain value take part, and the limit is scaled alike, so that a shadow of a thousand
files stands for a cache of a million (spatial sampling: Waldspurger et al., FAST 2015). Files so
large that a few of them would fill such a shadow stay out of it. The rule
whose misses would have cost least, by the objective and with older ones fading, is followed; the
one that is followed now stays unless another is better by a margin, since a change costs misses.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from math import isfinite

from cachestore.policy.hazard import GDSF, MIXED, RULES, Hazard, Seen, ghosts

_SAMPLE = 24
_MOST = 2048
_HALF_LIFE = 20_000
_WARM = 100
_MARGIN = 0.98
_JUDGED = 64
_LARGE = 16
_SLACK = 512
_HEAD = struct.Struct(f"<iiiqdd{len(RULES)}di")
_FORMAT = 1
_FILE = struct.Struct("<QqqqqHddB")


@lru_cache(maxsize=16_384)
def name_of(key: str) -> int:
    """A number that stands for a key; its lowest bits decide whether the key takes part."""
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=7).digest()
    return int.from_bytes(digest, "big")


@dataclass(slots=True)
class Shadow:
    """A cache without bytes that ranks by one rule. `cost`: of its misses, fading."""

    rule: int
    used: int = 0
    cost: float = 0.0
    here: list[int] = field(default_factory=list)
    at: dict[int, int] = field(default_factory=dict)

    def add(self, name: int, size: int) -> None:
        self.at[name] = len(self.here)
        self.here.append(name)
        self.used += size

    def remove(self, name: int, size: int) -> None:
        at, last = self.at.pop(name), self.here.pop()
        if last != name:
            self.here[at] = last
            self.at[last] = at
        self.used -= size


class Tournament:
    """The shadows, and what they have shown: `rule` is to be followed.

    `floor`: what GDSF's shadow gave up last. `shift`: names that end with so many zero bits, and
    no others, take part; more of them as the cache grows.
    """

    def __init__(self, model: Hazard, limit: int, seed: int | None = None) -> None:
        self.model = model
        self.rule = MIXED
        self.shift = 0
        self.floor = 0.0
        self._limit = limit
        self._weight = 1.0
        self._requests = 0
        self._known: dict[int, Seen] = {}
        self._shadows = [Shadow(rule) for rule in RULES]
        self._random = random.Random(seed).random

    def takes(self, name: int) -> bool:
        return not name & ((1 << self.shift) - 1)

    def request(
        self, name: int, size: int, tick: int, breathe: Callable[[], None] = lambda: None
    ) -> None:
        """A file that takes part was asked for. `breathe` is called every 0.1 ms or so."""
        known, limit = self._known, self._limit >> self.shift
        if self._is_large(size):
            return
        old = known.pop(name, None)
        if old is not None and old.size != size:
            for shadow in self._shadows:
                if name in shadow.at:
                    shadow.remove(name, old.size)
        seen = known[name] = self.model.after(old, size, tick, self.floor)
        if size > limit:
            return  # passes by all of them alike
        self._weight *= _GROWTH
        missed = [shadow for shadow in self._shadows if name not in shadow.at]
        # What all of them miss tells nothing.
        told = len(missed) < len(self._shadows)
        cost = self.model.prices.miss(size) * self._weight if told else 0.0
        for shadow in missed:
            shadow.cost += cost
            if self._make_room(shadow, seen, tick, limit, breathe):
                shadow.add(name, size)
        self._requests += 1
        if self._requests % _JUDGED == 0:
            self._judge()

    def _is_large(self, size: int) -> bool:
        """In a sample of the files it would weigh far more than it does among all."""
        return self.shift > 0 and size > (self._limit >> self.shift) // _LARGE

    def _judge(self) -> None:
        if self._requests >= _WARM:
            best = min(self._shadows, key=lambda shadow: shadow.cost)
            if best.cost < _MARGIN * self._shadows[self.rule].cost:
                self.rule = best.rule
        if self._weight > 1e100:
            for shadow in self._shadows:
                shadow.cost /= self._weight
            self._weight = 1.0
        most = max(len(shadow.here) for shadow in self._shadows)
        if most > _MOST:
            self._thin_out()
        if len(self._known) > most + (ghosts(most << self.shift) >> self.shift) + _SLACK:
            self._forget(len(self._known) - _SLACK)

    def _make_room(
        self, shadow: Shadow, newcomer: Seen, tick: int, limit: int, breathe: Callable[[], None]
    ) -> bool:
        """False, and nothing left, if the newcomer is worth less than what would have to go."""
        need = shadow.used + newcomer.size - limit
        if need <= 0:
            return True
        values, known, rule = self.model.values, self._known, shadow.rule
        [bar] = values([newcomer], tick, rule)
        chosen: dict[int, int] = {}
        lowest = 0.0
        while need > 0:
            breathe()
            picked = self._sample(shadow, chosen)
            found = values([known[each] for each in picked], tick, rule)
            lowest, name = min(zip(found, picked, strict=True))
            if bar < lowest:
                break
            chosen[name] = known[name].size
            need -= chosen[name]
        if rule == GDSF:
            self.floor = max(self.floor, min(lowest, bar))
        if need > 0:
            return False
        for name, size in chosen.items():
            shadow.remove(name, size)
        return True

    def _sample(self, shadow: Shadow, chosen: dict[int, int]) -> list[int]:
        """Random ones that are not chosen yet; all of the few if there are no more."""
        here, count, pick = shadow.here, len(shadow.here), self._random
        if count - len(chosen) <= _SAMPLE:
            return [name for name in here if name not in chosen]
        picked = [here[int(pick() * count)] for _ in range(_SAMPLE)]
        return [name for name in picked if name not in chosen] or self._sample(shadow, chosen)

    def _thin_out(self) -> None:
        """Half of the files take part no longer, nor do the largest of the others."""
        self.shift += 1
        known = {
            name: seen
            for name, seen in self._known.items()
            if self.takes(name) and not self._is_large(seen.size)
        }
        for shadow in self._shadows:
            for name in [name for name in shadow.here if name not in known]:
                shadow.remove(name, self._known[name].size)
        self._known = known

    def _forget(self, most: int) -> None:
        """Drop those that were not asked for longest, and are nowhere."""
        surplus = len(self._known) - most
        held = [shadow.at for shadow in self._shadows]
        gone = (name for name in self._known if not any(name in at for at in held))
        for name in list(islice(gone, surplus)):
            del self._known[name]

    # -- sharing ---------------------------------------------------------------------------------

    def dump(self, breathe: Callable[[], None] = lambda: None) -> bytes:
        costs = [shadow.cost / self._weight for shadow in self._shadows]
        head = _HEAD.pack(
            _FORMAT, self.rule, self.shift, self._limit, self.floor, self.model.memory, *costs,
            min(self._requests, _WARM),
        )  # fmt: skip
        parts = [head]
        for number, (name, seen) in enumerate(self._known.items()):
            where = sum(1 << shadow.rule for shadow in self._shadows if name in shadow.at)
            parts.append(_FILE.pack(name, *seen, where))
            if number % 32 == 0:
                breathe()
        return b"".join(parts)

    def adopt(self, stored: object, breathe: Callable[[], None] = lambda: None) -> bool:
        """Take over what `dump` gave; False if it is no such thing, or of another limit."""
        if not isinstance(stored, bytes) or len(stored) < _HEAD.size:
            return False
        form, rule, shift, limit, floor, _, *costs, requests = _HEAD.unpack(stored[: _HEAD.size])
        sound = rule in RULES and 0 <= shift < 32 and all(map(isfinite, (floor, *costs)))
        if form != _FORMAT or limit != self._limit or not sound:
            return False
        if (len(stored) - _HEAD.size) % _FILE.size:
            return False
        self.rule, self.shift, self.floor = rule, shift, floor
        self._weight, self._requests, self._known = 1.0, requests, {}
        self._shadows = [Shadow(each, 0, costs[each]) for each in RULES]
        for at in range(_HEAD.size, len(stored), _FILE.size):
            name, *seen, where = _FILE.unpack_from(stored, at)
            self._known[name] = Seen(*seen)
            for shadow in self._shadows:
                if where >> shadow.rule & 1:
                    shadow.add(name, seen[0])
            if len(self._known) % 32 == 0:
                breathe()
        return True


_GROWTH = 2 ** (1 / _HALF_LIFE)


def known_in(size: int) -> int:
    """How many files a dump of `size` bytes knows."""
    return max(0, size - _HEAD.size) // _FILE.size
