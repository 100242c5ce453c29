"""What a miss costs: measured from our own downloads, and priced by what the cache is to save."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

from cachestore.options import Objective

_FORMAT = struct.Struct("<5d")
_FADE = 0.99
_CLIP = 4.0
_PRIOR_WEIGHT = 8.0
_PRIOR_SIZES = (0.0, 10e6)
_REQUEST_LIMITS = 1e-3, 10.0
_BYTE_LIMITS = 1e-10, 1e-5


@dataclass(frozen=True, slots=True)
class Costs:
    """What a miss costs, in seconds: for a request, and for each byte."""

    request: float = 0.05
    byte: float = 1 / 50e6

    def of(self, size: float) -> float:
        return self.request + self.byte * size


STARTING = Costs()


class MissCosts:
    """A straight line through the seconds that recent downloads took, over their bytes.

    Least squares, of errors relative to what the starting costs expect of the size; older
    downloads fade. The starting costs count as a few
    downloads that never fade, so that a line is found even if all files are of one size. One that
    took a quarter or four times of what was expected counts as that and no more: a stall moves
    the line little, a new network moves it step by step.
    """

    def __init__(self) -> None:
        self._sums = [0.0] * 5
        self.costs = STARTING

    def learn(self, downloads: Iterable[tuple[int, float]]) -> None:
        """Take in downloads: bytes, and seconds from the request to the last byte."""
        for size, seconds in downloads:
            expected = self.costs.of(size)
            seconds = min(max(seconds, expected / _CLIP), expected * _CLIP)
            self._sums = [_FADE * each for each in self._sums]
            _add(self._sums, size, seconds, 1 / STARTING.of(size) ** 2)
            self._solve()

    def _solve(self) -> None:
        sums = list(self._sums)
        for size in _PRIOR_SIZES:
            expected = STARTING.of(size)
            _add(sums, size, expected, _PRIOR_WEIGHT / len(_PRIOR_SIZES) / expected**2)
        weight, x, y, xx, xy = sums
        byte = (weight * xy - x * y) / (weight * xx - x * x)
        byte = min(max(byte, _BYTE_LIMITS[0]), _BYTE_LIMITS[1])
        request = min(max((y - byte * x) / weight, _REQUEST_LIMITS[0]), _REQUEST_LIMITS[1])
        self.costs = Costs(request, byte)

    def dump(self) -> bytes:
        return _FORMAT.pack(*self._sums)

    def adopt(self, stored: object) -> None:
        """Take over what `dump` gave, of this or another process; junk is as good as none."""
        self._sums = [0.0] * 5
        if isinstance(stored, bytes) and len(stored) == _FORMAT.size:
            sums = _FORMAT.unpack(stored)
            if all(isfinite(each) and 0 <= each < 1e30 for each in sums):
                self._sums = list(sums)
        self._solve()


def _add(sums: list[float], size: float, seconds: float, weight: float) -> None:
    for number, each in enumerate((1.0, size, seconds, size * size, size * seconds)):
        sums[number] += weight * each


class Prices:
    """What keeping a file out of the misses is worth, by the objective: so much for the request
    that it saves, and for each byte."""

    def __init__(self, objective: Objective, costs: Costs) -> None:
        self.objective = objective
        self.costs = costs
        self.request = self.byte = 1.0
        self.usual(0.0)

    def usual(self, logarithm: float) -> None:
        """The mean of the logarithms (to 2) of the sizes asked for lately."""
        self._usual = logarithm
        if self.objective == "object":
            self.request, self.byte = 1.0, 0.0
        elif self.objective == "bytes":
            self.request, self.byte = 0.0, 1.0
        else:
            self.request, self.byte = 1.0, 1 / self.break_even()

    def break_even(self) -> float:
        """The size at which a miss's bytes cost as much as its request.

        At most five times the usual size, so that small files do not starve all others.
        """
        return min(self.costs.request / self.costs.byte, 5 * float(2.0**self._usual))

    def per_byte(self, size: int) -> float:
        """A miss's cost over the file's bytes."""
        return self.request / (size or 1) + self.byte

    def miss(self, size: int) -> float:
        return self.request + self.byte * size
