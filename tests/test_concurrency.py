"""What happens in the middle of something else: changes during uploads, late answers, hanging."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from concurrency_rig import Asked, in_bucket, on_double
from store_rig import store_of, until

from cachestore.aio import AsyncCacheStore
from cachestore.errors import NotFound
from cachestore.files import Files
from cachestore.local import spool_scan
from cachestore.options import Options
from cachestore.store import CacheStore
from cachestore.testing.clock import ShiftedClock
from cachestore.testing.r2 import R2Double

KEY = "a/b.wav"
OLD, NEW = b"old" * 1000, b"newer" * 1000


@pytest.fixture
def double() -> Iterator[R2Double]:
    with R2Double() as double:
        yield double


def bytes_of(store: CacheStore, key: str = KEY, max_age: float | None = None) -> bytes | None:
    try:
        return store.get(key, max_age=max_age).read_bytes()
    except NotFound:
        return None


def change(store: CacheStore, what: str) -> bytes | None:
    """A newer change of the key; what it then is."""
    if what != "put":
        store.delete(KEY)
    if what != "delete":
        store.put(KEY, NEW)
    return None if what == "delete" else NEW


# -- changes while an upload is on the wire ------------------------------------------------------


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("what", ["put", "delete", "delete and put"])
@pytest.mark.parametrize("fault", ["slow_headers", "late_commit", "hang"])
def test_a_change_during_an_upload_is_the_one_that_stays(
    tmp_path: Path, double: R2Double, fault: str, what: str, conditional: bool
) -> None:
    """The older request is answered late, takes effect late, or is reset without effect."""
    double.rules.add(fault, method="PUT", key=KEY, count=1)
    with store_of(on_double(tmp_path, double, conditional=conditional)) as store:
        older = store.put(KEY, OLD)
        double.log.wait_for(1, "PUT", KEY)
        wanted = change(store, what)
        assert bytes_of(store) == wanted
        assert double.log.count("PUT", KEY) == 1
        double.rules.release()
        assert older.wait(60) in ("superseded", "uploaded")
        assert store.flush(60).done
        assert bytes_of(store) == wanted
        store.invalidate(KEY)
        assert bytes_of(store) == wanted
        assert in_bucket(double, KEY) == wanted
        assert store.pending() == []


# -- answers that come when a newer change was acknowledged --------------------------------------


def prepared(options: Options, answer: str) -> CacheStore:
    """A store for which the remote's next answer is a body, a 404 or a 304."""
    store = store_of(options)
    if answer != "404":
        store.put(KEY, OLD, durability="remote")
    if answer == "body":
        store.invalidate(KEY)
    return store


@pytest.mark.parametrize(
    ("other", "sent"), [(False, False), (False, True), (True, True)],
    ids=["same store", "same store, sent", "other store, sent"],
)  # fmt: skip
@pytest.mark.parametrize("what", ["put", "delete"])
@pytest.mark.parametrize("answer", ["body", "404", "304"])
def test_a_late_answer_changes_nothing(
    tmp_path: Path, double: R2Double, answer: str, what: str, other: bool, sent: bool
) -> None:
    """Whoever waits may have it; nobody who asks after the newer change was acknowledged."""
    # Copies stay fresh: what is admitted wrongly must not be put right again.
    options = on_double(tmp_path, double)
    with prepared(options, answer) as store, store_of(options) as second:
        double.rules.add("slow_headers", method="GET", key=KEY, count=1)
        asked = double.log.count("GET", KEY)
        early = Asked(lambda: bytes_of(store, max_age=0.0))
        double.log.wait_for(asked + 1, "GET", KEY)
        wanted = change(second if other else store, what)
        assert bytes_of(store) == wanted
        if sent:
            assert second.flush(60).done
        else:
            assert bytes_of(second) == wanted
        double.rules.release()
        assert early.answer() in (wanted, None if answer == "404" else OLD)
        for reader in (store, second):
            assert bytes_of(reader) == wanted
        assert store.flush(60).done
        for reader in (store, second):
            assert bytes_of(reader) == wanted
            assert reader.exists(KEY) == (wanted is not None)


@pytest.mark.parametrize("what", ["put", "delete"])
@pytest.mark.parametrize("answer", ["body", "404"])
def test_a_late_answer_is_for_nobody_else_where_no_copy_is_kept(
    tmp_path: Path, double: R2Double, answer: str, what: str
) -> None:
    """Each read asks the bucket, or what is remembered of it."""
    options = on_double(tmp_path, double, cache_max_bytes=1, negative_ttl=3600.0)
    with prepared(options, answer) as store:
        double.rules.add("slow_headers", method="GET", key=KEY, count=1)
        asked = double.log.count("GET", KEY)
        early = Asked(lambda: bytes_of(store))
        double.log.wait_for(asked + 1, "GET", KEY)
        wanted = change(store, what)
        assert store.flush(60).done
        assert bytes_of(store) == wanted
        double.rules.release()
        assert early.answer() in (wanted, None if answer == "404" else OLD)
        assert bytes_of(store) == wanted
        assert store.exists(KEY) == (wanted is not None)


@pytest.mark.parametrize("answer", ["body", "404", "304"])
def test_an_async_reader_is_not_given_what_an_earlier_one_waits_for(
    tmp_path: Path, double: R2Double, answer: str
) -> None:
    async def main() -> None:
        options = on_double(tmp_path, double, ttl=0.0, revalidate_deadline=60.0)
        async with AsyncCacheStore(prepared(options, answer)) as store:
            double.rules.add("slow_headers", method="GET", key=KEY, count=1)
            asked = double.log.count("GET", KEY)
            early = asyncio.ensure_future(store.get(KEY))
            await asyncio.to_thread(double.log.wait_for, asked + 1, "GET", KEY)
            await store.put(KEY, NEW)
            late = asyncio.ensure_future(store.get(KEY))
            # It needs no remote, so it is there while the early one still waits.
            assert (await asyncio.wait_for(late, 60)).read_bytes() == NEW
            double.rules.release()
            await asyncio.wait([early])

    asyncio.run(main())


# -- who waits, and who goes away ----------------------------------------------------------------


def test_cancelled_tasks_harm_nobody(tmp_path: Path, double: R2Double) -> None:
    """Many wait for one download; most are cancelled, in the middle of it."""

    async def main() -> None:
        async with AsyncCacheStore(store_of(on_double(tmp_path, double))) as store:
            await store.put(KEY, OLD, durability="remote")
            await store.invalidate(KEY)
            double.rules.add("stall", method="GET", key=KEY, at=100, count=1)
            tasks = [asyncio.create_task(store.get(KEY)) for _ in range(20)]
            opened = [asyncio.create_task(store.open(KEY)) for _ in range(5)]
            await asyncio.to_thread(double.log.wait_for, 1, "GET", KEY)
            for task in [*tasks[:15], *opened[:4]]:
                task.cancel()
            ended = await asyncio.gather(*tasks[:15], *opened[:4], return_exceptions=True)
            assert {type(end) for end in ended} == {asyncio.CancelledError}
            double.rules.release()
            paths = await asyncio.wait_for(asyncio.gather(*tasks[15:]), 60)
            assert {path.read_bytes() for path in paths} == {OLD}
            with await asyncio.wait_for(opened[4], 60) as file:
                assert file.read() == OLD
            assert (await store.get(KEY)).read_bytes() == OLD
            assert double.log.count("GET", KEY) == 1

    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(main())
        gc.collect()
    # What was opened for a task that is gone was closed, not left to the collector.
    assert [str(each.message) for each in caught if "unclosed file" in str(each.message)] == []


def test_one_async_store_serves_one_loop_after_another(tmp_path: Path, double: R2Double) -> None:
    """A loop that was closed while a task waited leaves nothing that the next one trips over."""
    store = AsyncCacheStore(store_of(on_double(tmp_path, double)))
    store.sync.put(KEY, OLD, durability="remote")
    for _ in range(3):
        store.sync.invalidate(KEY)
        double.rules.add("slow_headers", method="GET", key=KEY, count=1)
        asked = double.log.count("GET", KEY)

        async def leave(asked: int = asked) -> None:
            waiter = asyncio.create_task(store.get(KEY))
            await asyncio.to_thread(double.log.wait_for, asked + 1, "GET", KEY)
            waiter.cancel()

        asyncio.run(leave())
        double.rules.clear()

        async def read() -> bytes:
            return (await asyncio.wait_for(store.get(KEY), 60)).read_bytes()

        assert asyncio.run(read()) == OLD
    store.sync.close()


# -- a remote that hangs -------------------------------------------------------------------------


def test_whoever_has_a_copy_does_not_wait_for_a_remote_that_hangs(
    tmp_path: Path, double: R2Double
) -> None:
    """More keys than threads that ask, so that nobody waits for another one's turn either."""
    keys = [f"k{number}" for number in range(30)]
    with store_of(on_double(tmp_path, double, ttl=0.0, revalidate_deadline=1.0)) as store:
        for key in keys:
            store.put(key, key.encode())
        assert store.flush(60).done
        double.rules.add("hang", method="GET")
        start = time.monotonic()
        asked = [Asked(lambda key=key: store.get(key).read_bytes()) for key in keys]
        assert [each.answer() for each in asked] == [key.encode() for key in keys]
        assert time.monotonic() - start < 10
        double.rules.clear()


def test_a_copy_is_served_when_the_newer_body_hangs(tmp_path: Path, double: R2Double) -> None:
    """The remote says that the copy is old, and then sends nothing."""
    options = on_double(tmp_path / "one", double, ttl=0.0, revalidate_deadline=1.0)
    with store_of(options) as store, store_of(on_double(tmp_path / "two", double)) as elsewhere:
        store.put(KEY, OLD, durability="remote")
        elsewhere.put(KEY, NEW, durability="remote")
        double.rules.add("stall", method="GET", key=KEY, at=0)
        start = time.monotonic()
        assert store.get(KEY).read_bytes() == OLD
        assert time.monotonic() - start < 10
        double.rules.clear()
        until(lambda: store.get(KEY).read_bytes() == NEW)


# -- a put that was stopped half-way -------------------------------------------------------------


class Pausing(Files):
    """Waits where a ticket is about to be made."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go = threading.Event(), threading.Event()

    def create(self, path: Any, mode: int = 0o600) -> int:
        if str(path).endswith(".ticket.tmp"):
            self.reached.set()
            assert self.go.wait(60)
        return super().create(path, mode)


def test_cleaners_leave_a_put_alone_that_has_no_ticket_yet(
    tmp_path: Path, double: R2Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_scan, "STRAY_AGE", -1.0)
    options, files, clock = on_double(tmp_path, double), Pausing(), ShiftedClock()
    with store_of(options, files=files) as store, store_of(options, clock=clock) as cleaner:
        put = Asked(lambda: store.put(KEY, NEW))
        assert files.reached.wait(60)
        clock.advance(30 * 86400.0)
        cleaner.clean()
        cleaner.fsck(repair=True)
        store.clean()
        store.fsck(repair=True)
        files.go.set()
        assert put.answer().key == KEY
        assert bytes_of(store) == NEW
        assert bytes_of(cleaner) == NEW
        assert store.flush(60).done
        assert in_bucket(double, KEY) == NEW


# -- the app's own faults ------------------------------------------------------------------------


def test_exceptions_of_the_apps_hooks_harm_nobody(tmp_path: Path, double: R2Double) -> None:
    called: list[str] = []

    def hook(event: Any) -> None:
        called.append(type(event).__name__)
        raise SystemExit("hook")

    def bad(outcome: str) -> None:
        called.append(outcome)
        raise SystemExit("callback")

    ended = threading.Event()
    with store_of(on_double(tmp_path, double)) as store:
        store.subscribe(hook)
        for number in range(10):
            receipt = store.put(f"k{number}", str(number).encode())
            receipt.add_done_callback(bad)
        receipt.add_done_callback(lambda outcome: ended.set())
        assert store.flush(60).done
        assert ended.wait(60)
        until(lambda: called.count("uploaded") == 10)
        store.invalidate("k3")
        assert store.get("k3").read_bytes() == b"3"
        store.delete("k3")
        assert store.flush(60).done
        assert {"Spooled", "Uploaded", "Miss", "RemoteCall"} <= set(called)
        assert store.health()["uploader"]["leading"]
