"""What `benchmarks.serve` runs under uvicorn, one application in each process.

`SERVE_ROOT` (in the environment) is the folder of the benchmark: `files/` holds the plain files.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

SIZE = 24_000
NAMES = [f"{number:02d}.wav" for number in range(16)]


def prefix(name: str) -> str:
    """A key of the benchmark."""
    return f"segments/{name}"


def make_files(root: Path) -> None:
    """The same files for all servers."""
    folder = root / "files" / "segments"
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(bytes([number]) * SIZE)


def constant() -> Any:
    """Bytes that are in memory, of as many files: what uvicorn itself costs."""
    bodies = {f"/{prefix(name)}": bytes([n]) * SIZE for n, name in enumerate(NAMES)}
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"content-type", b"audio/x-wav"), (b"content-length", str(SIZE).encode()),
            (b"etag", b'"0123456789abcdef0123456789abcdef"'), (b"accept-ranges", b"bytes"),
            (b"last-modified", b"Sat, 31 Jan 2026 12:00:00 GMT"),
        ],
    }  # fmt: skip

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start)
        await send({"type": "http.response.body", "body": bodies[scope["path"]]})

    return app


def read_and_send() -> Any:
    """The least that can be done for bytes of a file: open, stat, read, close."""
    folder = os.environ["SERVE_ROOT"] + "/files"
    head = [(b"content-length", str(SIZE).encode())]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        fd = os.open(folder + scope["path"], os.O_RDONLY)
        try:
            os.fstat(fd)
            body = os.read(fd, SIZE + 1)
        finally:
            os.close(fd)
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    return app


def file_response() -> Any:
    """Starlette's `FileResponse`, without a router in front."""
    from starlette.responses import FileResponse

    folder = os.environ["SERVE_ROOT"] + "/files"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await FileResponse(folder + scope["path"])(scope, receive, send)

    return app


def cachestore() -> Any:
    """`FileApp` on a store whose copies are here."""
    from cachestore import open_store
    from cachestore.options import Options
    from cachestore.web.asgi import FileApp

    root = Path(os.environ["SERVE_ROOT"])
    parts = [root / "store" / name for name in ("cache", "spool", "output")]
    store = open_store(Options(*parts, "mock", mock_dir=root / "store" / "bucket"))
    for name in NAMES:
        receipt = store.put(prefix(name), root / "files" / prefix(name))
        while receipt.state != "uploaded":
            time.sleep(0.01)  # uvicorn calls this in its loop, where `wait` would warn
        store.get(prefix(name))
    return FileApp(store)
