"""Prometheus metrics: what is counted, and that nothing is kept alive for it."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from store_rig import make_options, store_of, until

from cachestore.errors import NotFound
from cachestore.metrics import PRICE_A, PRICE_B, Metrics, billing_class, metrics_of
from cachestore.remote.memory import MemoryRemote
from cachestore.testing.contract_tools import put as upload
from cachestore.testing.remotes import FaultyRemote

Values = dict[str, dict[tuple[str, ...], float]]


def values(metrics: Metrics) -> Values:
    """Samples by name, and then by the values of their labels."""
    found: Values = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_a_day_in_the_life_of_a_store(tmp_path: Path) -> None:
    bucket = MemoryRemote()
    upload(bucket, "a", b"12345")
    faults = FaultyRemote(bucket)
    options = make_options(tmp_path, mode="remote", retry_base=0.01, retry_cap=0.01)
    with store_of(options, remote=faults) as store:
        metrics = metrics_of(store)
        assert metrics_of(store) is metrics
        for _ in range(4):
            store.get("a")
        with pytest.raises(NotFound):
            store.get("none")
        with pytest.raises(NotFound):
            store.get("none")
        faults.fail("put", times=1)
        store.put("b", b"1234567")
        assert store.flush(30).done
        store.invalidate("a")
        found = values(metrics)
    reads = found["cachestore_reads_total"]
    assert reads == {("hit",): 3, ("miss",): 1, ("absent",): 1, ("negative",): 1}
    assert found["cachestore_read_bytes_total"] == {("hit",): 15, ("miss",): 5}
    assert found["cachestore_hit_ratio"] == {(): 0.75}
    # Three hits and one answer from what was remembered.
    assert found["cachestore_saved_dollars_total"][()] == pytest.approx(4 * PRICE_B)
    spent = found["cachestore_spent_dollars_total"]
    assert spent["A",] == pytest.approx(2 * PRICE_A)
    calls = found["cachestore_remote_requests_total"]
    class_b = sum(count for labels, count in calls.items() if labels[0] == "B")
    assert spent["B",] == pytest.approx(class_b * PRICE_B)
    assert found["cachestore_uploads_total"] == {("uploaded",): 1, ("retried",): 1}
    assert found["cachestore_uploaded_bytes_total"] == {(): 7}
    assert found["cachestore_evictions_total"] == {("invalid",): 1}
    assert calls["A", "put", "ok"] == 1
    assert calls["A", "put", "RemoteUnavailable"] == 1
    assert calls["B", "get", "ok"] == 1
    assert found["cachestore_spool_operations"] == {(): 0}
    assert found["cachestore_cache_entries"] == {(): 1}
    assert found["cachestore_miss_seconds_count"] == {(): 1}
    assert found["cachestore_spool_parked"] == {(): 0}
    assert found["cachestore_check_ok"]["queue",] == 1
    assert found["cachestore_check_ok"]["uploads",] == 0, "one try failed"
    assert found["cachestore_alerts"] == {(): 1}
    assert found["cachestore_uploader_progress_seconds"][()] >= 0


def test_the_bucket_is_a_metric_once_it_was_counted(tmp_path: Path) -> None:
    bucket = MemoryRemote()
    upload(bucket, "a", b"12345")
    options = make_options(tmp_path, mode="remote", admit_max_bytes=4)
    with store_of(options, remote=bucket) as store:
        metrics = metrics_of(store)
        assert store.read("a") == b"12345"
        store.head("a")
        found = until(lambda: "cachestore_bucket_bytes" in (v := values(metrics)) and v)
        assert found["cachestore_bucket_bytes"] == {(): 5}
        assert found["cachestore_bucket_objects"] == {(): 1}
        assert found["cachestore_refused_total"] == {("size",): 1}


def test_what_waits_is_seen(tmp_path: Path) -> None:
    faults = FaultyRemote(MemoryRemote())
    faults.down()
    with store_of(make_options(tmp_path, mode="remote"), remote=faults) as store:
        metrics = Metrics(store)
        store.put("a", b"12345")
        found = values(metrics)
        assert found["cachestore_spool_operations"] == {(): 1}
        assert found["cachestore_spool_bytes"] == {(): 5}
        assert found["cachestore_spool_oldest_seconds"][()] > 0
        metrics.close()
        store.put("b", b"x")
        assert values(metrics)["cachestore_writes_total"] == {("put",): 1}
        store.close(drain=0)


def test_metrics_keep_no_store_alive(tmp_path: Path) -> None:
    store = store_of(make_options(tmp_path, mode="local"))
    metrics_of(store)
    store.close()
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("operation", "billing"),
    [
        ("put", "A"), ("list", "A"), ("upload_part", "A"), ("delete", "free"), ("get", "B"),
        ("head", "B"),
    ],
)  # fmt: skip
def test_how_requests_are_billed(operation: str, billing: str) -> None:
    assert billing_class(operation) == billing
