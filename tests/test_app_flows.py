"""What five apps do over HTTP: presign, direct PUT, confirm, presigned GET; and their health."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from starlette.responses import Response
from starlette.testclient import TestClient
from store_rig import make_options, on_server, store_of, until

from cachestore.aio import AsyncCacheStore
from cachestore.errors import ConfirmFailed, Unsupported
from cachestore.open import open_store
from cachestore.options import Options
from cachestore.testing.clock import ShiftedClock
from cachestore.testing.r2 import R2Double
from cachestore.web.asgi import file_response
from cachestore.web.fastapi import PresignBody, StoreDep, build_router, store_lifespan

BASE = "http://testserver/api"
MAY = {"x-user": "u1"}
JPEG = b"\xff\xd8\xff\xe0" + b"j" * 24_572
WAV = b"RIFF" + b"w" * 200_000


def user(x_user: str = Header("")) -> str:
    if not x_user:
        raise HTTPException(401, "who are you?")
    return x_user


@dataclass(frozen=True)
class Flow:
    """How one app names what its clients upload."""

    key: str
    filename: str
    content_type: str
    data: bytes
    fields: dict[str, str]


APPS = {
    "voice": Flow("segments/{segment_id}.wav", "take 1.wav", "audio/wav", WAV,
                  {"segment_id": "s-17"}),
    "deer": Flow("snapshots/2026/01/event_20260115_083022_side.jpg", "event.jpg", "image/jpeg",
                 JPEG, {"camera_id": "10cea9e4511f"}),
    "swim": Flow("frames/{session_id}/0001.jpg", "0001.jpg", "image/jpeg", JPEG,
                 {"session_id": "abc"}),
    "models": Flow("datasets/{name}/raw/train.csv", "train.csv", "text/csv", b"a,b\n1,2\n" * 9_000,
                   {"name": "adult"}),
    "photos": Flow("u1/{shoot_id}/{asset_id}/original.heic", "IMG 1 ö.HEIC", "image/heic",
                   b"heic" * 50_000, {"shoot_id": "sh1", "asset_id": "as1"}),
}  # fmt: skip


class Site:
    """An app with the router below /api, and the records that it made."""

    def __init__(self, options: Options) -> None:
        self.records: list[dict[str, Any]] = []
        self.flow = APPS["photos"]
        self.api = FastAPI(lifespan=store_lifespan(settings=options, drain=20))
        router = build_router(
            lambda request: request.app.state.storage,
            authorize=user,
            key_for=self.key_for,
            on_confirmed=lambda info, request: self.records.append({"key": info.key}),
        )
        self.api.include_router(router, prefix="/api")

        @self.api.get("/play/{name:path}", dependencies=[Depends(user)])
        async def play(name: str, request: Request, store: StoreDep) -> Response:
            return await file_response(store, name, request)

        @self.api.get("/listing", dependencies=[Depends(user)])
        async def listing(prefix: str, store: StoreDep) -> dict[str, str]:
            return {i.key: await store.presign_get(i.key) async for i in store.list(prefix)}

    def key_for(self, request: Request, body: PresignBody) -> str:
        extra = body.model_extra or {}
        return self.flow.key.format(**extra) if "batch" not in extra else f"batch/{extra['batch']}"


@pytest.fixture(params=["r2", "local"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> Options:
    if request.param == "local":
        return make_options(tmp_path, mode="local", public_base_url=BASE)
    return on_double(tmp_path, request.getfixturevalue("r2_double"))


def on_double(root: Path, double: R2Double) -> Options:
    made = on_server(root, double, double.bucket, public_base_url=BASE)
    assert made.remote is not None
    return replace(made, remote=replace(made.remote, kind="r2"))


@pytest.fixture
def site(options: Options) -> Site:
    return Site(options)


@pytest.fixture
def client(site: Site) -> Iterator[TestClient]:
    with TestClient(site.api) as made:
        yield made


def wire(client: TestClient, method: str, url: str, **how: Any) -> Any:
    """As a browser or phone would: to the bucket, or to the app where the URL leads there."""
    if url.startswith("http://testserver"):
        return client.request(method, urlsplit(url).path, content=how.get("data"),
                              headers=how.get("headers"))  # fmt: skip
    return requests.request(method, url, timeout=20, **how)


@pytest.mark.parametrize("app", APPS)
def test_presign_put_confirm_get(site: Site, client: TestClient, app: str) -> None:
    flow = site.flow = APPS[app]
    digest = hashlib.sha256(flow.data).hexdigest()
    body = {"filename": flow.filename, "content_type": flow.content_type, "size": len(flow.data),
            "sha256": digest, **flow.fields}  # fmt: skip
    assert client.post("/api/uploads/presign", json=body).status_code == 401
    how = client.post("/api/uploads/presign", json=body, headers=MAY).json()
    assert how["key"] == flow.key.format(**flow.fields)
    other = {**how["headers"], "Content-Type": "text/html"}
    assert wire(client, "PUT", how["url"], data=flow.data, headers=other).status_code == 403
    done = wire(client, how["method"], how["url"], data=flow.data, headers=how["headers"])
    assert done.status_code in (200, 201), done.text
    said = {"key": how["key"], "size": len(flow.data), "content_type": flow.content_type,
            "sha256": digest}  # fmt: skip
    got = client.post("/api/uploads/confirm", json=said, headers=MAY)
    assert (got.status_code, got.json()["size"]) == (200, len(flow.data))
    assert site.records == [{"key": how["key"]}]
    folder = how["key"].rsplit("/", 1)[0] + "/"
    listing = client.get("/listing", params={"prefix": folder}, headers=MAY).json()
    assert list(listing) == [how["key"]]
    got = wire(client, "GET", listing[how["key"]], headers={"Range": "bytes=4-9"})
    assert (got.status_code, got.content) == (206, flow.data[4:10])
    got = client.get(f"/play/{how['key']}", headers=MAY)
    assert (got.content, got.headers["content-type"]) == (flow.data, flow.content_type)
    assert client.head(f"/api/files/{how['key']}", headers=MAY).headers["content-length"] == str(
        len(flow.data)
    )


def test_a_session_is_deleted_with_all_its_frames(site: Site, client: TestClient) -> None:
    store: AsyncCacheStore = site.api.state.storage
    for number in range(3):
        metadata = {"session-id": "abc", "frame-number": str(number)}
        store.sync.put(f"frames/abc/{number:04d}.jpg", JPEG, metadata=metadata)
    assert store.sync.head("frames/abc/0001.jpg").metadata["frame-number"] == "1"
    assert len(client.get("/listing", params={"prefix": "frames/"}, headers=MAY).json()) == 3
    assert store.sync.delete_prefix("frames/abc/") == 3
    assert client.get("/listing", params={"prefix": "frames/"}, headers=MAY).json() == {}


def test_a_batch_of_photos(site: Site, client: TestClient) -> None:
    files = [{"filename": f"{n}.jpg", "content_type": "image/jpeg", "size": n, "batch": n}
             for n in (3, 4, 5)]  # fmt: skip
    got = client.post("/api/uploads/presign", json=files, headers=MAY)
    assert got.status_code == 200, got.text
    for how, n in zip(got.json(), (3, 4, 5), strict=True):
        assert how["key"] == f"batch/{n}"
        done = wire(client, "PUT", how["url"], data=b"x" * n, headers=how["headers"])
        assert done.status_code in (200, 201)
        said = {"key": how["key"], "size": n}
        assert client.post("/api/uploads/confirm", json=said, headers=MAY).status_code == 200
    for bad in ([], files * 40, [files[0], files[0]], [files[0], {**files[1], "size": 10_000_001}]):
        assert client.post("/api/uploads/presign", json=bad, headers=MAY).status_code == 422


# -- limits ----------------------------------------------------------------------------------------


def test_a_size_is_exact_and_a_largest_one_is_checked(tmp_path: Path, r2_double: R2Double) -> None:
    with open_store(on_double(tmp_path, r2_double)) as store:
        up = store.presign_put("exact", size=5)
        headers = {**up.headers, "Content-Length": "6"}
        assert requests.put(up.url, data=b"123456", headers=headers, timeout=20).status_code == 403
        up = store.presign_put("most", max_size=5)
        assert requests.put(up.url, data=b"123456", headers=up.headers, timeout=20).ok
        with pytest.raises(ConfirmFailed, match="at most 5"):
            store.confirm_upload("most")
        assert not store.exists("most")
        up = store.presign_put("default", content_type="a/b")
        assert requests.put(up.url, data=b"x" * 10_000_001, headers=up.headers, timeout=60).ok
        with pytest.raises(ConfirmFailed, match="at most 10000000"):
            store.confirm_upload("default")
        for bad in ({"size": 10_000_001}, {"size": -1}, {"sha256": "x"}, {"expires_in": 0}):
            with pytest.raises(ValueError):
                store.presign_put("a", **bad)  # type: ignore[arg-type]  # wrong on purpose


def test_the_bytes_are_bound(tmp_path: Path, r2_double: R2Double) -> None:
    digest = hashlib.sha256(b"12345").hexdigest()
    with open_store(on_double(tmp_path, r2_double)) as store:
        up = store.presign_put("a", sha256=digest)
        assert (
            requests.put(up.url, data=b"54321", headers=up.headers, timeout=20).status_code == 400
        )
        assert requests.put(up.url, data=b"12345", headers=up.headers, timeout=20).ok
        assert store.confirm_upload("a", sha256=digest).sha256 == digest
        up = store.presign_put("b")
        assert requests.put(up.url, data=b"12345", headers=up.headers, timeout=20).ok
        with pytest.raises(ConfirmFailed, match="SHA-256"):
            store.confirm_upload("b", sha256=digest)


@pytest.mark.servers
def test_on_cloudflares_own(tmp_path: Path, wrangler_server: Any, wrangler_bucket: str) -> None:
    digest = hashlib.sha256(b"12345").hexdigest()
    clock = ShiftedClock()
    options = on_server(tmp_path, wrangler_server, wrangler_bucket)
    with store_of(options, clock=clock) as store:
        up = store.presign_put("a", content_type="a/b", size=5, sha256=digest)
        headers = {**up.headers, "Content-Length": "6"}
        assert not requests.put(up.url, data=b"123456", headers=headers, timeout=20).ok
        assert requests.put(up.url, data=b"12345", headers=up.headers, timeout=20).ok
        assert store.confirm_upload("a", size=5, sha256=digest, content_type="a/b").size == 5
        up = store.presign_put("b", max_size=4)
        assert requests.put(up.url, data=b"12345", headers=up.headers, timeout=20).ok
        with pytest.raises(ConfirmFailed, match="at most 4"):
            store.confirm_upload("b")
        up = store.presign_put("c")
        notes = tmp_path / "spool" / "announced"
        until(lambda: [n for n in notes.glob("*/*") if '"free": true' in n.read_text()])
        assert requests.put(up.url, data=b"12345", headers=up.headers, timeout=20).ok
        clock.advance(3 * 86_400)
        until(lambda: store.clean()["unconfirmed"] or not store.exists("c"), "its deletion")
        assert store.flush(60).done
        assert store.exists("a")
        assert not store.exists("c")


def test_many_at_once(tmp_path: Path, r2_double: R2Double) -> None:
    with open_store(on_double(tmp_path, r2_double)) as store:
        ups = store.presign_puts([{"key": "a", "size": 1}, {"key": "b", "content_type": "x/y"}])
        assert [urlsplit(up.url).path.rsplit("/", 1)[-1] for up in ups] == ["a", "b"]
        assert ups[1].headers["Content-Type"] == "x/y"
        with pytest.raises(ValueError, match="twice"):
            store.presign_puts([{"key": "a"}, {"key": "a"}])


# -- forms -----------------------------------------------------------------------------------------


def test_r2_takes_no_forms(tmp_path: Path, r2_double: R2Double) -> None:
    with open_store(on_double(tmp_path, r2_double)) as store:
        with pytest.raises(Unsupported, match="R2 takes no form uploads"):
            store.presign_post("a")
        assert not (tmp_path / "spool" / "announced").exists()
    with (
        open_store(make_options(tmp_path / "off", public_base_url=BASE)) as store,
        pytest.raises(Unsupported, match="in no bucket"),
    ):
        store.presign_post("a")


@pytest.mark.servers
def test_s3_takes_forms(tmp_path: Path, moto_server: Any) -> None:
    with open_store(on_server(tmp_path, moto_server, moto_server.new_bucket())) as store:
        up = store.presign_post("a/b.txt", content_type="text/plain", max_size=100)
        assert up.method == "POST"
        form = requests.post(
            up.url, data=dict(up.fields), files={"file": io.BytesIO(b"12345")}, timeout=20
        )
        assert form.ok, form.text
        info = store.confirm_upload("a/b.txt", size=5)
        assert info.size == 5
        assert store.read("a/b.txt") == b"12345"


# -- health ----------------------------------------------------------------------------------------


def health(options: Options) -> tuple[int, dict[str, Any]]:
    with TestClient(Site(options).api) as client:
        got = client.get("/api/health")
        return got.status_code, got.json()


def test_health_with_r2_on_and_off(tmp_path: Path, r2_double: R2Double) -> None:
    status, said = health(on_double(tmp_path / "on", r2_double))
    assert (status, said["status"]) == (200, "healthy")
    assert said["services"]["r2_storage"] == "enabled"
    status, said = health(make_options(tmp_path / "off"))
    assert (status, said["status"], said["services"]["r2_storage"]) == (200, "healthy", "disabled")


def test_health_with_r2_unreachable(tmp_path: Path) -> None:
    class Nowhere:
        access_key, secret_key, endpoint, conditional = "k", "s", "http://127.0.0.1:9", False
        region = "auto"

    options = on_server(tmp_path, Nowhere(), "bucket")
    site = Site(replace(options, public_base_url=BASE))
    site.api.router.lifespan_context = store_lifespan(settings=options, drain=0)
    with TestClient(site.api) as client:
        site.api.state.storage.sync.put("a.txt", b"kept")

        def degraded() -> bool:
            got = client.get("/api/health")
            assert got.status_code == 200, "files are still taken"
            return bool(got.json()["services"]["r2_storage"] == "degraded")

        until(degraded, "the bucket to be missed")
        assert client.get("/play/a.txt", headers=MAY).content == b"kept"
