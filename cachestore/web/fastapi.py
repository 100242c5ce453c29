"""Routes for FastAPI apps: files, direct uploads, health and statistics."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from importlib.util import find_spec
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from cachestore.aio import AsyncCacheStore, done_by
from cachestore.errors import (
    CacheStoreError,
    ConfirmFailed,
    InvalidKey,
    NotFound,
    SpoolError,
    Unsupported,
)
from cachestore.model import ObjectInfo
from cachestore.open import open_store
from cachestore.policy.tokens import BadToken
from cachestore.store import CacheStore
from cachestore.web.answers import Look
from cachestore.web.asgi import POOL, Source, file_response, store_of
from cachestore.web.dashboard import add_dashboard
from cachestore.web.receiving import TooLarge, received

KeyFor = Callable[[Request, "PresignBody"], "str | Awaitable[str]"]
OnConfirmed = Callable[[ObjectInfo, Request], Any]


def store_lifespan(
    inner: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
    *,
    drain: float = 10.0,
    settings: Any = None,
    **overrides: Any,
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan that opens a store as `app.state.storage`, around the app's own `inner` one.

    At shutdown what is due is uploaded, for at most `drain` seconds; what is left stays pending.
    `settings` and `overrides` are those of `open_store`.
    """

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        store = AsyncCacheStore(await done_by(POOL, lambda: open_store(settings, **overrides)))
        app.state.storage = store
        try:
            if find_spec("prometheus_client") is not None:
                await done_by(POOL, lambda: _metrics_of(store.sync))  # they count from now on
            await store.start()
            if inner is None:
                yield
            else:
                async with inner(app):
                    yield
        finally:
            await store.close(drain)

    return lifespan


def store_of_request(request: Request) -> AsyncCacheStore:
    """The store that `store_lifespan` opened."""
    store = request.app.state.storage
    assert isinstance(store, AsyncCacheStore)
    return store


StoreDep = Annotated[AsyncCacheStore, Depends(store_of_request)]


class PresignBody(BaseModel):
    """What a client says of the file that it is about to upload, and the app's own fields."""

    model_config = ConfigDict(extra="allow")

    filename: str = Field(min_length=1, max_length=255)
    content_type: str = Field(min_length=1, max_length=255, pattern=r"^[ -~]+$")
    size: int | None = Field(default=None, ge=0)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")


class Presigned(BaseModel):
    """How to upload: send `method` to `url` with exactly `headers`, then confirm `key`."""

    key: str
    url: str
    method: str
    headers: dict[str, str]
    expires_at: datetime


class ConfirmBody(BaseModel):
    """What the client uploaded."""

    model_config = ConfigDict(extra="allow")

    key: str = Field(min_length=1, max_length=1024)
    size: int | None = Field(default=None, ge=0)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    content_type: str | None = None


class Stored(BaseModel):
    """A file that exists."""

    key: str
    size: int
    etag: str
    content_type: str
    last_modified: datetime


def build_router(
    store: Source,
    *,
    authorize: Callable[..., Any] | None = None,
    key_for: KeyFor | None = None,
    on_confirmed: OnConfirmed | None = None,
    look: Look | None = None,
    expires_in: int = 3600,
) -> APIRouter:
    """The routes, to be included where PUBLIC_BASE_URL leads.

    `store`: a store, or a function that finds it on the request. `authorize`: a dependency of the
    app that raises where somebody may not; without it only what a signed URL allows, and the
    status, are answered. `key_for(request, body)` chooses the key of an upload, never the client:
    without it there is no presigning. `on_confirmed(info, request)` may make the app's record.
    """
    router = APIRouter(tags=["storage"])
    guards = [] if authorize is None else [Depends(authorize)]
    look = look or Look()
    _add_files(router, store, look, guards)
    _add_receiving(router, store)
    _add_status(router, store)
    if authorize is not None:
        _add_state(router, store, guards)
        add_dashboard(router, store, guards)
        if key_for is not None:
            _add_uploads(router, store, guards, key_for, on_confirmed, expires_in)
    return router


# -- files ----------------------------------------------------------------------------------------


def _add_files(router: APIRouter, store: Source, look: Look, guards: Sequence[Any]) -> None:
    """Files by signed URL; with the app's `authorize` also by their key."""

    @router.head("/links/{token}/{name}", include_in_schema=False)
    @router.get("/links/{token}/{name}", responses=_FILE, response_class=Response)
    async def link(token: str, name: str, request: Request) -> Response:
        """The file that a signed URL names, as long as its time lasts."""
        try:
            key = store_of(store, request).links.readable(token)
        except BadToken as error:
            raise HTTPException(403, str(error)) from None
        return await file_response(store, key, request, look=look)

    if not guards:
        return

    @router.head("/files/{key:path}", dependencies=guards, include_in_schema=False)
    @router.get("/files/{key:path}", dependencies=guards, responses=_FILE, response_class=Response)
    async def file(key: str, request: Request) -> Response:
        """The file, for whom the app lets have it."""
        return await file_response(store, key, request, look=look)


_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The file."},
    206: {"description": "The bytes that were asked for."},
    304: {"description": "The client has this version."},
    403: {"description": "Not allowed."},
    404: {"description": "There is no such file."},
    412: {"description": "The file is another version."},
    416: {"description": "The file has no such bytes."},
}


# -- uploads --------------------------------------------------------------------------------------


def _add_uploads(
    router: APIRouter,
    store: Source,
    guards: Sequence[Any],
    key_for: KeyFor,
    on_confirmed: OnConfirmed | None,
    expires_in: int,
) -> None:
    @router.post("/uploads/presign", dependencies=guards, responses=_UPLOAD)
    async def presign(body: PresignBody, request: Request) -> Presigned:
        """Where to upload a file directly."""
        key = key_for(request, body)
        name = await key if inspect.isawaitable(key) else key

        def make() -> Any:
            return store_of(store, request).presign_put(
                name, content_type=body.content_type, size=body.size, sha256=body.sha256,
                expires_in=expires_in,
            )  # fmt: skip

        with _answers():
            made = await done_by(POOL, make)
        return Presigned(
            key=name, url=made.url, method=made.method, headers=dict(made.headers),
            expires_at=made.expires_at,
        )  # fmt: skip

    @router.post("/uploads/confirm", dependencies=guards, responses=_UPLOAD)
    async def confirm(body: ConfirmBody, request: Request) -> Stored:
        """Check what was uploaded; may be asked again."""

        def check() -> ObjectInfo:
            return store_of(store, request).confirm_upload(
                body.key, size=body.size, sha256=body.sha256, content_type=body.content_type
            )

        with _answers():
            info = await done_by(POOL, check)
        if on_confirmed is not None:
            told = on_confirmed(info, request)
            if inspect.isawaitable(told):
                await told
        return Stored(**{name: getattr(info, name) for name in Stored.model_fields})


def _add_receiving(router: APIRouter, store: Source) -> None:
    @router.put("/uploads/{token}", status_code=201, responses=_UPLOAD)
    async def upload(token: str, request: Request) -> Stored:
        """Take an upload where there is no bucket, as its signed URL allows."""
        found = store_of(store, request)
        try:
            announced = found.links.announced(token)
        except BadToken as error:
            raise HTTPException(403, str(error)) from None
        if request.headers.get("content-type", "") != announced.content_type:
            raise HTTPException(403, f"the content type must be {announced.content_type}")
        with _answers():
            info = await received(found, announced, request.stream())
        return Stored(**{name: getattr(info, name) for name in Stored.model_fields})


_UPLOAD: dict[int | str, dict[str, Any]] = {
    403: {"description": "Not allowed, or the signed URL is over."},
    409: {"description": "What was uploaded is not what was announced."},
    413: {"description": "Too large."},
    501: {"description": "There is nothing to make a URL with."},
    503: {"description": "Not now; try again."},
}


class _answers:
    """Our errors as HTTP has them."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (CacheStoreError, ValueError, TooLarge)):
            raise HTTPException(_status(error), str(error)) from error


def _status(error: BaseException) -> int:
    for kinds, status in (
        (TooLarge, 413), (ConfirmFailed, 409), (InvalidKey, 422), (NotFound, 404),
        (Unsupported, 501), (ValueError, 422),
    ):  # fmt: skip
        if isinstance(error, kinds):
            return status
    return 503


# -- state ----------------------------------------------------------------------------------------


def _add_status(router: APIRouter, store: Source) -> None:
    @router.get("/health", responses={503: {"description": "Files cannot be taken."}})
    async def health(request: Request) -> JSONResponse:
        """`healthy` or `degraded`; 503 only when files cannot be made durable."""
        found = store_of(store, request)
        try:
            report = await done_by(POOL, found.health)
        except SpoolError:
            return JSONResponse({"status": "failing"}, 503)
        enabled = "disabled" if report["remote"] is None else "enabled"
        services = {"r2_storage": "degraded" if report["degraded"] else enabled}
        status = 503 if report["status"] == "failing" else 200
        return JSONResponse({"status": report["status"], "services": services}, status)


def _add_state(router: APIRouter, store: Source, guards: Sequence[Any]) -> None:
    @router.get("/health/details", dependencies=guards)
    async def details(request: Request) -> dict[str, Any]:
        """Mode, reason, folders, remote, queue, cache, alerts."""
        with _answers():
            return await done_by(POOL, store_of(store, request).health)

    @router.get("/stats", dependencies=guards)
    async def stats(request: Request) -> dict[str, float]:
        """Sums since the store was opened."""
        found: CacheStore = store_of(store, request)
        return (await done_by(POOL, found.stats)).as_dict()

    @router.get("/metrics", dependencies=guards, response_class=Response)
    async def metrics(request: Request) -> Response:
        """For Prometheus; needs the extra `metrics`."""
        found = store_of(store, request)
        text = await done_by(POOL, lambda: _metrics_of(found))
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/storage/queue", dependencies=guards)
    async def queue(request: Request) -> list[dict[str, Any]]:
        """What the bucket does not have yet."""
        with _answers():
            items = await done_by(POOL, store_of(store, request).pending)
        return [{**asdict(item), "path": None} for item in items]


def _metrics_of(store: CacheStore) -> bytes:
    from cachestore.metrics import metrics_of

    return metrics_of(store).text()
