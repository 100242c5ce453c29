"""The routes in a FastAPI app: with a bucket, without one, and with nobody's leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from fastapi import FastAPI, Header, HTTPException, Request
from starlette.testclient import TestClient
from store_rig import make_options, on_server

from cachestore.aio import AsyncCacheStore
from cachestore.errors import Unsupported
from cachestore.open import open_store
from cachestore.options import Options
from cachestore.web.fastapi import PresignBody, StoreDep, build_router, store_lifespan

BASE = "http://testserver/media"
MAY = {"x-user": "ann"}


def authorize(x_user: str = Header("")) -> None:
    if x_user != "ann":
        raise HTTPException(401, "who are you?")


def key_for(request: Request, body: PresignBody) -> str:
    extra = body.model_extra or {}
    return f"{request.headers['x-user']}/{extra.get('shoot_id', 'x')}/original.jpg"


class App:
    """An app on a store, with what it was told."""

    def __init__(self, options: Options, *, guarded: bool = True) -> None:
        self.confirmed: list[str] = []
        self.order: list[str] = []

        @asynccontextmanager
        async def inner(app: Any) -> Any:
            self.order.append("own up" if app.state.storage else "too early")
            yield
            self.order.append("own down")

        self.api = FastAPI(lifespan=store_lifespan(inner, settings=options, drain=30))
        parts: dict[str, Any] = {}
        if guarded:
            parts = {
                "authorize": authorize, "key_for": key_for,
                "on_confirmed": lambda info, request: self.confirmed.append(info.key),
            }  # fmt: skip
        router = build_router(lambda request: request.app.state.storage, **parts)
        self.api.include_router(router, prefix="/media")

        @self.api.post("/own")
        async def own(store: StoreDep) -> str:
            await store.put("own.txt", b"own")
            return (await store.head("own.txt")).storage


@pytest.fixture(params=["local", "bucket"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> Options:
    if request.param == "local":
        return make_options(tmp_path, mode="local", public_base_url=BASE)
    server = request.getfixturevalue("moto_server")
    return replace(on_server(tmp_path, server, server.new_bucket()), public_base_url=BASE)


@pytest.fixture
def app(options: Options) -> App:
    return App(options)


@pytest.fixture
def client(app: App) -> Iterator[TestClient]:
    with TestClient(app.api) as made:
        yield made


def send(client: TestClient, how: dict[str, Any], data: bytes, **headers: str) -> Any:
    """Upload as a browser would: to the app, or to the bucket."""
    url, headers = how["url"], {**how["headers"], **headers}
    if url.startswith("http://testserver"):
        return client.request(how["method"], urlsplit(url).path, content=data, headers=headers)
    return requests.request(how["method"], url, data=data, headers=headers, timeout=20)


def read(client: TestClient, url: str) -> Any:
    if url.startswith("http://testserver"):
        return client.get(urlsplit(url).path)
    return requests.get(url, timeout=20)


def presign(client: TestClient, **fields: Any) -> dict[str, Any]:
    body = {"filename": "a.jpg", "content_type": "image/jpeg", "shoot_id": "s1", **fields}
    got = client.post("/media/uploads/presign", json=body, headers=MAY)
    assert got.status_code == 200, got.text
    made: dict[str, Any] = got.json()
    return made


def test_presign_upload_confirm_read(app: App, client: TestClient, options: Options) -> None:
    how = presign(client, size=5)
    assert how["key"] == "ann/s1/original.jpg"
    assert how["method"] == "PUT"
    assert send(client, how, b"12345").status_code in (200, 201)
    for _ in range(2):
        body = {"key": how["key"], "size": 5, "content_type": "image/jpeg"}
        got = client.post("/media/uploads/confirm", json=body, headers=MAY)
        assert (got.status_code, got.json()["size"]) == (200, 5)
    assert app.confirmed == [how["key"]] * 2
    got = client.get(f"/media/files/{how['key']}", headers={**MAY, "range": "bytes=1-2"})
    assert (got.status_code, got.content) == (206, b"23")
    store: AsyncCacheStore = app.api.state.storage
    url = store.sync.url(how["key"])
    assert url.startswith(BASE) is (options.mode == "local")
    assert read(client, url).content == b"12345"
    assert store.sync.presign_get(how["key"]) == store.sync.presign_get(how["key"])


def test_what_was_not_announced_is_refused(app: App, client: TestClient, options: Options) -> None:
    how = presign(client, size=5)
    if options.mode == "local":  # moto checks no signature
        assert send(client, how, b"123456").status_code == 413
        assert send(client, how, b"1234").status_code == 409
        assert send(client, how, b"12345", **{"Content-Type": "text/html"}).status_code == 403
    body = {"key": how["key"], "size": 5}
    assert client.post("/media/uploads/confirm", json=body, headers=MAY).status_code == 409
    body = {"filename": "a", "content_type": "a/b", "size": 10_000_001}
    assert client.post("/media/uploads/presign", json=body, headers=MAY).status_code == 422
    assert app.confirmed == []


def test_a_wrong_upload_is_gone_after_the_question(client: TestClient, app: App) -> None:
    how = presign(client)
    assert send(client, how, b"12345").status_code in (200, 201)
    body = {"key": how["key"], "size": 6}
    got = client.post("/media/uploads/confirm", json=body, headers=MAY)
    assert (got.status_code, app.confirmed) == (409, [])
    assert client.get(f"/media/files/{how['key']}", headers=MAY).status_code == 404


@pytest.mark.parametrize("options", ["local"], indirect=True)
def test_an_upload_through_the_app_is_checked(client: TestClient, app: App) -> None:
    digest = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"  # of 12345
    how = presign(client, size=5, sha256=digest)
    assert send(client, how, b"54321").status_code == 409
    assert client.get(f"/media/files/{how['key']}", headers=MAY).status_code == 404
    assert send(client, how, b"12345").status_code == 201
    how = presign(client)
    large = send(client, how, b"x" * (app.api.state.storage.options.upload_max_bytes + 1))
    assert large.status_code == 413
    token = how["url"].rsplit("/", 1)[-1]
    for bad in (token[:-2], "x", "a.b", how["url"][:40].rsplit("/", 1)[-1]):
        got = client.put(f"/media/uploads/{bad}", content=b"1", headers=how["headers"])
        assert got.status_code in (403, 404)
    link = app.api.state.storage.sync.url(how["key"]).split("/links/")[1].split("/")[0]
    got = client.put(f"/media/uploads/{link}", content=b"1", headers=how["headers"])
    assert got.status_code == 403, "a URL for reading lets nobody write"
    assert client.get(f"/media/links/{token}/x").status_code == 403


def test_metrics_count_from_the_start(client: TestClient, app: App) -> None:
    app.api.state.storage.sync.put("a.txt", b"x")
    assert client.get("/media/metrics").status_code == 401
    text = client.get("/media/metrics", headers=MAY).text
    assert 'cachestore_writes_total{operation="put"} 1.0' in text


def test_links_end(client: TestClient, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    store = app.api.state.storage.sync
    store.put("a b.txt", b"x")
    path = urlsplit(store.links.get("a b.txt", 60)).path
    assert client.get(path).content == b"x"
    now = store.core.clock.now()
    monkeypatch.setattr(store.core.clock, "now", lambda: now + 61)
    assert client.get(path).status_code == 403


def test_a_pending_file_has_a_url_at_once(tmp_path: Path) -> None:
    class Nowhere:
        access_key, secret_key, endpoint, conditional = "k", "s", "http://127.0.0.1:9", False
        region = "auto"

    options = replace(on_server(tmp_path, Nowhere(), "bucket"), public_base_url=BASE)
    app = App(replace(options, miss_deadline=1.0))
    with open_store(options) as store:
        receipt = store.put("a.txt", b"pending")
        assert receipt.url().startswith(f"{BASE}/links/")
        store.close(drain=0)
    app.api.router.lifespan_context = store_lifespan(settings=options, drain=0)
    with TestClient(app.api) as client:
        url = app.api.state.storage.sync.url("a.txt")
        got = client.get(urlsplit(url).path)
        assert got.content == b"pending"
        health = client.get("/media/health")
        assert health.status_code == 200
        details = client.get("/media/health/details", headers=MAY).json()
        assert details["pending"]["count"] == 1
        queue = client.get("/media/storage/queue", headers=MAY).json()
        assert [item["key"] for item in queue] == ["a.txt"]


def test_without_an_address_a_url_is_a_clear_error(tmp_path: Path) -> None:
    with open_store(make_options(tmp_path, mode="local")) as store:
        store.put("a.txt", b"x")
        for ask in (store.url, store.presign_get, store.presign_put):
            with pytest.raises(Unsupported, match="PUBLIC_BASE_URL"):
                ask("a.txt")


def test_without_the_apps_leave_only_the_status_is_shown(options: Options) -> None:
    app = App(options, guarded=False)
    with TestClient(app.api) as client:
        app.api.state.storage.sync.put("a.txt", b"x")
        got = client.get("/media/health")
        assert got.json()["status"] == "healthy"
        assert set(got.json()) == {"status", "services"}
        for path in ("stats", "storage/queue", "health/details", "files/a.txt"):
            assert client.get(f"/media/{path}").status_code == 404
        for path in ("uploads/presign", "uploads/confirm"):
            assert client.post(f"/media/{path}", json={}).status_code in (404, 405)


def test_who_is_not_let_in_changes_and_learns_nothing(client: TestClient, app: App) -> None:
    app.api.state.storage.sync.put("a.txt", b"x")
    for path in ("stats", "storage/queue", "health/details", "files/a.txt"):
        assert client.get(f"/media/{path}").status_code == 401
        assert client.get(f"/media/{path}", headers=MAY).status_code == 200
    body = {"filename": "a", "content_type": "a/b", "key": "a.txt"}
    for path in ("uploads/presign", "uploads/confirm"):
        assert client.post(f"/media/{path}", json=body).status_code == 401


def test_the_lifespan_goes_around_the_apps_own(options: Options) -> None:
    app = App(options)
    with TestClient(app.api) as client:
        assert client.post("/own").json() in ("pending", "local", "cached")
        store = app.api.state.storage.sync
    assert app.order == ["own up", "own down"]
    with open_store(options) as again:
        assert again.read("own.txt") == b"own"
        assert options.mode == "local" or again.pending() == [], "drained at the end"
    assert store.core.closed


@pytest.mark.parametrize("path", ["..%2fa.txt", "%2e%2e/a.txt", "a%00", "x" * 1100])
def test_tricks_with_paths(client: TestClient, path: str) -> None:
    assert client.get(f"/media/files/{path}", headers=MAY).status_code in (400, 404)


def test_the_api_is_described(app: App) -> None:
    paths = app.api.openapi()["paths"]
    assert "/media/uploads/presign" in paths
    assert "409" in paths["/media/uploads/confirm"]["post"]["responses"]
