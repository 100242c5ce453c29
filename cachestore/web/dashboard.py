"""A page that shows how a store is, for people whom the app lets see it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import HTMLResponse, JSONResponse, Response

from cachestore.aio import done_by
from cachestore.errors import CacheStoreError
from cachestore.store import CacheStore
from cachestore.web.asgi import POOL, Source, store_of
from cachestore.web.overview import overview

ACTION = "x-cachestore-action"
"""A header that the page sends and that no form, link or image of another site can."""

_FLUSH_SECONDS = 10.0


class RetryBody(BaseModel):
    """Which key to try again; None for all."""

    key: str | None = None


def add_dashboard(router: APIRouter, store: Source, guards: Sequence[Any]) -> None:
    """The page, what it asks for, and what its buttons do; each only past the app's `guards`."""
    guards = list(guards)
    if not guards:
        raise ValueError("the dashboard is for those whom the app lets in: it needs a guard")
    act = {"dependencies": [*guards, Depends(same_site)], "include_in_schema": False}

    @router.get("/dashboard", dependencies=guards, include_in_schema=False)
    async def page() -> Response:
        html, policy = _page()
        return HTMLResponse(html, headers={**_HEADERS, "content-security-policy": policy})

    @router.get("/dashboard/data", dependencies=guards, include_in_schema=False)
    async def data(request: Request) -> Response:
        return await _answered(store_of(store, request), overview)

    @router.post("/dashboard/flush", **act)  # type: ignore[arg-type]  # a dict of mixed values
    async def flush(request: Request) -> Response:
        return await _answered(store_of(store, request), _flush)

    @router.post("/dashboard/retry", **act)  # type: ignore[arg-type]  # as above
    async def retry(body: RetryBody, request: Request) -> Response:
        return await _answered(
            store_of(store, request), lambda found: {"due": found.retry(body.key)}
        )

    @router.post("/dashboard/clean", **act)  # type: ignore[arg-type]  # as above
    async def clean(request: Request) -> Response:
        return await _answered(store_of(store, request), lambda found: found.clean())


def page_of(store: CacheStore, prefix: str, hosts: Sequence[str]) -> FastAPI:
    """An application that is only the dashboard, at `prefix`/dashboard.

    Whoever knows the prefix is let in; `hosts`: the names by which it may be asked for.
    """
    app = FastAPI(openapi_url=None)
    # A name of another site that leads here would make its pages ours.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    router = APIRouter()
    add_dashboard(router, store, [Depends(_anybody)])
    app.include_router(router, prefix=prefix)
    return app


def _anybody() -> None:
    return None


def same_site(request: Request) -> None:
    """Refuse what a page of another site may have sent with a visitor's cookies.

    Our page's header makes a browser ask first (CORS); should an app allow that to everybody,
    what browsers say of the sender still counts.
    """
    headers = request.headers
    if headers.get(ACTION) != "1":
        raise HTTPException(403, f"the header {ACTION} is missing: this is for the dashboard")
    site = headers.get("sec-fetch-site")
    if site is not None:
        if site != "same-origin":
            raise HTTPException(403, "this was sent by another site's page")
        return
    origin = headers.get("origin")  # of browsers that say no more, and over plain http
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise HTTPException(403, "this was sent by another site's page")


async def _answered(store: CacheStore, work: Callable[[CacheStore], Any]) -> Response:
    try:
        made = await done_by(POOL, lambda: work(store))
    except ValueError as error:  # InvalidKey
        return JSONResponse({"detail": str(error)}, 422, _HEADERS)
    except CacheStoreError as error:
        return JSONResponse({"detail": str(error)}, 503, _HEADERS)
    return JSONResponse(made, headers=_HEADERS)


def _flush(store: CacheStore) -> dict[str, Any]:
    report = store.flush(_FLUSH_SECONDS)
    return {
        "done": report.done, "uploaded": report.uploaded, "left": len(report.left),
        "parked": len(report.parked), "reason": report.reason,
    }  # fmt: skip


# -- the page -------------------------------------------------------------------------------------

_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


@cache
def _page() -> tuple[str, str]:
    """The page in one piece, and a policy under which nothing but it can run or be loaded."""
    folder = files("cachestore.web") / "static"
    style = (folder / "dashboard.css").read_text("utf-8")
    script = (folder / "dashboard.js").read_text("utf-8")
    html = (folder / "dashboard.html").read_text("utf-8")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return html.replace("/*style*/", style).replace("/*script*/", script), policy


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
