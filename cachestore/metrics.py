"""Prometheus metrics of a store: a hook over its events, and its state when it is asked.

Each process counts its own; the state of cache and spool is the same in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary, ref

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from cachestore import events
from cachestore.locks import ForkLock
from cachestore.store import CacheStore

CLASS_A = ("put", "list", "create_upload", "upload_part", "complete_upload")
"""Requests that change or list. Deleting and aborting cost nothing; all others are class B."""

FREE = ("delete", "delete_many", "abort_upload")
PRICE_A, PRICE_B = 4.5e-6, 0.36e-6
"""Dollars for a request of either class at R2's standard storage (2026-11)."""

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0)
_Values = dict[tuple[str, ...], Any]
_HERE = {"pending": "pending", "local": "local", "fresh": "hit", "partial": "hit"}


def billing_class(operation: str) -> str:
    """`A`, `B` or `free`, as R2 bills a request."""
    return "A" if operation in CLASS_A else "free" if operation in FREE else "B"


class Metrics:
    """Counts from now on. `close` ends it; `text()` is what Prometheus reads."""

    def __init__(self, store: CacheStore, registry: CollectorRegistry | None = None) -> None:
        """`registry`: where to register; None for one of its own."""
        self.registry = registry or CollectorRegistry()
        self._store = ref(store)
        self._make()
        self.registry.register(_State(store))
        self.close: Callable[[], None] = store.subscribe(self._take)

    def _make(self) -> None:
        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"cachestore_{name}", what, labels, registry=self.registry)

        def histogram(name: str, what: str, *labels: str) -> Histogram:
            full = f"cachestore_{name}_seconds"
            return Histogram(full, what, labels, registry=self.registry, buckets=_SECONDS)

        self._reads = counter("reads", "Reads by outcome", "outcome")
        self._bytes = counter("read_bytes", "Bytes of reads by outcome", "outcome")
        self._misses = histogram("miss", "From asking for a file to having it, at a miss")
        self._calls = counter("remote_requests", "Requests", "operation", "status", "billing")
        self._call_time = histogram("remote_request", "Time of requests", "operation")
        self._saved = counter("saved_dollars", "Price of the requests that hits made needless")
        self._spent = counter("spent_dollars", "Price of the requests that were made", "billing")
        self._evicted = counter("evictions", "Copies that left, by cause", "cause")
        self._evicted_bytes = counter("evicted_bytes", "Their bytes", "cause")
        self._refused = counter("refused", "Files handed out and not kept, by cause", "cause")
        self._revalidated = counter("revalidations", "Questions about copies", "outcome")
        self._writes = counter("writes", "Acknowledged operations", "operation")
        self._uploads = counter("uploads", "Ends of tries to upload, by outcome", "outcome")
        self._uploaded = counter("uploaded_bytes", "Bytes that the bucket has taken")
        self._upload_time = histogram("upload", "Time of uploads")
        self._troubles = counter("troubles", "What was worked around, by place", "where")

    def text(self) -> bytes:
        """All metrics in Prometheus' own format."""
        if (store := self._store()) is not None:
            store.stats()  # before the counters are read: what the hot map counted
        return generate_latest(self.registry)

    def _take(self, event: events.Event) -> None:
        match event:
            case events.Hit(kind=kind, size=size, count=count):
                outcome = _HERE.get(kind, "stale")
                self._reads.labels(outcome).inc(count)
                self._bytes.labels(outcome).inc(size * count)
                self._saved.inc(count * PRICE_B if outcome in ("hit", "stale") else 0)
            case events.Miss(size=size, seconds=seconds):
                self._reads.labels("miss").inc()
                self._bytes.labels("miss").inc(size)
                self._misses.observe(seconds)
            case events.Fetched(size=size):
                self._bytes.labels("miss").inc(size)
            case events.Absent(negative=negative):
                self._reads.labels("negative" if negative else "absent").inc()
                self._saved.inc(PRICE_B if negative else 0)
            case events.RemoteCall(operation=operation, status=status, seconds=seconds):
                billing = billing_class(operation)
                self._calls.labels(operation, status, billing).inc()
                self._spent.labels(billing).inc({"A": PRICE_A, "B": PRICE_B}.get(billing, 0.0))
                self._call_time.labels(operation).observe(seconds)
            case events.Evicted(size=size, reason=reason):
                self._evicted.labels(reason).inc()
                self._evicted_bytes.labels(reason).inc(size)
            case events.Refused(reason=reason):
                self._refused.labels(reason).inc()
            case events.Revalidated(outcome=outcome):
                self._revalidated.labels(outcome).inc()
            case events.Trouble(where=where):
                self._troubles.labels(where).inc()
            case _:
                self._take_write(event)

    def _take_write(self, event: events.Event) -> None:
        match event:
            case events.Spooled(operation=operation):
                self._writes.labels(operation).inc()
            case events.Uploaded(size=size, seconds=seconds):
                self._uploads.labels("uploaded").inc()
                self._uploaded.inc(size)
                self._upload_time.observe(seconds)
            case events.UploadFailed():
                self._uploads.labels("retried").inc()
            case events.Parked():
                self._uploads.labels("parked").inc()
            case events.Superseded():
                self._uploads.labels("superseded").inc()


def metrics_of(store: CacheStore) -> Metrics:
    """The store's own, which count since they were first asked for."""
    with _guard:
        if store not in _counting:
            _counting[store] = Metrics(store)
        return _counting[store]


_counting: WeakKeyDictionary[CacheStore, Metrics] = WeakKeyDictionary()
_guard = ForkLock()


class _State:
    """What can be read off the store at any time."""

    def __init__(self, store: CacheStore) -> None:
        self._store = ref(store)

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked of the store when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        store = self._store()
        if store is None:
            return
        rate = store.stats().hit_rate  # what the hot map counted becomes events
        health = store.health()
        cache, pending = health["cache"], health["pending"]
        bucket = health["bucket"] or {}
        for name, what, value in (
            ("cache_bytes", "Bytes that clean copies take on disk", cache["bytes"]),
            ("cache_max_bytes", "The limit for that", cache["max_bytes"]),
            ("cache_entries", "Clean copies", cache["entries"]),
            ("cache_pinned", "Copies that are never evicted", cache["pinned"]),
            ("hit_ratio", "Share of this process's reads that were answered from here", rate),
            ("spool_operations", "Operations that the bucket does not have", pending["count"]),
            ("spool_bytes", "Their bytes", pending["bytes"]),
            ("spool_oldest_seconds", "Age of the oldest of them", pending["oldest_seconds"]),
            ("spool_parked", "Those that wait for a person", pending["parked"]),
            (
                "uploader_progress_seconds",
                "Since an upload last ended",
                health["uploader"]["progress_age"],
            ),
            ("bucket_bytes", "What the bucket held when it was last listed", bucket.get("bytes")),
            ("bucket_objects", "Objects in it then", bucket.get("objects")),
            ("degraded", "1 while the remote cannot be used", int(health["degraded"])),
            ("alerts", "Health rules that are broken", len(health["alerts"])),
        ):
            if value is not None:
                yield _gauge(name, what, {(): value})
        checks: _Values = {(each["name"],): int(each["ok"]) for each in health["checks"]}
        yield _gauge("check_ok", "1 where the health rule holds", checks, "check")


def _gauge(name: str, what: str, values: _Values, *labels: str) -> Metric:
    made = GaugeMetricFamily(f"cachestore_{name}", what, labels=labels)
    for names, value in values.items():
        made.add_metric(names, float(value))
    return made
