"""A slow line to a server on this machine: every byte passes through it, late and not too fast."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from urllib.parse import urlsplit

_PIECE = 64 << 10


class SlowLink:
    """A TCP proxy in front of an endpoint; a context manager.

    `latency`: seconds by which each answer comes later. `rate`: bytes a second from the server,
    of all connections together. `received`: how many the server has sent.
    """

    def __init__(self, endpoint: str, *, latency: float, rate: float) -> None:
        parts = urlsplit(endpoint)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._latency = latency
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._ended = threading.Event()
        self._open: set[socket.socket] = set()
        self.received = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"{parts.scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="slow-link", daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(OSError))
            stack.enter_context(near)
            far = stack.enter_context(socket.create_connection(self._target))
            with self._lock:
                self._open |= {near, far}
            if self._ended.is_set():
                return
            asked = threading.Event()
            there = threading.Thread(target=_pass, args=(near, far, asked), daemon=True)
            there.start()
            self._pass_slowly(far, near, asked)
            there.join()
        with self._lock:
            self._open -= {near, far}

    def _pass_slowly(
        self, source: socket.socket, target: socket.socket, asked: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                now = time.monotonic()
                due = now
                if asked.is_set():
                    asked.clear()
                    due += self._latency
                with self._lock:
                    self._free_at = until = max(self._free_at, due) + len(data) / self._rate
                    self.received += len(data)
                self._ended.wait(max(0.0, until - now))
                target.sendall(data)
        _shut(target)

    def close(self) -> None:
        """End all connections."""
        self._ended.set()
        _shut(self._listener)
        self._listener.close()
        with self._lock:
            connections = list(self._open)
        for each in connections:
            _shut(each)

    def __enter__(self) -> SlowLink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _pass(source: socket.socket, target: socket.socket, asked: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_PIECE):
            asked.set()
            target.sendall(data)
    _shut(target)
