"""The eviction policy `hz`: learned chance of reuse, per occupied byte and time, times miss cost.

Every request is a tick. A file belongs to a class (how often it was asked for, how long ago the
time before last, how large it is among its peers). For each class the model learns from all files
it knows, evicted ones included, how likely a file of some age is to be asked for again: reuses are
events, files not asked for yet are censored observations, as in survival analysis. The worth of a
file is the chance that it is asked for within a horizon, over the time that it will occupy its
bytes until then, times what a miss would cost, over its bytes. Pure: numbers in, numbers out.

The idea of ranking by hits per occupied space and time is LHD's (Beckmann et al., NSDI 2018);
learning from evicted files too, the classes, the horizon and the miss cost are our own.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite, log2
from typing import NamedTuple

from cachestore.options import Objective

FORMAT = 1
BINS = 40
_USES, _GAPS, _SIZES = 7, 5, 4
CLASSES = _USES * _GAPS * _SIZES
_SHRINK = 20.0
_DECAY = 0.7
_MEMORY = 0.99999
_PRICED = 64
_LEAST_REFIT, _MOST_REFIT = 2_000, 200_000
_LEAST_HORIZON = 50.0
_HORIZON = 0.5
_LOW = [2 ** (b / 2) - 1 for b in range(BINS + 1)]


class Seen(NamedTuple):
    """What is known of a file, here or evicted. `tick`: of its last request; `gap`: ticks between
    the last two, -1 for none; `kind`: its class at that time."""

    size: int
    tick: int
    uses: int
    gap: int
    kind: int


@dataclass(frozen=True, slots=True)
class Costs:
    """What a miss costs, in seconds: for a request, and for each byte."""

    request: float = 0.05
    byte: float = 1 / 50e6


def age_bin(age: float) -> int:
    """Half-octaves of ticks."""
    return min(int(2 * log2(age + 1)), BINS - 1)


def _uses_class(uses: int) -> int:
    for number, most in enumerate((1, 2, 3, 5, 8, 16)):
        if uses <= most:
            return number
    return 6


def _gap_class(gap: int) -> int:
    if gap < 0:
        return 0
    steps = log2(gap + 1)
    return 1 if steps < 6 else 2 if steps < 10 else 3 if steps < 14 else 4


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

    def __init__(self, objective: Objective = "time", costs: Costs | None = None) -> None:
        self.objective = objective
        self.costs = costs or Costs()
        self.fitted = False
        self._hits = _cells()
        self._worth = _cells()
        self._sums = Sums()
        self._fresh: dict[int, float] = {}
        self._fresh_sums = Sums()
        self._per_request = self._per_byte = 1.0
        self._price()

    # -- sharing ---------------------------------------------------------------------------------

    def dump(self) -> bytes:
        """All that is known, without what is fresh."""
        sums = self._sums
        head = struct.pack("<i?4d", FORMAT, self.fitted, sums.log, sums.logs, sums.age, sums.ages)
        return head + array("f", self._hits).tobytes() + array("f", self._worth).tobytes()

    def adopt(self, stored: bytes) -> bool:
        """Take over what `dump` gave, of this or another process; False if it is no such thing."""
        head = struct.calcsize("<i?4d")
        if len(stored) != head + 2 * 4 * CLASSES * BINS:
            return False
        form, fitted, *sums = struct.unpack("<i?4d", stored[:head])
        cells = array("f", stored[head:])
        if form != FORMAT or not all(map(isfinite, (*sums, *cells))):
            return False
        self.fitted, self._sums = fitted, Sums(*sums)
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

    def touch(self, seen: Seen | None, size: int, tick: int) -> Seen:
        """A request at `tick` of a file of `size` bytes, known as `seen` (None: not at all)."""
        logarithm = log2(size) if size > 1 else 0.0
        self._fresh_sums.log += logarithm
        self._fresh_sums.logs += 1
        if self._fresh_sums.logs % _PRICED == 1:
            self._price()
        uses, gap = 1, -1
        if seen is not None:
            gap = max(0, tick - seen.tick)
            uses = seen.uses + 1
            cell = seen.kind * BINS + age_bin(gap)
            self._fresh[cell] = self._fresh.get(cell, 0.0) + 1
        return Seen(size, tick, uses, gap, self._kind(uses, gap, logarithm))

    def _kind(self, uses: int, gap: int, logarithm: float) -> int:
        above = logarithm - self._mean_log()
        size = 0 if above < -2 else 1 if above < 0 else 2 if above < 2 else 3
        return (_uses_class(uses) * _GAPS + _gap_class(gap)) * _SIZES + size

    def evicted(self, seen: Seen, tick: int) -> None:
        """A file left; how long such files had waited sets the horizon."""
        self._fresh_sums.age += max(0, tick - seen.tick)
        self._fresh_sums.ages += 1

    @staticmethod
    def refit_after(known: int) -> int:
        """Ticks between two refits, for so many known files."""
        return max(_LEAST_REFIT, min(_MOST_REFIT, known // 4))

    def refit(
        self,
        known: Iterable[Seen],
        tick: int,
        weight: float = 1.0,
        breathe: Callable[[], None] = lambda: None,
    ) -> None:
        """Learn the worth of each class and age anew. `known`: files here and evicted, or a
        sample of them of which each stands for `weight`. `breathe` is called every 0.1 ms or so.
        """
        self.absorb()
        waiting = _cells()
        for seen in known:
            waiting[seen.kind * BINS + age_bin(max(0, tick - seen.tick))] += weight
        at_risk, by_uses, risk_by_uses = self._at_risk(waiting)
        horizon = _LEAST_HORIZON
        if self._sums.ages:
            horizon = max(horizon, _HORIZON * self._sums.age / self._sums.ages)
        elif not self.fitted:
            horizon = 1000.0
        for kind in range(CLASSES):
            uses = kind // (_GAPS * _SIZES)
            hazard = []
            for b in range(BINS):
                prior = (by_uses[uses * BINS + b] + 0.5) / (risk_by_uses[uses * BINS + b] + 2)
                events = self._hits[kind * BINS + b] + _SHRINK * prior
                hazard.append(min(0.95, events / (at_risk[kind * BINS + b] + _SHRINK)))
            for b in range(BINS):
                self._worth[kind * BINS + b] = _worth(hazard, b, horizon)
                if b % 8 == 0:
                    breathe()
        for number in range(CLASSES * BINS):
            self._hits[number] *= _DECAY
        self._sums.age *= 0.5
        self._sums.ages *= 0.5
        self.fitted = True

    def _at_risk(self, waiting: array[float]) -> tuple[array[float], array[float], array[float]]:
        """How many files reached each class and age; and, over sizes and gaps, how many were asked
        for there, and reached it. A file that still waits counts for half of its bin."""
        at_risk = _cells()
        by_uses = _cells(_USES)
        risk_by_uses = _cells(_USES)
        for kind in range(CLASSES):
            uses, reached = kind // (_GAPS * _SIZES), 0.0
            for b in range(BINS - 1, -1, -1):
                at = kind * BINS + b
                reached += self._hits[at] + waiting[at] / 2
                at_risk[at] = reached
                reached += waiting[at] / 2
                by_uses[uses * BINS + b] += self._hits[at]
                risk_by_uses[uses * BINS + b] += at_risk[at]
        return at_risk, by_uses, risk_by_uses

    # -- worth -----------------------------------------------------------------------------------

    def mean_size(self) -> float:
        """The geometric mean of the sizes asked for lately."""
        return float(2.0 ** self._mean_log())

    def _mean_log(self) -> float:
        ours, theirs = self._fresh_sums, self._sums
        count = ours.logs + theirs.logs
        return (ours.log + theirs.log) / count if count else 0.0

    def value(self, seen: Seen, tick: int) -> float:
        """What keeping a file is worth; the least valuable one leaves."""
        age = max(0, tick - seen.tick)
        if self.fitted:
            worth = self._worth[seen.kind * BINS + age_bin(age)]
        else:
            worth = seen.uses / (age + 1)
        return worth * (self._per_request / max(1, seen.size) + self._per_byte)

    def _price(self) -> None:
        """The worth of a file counts once by its bytes, and once as it is, in these shares."""
        if self.objective == "object":
            self._per_request, self._per_byte = 1.0, 0.0
        elif self.objective == "bytes":
            self._per_request, self._per_byte = 0.0, 1.0
        else:
            self._per_request, self._per_byte = 1.0, 1 / self.break_even()

    def break_even(self) -> float:
        """The size at which a miss's bytes cost as much as its request.

        At most five times the usual size, so that small files do not starve all others.
        """
        return min(self.costs.request / self.costs.byte, 5 * self.mean_size())


def _worth(hazard: list[float], start: int, horizon: float) -> float:
    """Chance of reuse within the horizon over the time spent until then, from a bin's middle."""
    at = (_LOW[start] + _LOW[start + 1]) / 2
    end, alive, spent, b = at + horizon, 1.0, 0.0, start
    while b < BINS and at < end:
        width = _LOW[b + 1] - _LOW[b]
        step = min(_LOW[b + 1], end) - at
        if step <= 0:
            break
        after = alive * (1 - hazard[b]) ** (step / width)
        spent += (alive + after) / 2 * step
        alive, at, b = after, at + step, b + 1
    if at < end:
        spent += alive * (end - at)
    return (1 - alive) / max(spent, 1e-9)
