"""Files of a store over ASGI: the application, and the response inside an app's own route."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request
from starlette.responses import Response
from store_rig import make_options, store_of
from web_rig import ask, asked, parts_of

from cachestore.aio import AsyncCacheStore
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.remotes import CountingRemote, FaultyRemote
from cachestore.web.answers import Look
from cachestore.web.asgi import FileApp, file_response

DATA = os.urandom(1 << 20)
SMALL = b"0123456789"


class Site:
    """A store behind an application."""

    def __init__(self, root: Path) -> None:
        self.faults = FaultyRemote(MemoryRemote())
        self.remote = CountingRemote(self.faults)
        options = make_options(root, mode="remote")
        self.store: CacheStore = store_of(options, remote=self.remote)
        self.app = FileApp(self.store)

    def put(self, key: str, data: bytes, **attributes: Any) -> None:
        self.store.put(key, data, **attributes)
        assert self.store.flush(60).done


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    with made.store:
        made.put("a/small.txt", SMALL)
        made.put("a/large.wav", DATA)
        yield made


def cold(site: Site, key: str) -> None:
    site.store.invalidate(key)


@pytest.mark.parametrize("key", ["a/small.txt", "a/large.wav"])
@pytest.mark.parametrize("state", ["cold", "here", "hot", "pending"])
def test_whole_files(site: Site, key: str, state: str) -> None:
    data = SMALL if key == "a/small.txt" else DATA
    if state == "cold":
        cold(site, key)
    elif state == "hot":
        site.store.get(key)
    elif state == "pending":
        site.faults.down()
        site.store.put(key, data)
    got = ask(site.app, f"/{key}")
    assert (got.status, got.body) == (200, data)
    assert got.headers["content-length"] == str(len(data))
    assert got.headers["accept-ranges"] == "bytes"
    info = site.store.head(key)
    assert got.headers["etag"] == f'"{info.etag or info.sha256}"'
    assert got.headers["content-type"] == info.content_type
    head = ask(site.app, f"/{key}", "HEAD")
    assert (head.status, head.headers, head.body) == (200, got.headers, b"")


@pytest.mark.parametrize("key", ["a/small.txt", "a/large.wav"])
def test_ranges(site: Site, key: str) -> None:
    data = SMALL if key == "a/small.txt" else DATA
    for hot in (False, True):
        if hot:
            site.store.get(key)
        for text, span in (("2-5", slice(2, 6)), ("3-", slice(3, None)), ("-4", slice(-4, None))):
            got = ask(site.app, f"/{key}", range=f"bytes={text}")
            assert (got.status, got.body) == (206, data[span])
            start, end, _ = span.indices(len(data))
            assert got.headers["content-range"] == f"bytes {start}-{end - 1}/{len(data)}"
            assert got.headers["content-length"] == str(end - start)
        got = ask(site.app, f"/{key}", range="bytes=0-1,4-5")
        assert got.status == 206
        assert int(got.headers["content-length"]) == len(got.body)
        assert parts_of(got) == [
            (f"bytes 0-1/{len(data)}", data[:2]), (f"bytes 4-5/{len(data)}", data[4:6]),
        ]  # fmt: skip
        got = ask(site.app, f"/{key}", range=f"bytes={len(data)}-")
        assert (got.status, got.headers["content-range"]) == (416, f"bytes */{len(data)}")


def test_conditions_and_if_range(site: Site) -> None:
    tag = ask(site.app, "/a/small.txt").headers["etag"]
    assert ask(site.app, "/a/small.txt", if_none_match=tag).status == 304
    assert ask(site.app, "/a/small.txt", if_match='"x"').status == 412
    assert ask(site.app, "/a/small.txt", range="bytes=0-1", if_range=tag).status == 206
    got = ask(site.app, "/a/small.txt", range="bytes=0-1", if_range='"older"')
    assert (got.status, got.body) == (200, SMALL)


def test_the_tag_of_a_pending_file_holds_when_the_bucket_has_it(site: Site) -> None:
    site.faults.down()
    site.store.put("new.txt", b"new")
    tag = ask(site.app, "/new.txt").headers["etag"]
    site.faults.up()
    site.store.retry()
    assert site.store.flush(60).done
    assert site.store.head("new.txt").etag
    assert ask(site.app, "/new.txt", if_none_match=tag).status == 304


@pytest.mark.parametrize(
    "path",
    [
        "/../a/small.txt", "/a/../a/small.txt", "/%2e%2e/a/small.txt", "/a%2fsmall.txt",
        "/a%2Fsmall.txt", "/a/small.txt%00", "//a/small.txt", "/", "", "/a//small.txt", "/%ff",
        "/" + "x" * 1025, "/a/./small.txt", "/%0d%0a", "/a/", "/%ed%a0%80",
    ],
)  # fmt: skip
def test_tricks_with_paths(site: Site, path: str) -> None:
    for app in (site.app, FileApp(site.store, prefix="a/")):
        assert ask(app, path).status in (400, 404)
    assert ask(site.app, path, "HEAD").body == b""


def test_a_prefix_shows_nothing_else(site: Site) -> None:
    app = FileApp(site.store, prefix="a/")
    assert ask(app, "/small.txt").body == SMALL
    assert ask(app, "/a/small.txt").status == 404
    assert ask(app, "/files/small.txt", root="/files").body == SMALL


def test_only_get_and_head(site: Site) -> None:
    got = ask(site.app, "/a/small.txt", "POST")
    assert (got.status, got.headers["allow"]) == (405, "GET, HEAD")


def test_what_cannot_be_had(site: Site) -> None:
    assert ask(site.app, "/nothing").status == 404
    assert ask(site.app, "/nothing", "HEAD").status == 404
    cold(site, "a/small.txt")
    site.faults.down()
    got = ask(site.app, "/a/small.txt")
    assert (got.status, got.headers["retry-after"]) == (503, "1")
    assert got.headers["cache-control"] == "no-store"


def test_a_head_downloads_nothing(site: Site) -> None:
    cold(site, "a/large.wav")
    site.remote.calls.clear()
    assert ask(site.app, "/a/large.wav", "HEAD").headers["content-length"] == str(len(DATA))
    assert dict(site.remote.calls) == {"head": 1}


def test_a_hot_small_file_needs_no_thread(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.store.get("a/small.txt")

    def never(*_: Any) -> None:
        raise AssertionError("a thread was used")

    monkeypatch.setattr("cachestore.web.asgi.lent_by", never)
    monkeypatch.setattr("cachestore.web.asgi.done_by", never)
    assert ask(site.app, "/a/small.txt").body == SMALL


@pytest.mark.parametrize("key", ["a/small.txt", "a/large.wav"])
def test_a_hot_file_is_one_hit_and_needs_no_grace(site: Site, key: str) -> None:
    site.store.get(key)
    board, slot = site.store.core.board, site.store.core.spool.place(key).slot
    board.hand_out(slot, 0.0)
    before = site.store.stats().hits
    assert ask(site.app, f"/{key}").status == 200
    assert site.store.stats().hits == before + 1
    assert board.handed_out(slot) == 0.0


def test_the_newest_version_is_sent(site: Site) -> None:
    for number in range(5):
        data = f"version {number}".encode()
        site.store.put("a/small.txt", data)
        got = ask(site.app, "/a/small.txt")
        assert (got.body, got.headers["content-length"]) == (data, str(len(data)))


def test_the_server_in_front_may_send_the_file(site: Site) -> None:
    app = FileApp(site.store, hand_off="x-sendfile")
    got = ask(app, "/a/large.wav", range="bytes=0-1")
    assert (got.status, got.body) == (200, b"")
    assert Path(got.headers["x-sendfile"]).read_bytes() == DATA
    app = FileApp(site.store, hand_off="x-accel-redirect", hand_off_root="/in/")
    where = ask(app, "/a/large.wav").headers["x-accel-redirect"]
    assert where.startswith("/in/")
    assert (site.store.options.cache_dir / where.removeprefix("/in/")).read_bytes() == DATA
    assert ask(app, "/a/large.wav", "HEAD").headers["content-length"] == str(len(DATA))


def test_a_client_that_goes_away_leaves_nothing_open(site: Site) -> None:
    class Gone(Exception):
        pass

    async def receive() -> dict[str, Any]:
        return {}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise Gone

    scope = {"type": "http", "method": "GET", "path": "/a/large.wav", "headers": []}
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(Gone):
            asyncio.run(site.app(scope, receive, send))
    left = [fd for fd in set(os.listdir("/proc/self/fd")) - before if _is_copy(fd)]
    assert left == []


def _is_copy(fd: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").endswith(".wav")
    except OSError:
        return False


def test_headers_of_other_people_stay_on_their_line(site: Site) -> None:
    site.put("x.bin", b"x", content_type="text/plain", cache_control="max-age=1")
    got = ask(FileApp(site.store, look=Look(headers={"x-a": "1\r\nx-b: 2"})), "/x.bin")
    assert "x-b" not in got.headers
    assert got.headers["cache-control"] == "max-age=1"


def test_a_store_that_is_found_on_the_request(site: Site) -> None:
    for store in (site.store, AsyncCacheStore(site.store)):
        app = FileApp(lambda scope, found=store: found)
        assert ask(app, "/a/small.txt").body == SMALL


def test_inside_a_route_of_an_app(site: Site) -> None:
    api = FastAPI()

    @api.get("/songs/{name}")
    async def song(name: str, request: Request) -> Response:
        if name == "secret.txt":
            raise HTTPException(403)
        made = await file_response(site.store, f"a/{name}", request, download=True)
        made.set_cookie("seen", "1")
        made.headers["x-app"] = "yes"
        return made

    got = ask(api, "/songs/small.txt", range="bytes=2-3")
    assert (got.status, got.body) == (206, SMALL[2:4])
    assert got.headers["content-length"] == "2"
    assert "small.txt" in got.headers["content-disposition"]
    assert (got.headers["x-app"], got.headers["set-cookie"][:6]) == ("yes", "seen=1")
    assert ask(api, "/songs/none.txt").status == 404
    assert ask(api, "/songs/secret.txt").status == 403


def test_many_readers_at_once(site: Site) -> None:
    cold(site, "a/large.wav")
    site.remote.calls.clear()

    async def all_of_them() -> list[bytes]:
        starts = range(0, len(DATA), len(DATA) // 40)
        wanted = [asked(site.app, "/a/large.wav", range=f"bytes={n}-{n + 99}") for n in starts]
        return [got.body for got in await asyncio.gather(*wanted)]

    found = asyncio.run(all_of_them())
    assert found == [DATA[n : n + 100] for n in range(0, len(DATA), len(DATA) // 40)]
    assert site.remote.calls["get"] == 1


def test_the_application_needs_no_framework() -> None:
    code = "import sys, cachestore.web.asgi; print('starlette' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
