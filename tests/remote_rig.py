"""S3 servers that are not there: a recorded wire, and a server that answers as it is told."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cachestore.options import RemoteOptions
from cachestore.remote.s3 import S3Remote

SECRET = "a-very-secret-key-0123456789"
TOKEN = "a-very-secret-token-0123456789"
HOST = "https://account.r2.cloudflarestorage.com"


def make(endpoint: str = HOST, **more: Any) -> S3Remote:
    options = RemoteOptions(
        bucket="bucket", endpoint=endpoint, access_key="key-id", secret_key=SECRET, **more
    )
    return S3Remote(options, workers=4)


class Wire:
    """Stands in for the network on https: records what would be sent, answers nothing but 200."""

    def __init__(self, remote: S3Remote) -> None:
        self.requests: list[Any] = []
        self.bodies: list[bytes] = []
        remote._client().meta.events.register("before-send.s3", self._take)

    def _take(self, request: Any, **_: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        class Raw(io.BytesIO):
            def stream(self, **_: Any) -> Iterator[bytes]:
                yield self.read()

        self.requests.append(request)
        body = request.body
        self.bodies.append(body.read() if hasattr(body, "read") else body or b"")
        answer = b"<R><UploadId>u</UploadId></R>" if "uploads" in request.url else b""
        return AWSResponse(request.url, 200, {"ETag": '"e"'}, Raw(answer))

    def headers(self, index: int = -1) -> dict[str, str]:
        return {
            name.lower(): value.decode() if isinstance(value, bytes) else str(value)
            for name, value in self.requests[index].headers.items()
        }


Answer = Callable[[BaseHTTPRequestHandler], None]


class Stub:
    """An HTTP server that answers as it is told."""

    def __init__(self) -> None:
        self.answer: Answer = say(200)
        self.seen: list[str] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                stub.seen.append(f"{self.command} {self.path}")
                stub.answer(self)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _any

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def say(status: int, body: bytes = b"", cut: int | None = None, **headers: str) -> Answer:
    """Answer with a body, of which only `cut` bytes are sent before the connection ends."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("Last-Modified", "Tue, 24 Nov 2026 10:00:00 GMT")
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            handler.close_connection = True

    return answer


def refuse(status: int, code: str, message: str = "because", **headers: str) -> Answer:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return say(status, text.encode(), **headers)
