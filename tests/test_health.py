"""Health: the rules, the windows they look at, and counting the bucket."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from disk_rig import CHANGING, FOREVER, BrokenDisk
from fastapi import FastAPI
from starlette.testclient import TestClient
from store_rig import make_options, store_of, until

from cachestore.errors import CacheStoreError, Rejected, RemoteRefused
from cachestore.events import UploadFailed
from cachestore.policy.alerts import Readings, judge
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.clock import FakeClock, ShiftedClock
from cachestore.testing.contract_tools import put as upload
from cachestore.testing.remotes import CountingRemote, FaultyRemote
from cachestore.web.fastapi import build_router

GB = 1_000_000_000


def broken(root: Path, readings: Readings, **options: Any) -> set[str]:
    return {each.name for each in judge(readings, make_options(root, **options)) if not each.ok}


@pytest.mark.parametrize(
    ("readings", "options", "names"),
    [
        ({}, {}, set()),
        ({"cache_bytes": 5 * GB}, {}, set()),
        ({"cache_bytes": 5 * GB + 1}, {}, {"cache"}),
        ({"cache_bytes": 1001}, {"cache_max_bytes": 1000}, {"cache"}),
        ({"cache_bytes": 6 * GB}, {"alert_cache_bytes": 9 * GB, "cache_max_bytes": 9 * GB}, set()),
        ({"spool_bytes": 5 * GB}, {}, set()),
        ({"spool_bytes": 5 * GB + 1}, {}, {"spool"}),
        ({"spool_bytes": 899}, {"spool_max_bytes": 1000}, set()),
        ({"spool_bytes": 900}, {"spool_max_bytes": 1000}, {"spool"}),
        ({"queued": 100}, {}, set()),
        ({"queued": 101}, {}, {"queue"}),
        ({"hits": 49, "misses": 51}, {}, {"misses"}),
        ({"hits": 50, "misses": 50}, {}, set()),
        ({"hits": 0, "misses": 99}, {}, set()),
        ({"hits": 0, "misses": 10}, {"alert_miss_requests": 10}, {"misses"}),
        ({"hits": 0, "misses": 0}, {"alert_miss_requests": 0, "alert_miss_rate": 0.0}, set()),
        ({"parked": 1}, {}, {"uploads"}),
        ({"parked": 1, "failures": (9, 0)}, {"alert_failed_uploads": 0}, set()),
        ({"failures": (1, 0)}, {}, {"uploads"}),
        ({"failures": (3, 3)}, {}, set()),
        ({"failures": (4, 3)}, {}, {"uploads"}),
        ({"failures": (4, 3)}, {"alert_failed_uploads": 5}, set()),
        ({"remote": "closed"}, {}, set()),
        ({"remote": "open", "remote_error": "no"}, {}, {"remote"}),
        ({"stalled": 9.0}, {}, {"uploader"}),
        ({}, {"degraded": True}, {"mode"}),
        ({"refusal": "spool: full"}, {}, {"puts"}),
    ],
)
def test_the_rules(
    tmp_path: Path, readings: dict[str, Any], options: dict[str, Any], names: set[str]
) -> None:
    assert broken(tmp_path, Readings(**readings), **options) == names


# -- windows -------------------------------------------------------------------------------------


@pytest.fixture
def bucket() -> MemoryRemote:
    made = MemoryRemote()
    for number in range(60):
        upload(made, f"{number}", b"12345")
    return made


@pytest.fixture
def store(tmp_path: Path, bucket: MemoryRemote) -> Iterator[CacheStore]:
    options = make_options(tmp_path, mode="remote", bucket_count_interval=0.0)
    with store_of(options, remote=bucket, clock=ShiftedClock()) as made:
        yield made


def clock_of(store: CacheStore) -> ShiftedClock:
    clock = store.core.clock
    assert isinstance(clock, ShiftedClock)
    return clock


def alerting(store: CacheStore) -> set[str]:
    return {each["name"] for each in store.health()["checks"] if not each["ok"]}


def detail(store: CacheStore, name: str) -> str:
    return next(str(e["detail"]) for e in store.health()["checks"] if e["name"] == name)


def test_misses_count_for_a_quarter_of_an_hour(store: CacheStore) -> None:
    for number in range(60):
        store.get(f"{number}")
    assert alerting(store) == set(), "60 are not enough to tell"
    # Busy, a copy may not be kept, and the janitor may hold a sum for a moment.
    for number in range(50):
        store.get(f"{number}")
    until(lambda: "of 110 reads in the last 15 minutes" in detail(store, "misses"))
    health = store.health()
    assert health["alerts"] == [detail(store, "misses")]
    assert health["status"] == "degraded"
    assert not health["degraded"]
    for number in range(50):
        store.get(f"{number}")
    until(lambda: alerting(store) == set(), "hits to count, hot ones too")
    store.core.events.emit(UploadFailed("x", "id", "no", 1, 1.0))
    clock_of(store).advance(960.0)
    store.get("0")
    until(lambda: "of 1 reads" in detail(store, "misses"))
    missed = [each for each in store.minutes(3600) if each.what == "miss"]
    assert 60 <= sum(each.count for each in missed) < 70
    assert all(each.bytes == 5 * each.count for each in missed)
    clock_of(store).advance(2 * 3600.0)
    store.get("0")
    store.clean()
    until(lambda: {each.what for each in store.minutes(24 * 3600.0)} == {"hit"}, "an hour is kept")


def test_failed_uploads_that_grow_in_number(store: CacheStore) -> None:
    def fail(times: int) -> None:
        for _ in range(times):
            store.core.events.emit(UploadFailed("x", "id", "no", 1, 1.0))

    fail(2)
    assert alerting(store) == {"uploads"}
    clock_of(store).advance(960.0)
    fail(2)
    assert alerting(store) == set(), "as many as before"
    fail(1)
    assert alerting(store) == {"uploads"}
    clock_of(store).advance(960.0)
    assert alerting(store) == set()


def test_a_parked_upload_is_an_alert_in_every_process(tmp_path: Path) -> None:
    faults = FaultyRemote(MemoryRemote())
    options = make_options(tmp_path, mode="remote", bucket_count_interval=0.0)
    with store_of(options, remote=faults) as store, store_of(options, remote=faults) as other:
        faults.fail("put", times=1, error=lambda: Rejected("no", status=400))
        store.put("a", b"x")
        for each in (store, other):
            health = until(lambda each=each: (h := each.health())["pending"]["parked"] and h)
            assert "parked uploads, which wait for a person: 1" in health["alerts"]
        store.retry()
        none = {"count": 0, "bytes": 0, "parked": 0, "oldest_seconds": 0.0}
        until(lambda: store.health()["pending"] == none)
        for each in (store, other):
            uploader = until(
                lambda each=each: (h := each.health()["uploader"])["progress_age"] is not None and h
            )
            assert uploader["progress_age"] < 120
            assert uploader["leader_pid"] == os.getpid()


def test_all_processes_count_together(tmp_path: Path, bucket: MemoryRemote) -> None:
    clock = FakeClock()
    options = make_options(tmp_path, mode="remote", bucket_count_interval=0.0)
    first = store_of(options, remote=bucket, clock=clock)
    second = store_of(options, remote=bucket, clock=clock)
    first.get("1")
    second.get("2")
    second.get("2")
    assert [(m.what, m.count) for m in second.minutes()] == [("hit", 1), ("miss", 1)]
    for each in (first, second):
        each.stats()  # the janitor does so every few seconds
    for each in (first, second):
        assert [(m.what, m.count) for m in each.minutes()] == [("hit", 1), ("miss", 2)]
    second.close()
    clock.jump(-1800.0)
    first.get("3")
    assert [(m.what, m.count) for m in first.minutes()] == [("miss", 1)], "not what is to come"
    first.close()


def test_without_a_catalog_a_process_has_its_own(store: CacheStore) -> None:
    store.get("1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.core.catalog, "change", lambda work, otherwise, **_: otherwise)
        patch.setattr(store.core.catalog, "ask", lambda work, otherwise: otherwise)
        store.stats()
        assert [(m.what, m.count) for m in store.minutes()] == [("miss", 1)]
    store.stats()
    assert [(m.what, m.count) for m in store.minutes()] == [("miss", 1)]


# -- what it tells -------------------------------------------------------------------------------


def test_a_healthy_store_tells_of_itself(store: CacheStore) -> None:
    store.get("1")
    health = store.health()
    assert health["services"] == {"r2_storage": "enabled"}
    assert (health["status"], health["alerts"], health["mode"]) == ("healthy", [], "remote")
    assert [each["name"] for each in health["checks"]] == [
        "puts", "mode", "remote", "uploader", "uploads", "queue", "spool", "cache", "misses",
    ]  # fmt: skip
    assert health["folders"]["spool"] == str(store.options.spool_dir)
    assert health["bucket"] is None, "counting is off"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("mode", ["remote", "local"])
def test_only_a_store_that_takes_no_puts_answers_503(tmp_path: Path, mode: Any, code: int) -> None:
    disk, remote = BrokenDisk(), FaultyRemote(MemoryRemote())
    parts = {"remote": remote} if mode == "remote" else {}
    options = make_options(tmp_path, mode=mode, bucket_count_interval=0.0)
    with store_of(options, files=disk, clock=(clock := ShiftedClock()), **parts) as store:
        app = FastAPI()
        app.include_router(build_router(store))
        client = TestClient(app)

        def status() -> tuple[int, str]:
            clock.advance(10.0)
            got = client.get("/health")
            return got.status_code, got.json()["status"]

        store.put("a", b"x")
        assert status() == (200, "healthy")
        remote.down()
        disk.fail(options.cache_dir, code, times=FOREVER)
        assert status()[0] == 200, "neither the bucket nor the cache is needed"
        broken = options.spool_dir if mode == "remote" else options.local_dir
        disk.fail(broken, code, times=FOREVER, calls=CHANGING)
        with pytest.raises(CacheStoreError):
            store.put("b", b"x")
        assert status() == (503, "failing")
        assert os.strerror(code) in store.health()["alerts"][0]
        disk.mend()
        assert status()[0] == 200
        store.put("b", b"x")
        assert not list(broken.rglob(".probe*"))
        store.close(drain=0)


def test_local_mode_has_no_bucket(tmp_path: Path) -> None:
    with store_of(make_options(tmp_path)) as store:
        health = store.health()
        assert health["services"] == {"r2_storage": "disabled"}
        assert (health["remote"], health["bucket"]) == (None, None)


# -- the bucket ----------------------------------------------------------------------------------


def test_the_bucket_is_counted_once_a_day_for_all(tmp_path: Path, bucket: MemoryRemote) -> None:
    counting, clock = CountingRemote(bucket), ShiftedClock()
    options = make_options(tmp_path, mode="remote")

    def listed() -> int:
        return counting.calls["list"]

    with store_of(options, remote=counting, clock=clock) as store:
        found = until(lambda: store.health()["bucket"])
        assert (found["bytes"], found["objects"]) == (300, 60)
        with store_of(options, remote=counting, clock=clock) as other:
            assert other.health()["bucket"]["objects"] == 60
        assert listed() == 1
        upload(bucket, "more", b"12345")
        clock.advance(86400.0)
        assert store.health()["bucket"]["age"] >= 86400, "the old number, until there is a new one"
        until(lambda: store.health()["bucket"]["objects"] == 61)
        assert listed() == 2


class Lazy(FaultyRemote):
    """Fails where the first page is taken, as a real bucket does."""

    def list(self, prefix: str = "", **options: Any) -> Iterator[Any]:
        yield from super().list(prefix, **options)


def test_a_bucket_that_cannot_be_listed_is_left_alone_for_an_hour(
    tmp_path: Path, bucket: MemoryRemote
) -> None:
    faults, clock = Lazy(bucket), ShiftedClock()
    options = make_options(tmp_path, mode="remote")
    with store_of(options, remote=faults, clock=clock) as store:
        troubles: list[Any] = []
        store.subscribe(troubles.append)
        faults.fail("list", times=1, error=lambda: RemoteRefused("may not list", status=403))
        store.health()
        until(lambda: any("counting the bucket" in getattr(e, "error", "") for e in troubles))
        until(lambda: not store.core.census.counting)
        health = store.health()
        assert (health["bucket"], health["remote"]["state"]) == (None, "closed")
        assert store.stats().remote_failures == 1
        assert not store.core.census.counting
        clock.advance(3600.0)
        assert until(lambda: store.health()["bucket"])["objects"] == 60
