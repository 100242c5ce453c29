"""An ASGI application that serves a store's files, and the same inside an app's own routes."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote_to_bytes

from cachestore.aio import AsyncCacheStore, done_by, lent_by
from cachestore.errors import CacheStoreError, InvalidKey, NotFound
from cachestore.flight import Pool
from cachestore.keys import check_key
from cachestore.local.hot import HotEntry
from cachestore.model import ObjectInfo
from cachestore.opened import OpenFile
from cachestore.store import CacheStore
from cachestore.web.answers import Answer, Look, answer, problem
from cachestore.web.ranges import first_wanted

if TYPE_CHECKING:
    from starlette.responses import Response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AnyStore = CacheStore | AsyncCacheStore
Source = AnyStore | Callable[[Any], AnyStore]
HandOff = Literal["x-accel-redirect", "x-sendfile"]

log = logging.getLogger("cachestore")
POOL = Pool(32, "cachestore-web")
_CHUNK = 256 << 10
_SMALL = 256 << 10
"""Hot files up to this size are read on the event loop: it costs less than a thread."""
_SPECIAL = frozenset(
    (b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since",
     b"if-unmodified-since")
)  # fmt: skip
"""What makes an answer another one than the whole; servers give names in lower case (ASGI)."""


class FileApp:
    """Answers GET and HEAD for the keys below a prefix, wherever an app mounts it.

    `store`: a store, or a function that finds one on the ASGI scope. `prefix`: put before what is
    in the path. There is no listing, and no way outside of the prefix. `hand_off`: names the file
    to the web server in front, which then sends it; with "x-accel-redirect" as a path below
    `hand_off_root`, which that server maps to CACHE_DIR.
    """

    def __init__(
        self,
        store: Source,
        *,
        prefix: str = "",
        look: Look | None = None,
        hand_off: HandOff | None = None,
        hand_off_root: str = "/_cachestore/",
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._look = look or Look()
        self._hand_off = hand_off
        self._root = hand_off_root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"FileApp answers http, not {scope['type']}")
        if scope["method"] not in ("GET", "HEAD"):
            made = problem(405, self._look, {"allow": "GET, HEAD"})
            await _send_text(made, scope, send)
            return
        path = path_in(scope)
        key = None if path is None else self._prefix + path
        store = store_of(self._store, scope)
        serving = Serving(store, self._look, self._hand_off, self._root)
        await serving.serve(key, scope, receive, send)


async def file_response(
    store: Source,
    key: str,
    request: Any,
    *,
    look: Look | None = None,
    cache_control: str | None = None,
    download: bool | str = False,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer of `FileApp` for one key, as a response of Starlette or FastAPI.

    `request`: theirs; its ranges and conditions count. The app has authorised it already.
    """
    from cachestore.web.responses import StoreResponse

    made = look or Look(cache_control, download, headers or {})
    return StoreResponse(Serving(store_of(store, request), made), key)


def store_of(store: Source, request: Any) -> CacheStore:
    """The store that is meant, without its asyncio side."""
    found = store if isinstance(store, (CacheStore, AsyncCacheStore)) else store(request)
    return found.sync if isinstance(found, AsyncCacheStore) else found


def path_in(scope: Scope) -> str | None:
    """The path below the mount, without its first slash; None for one that plays tricks."""
    raw = scope.get("raw_path")
    if isinstance(raw, bytes) and (b"%" in raw or not raw.isascii()):
        if b"%2f" in raw.lower():
            return None  # a slash that routers did not see
        try:
            unquote_to_bytes(raw).decode("utf-8")
        except UnicodeDecodeError:
            return None
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    if root and path.startswith(root):
        path = path[len(root) :]
    return path.removeprefix("/")


class Serving:
    """Answers one request for a key."""

    def __init__(
        self,
        store: CacheStore,
        look: Look,
        hand_off: HandOff | None = None,
        hand_off_root: str = "",
    ) -> None:
        self._store = store
        self._look = look
        self._hand_off = hand_off
        self._root = hand_off_root

    async def serve(self, key: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or the reason why not. `key` None: the path was no key's."""
        try:
            key = check_key(key or "")
        except InvalidKey:
            await _send_text(problem(400, self._look), scope, send)
            return
        found = self._store.core.hot.entry(key)
        if found is not None and found.size <= _SMALL and self._hand_off is None:
            if await self._plain(found, scope, send):
                return
        else:
            found = None
        headers = request_headers(scope)
        if found is not None and await self._hot(key, found, headers, scope, send):
            return
        try:
            if scope["method"] == "HEAD":
                made = answer("HEAD", headers, await self._head(key), self._look)
                await _send_text(made, scope, send)
                return
            opened = partial(self._store.open, key, first_wanted(headers.get("range")))
            file = await lent_by(POOL, opened, OpenFile.close)
        except CacheStoreError as error:
            await _send_text(self._why_not(key, error), scope, send)
            return
        try:
            made = answer("GET", headers, file.info, self._look)
            if not await self._handed_off(made, key, send):
                await self._send_file(made, file, receive, send)
        finally:
            file.close()

    async def _head(self, key: str) -> ObjectInfo:
        return await done_by(POOL, partial(self._store.head, key))

    def _why_not(self, key: str, error: CacheStoreError) -> Answer:
        if isinstance(error, NotFound):
            return problem(404, self._look)
        log.warning("cachestore: %s cannot be served: %s", key, error)
        return problem(503, self._look, {"retry-after": "1"})

    async def _plain(self, found: HotEntry, scope: Scope, send: Send) -> bool:
        """The shortest way: a whole small hot file, for a GET that asks for nothing special."""
        if scope["method"] != "GET":
            return False
        for name, _ in scope["headers"]:
            if name in _SPECIAL:
                return False
        body = self._store.core.hot.read(found)
        if body is None:
            return False
        prepared = found.prepared
        look = self._look
        if not isinstance(prepared, _Prepared) or (
            prepared.look is not look and prepared.look != look
        ):
            prepared = _Prepared(look, answer("GET", {}, found.info, look))
            found.prepared = prepared
        # A new list: apps and middleware add to it.
        await send(
            {"type": "http.response.start", "status": 200, "headers": prepared.headers.copy()}
        )
        await send({"type": "http.response.body", "body": body})
        return True

    async def _hot(
        self, key: str, found: HotEntry, headers: dict[str, str], scope: Scope, send: Send
    ) -> bool:
        """Answer a small hot file right here; False for all others."""
        hot = self._store.core.hot
        if hot.path(key, hand_out=False) != found.path:
            return False
        made = answer(scope["method"], headers, found.info, self._look)
        try:
            fd = os.open(found.text, os.O_RDONLY)
            try:
                if not found.describes(os.fstat(fd)):
                    return False
                body = b"".join(
                    part.text if part.span is None
                    else os.pread(fd, part.span.length, part.span.start)
                    for part in made.parts
                )  # fmt: skip
            finally:
                os.close(fd)
        except OSError:
            return False
        await send(_start(made))
        await send({"type": "http.response.body", "body": body})
        return True

    async def _handed_off(self, made: Answer, key: str, send: Send) -> bool:
        """Name the file to the server in front of us; it sees to ranges itself."""
        if self._hand_off is None or not made.parts or made.status not in (200, 206):
            return False
        path = await done_by(POOL, partial(self._store.get, key))
        where = str(path)
        if self._hand_off == "x-accel-redirect":
            below = os.path.relpath(path, self._store.options.cache_dir)
            if below.startswith(".."):
                return False  # pending or local: not where that server looks
            where = self._root + quote(below)
        headers = {
            name: value
            for name, value in made.headers.items()
            if name not in ("content-length", "content-range")
        }
        await send(_start(Answer(200, {**headers, self._hand_off: where, "content-length": "0"})))
        await send({"type": "http.response.body", "body": b""})
        return True

    async def _send_file(self, made: Answer, file: OpenFile, receive: Receive, send: Send) -> None:
        await send(_start(made))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            for part in made.parts:
                if part.span is None:
                    await _body(part.text, send)
                    continue
                at, end = part.span.start, part.span.end
                while at < end and not gone.done():
                    data = await done_by(POOL, partial(file.read_at, at, min(_CHUNK, end - at)))
                    if not data:
                        raise CacheStoreError(f"{file.info.key!r} ended before its size")
                    await _body(data, send)
                    at += len(data)
        finally:
            gone.cancel()
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    """Until the client has gone: what is still to be fetched for it need not come."""
    while (await receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)


class _Prepared:
    """The headers of a whole file, as they go out. They depend on the app's `look`."""

    __slots__ = ("headers", "look")

    def __init__(self, look: Look, made: Answer) -> None:
        self.look = look
        self.headers: list[tuple[bytes, bytes]] = _start(made)["headers"]


def request_headers(scope: Scope) -> dict[str, str]:
    """Lower-case names; several of one name are joined, as HTTP means it."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        text = name.decode("latin-1").lower()
        said = value.decode("latin-1")
        found[text] = f"{found[text]}, {said}" if text in found else said
    return found


def _start(made: Answer) -> dict[str, Any]:
    headers = [
        (name.lower().encode("latin-1", "replace"), _line(value))
        for name, value in made.headers.items()
    ]
    return {"type": "http.response.start", "status": made.status, "headers": headers}


def _line(value: str) -> bytes:
    """A header's value on one line, whatever an object's metadata hold."""
    return value.replace("\r", " ").replace("\n", " ").encode("latin-1", "replace")


async def _body(data: bytes, send: Send) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _send_text(made: Answer, scope: Scope, send: Send) -> None:
    await send(_start(made))
    text = b"" if scope["method"] == "HEAD" else b"".join(part.text for part in made.parts)
    await send({"type": "http.response.body", "body": text})
