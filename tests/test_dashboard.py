"""The dashboard's routes: who may, from where, and what they tell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from fastapi import APIRouter, Cookie, FastAPI, HTTPException
from starlette.testclient import TestClient
from store_rig import make_options, store_of, until

from cachestore.errors import Rejected
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.contract_tools import put as upload
from cachestore.testing.remotes import FaultyRemote
from cachestore.web.dashboard import add_dashboard, page_of
from cachestore.web.fastapi import build_router

HERE = "http://testserver"
ACT = {"x-cachestore-action": "1", "origin": HERE, "sec-fetch-site": "same-origin"}


def authorize(who: str = Cookie("")) -> None:
    if who != "ann":
        raise HTTPException(401, "who are you?")


@pytest.fixture
def remote() -> FaultyRemote:
    made = MemoryRemote()
    for name in ("a", "b"):
        upload(made, name, name.encode() * 10)
    return FaultyRemote(made)


@pytest.fixture
def store(tmp_path: Path, remote: FaultyRemote) -> Iterator[CacheStore]:
    options = make_options(tmp_path, mode="remote", bucket_count_interval=0.0)
    with store_of(options, remote=remote) as made:
        yield made


@pytest.fixture
def client(store: CacheStore) -> TestClient:
    app = FastAPI()
    app.include_router(build_router(store, authorize=authorize), prefix="/media")
    return TestClient(app, base_url=HERE, cookies={"who": "ann"})


def test_nothing_is_there_without_leave(store: CacheStore, client: TestClient) -> None:
    open_app = FastAPI()
    open_app.include_router(build_router(store))
    with pytest.raises(ValueError, match="guard"):
        add_dashboard(APIRouter(), store, [])
    client.cookies.clear()
    for method, path in (
        ("GET", ""), ("GET", "/data"), ("POST", "/flush"), ("POST", "/retry"), ("POST", "/clean"),
    ):  # fmt: skip
        assert TestClient(open_app).request(method, f"/dashboard{path}").status_code == 404
        got = client.request(method, f"/media/dashboard{path}", headers=ACT, json={})
        assert got.status_code == 401


def test_the_page_allows_itself_nothing_else(client: TestClient) -> None:
    got = client.get("/media/dashboard")
    assert got.status_code == 200
    policy = dict(
        part.strip().split(" ", 1) for part in got.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["script-src"].startswith("'sha256-")
    assert policy["style-src"].startswith("'sha256-")
    for outside in ("http://", "https://", "//", "src=", "href="):
        assert outside not in got.text.replace("http://www.w3.org/2000/svg", "").replace(
            "// ", ""
        ), outside
    assert got.headers["cache-control"] == "no-store"


def test_what_it_tells(client: TestClient, store: CacheStore, remote: FaultyRemote) -> None:
    for _ in range(3):
        store.get("a")
    store.get("b")
    remote.fail("put", times=1, error=lambda: Rejected("too odd", status=400))
    store.put("odd", b"123")
    until(lambda: store.health()["pending"]["parked"])
    data = client.get("/media/dashboard/data").json()
    assert data["health"]["status"] == "degraded"
    assert (data["counts"]["hits"], data["counts"]["misses"]) == (2, 2)
    sums: dict[str, int] = {}
    for each in data["minutes"]:
        sums[each["what"]] = sums.get(each["what"], 0) + each["count"]
    assert (sums["hit"], sums["miss"], sums["parked"]) == (2, 2, 1)
    [item] = data["queue"]
    assert (item["key"], item["state"], item["path"]) == ("odd", "parked", None)
    assert "too odd" in item["last_error"]
    assert [each["key"] for each in data["hottest"]] == ["a", "b"]
    assert data["history"]["by_source"] == [
        {"what": "cache", "count": 2, "bytes": 20}, {"what": "remote", "count": 2, "bytes": 20},
    ]  # fmt: skip


def test_what_the_buttons_do(client: TestClient, store: CacheStore, remote: FaultyRemote) -> None:
    def act(what: str, **body: Any) -> Any:
        got = client.post(f"/media/dashboard/{what}", headers=ACT, json=body)
        assert got.status_code == 200, got.text
        return got.json()

    remote.fail("put", times=2, error=lambda: Rejected("too odd", status=400))
    store.put("odd", b"123")
    store.put("even", b"12")
    until(lambda: store.health()["pending"]["parked"] == 2)
    assert act("flush")["parked"] == 2
    assert act("retry", key="odd") == {"due": 1}
    until(lambda: [item.key for item in store.pending()] == ["even"])
    assert act("retry") == {"due": 1}
    assert act("flush")["done"]
    assert store.pending() == []
    assert set(act("clean")) >= {"expired", "evicted"}
    got = client.post("/media/dashboard/retry", headers=ACT, json={"key": "/x"})
    assert got.status_code == 422


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-cachestore-action": "0"},
        {**ACT, "sec-fetch-site": "cross-site"},
        {**ACT, "sec-fetch-site": "same-site"},
        {**ACT, "sec-fetch-site": "none"},
        {"x-cachestore-action": "1", "origin": "https://evil.example"},
        {"x-cachestore-action": "1", "origin": "null"},
        {"x-cachestore-action": "1", "origin": f"{HERE}.evil.example"},
    ],
)
@pytest.mark.parametrize("what", ["flush", "retry", "clean"])
def test_other_sites_cannot_press_the_buttons(
    client: TestClient, headers: dict[str, str], what: str
) -> None:
    got = client.post(f"/media/dashboard/{what}", headers=headers, json={})
    assert got.status_code == 403
    assert client.get(f"/media/dashboard/{what}", headers=ACT).status_code == 405


def test_tools_that_say_nothing_of_sites_may(client: TestClient) -> None:
    for headers in ({}, {"origin": HERE}):
        headers = {"x-cachestore-action": "1", **headers}
        assert client.post("/media/dashboard/flush", headers=headers).status_code == 200


def test_the_page_on_its_own(store: CacheStore) -> None:
    app = page_of(store, "/secret", ["127.0.0.1"])
    client = TestClient(app, base_url="http://127.0.0.1")
    assert client.get("/secret/dashboard").status_code == 200
    assert client.get("/secret/dashboard/data").json()["health"]["mode"] == "remote"
    for path in ("/dashboard", "/other/dashboard", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 404
    evil = TestClient(app, base_url="http://evil.example")
    assert evil.get("/secret/dashboard/data").status_code == 400


def test_the_command_shows_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from cachestore.cli import main; main()", "dashboard"]
    folder = {"CACHESTORE_SPOOL_DIR": str(tmp_path / "spool"), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | folder, stdout=subprocess.PIPE, text=True
    ) as run:
        try:
            _look_at(run, tmp_path)
        finally:
            run.kill()


def _look_at(run: subprocess.Popen[str], folder: Path) -> None:
    assert run.stdout is not None
    url = run.stdout.readline().strip()
    got = until(lambda: _try(url))
    assert "<title>cachestore</title>" in got.text
    data = requests.get(f"{url}/data", timeout=20).json()
    assert data["health"]["folders"]["spool"] == str(folder / "spool")
    other = url.replace(url.split("/")[3], "guess")
    assert requests.get(other, timeout=20).status_code == 404
    run.send_signal(signal.SIGINT)
    assert run.wait(60) == 0


def _try(url: str) -> requests.Response | None:
    try:
        return requests.get(url, timeout=20)
    except requests.ConnectionError:
        return None


def test_a_closed_store_is_told(client: TestClient, store: CacheStore) -> None:
    store.close(drain=0)
    got = client.get("/media/dashboard/data")
    assert got.status_code == 503
    assert "closed" in got.json()["detail"]
