"""Taking an upload's bytes through the app: counted while they come, checked before they count."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import IO

from cachestore.aio import done_by
from cachestore.errors import ConfirmFailed
from cachestore.links import Announced
from cachestore.model import ObjectInfo
from cachestore.store import CacheStore
from cachestore.web.asgi import POOL

_IN_MEMORY = 1 << 20


class TooLarge(Exception):
    """More bytes came than were allowed."""


async def received(
    store: CacheStore, announced: Announced, chunks: AsyncIterator[bytes]
) -> ObjectInfo:
    """Store what comes, if it is what was announced.

    Raises `TooLarge` as soon as it is too much, `ConfirmFailed` when it is something else, and
    what `CacheStore.put` raises; nothing is stored then.
    """
    limit = announced.max_size if announced.size is None else announced.size
    size, digest = 0, sha256()
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        async for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"more than {limit} bytes came")
            digest.update(chunk)
            await _write(file, chunk)
        if announced.size is not None and size != announced.size:
            raise ConfirmFailed(f"{size} bytes came, {announced.size} were announced")
        if announced.sha256 is not None and digest.hexdigest() != announced.sha256:
            raise ConfirmFailed("the bytes are not those that were announced")

        def put() -> ObjectInfo:
            receipt = store.put(announced.key, file, content_type=announced.content_type)
            store.links.received(announced, receipt.id)
            return store.head(announced.key)

        return await done_by(POOL, put)


async def _write(file: IO[bytes], chunk: bytes) -> None:
    if file.tell() + len(chunk) <= _IN_MEMORY:
        file.write(chunk)  # in memory
    else:
        await done_by(POOL, lambda: file.write(chunk))
