"""The offline bounds: against every possible schedule on tiny traces."""

from __future__ import annotations

import random
from itertools import product

import pytest

from benchmarks.bounds import Occupancy, Reuses, feasible, relaxed
from benchmarks.replay import Lru, replay
from benchmarks.traces import Trace, synthetic


def tiny(seed: int, requests: int = 14, files: int = 5) -> Trace:
    rng = random.Random(seed)
    size = {key: rng.randint(1, 9) for key in range(files)}
    keys = [rng.randrange(files) for _ in range(requests)]
    return Trace("tiny", keys, [size[key] for key in keys])


def spans(trace: Trace) -> list[tuple[int, int, int]]:
    """From, to and bytes of each reuse, found the slow way."""
    found, last = [], {}
    for at, (key, size) in enumerate(zip(trace.keys, trace.sizes, strict=True)):
        if key in last:
            found.append((last[key], at, size))
        last[key] = at
    return found


def fits(kept: list[tuple[int, int, int]], length: int, limit: int) -> bool:
    return all(
        sum(size for start, end, size in kept if start <= at < end) <= limit for at in range(length)
    )


def best(trace: Trace, limit: int) -> tuple[float, float]:
    """The most requests, and the most bytes, that any schedule answers."""
    found, hits, parts = spans(trace), 0, 0
    for chosen in product((False, True), repeat=len(found)):
        kept = [span for span, use in zip(found, chosen, strict=True) if use]
        if fits(kept, len(trace.keys), limit):
            hits = max(hits, len(kept))
            parts = max(parts, sum(size for _, _, size in kept))
    return hits / len(trace.keys), parts / sum(trace.sizes)


@pytest.mark.parametrize("seed", range(12))
def test_the_best_schedule_lies_between_the_bounds(seed: int) -> None:
    trace, limit = tiny(seed), 4 + seed
    reuses = Reuses.of(trace)
    objects, parts = best(trace, limit)
    by_object, by_bytes = (feasible(reuses, limit, by) for by in ("object", "bytes"))
    above = relaxed(reuses, limit)
    assert by_object.object_hit_ratio <= objects + 1e-9
    assert by_bytes.byte_hit_ratio <= parts + 1e-9
    assert above.object_hit_ratio >= objects - 1e-9
    assert above.byte_hit_ratio >= parts - 1e-9
    assert max(by_object.peak_ratio, by_bytes.peak_ratio) <= 1.0


def greedy(trace: Trace, limit: int, *, by_room: bool) -> tuple[float, float]:
    """The feasible schedule, found the slow way; its hit ratios."""
    cost = sorted(
        (span[2] * (span[1] - span[0]) if by_room else span[1] - span[0], number, span)
        for number, span in enumerate(sorted(spans(trace), key=lambda s: (trace.keys[s[0]], s[0])))
    )
    kept: list[tuple[int, int, int]] = []
    for _, _, span in cost:
        if fits([*kept, span], len(trace.keys), limit):
            kept.append(span)
    return len(kept) / len(trace.keys), sum(size for _, _, size in kept) / sum(trace.sizes)


@pytest.mark.parametrize("seed", range(1, 13))
def test_reuses_are_accepted_in_their_order(seed: int) -> None:
    trace, limit = tiny(seed, requests=60, files=12), 8 + seed
    reuses = Reuses.of(trace)
    by_object, by_bytes = (feasible(reuses, limit, by) for by in ("object", "bytes"))
    room, length = (greedy(trace, limit, by_room=by_room) for by_room in (True, False))
    assert (by_object.object_hit_ratio, by_object.byte_hit_ratio) == room
    assert (by_bytes.object_hit_ratio, by_bytes.byte_hit_ratio) == length
    assert room != length


def test_the_bound_on_paper() -> None:
    # Reuses: 1 over 3 requests takes 12, 2 over 2 takes 6, 9 over 4 takes 20. A limit of 4 bytes
    # gives 4 x 6 = 24: 1 and 2 fit, 9 would never.
    keys, size = [1, 9, 2, 1, 2, 9], {1: 4, 2: 3, 9: 5}
    reuses = Reuses.of(Trace("paper", keys, [size[key] for key in keys]))
    whole = relaxed(reuses, 4)
    assert whole.object_hit_ratio == pytest.approx(2 / 6)
    assert whole.byte_hit_ratio == pytest.approx((3 + 4) / 24)
    # 3 bytes: both would fit into 18, but 1 is too large. 5 bytes: 12 of the 20 for 9 are left.
    assert relaxed(reuses, 3).object_hit_ratio == pytest.approx(1 / 6)
    part = relaxed(reuses, 5)
    assert part.object_hit_ratio == pytest.approx((2 + 12 / 20) / 6)
    assert part.byte_hit_ratio == pytest.approx((3 + 4 + 5 * 12 / 20) / 24)


def test_occupancy_over_many_blocks() -> None:
    rng = random.Random(5)
    length = 3_000
    plain, blocks = [0] * length, Occupancy(length)
    for _ in range(400):
        start = rng.randrange(length)
        end = rng.randint(start + 1, length)
        size = rng.randint(1, 1_000)
        assert blocks.top(start, end) == max(plain[start:end])
        blocks.add(start, end, size)
        for at in range(start, end):
            plain[at] += size


def test_no_policy_passes_the_bound_and_all_fits_in_a_large_cache() -> None:
    trace = synthetic(requests=3_000, files=600)
    reuses = Reuses.of(trace)
    limit = trace.footprint // 10
    lru, above = replay(Lru(limit), trace.keys, trace.sizes), relaxed(reuses, limit)
    offline = feasible(reuses, limit, "object")
    assert lru.object_hit_ratio < offline.object_hit_ratio < above.object_hit_ratio
    once = 1 - len(trace.files) / len(trace.keys)
    everything = feasible(reuses, trace.footprint, "bytes")
    assert everything.object_hit_ratio == pytest.approx(once)
    assert relaxed(reuses, trace.footprint).object_hit_ratio == pytest.approx(once)
