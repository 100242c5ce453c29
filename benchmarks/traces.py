"""Request traces: `.npz` files with `k` (dense keys) and `s` (bytes), or a synthetic one."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order; a key has one size."""

    name: str
    keys: list[int]
    sizes: list[int]

    @property
    def footprint(self) -> int:
        """Bytes of all files together."""
        return sum(dict(zip(self.keys, self.sizes, strict=True)).values())


def load(path: Path) -> Trace:
    """A trace from a file."""
    with numpy.load(path) as data:
        return Trace(path.stem, data["k"].tolist(), data["s"].tolist())


def synthetic(requests: int = 60_000, files: int = 15_000, seed: int = 7) -> Trace:
    """Like a media app: Zipf popularity, log-normal sizes from 50 KB up, a scan in the middle."""
    rng = random.Random(seed)
    sizes = []
    for _ in range(files):
        middle, spread = rng.choices([(12.6, 1.0), (15.1, 0.75), (16.0, 0.5)], [70, 22, 8])[0]
        sizes.append(int(min(1e9, max(50_000, rng.lognormvariate(middle, spread)))))
    ranks = rng.choices(range(files), [1 / (rank + 1) ** 0.9 for rank in range(files)], k=requests)
    keys = ranks[: requests // 2] + list(range(0, files, 50)) + ranks[requests // 2 :]
    return Trace("synthetic_media", keys, [sizes[key] for key in keys])
