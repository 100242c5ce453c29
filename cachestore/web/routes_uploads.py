"""Routes for direct uploads: where to send a file, the check afterwards, and the bytes themselves
where there is no bucket."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, HTTPException, Request

from cachestore.aio import done_by
from cachestore.model import ObjectInfo, PresignedUpload, PutRequest
from cachestore.policy.tokens import BadToken
from cachestore.web.asgi import POOL, Source, store_of
from cachestore.web.bodies import ConfirmBody, PresignBatch, PresignBody, Presigned, Stored
from cachestore.web.problems import RECEIVED, UPLOAD, answered
from cachestore.web.receiving import received

KeyFor = Callable[[Request, PresignBody], "str | Awaitable[str]"]
OnConfirmed = Callable[[ObjectInfo, Request], Any]


def add_uploads(
    router: APIRouter,
    store: Source,
    guards: Sequence[Any],
    key_for: KeyFor,
    on_confirmed: OnConfirmed | None,
    expires_in: int,
) -> None:
    """Presigning, and confirming."""

    @router.post("/uploads/presign", dependencies=guards, responses=UPLOAD)
    async def presign(
        body: PresignBody | PresignBatch, request: Request
    ) -> Presigned | list[Presigned]:
        """Where to upload a file directly; a list of files is answered with a list."""
        bodies = body if isinstance(body, list) else [body]
        wanted: list[PutRequest] = []
        for each in bodies:
            key = key_for(request, each)
            wanted.append({
                "key": await key if inspect.isawaitable(key) else key,
                "content_type": each.content_type, "size": each.size, "sha256": each.sha256,
            })  # fmt: skip

        def make() -> list[PresignedUpload]:
            return store_of(store, request).presign_puts(wanted, expires_in=expires_in)

        with answered():
            made = await done_by(POOL, make)
        shown = [_shown(put["key"], how) for put, how in zip(wanted, made, strict=True)]
        return shown if isinstance(body, list) else shown[0]

    @router.post("/uploads/confirm", dependencies=guards, responses=UPLOAD)
    async def confirm(body: ConfirmBody, request: Request) -> Stored:
        """Check what was uploaded; may be asked again."""

        def check() -> ObjectInfo:
            return store_of(store, request).confirm_upload(
                body.key, size=body.size, sha256=body.sha256, content_type=body.content_type
            )

        with answered():
            info = await done_by(POOL, check)
        if on_confirmed is not None:
            told = on_confirmed(info, request)
            if inspect.isawaitable(told):
                await told
        return _stored(info)


def add_receiving(router: APIRouter, store: Source) -> None:
    """The route that takes an upload itself."""

    @router.put("/uploads/{token}", status_code=201, responses=RECEIVED)
    async def upload(token: str, request: Request) -> Stored:
        """Take an upload where there is no bucket, as its signed URL allows."""
        found = store_of(store, request)
        try:
            announced = found.links.announced(token)
        except BadToken as error:
            raise HTTPException(403, str(error)) from None
        if request.headers.get("content-type", "") != announced.content_type:
            raise HTTPException(403, f"the content type must be {announced.content_type}")
        with answered():
            info = await received(found, announced, request.stream())
        return _stored(info)


def _shown(key: str, how: PresignedUpload) -> Presigned:
    return Presigned(
        key=key, url=how.url, method=how.method, headers=dict(how.headers),
        expires_at=how.expires_at,
    )  # fmt: skip


def _stored(info: ObjectInfo) -> Stored:
    return Stored(**{name: getattr(info, name) for name in Stored.model_fields})
