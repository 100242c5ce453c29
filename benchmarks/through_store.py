"""A short replay through a real store, with real files, beside the replay of metadata alone.

If the two agree, what the long replays say of a policy is what an app gets.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, get_args

from benchmarks.lab import (
    USUAL,
    Answered,
    Disk,
    Paced,
    ask,
    bucket,
    options_for,
    small,
    store_of,
)
from benchmarks.replay import POLICIES, Outcome, replay
from benchmarks.screen import Tell, progress, say, table
from benchmarks.traces import Trace
from cachestore.options import Eviction
from cachestore.testing.clock import FakeClock

REQUESTS = 12_000
AGREED = 0.01
_LEAST_FILES = 64


@dataclass(frozen=True, slots=True)
class Both:
    """The same requests through the store and through metadata; bytes on disk over the limit."""

    policy: str
    fraction: float
    store: Answered
    metadata: Outcome
    peak_ratio: float
    passing_ratio: float

    @property
    def apart(self) -> float:
        """How far the ratios are from each other, in objects or in bytes."""
        return max(
            abs(self.store.object_hit_ratio - self.metadata.object_hit_ratio),
            abs(self.store.byte_hit_ratio - self.metadata.byte_hit_ratio),
        )


def both(
    root: Path, trace: Trace, fraction: float, policy: Any, objective: Any, tell: Tell
) -> Both:
    """Replay a trace of `lab.small` below `root`, through a store and without one.

    In the store's time downloads take what the replay reckons with.
    """
    limit = int(trace.footprint * fraction)
    options = options_for(root, limit, eviction=policy, objective=objective)
    disk, clock = Disk(options.cache_dir), FakeClock()
    rooms: list[int] = []

    def look(done: int) -> None:
        disk.look()
        rooms.append(store.core.room.limits().bytes)
        tell(done)

    with store_of(options, Paced(bucket(trace), clock), clock) as store:
        ask(store, trace.keys, look)
        answered = Answered.by(store)
    # The store's limit is for all that is on disk; metadata has files alone.
    files = int(median(rooms))
    metadata = replay(POLICIES[policy](files, objective), trace.keys, trace.sizes)
    return Both(policy, fraction, answered, metadata, disk.copies / limit, disk.passing / limit)


def compare(
    traces: Sequence[Trace],
    fractions: Sequence[float],
    policies: Sequence[str],
    objective: Any,
    requests: int = REQUESTS,
) -> list[Both]:
    """All policies that the store has, on the traces' beginnings; those that are apart exit."""
    chosen = [policy for policy in policies if policy in get_args(Eviction)]
    found: list[Both] = []
    total = len(traces) * len(fractions) * len(chosen) * requests
    with progress("through the store", total) as tell:
        for trace in traces:
            short = small(trace, requests)
            mine: list[Both] = []
            for fraction in fractions:
                if short.footprint * fraction < _LEAST_FILES * USUAL:
                    say(f"{trace.name}, {fraction:.1%}: left out, the cache would hold few files")
                    continue
                for policy in chosen:
                    with tempfile.TemporaryDirectory(prefix="cachestore-replay-") as folder:
                        one = both(Path(folder), short, fraction, policy, objective, tell)
                    mine.append(one)
            if mine:
                _show(trace.name, len(short.keys), mine)
            found += mine
    wrong = [one for one in found if one.apart > AGREED or one.peak_ratio > 1]
    if wrong:
        raise SystemExit(f"{len(wrong)} of {len(found)} replays differ, or passed their limit")
    return found


def _show(name: str, requests: int, found: Sequence[Both]) -> None:
    lines = []
    for one in found:
        store, metadata = one.store, one.metadata
        lines.append(
            [
                f"{one.policy} {one.fraction:.1%}",
                f"{store.object_hit_ratio * 100:.1f}/{store.byte_hit_ratio * 100:.1f}",
                f"{metadata.object_hit_ratio * 100:.1f}/{metadata.byte_hit_ratio * 100:.1f}",
                f"{one.apart * 100:.2f}{'!' if one.apart > AGREED else ''}",
                f"{one.peak_ratio:.3f}{'!' if one.peak_ratio > 1 else ''}",
                f"{one.passing_ratio:.2f}",
            ]
        )
    columns = ["policy, size", "store %", "metadata %", "points apart", "disk/limit", "transit"]
    table(f"{name}: {requests} requests through a real store", columns, lines)
