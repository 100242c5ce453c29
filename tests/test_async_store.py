"""`AsyncCacheStore`: the same names, awaited; the loop is never held up."""

from __future__ import annotations

import asyncio
import inspect
import io
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from store_rig import make_options, on_server, store_of

from cachestore.aio import AsyncCacheStore
from cachestore.errors import NotFound
from cachestore.files import Files
from cachestore.store import CacheStore
from cachestore.testing.r2 import R2Double

DATA = bytes(range(256)) * 40


def run(store: CacheStore, body: Callable[[AsyncCacheStore], Awaitable[None]]) -> None:
    async def main() -> None:
        async with AsyncCacheStore(store) as facade:
            await asyncio.wait_for(body(facade), 120)

    asyncio.run(main())


@pytest.fixture(params=["local", "server"])
def sync(request: pytest.FixtureRequest, tmp_path: Path) -> CacheStore:
    if request.param == "local":
        return store_of(make_options(tmp_path))
    server: Any = request.getfixturevalue("moto_server")
    return store_of(on_server(tmp_path, server, server.new_bucket()))


def free(path: Path) -> bool:
    """Nobody holds a lease on the file."""
    files = Files()
    fd = files.open_read(path)
    try:
        return files.try_lock(fd)
    finally:
        files.close(fd)


def test_it_has_every_public_name() -> None:
    names = {name for name in dir(CacheStore) if not name.startswith("_")}
    assert names - {"core", "held", "on_close"} <= {
        name for name in dir(AsyncCacheStore) if name[0] != "_"
    }


def test_names_take_the_same_arguments() -> None:
    for name in ("get", "read", "head", "exists", "list", "delete", "delete_prefix", "copy",
                 "presign_get", "flush", "retry", "fsck", "warm", "download"):  # fmt: skip
        ours = inspect.signature(getattr(AsyncCacheStore, name)).parameters
        theirs = inspect.signature(getattr(CacheStore, name)).parameters
        assert list(ours) == list(theirs), name
        assert [p.default for p in ours.values()] == [p.default for p in theirs.values()], name


def test_put_get_read_open_lease_list_delete(sync: CacheStore, tmp_path: Path) -> None:
    async def body(store: AsyncCacheStore) -> None:
        receipt = await store.put("a/b.wav", DATA, metadata={"n": "1"})
        assert (await store.get("a/b.wav")).read_bytes() == DATA
        assert await receipt.wait(60) in ("uploaded", "local")
        assert await store.read("a/b.wav", 5, 9) == DATA[5:9]
        with await store.open("a/b.wav") as file:
            assert file.read() == DATA
        async with store.lease("a/b.wav") as path:
            assert path.read_bytes() == DATA
            assert not free(path)
        assert free(path)
        await store.download("a/b.wav", tmp_path / "mine")
        assert (tmp_path / "mine").read_bytes() == DATA
        assert (await store.head("a/b.wav")).metadata == {"n": "1"}
        await store.copy("a/b.wav", "a/c.wav")
        assert [item.key async for item in store.list("a/")] == ["a/b.wav", "a/c.wav"]
        assert await store.delete_prefix("a/") == 2
        assert not await store.exists("a/b.wav")
        with pytest.raises(NotFound):
            await store.get("a/b.wav")
        assert (await store.flush(60)).done

    run(sync, body)


def test_a_long_listing_is_whole(tmp_path: Path) -> None:
    names = [f"{number:04}" for number in range(1_200)]
    store = store_of(make_options(tmp_path))
    store.options.local_dir.mkdir()
    for name in names:
        (store.options.local_dir / name).touch()

    async def body(facade: AsyncCacheStore) -> None:
        assert [item.key async for item in facade.list()] == names

    run(store, body)


def test_an_async_iterator_is_a_source(sync: CacheStore) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(DATA), 1000):
            await asyncio.sleep(0)
            yield DATA[start : start + 1000]

    async def broken() -> AsyncIterator[bytes]:
        yield DATA
        raise ConnectionError("the client went away")

    async def body(store: AsyncCacheStore) -> None:
        await store.put("a", chunks())
        assert await store.read("a") == DATA
        await store.put("b", io.BytesIO(DATA))
        with pytest.raises(ConnectionError):
            await store.put("c", broken())
        assert not await store.exists("c")

    run(sync, body)


def test_cancelled_waiters_harm_nobody(r2_double: R2Double, tmp_path: Path) -> None:
    options = on_server(tmp_path, r2_double, r2_double.bucket)
    sync = store_of(options)
    sync.put("a", DATA, durability="remote")
    sync.invalidate("a")
    r2_double.rules.add("stall", method="GET", key="a", at=100, count=1)

    async def body(store: AsyncCacheStore) -> None:
        first = asyncio.create_task(store.get("a"))
        second = asyncio.create_task(store.get("a"))
        await asyncio.to_thread(r2_double.log.wait_for, 1, "GET", "a")
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        r2_double.rules.release()
        assert (await second).read_bytes() == DATA
        assert r2_double.log.count("GET", "a") == 1

    run(sync, body)


def test_the_loop_goes_on_while_a_miss_waits(r2_double: R2Double, tmp_path: Path) -> None:
    sync = store_of(on_server(tmp_path, r2_double, r2_double.bucket))
    sync.put("cold", DATA, durability="remote")
    sync.put("hot", DATA, durability="remote")
    sync.invalidate("cold")
    sync.get("hot")
    r2_double.rules.add("stall", method="GET", key="cold", at=0)

    async def body(store: AsyncCacheStore) -> None:
        waiting = [asyncio.create_task(store.get("cold")) for _ in range(100)]
        await asyncio.to_thread(r2_double.log.wait_for, 1, "GET", "cold")
        # A hundred waiters hold no thread that others need.
        for _ in range(50):
            assert (await store.get("hot")).read_bytes() == DATA
        await store.put("new", DATA)
        assert await store.read("new") == DATA
        assert not any(task.done() for task in waiting)
        r2_double.rules.clear()
        assert {path.read_bytes() for path in await asyncio.gather(*waiting)} == {DATA}

    run(sync, body)


def test_a_sync_call_that_waits_in_a_loop_warns_once(r2_double: R2Double, tmp_path: Path) -> None:
    with store_of(on_server(tmp_path, r2_double, r2_double.bucket)) as sync:
        sync.put("a", DATA, durability="remote")
        sync.invalidate("a")

        async def body() -> None:
            sync.get("a")
            sync.invalidate("a")
            sync.get("a")

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            asyncio.run(body())
        ours = [each for each in caught if "open_async_store" in str(each.message)]
        assert len(ours) == 1
        assert ours[0].filename == __file__
