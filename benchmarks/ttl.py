"""A TTL of a day over a week in which nothing changes in the bucket: what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.lab import FLUSHED, Answered, bucket, name_of, options_for, small, store_of
from benchmarks.rig import alone, publish
from benchmarks.screen import Tell, progress
from benchmarks.traces import DAY, Trace, synthetic
from cachestore.testing.clock import FakeClock
from cachestore.testing.remotes import CountingRemote

REQUESTS, FILES = 3_000, 900
LIMITS = {"30 %": 0.3, "all": 1.0}
TTLS: dict[str, float | None] = {"none": None, "24 h": float(DAY)}
TARGET = "no hit lost; a cache that deletes what expires would lose those that were kept"


def measure(
    root: Path, trace: Trace, fraction: float, ttl: float | None, tell: Tell = lambda done: None
) -> dict[str, Any]:
    """The trace at its own pace, on a clock of its own."""
    remote, clock = CountingRemote(bucket(trace)), FakeClock()
    limit = int(trace.footprint * fraction)
    options = options_for(root, limit, ttl=ttl, eviction="lru", janitor_interval=float(DAY))
    before = trace.times[0]
    with store_of(options, remote, clock) as store:
        for number, (key, when) in enumerate(zip(trace.keys, trace.times, strict=True)):
            clock.advance(float(when - before))
            before = when
            store.get(name_of(key))
            if number % FLUSHED == 0:
                store.stats()
                tell(FLUSHED)
        answered = Answered.by(store)
        asked = store.stats().revalidations
    return {
        "objects %": answered.object_hit_ratio,
        "bytes %": answered.byte_hit_ratio,
        "downloads": remote.calls["get"] - asked,
        "conditional": asked,
        "kept %": asked / answered.requests,
    }


def run(root: Path) -> None:
    """Print, and write, hit ratios and conditional requests with and without a TTL."""
    trace = small(synthetic(REQUESTS, FILES), 2 * REQUESTS)
    rows = []
    with progress("a week with a TTL", len(trace.keys) * len(LIMITS) * len(TTLS)) as tell:
        for size, fraction in LIMITS.items():
            for name, ttl in TTLS.items():
                found = measure(root / f"{size} {name}", trace, fraction, ttl, tell)
                rows.append({"cache": size, "TTL": name, **found})
    publish("ttl", "A TTL of 24 h, a week in which nothing changes", rows, TARGET)


if __name__ == "__main__":
    alone(run)
