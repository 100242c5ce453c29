"""Routes that say how the store is: for probes, and more for whom the app lets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from cachestore.aio import done_by
from cachestore.errors import SpoolError
from cachestore.store import CacheStore
from cachestore.web.asgi import POOL, Source, store_of
from cachestore.web.bodies import Status
from cachestore.web.problems import STATE, answered


def add_status(router: APIRouter, store: Source) -> None:
    """What everybody may know."""

    @router.get(
        "/health",
        response_model=Status,
        responses={503: {"model": Status, "description": "Files cannot be taken."}},
    )
    async def health(request: Request) -> JSONResponse:
        """`healthy` or `degraded`; 503 only when files cannot be made durable."""
        found = store_of(store, request)
        try:
            report = await done_by(POOL, found.health)
        except SpoolError:
            return JSONResponse({"status": "failing", "services": {}}, 503)
        enabled = "disabled" if report["remote"] is None else "enabled"
        services = {"r2_storage": "degraded" if report["degraded"] else enabled}
        status = 503 if report["status"] == "failing" else 200
        return JSONResponse({"status": report["status"], "services": services}, status)


def add_state(router: APIRouter, store: Source, guards: Sequence[Any]) -> None:
    """What only the app's own people may know."""

    @router.get("/health/details", dependencies=guards, responses=STATE)
    async def details(request: Request) -> dict[str, Any]:
        """Mode, reason, folders, remote, queue, cache, alerts."""
        with answered():
            return await done_by(POOL, store_of(store, request).health)

    @router.get("/stats", dependencies=guards, responses=STATE)
    async def stats(request: Request) -> dict[str, float]:
        """Sums since the store was opened."""
        found: CacheStore = store_of(store, request)
        with answered():
            return (await done_by(POOL, found.stats)).as_dict()

    @router.get(
        "/metrics",
        dependencies=guards,
        response_class=Response,
        responses={**STATE, 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics(request: Request) -> Response:
        """For Prometheus; needs the extra `metrics`."""
        found = store_of(store, request)
        text = await done_by(POOL, lambda: metrics_text(found))
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/storage/queue", dependencies=guards, responses=STATE)
    async def queue(request: Request) -> list[dict[str, Any]]:
        """What the bucket does not have yet."""
        with answered():
            items = await done_by(POOL, store_of(store, request).pending)
        return [{**asdict(item), "path": None} for item in items]


def metrics_text(store: CacheStore) -> bytes:
    """A store's metrics; they count from the first call on."""
    from cachestore.metrics import metrics_of

    return metrics_of(store).text()
