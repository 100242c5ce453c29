"""`POST /storage/r2-sync`: a camera's folder, by hand."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Header, HTTPException
from starlette.testclient import TestClient
from store_rig import make_options, on_server, store_of

from cachestore.store import CacheStore
from cachestore.testing.r2 import R2Double
from cachestore.web.fastapi import build_router

MAY = {"x-user": "ann"}
URL = "/api/storage/r2-sync"


def authorize(x_user: str = Header("")) -> None:
    if x_user != "ann":
        raise HTTPException(401, "who are you?")


def snapshot(folder: Path, name: str, hours: float = 0.0) -> None:
    path = folder / "2026" / "01" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(name.encode() * 100)
    then = time.time() - hours * 3600
    os.utime(path, (then, then))


def client_of(store: CacheStore, folder: Path) -> TestClient:
    app = FastAPI()
    router = build_router(store, authorize=authorize, sync=folder, sync_prefix="snapshots/")
    app.include_router(router, prefix="/api")
    return TestClient(app)


@pytest.fixture(params=["r2", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CacheStore]:
    options = make_options(tmp_path / "store")
    if request.param == "r2":
        double: R2Double = request.getfixturevalue("r2_double")
        options = on_server(tmp_path / "store", double, double.bucket)
    with store_of(options) as made:
        yield made


def ask(client: TestClient, **query: Any) -> dict[str, Any]:
    got = client.post(URL, params=query, headers=MAY)
    assert got.status_code == 200, got.text
    told: dict[str, Any] = got.json()
    return told


def test_new_snapshots_are_stored_once(store: CacheStore, tmp_path: Path) -> None:
    folder = tmp_path / "camera"
    for number in range(3):
        snapshot(folder, f"event_{number}.jpg", hours=number)
    snapshot(folder, "old.jpg", hours=30)
    client = client_of(store, folder)
    assert client.post(URL).status_code == 401
    told = ask(client, limit=2)
    assert told == {
        "success": True,
        "message": "Synced 2 files to R2",
        "results": {"uploaded": 2, "failed": 0, "skipped": 0},
    }
    told = ask(client)
    assert told["results"] == {"uploaded": 1, "failed": 0, "skipped": 2}
    assert told["message"] == "Synced 1 file to R2"
    assert store.read("snapshots/2026/01/event_1.jpg") == b"event_1.jpg" * 100
    assert not store.exists("snapshots/2026/01/old.jpg")
    assert ask(client, hours=48)["results"]["uploaded"] == 1


@pytest.mark.parametrize("query", [{"hours": 0}, {"hours": "nan"}, {"limit": 0}, {"limit": "x"}])
def test_what_makes_no_sense(store: CacheStore, tmp_path: Path, query: dict[str, Any]) -> None:
    (tmp_path / "camera").mkdir()
    client = client_of(store, tmp_path / "camera")
    assert client.post(URL, params=query, headers=MAY).status_code == 422


def test_a_file_that_cannot_be_stored_is_told(store: CacheStore, tmp_path: Path) -> None:
    folder = tmp_path / "camera"
    snapshot(folder, "good.jpg")
    (folder / "bad\x07.jpg").write_bytes(b"x")  # no key has a control character
    told = ask(client_of(store, folder))
    assert told["results"]["failed"] == 1
    assert told["results"]["uploaded"] == 1
    assert told["success"] is False
    assert "1 failed" in told["message"]


def test_without_a_folder_there_is_no_such_route(store: CacheStore, tmp_path: Path) -> None:
    app = FastAPI()
    app.include_router(build_router(store, authorize=authorize), prefix="/api")
    assert TestClient(app).post(URL, headers=MAY).status_code == 404
    gone = client_of(store, tmp_path / "nothing").post(URL, headers=MAY)
    assert gone.status_code == 503
