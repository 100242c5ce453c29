"""A bare ASGI client, and stores to ask."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Got:
    """An answer. Header names are lower-case."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    chunks: int = 0


def ask(app: Any, path: str, method: str = "GET", /, root: str = "", **headers: str) -> Got:
    """One request; `_` in a header's name stands for `-`. `path` as it is on the wire."""
    return asyncio.run(asked(app, path, method, root=root, **headers))


async def asked(app: Any, path: str, method: str = "GET", /, root: str = "", **headers: str) -> Got:
    from urllib.parse import unquote

    got = Got()
    scope = {
        "type": "http", "method": method, "path": unquote(path), "raw_path": path.encode(),
        "root_path": root, "query_string": b"",
        "headers": [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()],
    }  # fmt: skip

    received: list[None] = []

    async def receive() -> dict[str, Any]:
        if received:
            await asyncio.Event().wait()  # this client stays
        received.append(None)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            got.status = message["status"]
            got.headers = {n.decode(): v.decode("latin-1") for n, v in message["headers"]}
        else:
            got.body += message["body"]
            got.chunks += 1

    await app(scope, receive, send)
    return got


def parts_of(got: Got) -> list[tuple[str, bytes]]:
    """The parts of a multipart/byteranges answer: Content-Range and bytes."""
    boundary = got.headers["content-type"].partition("boundary=")[2].encode()
    found = []
    for piece in got.body.split(b"\r\n--" + boundary)[1:-1]:
        head, _, data = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        found.append((lines["content-range"], data))
    return found
