"""Small hot files whose bytes are in memory: never more than is allowed, never another version."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from store_rig import make_options, store_of
from web_rig import ask

from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.clock import ShiftedClock
from cachestore.web.answers import Look
from cachestore.web.asgi import FileApp

SIZE = 1000


def open_one(root: Path, **fields: int) -> CacheStore:
    return store_of(
        make_options(root, mode="remote", **({"web_memory_bytes": 3 * SIZE} | fields)),
        remote=MemoryRemote(),
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CacheStore]:
    with open_one(tmp_path) as made:
        yield made


def put(store: CacheStore, key: str, letter: bytes = b"x") -> None:
    store.put(key, letter * SIZE)
    assert store.flush(60).done
    store.get(key)


def asked(store: CacheStore, key: str, times: int = 3) -> bytes:
    app = FileApp(store)
    return [ask(app, f"/{key}").body for _ in range(times)][-1]


def held(store: CacheStore, key: str) -> bool:
    entry = store.core.hot.entry(key)
    return entry is not None and entry.body is not None


def test_what_is_asked_for_again_is_kept(store: CacheStore) -> None:
    put(store, "a")
    assert asked(store, "a", 1) == b"x" * SIZE
    assert not held(store, "a")
    before = store.stats().hits
    assert asked(store, "a", 3) == b"x" * SIZE
    assert held(store, "a")
    assert store.stats().hits == before + 3


def test_never_more_than_is_allowed(store: CacheStore) -> None:
    for name in "abcdef":
        put(store, name, name.encode())
        assert asked(store, name) == name.encode() * SIZE
    assert [name for name in "abcdef" if held(store, name)] == ["d", "e", "f"]
    store.invalidate("e")
    put(store, "g", b"g")
    asked(store, "g")
    assert [name for name in "dfg" if held(store, name)] == ["d", "f", "g"]
    hot = store.core.hot
    assert hot._held == sum(hot._bodies.values()) == 3 * SIZE
    hot.clear()
    assert (hot._held, hot._bodies) == (0, {})


def test_switched_off(tmp_path: Path) -> None:
    with open_one(tmp_path, web_memory_bytes=0) as store:
        put(store, "a")
        assert asked(store, "a") == b"x" * SIZE
        assert not held(store, "a")


@pytest.mark.parametrize("how", ["put", "other store", "deleted", "removed", "written", "expired"])
def test_what_changed_is_never_served_from_memory(tmp_path: Path, how: str) -> None:
    remote, clock = MemoryRemote(), ShiftedClock()
    options = make_options(tmp_path, mode="remote", web_memory_bytes=3 * SIZE)
    with store_of(options, remote=remote, clock=clock) as store:
        put(store, "a")
        asked(store, "a")
        assert held(store, "a")
        path, new = store.get("a"), b"y" * SIZE
        if how == "put":
            store.put("a", new)
        elif how == "other store":
            with store_of(options, remote=remote) as other:
                other.put("a", new)
                other.close(drain=0)
        elif how == "deleted":
            store.delete("a")
        elif how == "removed":
            os.unlink(path)
            new = b"x" * SIZE  # from the bucket again
        elif how == "written":
            path.chmod(0o600)
            path.write_bytes(b"z" * SIZE)
            new = b"x" * SIZE
        else:
            other_remote_version(remote, new)
            clock.advance(25 * 3600)
        got = ask(FileApp(store), "/a")
        assert (got.status, got.body) == ((404, got.body) if how == "deleted" else (200, new))


def other_remote_version(remote: MemoryRemote, data: bytes) -> None:
    from cachestore.testing.contract_tools import put as upload

    upload(remote, "a", data)


def test_headers_are_those_of_the_app_that_asks(store: CacheStore) -> None:
    put(store, "a")
    plain, named = FileApp(store), FileApp(store, look=Look(headers={"x-app": "1"}))
    for _ in range(2):
        assert "x-app" not in ask(plain, "/a").headers
        assert ask(named, "/a").headers["x-app"] == "1"


def test_whoever_adds_to_one_answer_adds_to_no_other(store: CacheStore) -> None:
    put(store, "a")
    app = FileApp(store)

    async def marked(scope: Any, receive: Any, send: Any) -> None:
        async def adding(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-mark", b"1"))
            await send(message)

        await app(scope, receive, adding)

    for _ in range(2):
        assert ask(marked, "/a").headers["x-mark"] == "1"
        assert "x-mark" not in ask(app, "/a").headers
