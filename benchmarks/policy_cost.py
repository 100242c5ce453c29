"""What the eviction policy costs: for a hit, for an eviction, and for hits beside its work.

`python -m benchmarks.policy_cost [--full]`: on 10^5 copies, or on 10^6.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.lab import BLOCK, bucket, name_of, options_for, store_of
from benchmarks.rig import alone, publish
from benchmarks.screen import Tell, progress
from benchmarks.traces import Trace, synthetic
from cachestore import CacheStore
from cachestore.local.catalog import Catalog
from cachestore.local.catalog_rows import Row

QUICK, FULL = 100_000, 1_000_000
HITS, BATCH, EVICTIONS = 20_000, 500, 2_000
PACE = 0.0005
LOOKS = 2_000
TARGET = (
    "10 µs a hit, amortised; 300 µs an eviction; a hot hit's p99 beside the policy's work: 1 ms"
)
_HUGE = 1 << 60
_MANY = 10_000_000
_REAL = Trace("hot", list(range(50)), [BLOCK] * 50)
_JANITOR = "cachestore-janitor"


def row_of(key: int) -> Row:
    """A row without a file: what is measured never opens it."""
    digest = hashlib.sha256(b"%d" % key).hexdigest()
    now, size = time.time(), BLOCK * random.Random(key).randint(1, 9)
    return Row(
        key=f"made/{key}", file=f"{digest[:2]}/{digest}-{key:016x}.bin", size=size, mtime_ns=1,
        inode=1, allocated=size, etag="e", sha256=None, content_type="audio/wav", metadata={},
        cache_control=None, modified=now, validated=now, used=now, uses=1, durable=True,
    )  # fmt: skip


def filled(catalog: Catalog, count: int, tell: Tell) -> None:
    """`count` copies, some of which were read often."""
    batches = _batches(count)
    for key in range(count):
        catalog.admit(row_of(key), max_bytes=_HUGE)
        if key % BATCH == 0:
            catalog.touch(next(batches))
            catalog.tend(lambda: None)
            tell(BATCH)


def _batches(count: int) -> Iterator[dict[str, tuple[int, float]]]:
    """Counted hits as the janitor hands them over: a media app's, on `count` copies."""
    keys = itertools.cycle(key % count for key in synthetic().keys)
    while True:
        hits = Counter(itertools.islice(keys, BATCH))
        yield {f"made/{key}": (times, time.time()) for key, times in hits.items()}


def _due(catalog: Catalog) -> None:
    """So many requests that the next look finds a refit due, whatever the policy's rhythm."""
    catalog.touch({"made/1": (_MANY, time.time())})


def _timed(work: Callable[[], object]) -> float:
    """Microseconds of processor time."""
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1e6


def for_a_hit(store: CacheStore, count: int, tell: Tell) -> Iterator[tuple[str, float]]:
    """The hit itself, and its share of the batches and refits behind so many hits.

    As many hits as there are copies: some refits, and some times that reads are entered.
    """
    catalog, key = store.core.catalog, name_of(0)
    store.get(key)
    yield "hit", _timed(lambda: [store.get(key) for _ in range(HITS)]) / HITS
    batches = list(itertools.islice(_batches(count), max(HITS, count) // BATCH))

    def work() -> None:
        for batch in batches:
            catalog.touch(batch)
            catalog.tend(lambda: None)
            tell(BATCH)

    yield "its share of batches and refits", _timed(work) / (len(batches) * BATCH)


def for_an_eviction(catalog: Catalog, count: int) -> Iterator[tuple[str, float]]:
    """One at a time, beyond what a newcomer costs anyway; and many, as after a change of limits."""
    rows = [row_of(count + number) for number in range(2 * EVICTIONS)]
    gone = 0

    def admissions(some: list[Row], limit: int) -> None:
        nonlocal gone
        for row in some:
            gone += len(catalog.admit(row, max_bytes=limit).evicted)

    roomy = _timed(lambda: admissions(rows[:EVICTIONS], _HUGE))
    yield "admission where there is room", roomy / EVICTIONS
    used, _, _ = catalog.totals()
    full = _timed(lambda: admissions(rows[EVICTIONS:], used))
    yield "admission where there is none", full / EVICTIONS
    yield "eviction for a newcomer", (full - roomy) / max(1, gone)
    used, entries, _ = catalog.totals()
    took = _timed(lambda: catalog.remove_many(catalog.worst(used // 20, 0)))
    yield "eviction of a twentieth", took / max(1, entries - catalog.totals()[1])


def beside(store: CacheStore, work: Callable[[], object]) -> float:
    """Microseconds that 99 of 100 hot hits stay below while a janitor's thread does `work`."""
    done = threading.Event()

    def busy() -> None:
        work()
        done.set()

    key = name_of(0)
    store.pin(key)
    store.get(key)
    times: list[float] = []
    thread = threading.Thread(target=busy, name=_JANITOR)
    thread.start()
    while not (done.is_set() and times):
        time.sleep(PACE)
        start = time.perf_counter()
        store.get(key)
        times.append(time.perf_counter() - start)
    thread.join()
    return sorted(times)[int(len(times) * 0.99)] * 1e6


def waits(store: CacheStore) -> Iterator[tuple[str, float]]:
    """A hot hit's p99 beside nothing, a refit, and an eviction of half of all."""
    yield "hot hit's p99, idle", beside(store, lambda: time.sleep(PACE * LOOKS))
    _due(store.core.catalog)
    yield "hot hit's p99, refit", beside(store, store.stats)
    yield "hot hit's p99, mass eviction", beside(store, store.clean)


def rows_for(root: Path, count: int, tell: Tell) -> list[dict[str, Any]]:
    """Every figure in microseconds, on a catalog of `count` copies."""
    remote = bucket(_REAL)
    found: dict[str, float] = {}
    options = options_for(root, _HUGE, janitor_interval=1e9)
    with store_of(options, remote) as store:
        filled(store.core.catalog, count, tell)
        shares = dict(for_a_hit(store, count, tell))
        found |= shares
        found["a hit, amortised"] = sum(shares.values())
        found |= dict(for_an_eviction(store.core.catalog, count))
        used, _, _ = store.core.catalog.totals()
    with store_of(options_for(root, used // 2, janitor_interval=1e9), remote) as store:
        found |= dict(waits(store))
    return [{"what": name, "copies": count, "µs": took} for name, took in found.items()]


def measure(root: Path, count: int = QUICK) -> None:
    """Print, and write, what the policy costs."""
    with progress("filling and reading a catalog", count + max(HITS, count)) as tell:
        rows = rows_for(root, count, tell)
    publish("policy_cost", "What the eviction policy costs", rows, TARGET)


def run(root: Path) -> None:
    """On the quick number of copies."""
    measure(root)


if __name__ == "__main__":
    alone(lambda root: measure(root, FULL if "--full" in sys.argv[1:] else QUICK))
