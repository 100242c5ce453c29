"""A hot hit: no statement, no request, no thread hop, and about the price of a `stat`."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from store_rig import make_options, store_of

from cachestore.aio import AsyncCacheStore
from cachestore.events import Event, RemoteCall
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore

KEY = "segments/a.wav"


def warm_store(tmp_path: Path) -> CacheStore:
    store = store_of(make_options(tmp_path, mode="remote"), remote=MemoryRemote())
    store.put(KEY, b"x" * 24_000)
    assert store.flush(30).done
    store.get(KEY)
    return store


def best(call: Any, argument: Any, rounds: int = 7, count: int = 3_000) -> float:
    """This thread's seconds for one call, without those of others that have the processor."""
    times = []
    for _ in range(rounds):
        start = time.thread_time()
        for _ in range(count):
            call(argument)
        times.append((time.thread_time() - start) / count)
    return min(times)


def test_a_hot_get_asks_neither_database_nor_remote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warm_store(tmp_path) as store:
        calls: list[Event] = []
        store.subscribe(lambda event: calls.append(event) if type(event) is RemoteCall else None)
        statements: list[str] = []
        connect = sqlite3.connect

        def counted(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            connection = connect(*args, **kwargs)
            connection.set_trace_callback(statements.append)
            return connection

        monkeypatch.setattr(sqlite3, "connect", counted)
        # A cold look on a new thread opens a new, counted connection: the counter works.
        store._core.hot.clear()
        thread = threading.Thread(target=store.get, args=(KEY,))
        thread.start()
        thread.join()
        assert statements
        statements.clear()
        for _ in range(100):
            store.get(KEY)
        assert not statements
        assert not calls
        assert store.stats().hits >= 100


def test_a_hot_get_costs_little_more_than_a_stat(tmp_path: Path) -> None:
    with warm_store(tmp_path) as store:
        path = os.fspath(store.get(KEY))
        ratios = []
        for _ in range(5):
            ratios.append(best(store.get, KEY, 3) / best(os.stat, path, 3))
        ratio = min(ratios)
        print(f"hot get / os.stat = {ratio:.2f} (median {statistics.median(ratios):.2f})")
        assert ratio <= 2.5


def test_the_async_hot_get_adds_little(tmp_path: Path) -> None:
    with warm_store(tmp_path) as store:
        facade = AsyncCacheStore(store)

        async def measure() -> float:
            times = []
            for _ in range(7):
                start = time.thread_time()
                for _ in range(3_000):
                    await facade.get(KEY)
                times.append((time.thread_time() - start) / 3_000)
            return min(times)

        path = os.fspath(store.get(KEY))
        ratio = min(asyncio.run(measure()) / best(os.stat, path, 3) for _ in range(3))
        print(f"async hot get / os.stat = {ratio:.2f}")
        assert ratio <= 2.5 * 1.5


def test_the_async_hot_get_does_not_leave_the_thread(tmp_path: Path) -> None:
    with warm_store(tmp_path) as store:
        facade = AsyncCacheStore(store)

        async def hot() -> None:
            before = threading.enumerate()
            for _ in range(10):
                await facade.get(KEY)
            assert threading.enumerate() == before

        asyncio.run(hot())


@pytest.mark.parametrize("change", ["put", "delete", "edit", "remove", "touch"])
def test_a_hot_entry_is_never_trusted_after_a_change(tmp_path: Path, change: str) -> None:
    with warm_store(tmp_path) as store:
        path = store.get(KEY)
        if change == "put":
            store.put(KEY, b"new")
            assert store.get(KEY).read_bytes() == b"new"
        elif change == "delete":
            store.delete(KEY)
            with pytest.raises(FileNotFoundError):
                store.get(KEY)
        else:
            path.chmod(0o644)
            if change == "edit":
                path.write_bytes(b"y" * 24_000)
            elif change == "touch":
                os.utime(path, ns=(1, 1))
            else:
                path.unlink()
            assert store.get(KEY).read_bytes() == b"x" * 24_000


def test_the_clock_going_backwards_does_not_make_a_copy_fresh_for_ever(tmp_path: Path) -> None:
    class Back:
        offset = 0.0

        def now(self) -> float:
            return time.time() + self.offset

        def monotonic(self) -> float:
            return time.monotonic()

        def wait(self, event: threading.Event, seconds: float) -> bool:
            return event.wait(seconds)

    clock = Back()
    remote = MemoryRemote()
    options = make_options(tmp_path, mode="remote")
    with store_of(options, remote=remote, clock=clock) as store:
        store.put(KEY, b"one")
        assert store.flush(30).done
        store.get(KEY)
        clock.offset = -30 * 86400.0
        seen: list[Event] = []
        store.subscribe(lambda event: seen.append(event) if type(event) is RemoteCall else None)
        assert store.get(KEY).read_bytes() == b"one"
        assert seen, "the copy was believed although its time lies in the future"
