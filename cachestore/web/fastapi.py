"""For FastAPI apps: a lifespan that opens the store, a dependency, and a router."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from cachestore.aio import AsyncCacheStore, done_by
from cachestore.open import open_store
from cachestore.web.answers import Look
from cachestore.web.asgi import POOL, Source
from cachestore.web.bodies import ConfirmBody, PresignBody, Presigned, Stored
from cachestore.web.dashboard import add_dashboard
from cachestore.web.routes_files import add_files
from cachestore.web.routes_state import add_state, add_status, metrics_text
from cachestore.web.routes_sync import add_sync
from cachestore.web.routes_uploads import KeyFor, OnConfirmed, add_receiving, add_uploads

__all__ = [
    "ConfirmBody",
    "KeyFor",
    "OnConfirmed",
    "PresignBody",
    "Presigned",
    "StoreDep",
    "Stored",
    "build_router",
    "store_lifespan",
    "store_of_request",
]


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
                await done_by(POOL, lambda: metrics_text(store.sync))  # they count from now on
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


def build_router(
    store: Source,
    *,
    authorize: Callable[..., Any] | None = None,
    key_for: KeyFor | None = None,
    on_confirmed: OnConfirmed | None = None,
    look: Look | None = None,
    expires_in: int = 3600,
    sync: str | os.PathLike[str] | None = None,
    sync_prefix: str = "",
) -> APIRouter:
    """The routes, to be included where PUBLIC_BASE_URL leads.

    `store`: a store, or a function that finds it on the request. `authorize`: a dependency of the
    app that raises where somebody may not; without it only what a signed URL allows, and the
    status, are answered. `key_for(request, body)` chooses the key of an upload, never the client:
    without it there is no presigning. `on_confirmed(info, request)` may make the app's record.
    `sync`: a folder whose files `POST /storage/r2-sync` stores below `sync_prefix`.
    """
    router = APIRouter(tags=["storage"])
    guards = [] if authorize is None else [Depends(authorize)]
    add_files(router, store, look or Look(), guards)
    add_receiving(router, store)
    add_status(router, store)
    if authorize is not None:
        add_state(router, store, guards)
        add_dashboard(router, store, guards)
        if sync is not None:
            add_sync(router, store, guards, sync, sync_prefix)
        if key_for is not None:
            add_uploads(router, store, guards, key_for, on_confirmed, expires_in)
    return router
