"""Large files over HTTP while they come: a player's ranges, and clients that go away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from progressive_rig import BLOCK, KEY, MIB, SIZE, Rig, content
from store_rig import until
from web_rig import ask

from cachestore.testing.r2 import R2Double
from cachestore.web.asgi import FileApp


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with R2Double() as double:
        yield Rig(tmp_path, double)


def test_a_range_in_the_middle_fetches_its_blocks(rig: Rig) -> None:
    with rig.store() as store:
        app, start = FileApp(store), 9 * BLOCK + 10
        got = ask(app, f"/{KEY}", range=f"bytes={start}-{start + 99}")
        assert (got.status, got.body) == (206, rig.data[start : start + 100])
        assert got.headers["content-range"] == f"bytes {start}-{start + 99}/{SIZE}"
        assert got.headers["etag"] == f'"{rig.etag}"'
        until(lambda: rig.sent() == BLOCK)
        assert rig.double.log.count("HEAD") == 0
        assert ask(app, f"/{KEY}", range="bytes=-7").body == rig.data[-7:]
        assert ask(app, f"/{KEY}", range=f"bytes={SIZE + 5}-").status == 416
        assert rig.ranges() == 2  # what lies behind the end is known by now
        assert ask(app, f"/{KEY}").body == rig.data
        assert ask(app, f"/{KEY}", "HEAD").headers["content-length"] == str(SIZE)


def test_a_range_behind_the_end_of_an_unknown_file_costs_its_first_block(rig: Rig) -> None:
    with rig.store() as store:
        got = ask(FileApp(store), f"/{KEY}", range="bytes=999999999999-")
        assert (got.status, got.headers["content-range"]) == (416, f"bytes */{SIZE}")
        until(lambda: rig.sent() <= 2 * BLOCK)


def test_the_first_bytes_are_sent_before_the_rest_is_here(rig: Rig) -> None:
    data = content(6 * MIB, 4)
    rig.put("long", data)
    rig.double.rules.add("slow_body", method="GET", key="long", rate=4 * MIB)
    seen, then = bytearray(), list[int]()

    async def send(message: Any) -> None:
        seen.extend(message.get("body", b""))
        if seen and not then:
            then.append(rig.sent("long"))

    with rig.store(block_bytes=MIB) as store:
        asyncio.run(_get(FileApp(store), "/long", send))
    assert seen == data
    assert then[0] <= MIB


def test_a_client_that_goes_away_ends_the_fetching(rig: Rig) -> None:
    data = content(6 * MIB, 4)
    rig.put("long", data)
    rig.double.rules.add("slow_body", method="GET", key="long", rate=2 * MIB)
    gone = asyncio.Event()

    async def send(message: Any) -> None:
        if message.get("body"):
            gone.set()

    with rig.store(block_bytes=MIB, read_ahead_bytes=4 * MIB) as store:
        asyncio.run(_get(FileApp(store), "/long", send, gone))
        until(lambda: all(entry.done for entry in rig.double.log.entries("GET", "long")))
        assert rig.sent("long") < 4 * MIB


async def _get(app: Any, path: str, send: Any, gone: asyncio.Event | None = None) -> None:
    """A GET of a client that stays, or goes when it is told to."""
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(),
        "root_path": "", "query_string": b"", "headers": [],
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        await (gone or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    await app(scope, receive, send)
