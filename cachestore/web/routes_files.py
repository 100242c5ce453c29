"""Routes that answer with a file: by signed URL, and by key for whom the app lets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

from cachestore.policy.tokens import BadToken
from cachestore.web.answers import Look
from cachestore.web.asgi import Source, file_response, store_of
from cachestore.web.bodies import Problem
from cachestore.web.problems import FILE, GUARDED, Responses

_LINK: Responses = {
    **FILE, 403: {"model": Problem, "description": "The signed URL is over, or was altered."},
}  # fmt: skip


def add_files(router: APIRouter, store: Source, look: Look, guards: Sequence[Any]) -> None:
    """Files by signed URL; with the app's `authorize` also by their key."""

    @router.head("/links/{token}/{name}", responses=_LINK, response_class=Response)
    @router.get("/links/{token}/{name}", responses=_LINK, response_class=Response)
    async def link(token: str, name: str, request: Request) -> Response:
        """The file that a signed URL names, as long as its time lasts."""
        try:
            key = store_of(store, request).links.readable(token)
        except BadToken as error:
            raise HTTPException(403, str(error)) from None
        return await file_response(store, key, request, look=look)

    if not guards:
        return
    responses = {**FILE, **GUARDED}

    @router.head(
        "/files/{key:path}", dependencies=guards, responses=responses, response_class=Response
    )
    @router.get(
        "/files/{key:path}", dependencies=guards, responses=responses, response_class=Response
    )
    async def file(key: str, request: Request) -> Response:
        """The file, for whom the app lets have it."""
        return await file_response(store, key, request, look=look)
