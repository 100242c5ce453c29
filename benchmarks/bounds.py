"""What nobody can beat: hit ratios of a cache that knows the future.

A hit is a reuse: the file was kept from its last request to this one. `feasible` is a schedule
that a cache could follow, `relaxed` a bound that no cache can pass (PFOO-L of Berger, Beckmann and
Harchol-Balter, SIGMETRICS 2018). The best possible lies between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy

from benchmarks.traces import Trace

Numbers = numpy.ndarray[Any, Any]
By = Literal["object", "bytes"]
_BLOCK = 512
_TOLD = 4096


@dataclass(frozen=True, slots=True)
class Bound:
    """Ratios as fractions; `peak`: bytes kept at most, over the limit."""

    object_hit_ratio: float
    byte_hit_ratio: float
    peak_ratio: float


@dataclass(frozen=True, slots=True)
class Reuses:
    """All reuses of a trace: a file of `size` bytes asked for at `start` and next at `end`."""

    start: Numbers
    end: Numbers
    size: Numbers
    requests: int
    requested: int

    @classmethod
    def of(cls, trace: Trace) -> Reuses:
        keys, sizes = numpy.asarray(trace.keys), numpy.asarray(trace.sizes, numpy.int64)
        order = numpy.argsort(keys, kind="stable")
        again = keys[order[1:]] == keys[order[:-1]]
        start, end = order[:-1][again], order[1:][again]
        return cls(start, end, sizes[start], len(keys), int(sizes.sum()))

    def cheapest(self, by: By) -> Numbers:
        """Indices, the least room and time for a hit (or for its bytes) first."""
        length = (self.end - self.start).astype(float)
        return numpy.argsort(length * self.size if by == "object" else length, kind="stable")


class Occupancy:
    """Bytes kept after each request, in blocks, so that long spans cost little."""

    def __init__(self, length: int) -> None:
        blocks = length // _BLOCK + 1
        self._cells = numpy.zeros((blocks, _BLOCK), numpy.int64)
        self._flat = self._cells.reshape(-1)
        self._lifted = numpy.zeros(blocks, numpy.int64)  # added to a whole block at once
        self._tops = numpy.zeros(blocks, numpy.int64)

    def top(self, start: int, end: int) -> int:
        """The most that is kept anywhere from `start` to `end` (exclusive)."""
        first, last = start // _BLOCK, (end - 1) // _BLOCK
        if first == last:
            return int(self._flat[start:end].max() + self._lifted[first])
        most = max(
            self._flat[start : (first + 1) * _BLOCK].max() + self._lifted[first],
            self._flat[last * _BLOCK : end].max() + self._lifted[last],
        )
        if last - first > 1:
            most = max(most, self._tops[first + 1 : last].max())
        return int(most)

    def add(self, start: int, end: int, size: int) -> None:
        """Keep `size` bytes more from `start` to `end` (exclusive)."""
        first, last = start // _BLOCK, (end - 1) // _BLOCK
        self._flat[start : min(end, (first + 1) * _BLOCK)] += size
        if last > first:
            self._flat[last * _BLOCK : end] += size
            self._lifted[first + 1 : last] += size
            self._tops[first + 1 : last] += size
        for block in (first, last):
            self._tops[block] = self._cells[block].max() + self._lifted[block]


def feasible(
    reuses: Reuses, limit: int, by: By, tell: Callable[[int], None] = lambda done: None
) -> Bound:
    """Keep files over reuses, the cheapest first, wherever the limit still holds all along.

    `tell` is called with how many reuses were looked at since the last call.
    """
    kept = Occupancy(reuses.requests)
    hits = hit_bytes = 0
    chosen = reuses.cheapest(by)
    columns = (reuses.start[chosen], reuses.end[chosen], reuses.size[chosen])
    spans = zip(*(column.tolist() for column in columns), strict=True)
    for number, (start, end, size) in enumerate(spans):
        if number % _TOLD == 0:
            tell(_TOLD)
        if size <= limit and kept.top(start, end) + size <= limit:
            kept.add(start, end, size)
            hits += 1
            hit_bytes += size
    peak = kept.top(0, max(1, reuses.requests)) / limit
    return Bound(hits / reuses.requests, hit_bytes / reuses.requested, peak)


def relaxed(reuses: Reuses, limit: int) -> Bound:
    """As if the limit had to hold on average only; both ratios are bounds, each for itself."""
    ratios = []
    for by in ("object", "bytes"):
        chosen = reuses.cheapest(by)
        chosen = chosen[reuses.size[chosen] <= limit]
        size = reuses.size[chosen].astype(float)
        room = numpy.cumsum(size * (reuses.end - reuses.start)[chosen])
        gain = numpy.ones(len(chosen)) if by == "object" else size
        given = float(limit) * reuses.requests
        whole = int(numpy.searchsorted(room, given, side="right"))
        won = float(gain[:whole].sum())
        if whole < len(chosen):
            before = room[whole - 1] if whole else 0.0
            won += gain[whole] * (given - before) / (room[whole] - before)
        ratios.append(won / (reuses.requests if by == "object" else reuses.requested))
    return Bound(ratios[0], ratios[1], 1.0)
