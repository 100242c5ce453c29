"""Request traces: `.npz` files with `k` (dense keys), `s` (bytes), `t` (seconds), or a made one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

DAY = 86_400
Numbers = numpy.ndarray[Any, Any]

# Segments, layers, mixes, datasets: share, median, spread of the logarithm, least and most bytes.
_CLASSES = (
    (0.70, 300e3, 1.0, 50e3, 6e6),
    (0.22, 3.5e6, 0.75, 300e3, 20e6),
    (0.0795, 9e6, 0.5, 1.5e6, 20e6),
    (0.0005, 450e6, 0.35, 150e6, 1e9),
)
_DATASETS = len(_CLASSES) - 1
_ALPHA, _CHURN, _SHARED = 0.9, 0.03, 0.5
_AGE_SHAPE, _APPEAL_SHAPE, _MOST_APPEAL = 0.7, 1.2, 2000.0
_SCANNED = 0.02


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order; a key has one size. `times` in seconds, or empty where nobody knows."""

    name: str
    keys: list[int]
    sizes: list[int]
    times: list[int] = field(default_factory=list)

    @property
    def files(self) -> dict[int, int]:
        """Every key's size."""
        return dict(zip(self.keys, self.sizes, strict=True))

    @property
    def footprint(self) -> int:
        """Bytes of all files together."""
        return sum(self.files.values())


def load(path: Path) -> Trace:
    """A trace from a file."""
    with numpy.load(path) as data:
        times = data["t"].tolist() if "t" in data.files else []
        return Trace(path.stem, data["k"].tolist(), data["s"].tolist(), times)


def synthetic(requests: int = 60_000, files: int = 15_000, seed: int = 7, days: int = 7) -> Trace:
    """A media app's week, as published traces of such apps look.

    Half of the requests go to a catalogue of `files` (Zipf; day and night have hits of their own,
    and every day some of them change), 40 % to recent uploads (most are forgotten at once, some
    are not), 10 % are uploads. Scans come on top: each night one that reads a stretch of all
    files once, and once a week one that reads all datasets.
    """
    rng = numpy.random.default_rng(seed)
    times = _times(rng, requests, days)
    kind = rng.random(requests)
    uploads, catalogue = kind < 0.1, kind >= 0.5
    fresh = ~uploads & ~catalogue
    total = files + int(uploads.sum())
    sizes, classes = _sizes(rng, total)
    keys = numpy.empty(requests, numpy.int64)
    keys[uploads] = numpy.arange(files, total)
    keys[fresh] = files + _recent(rng, numpy.cumsum(uploads)[fresh], total - files)
    keys[catalogue] = _catalogue(rng, times[catalogue], files)
    born = numpy.concatenate([numpy.full(files, -1.0), times[uploads]])
    for when, scanned in _scans(born, classes, days):
        times, keys = numpy.concatenate([times, when]), numpy.concatenate([keys, scanned])
    order = numpy.argsort(times, kind="stable")
    keys, times = keys[order], times[order].astype(numpy.int64)
    return Trace("synthetic_media", keys.tolist(), sizes[keys].tolist(), times.tolist())


def _times(rng: numpy.random.Generator, count: int, days: int) -> Numbers:
    """Three times as many in the evening as in the morning."""
    minutes = numpy.arange(0, days * DAY + 60, 60)
    rate = numpy.cumsum(1 + 0.5 * numpy.cos(2 * numpy.pi * (minutes / DAY - 20 / 24)))
    return numpy.sort(numpy.interp(rng.random(count) * rate[-1], rate, minutes))


def _sizes(rng: numpy.random.Generator, count: int) -> tuple[Numbers, Numbers]:
    """Bytes and class of each file."""
    share, middle, spread, least, most = numpy.array(_CLASSES).T
    chosen = rng.choice(len(_CLASSES), count, p=share)
    drawn = middle[chosen] * numpy.exp(spread[chosen] * rng.standard_normal(count))
    return numpy.clip(drawn, least[chosen], most[chosen]).astype(numpy.int64), chosen


def _recent(rng: numpy.random.Generator, there: Numbers, uploads: int) -> Numbers:
    """Which upload is read, where `there` of them exist: a walk back along their appeal."""
    appeal = numpy.minimum(_pareto(rng, uploads, _APPEAL_SHAPE), _MOST_APPEAL)
    line = numpy.concatenate([[0.0], numpy.cumsum(appeal)])
    there = numpy.maximum(there, 1)
    back = 3 * appeal.mean() * (_pareto(rng, len(there), _AGE_SHAPE) - 1)
    at = line[there] - back
    # Older than the trace: any of those that exist.
    at = numpy.where(at < 0, rng.random(len(there)) * line[there], at)
    found: Numbers = numpy.searchsorted(line, at, side="right") - 1
    nearest: Numbers = numpy.minimum(found, there - 1)
    return nearest


def _pareto(rng: numpy.random.Generator, count: int, shape: float) -> Numbers:
    drawn: Numbers = (1 - rng.random(count)) ** (-1 / shape)
    return drawn


def _catalogue(rng: numpy.random.Generator, times: Numbers, files: int) -> Numbers:
    """Zipf ranks of two audiences that share half of their favourites."""
    weights = numpy.cumsum(numpy.arange(1, files + 1) ** -_ALPHA)
    ranks = numpy.searchsorted(weights, rng.random(len(times)) * weights[-1])
    by_day = rng.permutation(files)
    by_night = _shuffled(rng, by_day, 1 - _SHARED)
    hour = times / 3600 % 24
    night = rng.random(len(times)) < 0.5 - 0.45 * numpy.cos(2 * numpy.pi * (hour - 14) / 24)
    keys = numpy.empty(len(times), numpy.int64)
    for day in range(int(times[-1] // DAY) + 1 if len(times) else 0):
        today = times // DAY == day
        keys[today & ~night] = by_day[ranks[today & ~night]]
        keys[today & night] = by_night[ranks[today & night]]
        by_day, by_night = _shuffled(rng, by_day, _CHURN), _shuffled(rng, by_night, _CHURN)
    return keys


def _shuffled(rng: numpy.random.Generator, ranking: Numbers, share: float) -> Numbers:
    """The ranking with a share of its places mixed."""
    moved = numpy.flatnonzero(rng.random(len(ranking)) < share)
    mixed = ranking.copy()
    mixed[moved] = ranking[rng.permutation(moved)]
    return mixed


def _scans(born: Numbers, classes: Numbers, days: int) -> list[tuple[Numbers, Numbers]]:
    """When each scan reads which files."""
    found, start = [], 0
    for day in range(days):
        begin = day * DAY + 3 * 3600
        there = int(numpy.searchsorted(born, begin))
        count = int(_SCANNED * there)
        read = (start + numpy.arange(count)) % there
        start = (start + count) % there
        read = read[classes[read] != _DATASETS]
        found.append((numpy.linspace(begin, begin + 7200, len(read)), read))
        if day % 7 == 2:
            read = numpy.flatnonzero(classes[:there] == _DATASETS)
            found.append((numpy.linspace(begin + 7200, begin + 10_800, len(read)), read))
    return found
