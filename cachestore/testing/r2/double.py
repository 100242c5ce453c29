"""The double itself: a server in threads of this process."""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
import threading
import time
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import Any

from cachestore.testing.r2.handler import Handler
from cachestore.testing.r2.log import RequestLog
from cachestore.testing.r2.rules import Rules
from cachestore.testing.r2.service import Service
from cachestore.testing.r2.signing import Credentials

CLOSE_SECONDS = 30.0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self, address: tuple[str, int], service: Service, context: ssl.SSLContext | None
    ) -> None:
        self.service = service
        self._context = context
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open.discard(request)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self._context is None:
            super().finish_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            # Here, not where connections are accepted: a slow handshake holds up nobody else.
            secured = self._context.wrap_socket(request, server_side=True)
            with self._lock:
                self._open.add(secured)
            try:
                super().finish_request(secured, client_address)
            finally:
                with self._lock:
                    self._open.discard(secured)
                secured.close()

    def drop(self) -> None:
        """End every connection and wait for its thread."""
        end = time.monotonic() + CLOSE_SECONDS
        while time.monotonic() < end:
            with self._lock:
                connections = list(self._open)
            if not connections:
                return
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            time.sleep(0.005)


class R2Double:
    """R2 at `endpoint` with one bucket, for one key; a context manager.

    With `write_interval` (seconds) a key may be written only so often, as on R2 once a second;
    more is answered by 429. Without `admin` the key is one for objects: buckets can neither be
    made nor looked at. An `ssl_context` makes it https. Raises ImportError without moto.
    """

    def __init__(
        self,
        bucket: str | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        access_key: str | None = None,
        secret_key: str | None = None,
        session_token: str | None = None,
        write_interval: float | None = None,
        admin: bool = False,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        access = access_key or secrets.token_hex(16)
        known = Credentials(access, secret_key or secrets.token_hex(32), session_token)
        self._service = Service(known, admin=admin)
        self._service.write_interval = write_interval
        self._address = (host, port)
        self._context = ssl_context
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self.region = "auto"
        self.conditional = True
        self.bucket = self.new_bucket(bucket)
        self.up()

    @property
    def endpoint(self) -> str:
        """The URL of the S3 API."""
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://{self._address[0]}:{self._address[1]}"

    @property
    def access_key(self) -> str:
        """The only access key id that it knows."""
        return self._service.credentials.access_key

    @property
    def secret_key(self) -> str:
        """The secret that belongs to it."""
        return self._service.credentials.secret_key

    @property
    def session_token(self) -> str | None:
        """The session token that requests must carry, None where they must not."""
        return self._service.credentials.session_token

    @property
    def rules(self) -> Rules:
        """Its faults; may be changed at any time."""
        return self._service.rules

    @property
    def log(self) -> RequestLog:
        """What it was asked."""
        return self._service.log

    @property
    def write_interval(self) -> float | None:
        """Seconds between two writes of a key; None for any number of them."""
        return self._service.write_interval

    @write_interval.setter
    def write_interval(self, seconds: float | None) -> None:
        self._service.write_interval = seconds

    def new_bucket(self, name: str | None = None) -> str:
        """Make one more bucket. Raises ValueError for a bad name, or one that is in use."""
        made = name or f"bucket-{secrets.token_hex(6)}"
        self._service.backend.create_bucket(made)
        return made

    def allow_origin(self, origin: str) -> None:
        """Let web pages of this origin (`https://example.com`) use it, as a CORS rule would."""
        self._service.origins.add(origin)

    def down(self) -> None:
        """Refuse connections and drop those that there are, until `up()`. Objects stay."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._server = None
        server.shutdown()
        thread.join()
        server.server_close()
        server.drop()

    def up(self) -> None:
        """Answer again, on the same port."""
        if self._server is not None or self._closed:
            return
        self._server = _Server(self._address, self._service, self._context)
        self._address = (self._address[0], self._server.server_port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="r2-double", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop, and forget all objects. May be called again."""
        if self._closed:
            return
        self._closed = True
        self.rules.end()
        self.down()
        self._service.backend.close()

    def __enter__(self) -> R2Double:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"R2Double({self.endpoint}, bucket={self.bucket!r})"
