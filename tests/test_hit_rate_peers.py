"""The caches that are compared with ours behave as the real ones do, or as was published."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.peers import PEERS, Diskcache
from benchmarks.reference import S3Fifo, Sieve, WTinyLfu
from benchmarks.replay import Cache, Lru, replay
from benchmarks.traces import Trace, synthetic


@pytest.fixture(scope="module")
def trace() -> Trace:
    return synthetic(requests=6_000, files=1_500)


def limit_of(trace: Trace) -> int:
    return trace.footprint // 10


def played(cache: Cache, keys: list[int], size: int = 1) -> list[bool]:
    """Hit or miss, for files of one size."""
    return [cache.request(key, size, tick) for tick, key in enumerate(keys)]


def scanned(rng: random.Random, hot: int = 20, rounds: int = 60) -> list[int]:
    """A hot set, and as many files again that are asked for once."""
    keys, once = [], 1_000
    for _ in range(rounds):
        for _ in range(hot):
            keys.append(rng.randrange(hot))
            keys.append(once)
            once += 1
    return keys


@pytest.mark.parametrize(
    "name", ["s3fifo", "sieve", "wtinylfu", "cachetools-lru", "cachetools-lfu"]
)
def test_who_counts_bytes_keeps_the_limit(trace: Trace, name: str) -> None:
    peer = PEERS[name]
    if peer.missing:
        pytest.skip(f"{peer.package} is not installed")
    outcome = replay(peer.make(limit_of(trace), trace), trace.keys, trace.sizes)
    assert 0.9 < outcome.peak_ratio <= 1.0
    assert 0.1 < outcome.object_hit_ratio < 0.8


def test_lru_is_that_of_cachetools(trace: Trace) -> None:
    pytest.importorskip("cachetools")
    theirs = PEERS["cachetools-lru"].make(limit_of(trace), trace)
    ours = Lru(limit_of(trace))
    for tick, (key, size) in enumerate(zip(trace.keys, trace.sizes, strict=True)):
        assert ours.request(key, size, tick) == theirs.request(key, size, tick)
        assert ours.used == theirs.used


def test_theine_counts_entries_and_so_passes_a_limit_in_bytes() -> None:
    pytest.importorskip("theine")
    # Small files first, so that the usual size is small; then large ones, often.
    keys = [*range(400), *[1_000 + n % 30 for n in range(900)]]
    sizes = [1_000] * 400 + [100_000] * 900
    trace = Trace("made", keys, sizes)
    outcome = replay(PEERS["theine"].make(limit_of(trace), trace), keys, sizes)
    assert outcome.peak_ratio > 1.5
    held = PEERS["theine"].make(limit_of(trace), trace)
    held.request(1, 700, 0)
    assert held.used == 700
    for key in range(5_000):
        held.request(key, 700, key)
    assert held.used < 700 * 1_000  # what it let go does not count


@pytest.mark.parametrize("recency", [False, True])
def test_diskcache_culls_as_the_model_says(tmp_path: Path, recency: bool) -> None:
    import diskcache

    rng = random.Random(3)
    size = {key: rng.choice([40_000, 90_000, 400_000]) for key in range(60)}
    keys = [min(59, int(rng.expovariate(1 / 12))) for _ in range(700)]
    limit, hits, most = 3_000_000, [], 0
    policy = "least-recently-used" if recency else "least-recently-stored"
    with diskcache.Cache(str(tmp_path), size_limit=limit, eviction_policy=policy) as real:
        extra = real.volume()  # its database counts
        for key in keys:
            hits.append(real.get(key) is not None)
            if not hits[-1]:
                real.set(key, b"x" * size[key])
            most = max(most, real.volume())
    model = Diskcache(limit - extra, recency=recency)
    guessed = [model.request(key, size[key], tick) for tick, key in enumerate(keys)]
    assert sum(a != b for a, b in zip(hits, guessed, strict=True)) <= 7
    assert 0.3 < sum(hits) / len(hits) < 0.95


def test_diskcache_passes_its_limit() -> None:
    model = Diskcache(1_000, recency=False)
    played(model, list(range(100)), 1)
    assert model.request(200, 5_000, 100) is False
    assert model.used > 4 * model.limit


def test_sieve_on_paper() -> None:
    cache = Sieve(3)
    # a, b, c come in, a and c are asked for again. d: the hand spares a, takes b. e: it goes on
    # and spares c, takes d. f: from the oldest again, a was not asked for since.
    assert played(cache, [1, 2, 3, 1, 3]) == [False, False, False, True, True]
    assert played(cache, [4, 1, 3]) == [False, True, True]
    assert played(cache, [5, 4]) == [False, False]


def test_sieve_is_what_a_list_and_a_hand_do() -> None:
    rng = random.Random(4)
    cache, queue, visited, hand = Sieve(9), [], set(), 0
    for tick in range(3_000):
        key = min(30, int(rng.expovariate(0.12)))
        assert cache.request(key, 1, tick) == (key in queue)
        if key in queue:
            visited.add(key)
            continue
        if len(queue) == 9:
            while queue[hand] in visited:
                visited.discard(queue[hand])
                hand = (hand + 1) % 9
            del queue[hand]
            hand = 0 if hand == 8 else hand  # where it was the newest: from the oldest again
        queue.append(key)


def test_s3fifo_on_paper() -> None:
    cache = S3Fifo(10)
    assert played(cache, [1, 1, 1, *range(10, 19)]) == [False, True, True, *[False] * 9]
    # Full. 1 is the oldest of the small queue, but was asked for twice: it moves to the main
    # queue, and 10 leaves. It is remembered, so when it comes again it goes there too.
    assert played(cache, [20, 1, 10]) == [False, True, False]
    # Now a scan cannot take them.
    assert played(cache, [*range(100, 130), 1, 10]) == [*[False] * 30, True, True]


def test_wtinylfu_lets_nobody_in_who_is_asked_for_less() -> None:
    cache = WTinyLfu(100)
    popular = [key for _ in range(4) for key in range(10)]
    assert played(cache, popular, 9)[10:] == [True] * 30
    # Files asked for once never take the place of those asked for four times.
    assert not any(played(cache, list(range(100, 150)), 9))
    assert all(played(cache, list(range(10)), 9))
    # Nor does one that is asked for eight times, where two of them, five times each, would leave.
    assert not any(played(cache, [500] * 8, 27))
    assert all(played(cache, list(range(10)), 9))
    # All were asked for again, but a fifth of the room is for those on probation.
    assert len(cache._protected) == 8


def test_a_scan_costs_the_modern_ones_less_than_lru() -> None:
    keys = scanned(random.Random(2))
    lru = sum(played(Lru(30), keys))
    for cache in (Sieve(30), S3Fifo(30), WTinyLfu(30)):
        assert sum(played(cache, keys)) > 1.15 * lru
