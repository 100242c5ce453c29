"""The eviction policy `hz`: learned chance of reuse, per occupied byte and time, times miss cost.

Every request is a tick. A file belongs to a class (how often it was asked for, how long ago the
time before last, how large it is among its peers). For each class the model learns from all files
it knows, evicted ones included, how likely a file of some age is to be asked for again: reuses are
events, files not asked for yet are censored observations, as in survival analysis. The worth of a
file is the chance that it is asked for within a horizon, over the time that it will occupy its
bytes until then. Beside it each file has a heat: how often it was asked for, fading slowly. Worth
sees what is new, heat remembers what was popular long ago; the geometric mean of the two
does better than either. Each is a rule to choose by, and so is GDSF; `policy.tournament` finds
out which serves best. Pure: numbers in, numbers out.

The idea of ranking by hits per occupied space and time is LHD's (Beckmann et al., NSDI 2018);
learning from evicted files too, the classes, the horizon and the mean are our own. GDSF:
Cherkasova, HP Labs 98-69; here with the frequencies of evicted files kept.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite, log2, sqrt
from typing import NamedTuple

from cachestore.options import Objective
from cachestore.policy.costs import STARTING, Costs, Prices

FORMAT = 2
BINS = 40
_USES, _GAPS, _SIZES = 7, 5, 4
CLASSES = _USES * _GAPS * _SIZES
_SHRINK = 20.0
_DECAY = 0.7
_MEMORY = 0.99999
_PRICED = 64
_FIRST_REFIT, _LEAST_REFIT, _MOST_REFIT = 500, 2_000, 200_000
_REFIT_SAMPLE = 10_000
_LEAST_HORIZON, _FIRST_HORIZON = 50.0, 1_000.0
_HORIZON = 0.25
_LEAST_HEAT, _HEAT, _FOREVER = 1_000.0, 8.0, 1e9
_LEAST_GHOSTS, _GHOSTS = 10_000, 4
_LOW = [2 ** (b / 2) - 1 for b in range(BINS + 1)]
_HEAD = struct.Struct("<i?5d")
_USED = [0, 0, 1, 2, 3, 3, *[4] * 3, *[5] * 8]

MIXED, WORTH, HEAT, GDSF = RULES = range(4)
"""What files are ranked by: the mean of worth and heat, one of them alone, or GDSF."""


class Seen(NamedTuple):
    """What is known of a file, here or evicted. `tick`: of its last request; `gap`: ticks between
    the last two, -1 for none; `kind`: its class at that time; `heat`: uses, fading until then;
    `floor`: what GDSF gave up last before then."""

    size: int
    tick: int
    uses: int
    gap: int
    kind: int
    heat: float = 1.0
    floor: float = 0.0


Plain = tuple[int, int, int, int, int, float, float]
"""A `Seen` as it comes from a table."""


def age_bin(age: float) -> int:
    """Half-octaves of ticks."""
    return min(int(2 * log2(age + 1)), BINS - 1)


def _uses_class(uses: int) -> int:
    return _USED[uses] if uses < len(_USED) else _USES - 1


def _gap_class(gap: int) -> int:
    return 0 if gap < 0 else 1 if gap < 63 else 2 if gap < 1023 else 3 if gap < 16383 else 4


def ghosts(here: int) -> int:
    """How many evicted files are remembered, for so many that are here."""
    return max(_LEAST_GHOSTS, _GHOSTS * here)


def refit_after(known: int, tick: int) -> int:
    """Ticks between two refits, for so many known files; the first ones follow early."""
    return max(min(_LEAST_REFIT, max(_FIRST_REFIT, tick)), min(_MOST_REFIT, known // 4))


def refit_share(known: int) -> int:
    """A refit looks at one of so many of the known files."""
    return max(1, -(-known // _REFIT_SAMPLE))


@dataclass(slots=True)
class Sums:
    """Decayed sums: logarithms of sizes asked for, and ages at eviction, with how many."""

    log: float = 0.0
    logs: float = 0.0
    age: float = 0.0
    ages: float = 0.0


def _cells(classes: int = CLASSES) -> array[float]:
    return array("d", bytes(8 * classes * BINS))


class Hazard:
    """The model. What it learns is kept apart until `absorb`, so that processes can share one."""

    def __init__(self, objective: Objective = "time", costs: Costs = STARTING) -> None:
        self.prices = Prices(objective, costs)
        self.fitted = False
        self.memory = _FOREVER
        self._hits = _cells()
        self._worth = _cells()
        self._sums = Sums()
        self._fresh: dict[int, float] = {}
        self._fresh_sums = Sums()
        self._price()

    # -- sharing ---------------------------------------------------------------------------------

    def dump(self) -> bytes:
        """All that is known, without what is fresh."""
        sums = self._sums
        head = (self.fitted, self.memory, sums.log, sums.logs, sums.age, sums.ages)
        cells = array("f", self._hits).tobytes() + array("f", self._worth).tobytes()
        return _HEAD.pack(FORMAT, *head) + cells

    def adopt(self, stored: object) -> bool:
        """Take over what `dump` gave, of this or another process; False if it is no such thing."""
        size = _HEAD.size + 2 * 4 * CLASSES * BINS
        if not isinstance(stored, bytes) or len(stored) != size:
            return False
        form, fitted, memory, *sums = _HEAD.unpack(stored[: _HEAD.size])
        cells = array("f", stored[_HEAD.size :])
        if form != FORMAT or memory <= 0 or not all(map(isfinite, (memory, *sums, *cells))):
            return False
        self.fitted, self.memory, self._sums = fitted, memory, Sums(*sums)
        self._hits = array("d", cells[: CLASSES * BINS])
        self._worth = array("d", cells[CLASSES * BINS :])
        self._price()
        return True

    def absorb(self) -> None:
        """Add what is fresh to what is shared."""
        for cell, count in self._fresh.items():
            self._hits[cell] += count
        ours, theirs = self._fresh_sums, self._sums
        faded = _MEMORY**ours.logs
        theirs.log, theirs.logs = theirs.log * faded + ours.log, theirs.logs * faded + ours.logs
        theirs.age, theirs.ages = theirs.age + ours.age, theirs.ages + ours.ages
        self._fresh, self._fresh_sums = {}, Sums()
        self._price()

    @property
    def fresh(self) -> int:
        """How many requests were learned from since `absorb`."""
        return int(self._fresh_sums.logs)

    # -- learning --------------------------------------------------------------------------------

    def touch(self, seen: Seen | None, size: int, tick: int, floor: float = 0.0) -> Seen:
        """Learn from a request at `tick` of a file of `size` bytes, known as `seen` (None: not at
        all); what is known of it from now on."""
        logarithm, sums = log2(size) if size > 1 else 0.0, self._fresh_sums
        sums.log += logarithm
        sums.logs += 1
        if sums.logs % _PRICED == 1:
            self._price()
        if seen is not None:
            age = tick - seen.tick
            cell = seen.kind * BINS + age_bin(age if age > 0 else 0)
            self._fresh[cell] = self._fresh.get(cell, 0.0) + 1
        return self._after(seen, size, logarithm, tick, floor)

    def after(self, seen: Seen | None, size: int, tick: int, floor: float = 0.0) -> Seen:
        """What is known after a request, without learning from it."""
        return self._after(seen, size, log2(size) if size > 1 else 0.0, tick, floor)

    def _after(
        self, seen: Seen | None, size: int, logarithm: float, tick: int, floor: float
    ) -> Seen:
        above = logarithm - self._usual
        among = 0 if above < -2 else 1 if above < 0 else 2 if above < 2 else 3
        if seen is None:
            return Seen(size, tick, 1, -1, among, 1.0, floor)
        _, last, uses, _, _, heat, _ = seen
        gap, uses = (tick - last if tick > last else 0), uses + 1
        kind = (_uses_class(uses) * _GAPS + _gap_class(gap)) * _SIZES + among
        return Seen(size, tick, uses, gap, kind, heat * 2.0 ** (-gap / self.memory) + 1, floor)

    def evicted(self, last: int, tick: int) -> None:
        """A file left that was asked for at `last`; how long such files waited is the horizon."""
        self._fresh_sums.age += max(0, tick - last)
        self._fresh_sums.ages += 1

    def refit(
        self,
        known: Iterable[tuple[int, int]],
        tick: int,
        weight: float = 1.0,
        breathe: Callable[[], None] = lambda: None,
    ) -> None:
        """Learn the worth of each class and age anew. `known`: kind and tick of files here and
        evicted, or of a sample of which each stands for `weight`. `breathe` is called often.
        """
        self.absorb()
        waiting = _cells()
        for number, (kind, last) in enumerate(known):
            waiting[kind * BINS + age_bin(tick - last if tick > last else 0)] += weight
            if number % 64 == 0:
                breathe()
        horizon = _LEAST_HORIZON if self.fitted else _FIRST_HORIZON
        if self._sums.ages:
            age = self._sums.age / self._sums.ages
            horizon = max(_LEAST_HORIZON, _HORIZON * age)
            self.memory = max(_LEAST_HEAT, _HEAT * age)
        for uses in range(_USES):
            self._refit_uses(uses, waiting, horizon, breathe)
        self._hits = array("d", [_DECAY * count for count in self._hits])
        self._sums.age *= 0.5
        self._sums.ages *= 0.5
        self.fitted = True

    def _refit_uses(
        self, uses: int, waiting: array[float], horizon: float, breathe: Callable[[], None]
    ) -> None:
        """The classes of files that were asked for equally often: each by its own observations,
        and as all of them together where it has few."""
        kinds = range(uses * _GAPS * _SIZES, (uses + 1) * _GAPS * _SIZES)
        rows = {}
        events, at_risk = [0.5] * BINS, [2.0] * BINS
        for kind in kinds:
            at = slice(kind * BINS, (kind + 1) * BINS)
            hits, still = self._hits[at], waiting[at]
            if any(hits) or any(still):
                rows[kind] = hits, _reached(hits, still)
                events = [a + b for a, b in zip(events, hits, strict=True)]
                at_risk = [a + b for a, b in zip(at_risk, rows[kind][1], strict=True)]
                breathe()
        prior = [_SHRINK * a / b for a, b in zip(events, at_risk, strict=True)]
        unseen = array("d", _worths([each / _SHRINK for each in prior], horizon))
        for kind in kinds:
            worths = unseen
            if kind in rows:
                cells = zip(*rows[kind], prior, strict=True)
                hazard = [(hit + most) / (risk + _SHRINK) for hit, risk, most in cells]
                worths = array("d", _worths(hazard, horizon))
                breathe()
            self._worth[kind * BINS : (kind + 1) * BINS] = worths

    # -- worth -----------------------------------------------------------------------------------

    def value(self, seen: Seen, tick: int, rule: int = MIXED) -> float:
        """What keeping a file is worth; the least valuable one leaves."""
        return self.values([seen], tick, rule)[0]

    def values(self, files: Iterable[Plain], tick: int, rule: int = MIXED) -> list[float]:
        """`value` of many: a call for each would take longer than to find it."""
        request, byte = self.prices.request, self.prices.byte
        if rule == GDSF:
            return [
                floor + uses * (request / (size or 1) + byte)
                for size, _, uses, _, _, _, floor in files
            ]
        fade, worth, last_bin = -1 / self.memory, self._worth, BINS - 1
        if rule == HEAT or not self.fitted:
            return [
                (request / (size or 1) + byte)
                * heat
                * 2.0 ** (fade * (tick - last if tick > last else 0))
                for size, last, _, _, _, heat, _ in files
            ]
        found: list[float] = []
        mixed = rule == MIXED
        for size, last, _, _, kind, heat, _ in files:
            age = tick - last if tick > last else 0
            at = int(2 * log2(age + 1))
            each = worth[kind * BINS + (at if at < last_bin else last_bin)]
            if mixed:
                each = sqrt(each * heat * 2.0 ** (fade * age))
            found.append((request / (size or 1) + byte) * each)
        return found

    def _price(self) -> None:
        ours, theirs = self._fresh_sums, self._sums
        count = ours.logs + theirs.logs
        self._usual = (ours.log + theirs.log) / count if count else 0.0
        self.prices.usual(self._usual)


def _reached(hits: array[float], waiting: array[float]) -> list[float]:
    """How many files reached each age. One that still waits counts for half of its bin."""
    at_risk, reached = [0.0] * BINS, 0.0
    for b in range(BINS - 1, -1, -1):
        reached += hits[b] + waiting[b] / 2
        at_risk[b] = reached
        reached += waiting[b] / 2
    return at_risk


def _worths(hazard: list[float], horizon: float) -> list[float]:
    """For each bin, from its middle: chance of reuse within the horizon, over the time until then.

    Both from two running sums over the ages: how many are left, and the time that they spent.
    """
    left, spent = [1.0], [0.0]
    rates = [min(0.95, each) for each in hazard]
    for b, rate in enumerate(rates):
        left.append(left[b] * (1 - rate))
        spent.append(spent[b] + (left[b] + left[b + 1]) / 2 * (_LOW[b + 1] - _LOW[b]))
    worths, last = [], 0
    for b in range(BINS):
        start = (_LOW[b] + _LOW[b + 1]) / 2
        end = start + horizon
        while last < BINS and _LOW[last + 1] <= end:
            last += 1
        at_start = left[b] * (1 - rates[b]) ** 0.5
        before = spent[b] + (left[b] + at_start) / 2 * (start - _LOW[b])
        if last < BINS:
            over = end - _LOW[last]
            at_end = left[last] * (1 - rates[last]) ** (over / (_LOW[last + 1] - _LOW[last]))
        else:
            over, at_end = end - _LOW[BINS], left[BINS]
        after = spent[last] + (left[last] + at_end) / 2 * over
        worths.append((1 - at_end / at_start) / max((after - before) / at_start, 1e-9))
    return worths
