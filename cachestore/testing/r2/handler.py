"""The double's HTTP: HTTP/1.1 with connections that stay, and every way to break them."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import IO, TYPE_CHECKING, Any, cast

from cachestore.testing.r2 import control
from cachestore.testing.r2.answer import PIECE, Answer, Body, refused
from cachestore.testing.r2.cors import shown_to
from cachestore.testing.r2.log import Entry
from cachestore.testing.r2.request import Refusal, Request
from cachestore.testing.r2.rules import Rule
from cachestore.testing.r2.uploads import Received, drain_chunked

if TYPE_CHECKING:
    from cachestore.testing.r2.service import Service

BODILESS = (204, 304)
EDGE_ERRORS = range(520, 531)
SLICES = 20


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "r2-double"
    sys_version = ""
    disable_nagle_algorithm = True
    _releases = 0

    @property
    def service(self) -> Service:
        return cast("Service", cast("Any", self.server).service)

    def log_message(self, format: str, *args: Any) -> None:
        """The request log says more."""

    def handle_expect_100(self) -> bool:
        """Said later, when the body is wanted."""
        return True

    def do_GET(self) -> None:
        """Any request."""
        try:
            self._serve()
        except OSError:
            # The client went away, or a rule took the connection down.
            self.close_connection = True

    do_HEAD = do_PUT = do_POST = do_DELETE = do_OPTIONS = do_PATCH = do_GET

    def _serve(self) -> None:
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            known = headers.get(name.lower())
            headers[name.lower()] = value if known is None else f"{known},{value}"
        received = Received(headers)
        try:
            if self.path.startswith(control.PREFIX):
                self._receive(headers, received, None)
                answer = control.answer(self.service, self.command, self.path, received.file.read())
                self._send(answer, None, None)
                return
            request = Request.parse(self.command, self.path, headers)
            operation = request.operation
            entry = Entry(self.command, operation, request.bucket, request.key)
            self._releases = self.service.rules.releases
            rule = self.service.rules.take(self.command, request.key, operation)
            entry.fault = rule.action if rule else ""
            self.service.log.begin(entry)
            try:
                self._obey(request, received, rule, entry)
            finally:
                self.service.log.end(entry)
        finally:
            received.close()

    def _obey(self, request: Request, received: Received, rule: Rule | None, entry: Entry) -> None:
        """Let the request take effect, or not, as the rule says; then answer, or not."""
        action = rule.action if rule else ""
        if rule and action == "hang":
            self._wait(rule.seconds)
            self._reset()
        self._receive(request.headers, received, entry)
        if rule and action == "status":
            self._send(told(rule), None, entry)
            return
        if rule and action == "reset" and rule.at is None:
            self._reset()
        if rule and action == "late_commit":
            self._wait(rule.seconds)
        answer = self.service.answer(request, received)
        try:
            if action == "drop_answer":
                self._reset()
            if rule and action == "slow_headers":
                self._wait(rule.seconds)
            self._send(answer, rule, entry)
        finally:
            answer.body.close()

    def _receive(
        self, headers: dict[str, str] | Any, received: Received, entry: Entry | None
    ) -> None:
        def note(count: int) -> None:
            if entry:
                self.service.log.note(entry, received=count)

        if headers.get("expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        source = cast("IO[bytes]", self.rfile)
        if "chunked" in headers.get("transfer-encoding", ""):
            drain_chunked(source)
        else:
            received.take(source, int(headers.get("content-length") or 0), note)

    def _send(self, answer: Answer, rule: Rule | None, entry: Entry | None) -> None:
        bodiless = self.command == "HEAD" or answer.status in BODILESS
        if entry:
            self.service.log.note(entry, status=answer.status)
        self.send_response(answer.status)
        shown = shown_to(self.headers.get("Origin"), self.service.origins)
        for name, value in {**answer.headers, **shown}.items():
            self.send_header(name, value)
        if answer.status not in BODILESS:
            self.send_header("Content-Length", str(answer.body.size))
        self.end_headers()
        if bodiless:
            return
        offset = 0
        for piece in pieces(answer.body, rule):
            offset = self._send_piece(piece, offset, rule, entry)

    def _send_piece(self, piece: bytes, offset: int, rule: Rule | None, entry: Entry | None) -> int:
        """Send a part of the body, and do there what the rule says; the next offset."""
        end = offset + len(piece)
        at = rule.at if rule else None
        here = rule is not None and at is not None and offset <= at < end
        if rule and here and at is not None:
            inside = at - offset
            if rule.action in ("cut", "reset", "stall"):
                self._write(piece[:inside], entry)
                piece = piece[inside:]
            if rule.action == "cut":
                raise ConnectionAbortedError("cut by a rule")
            if rule.action == "reset":
                self._reset()
            if rule.action == "stall":
                self._wait(rule.seconds)
            if rule.action == "corrupt":
                piece = piece[:inside] + bytes([piece[inside] ^ 0xFF]) + piece[inside + 1 :]
        self._write(piece, entry)
        if rule and rule.action == "slow_body":
            self._wait(len(piece) / rule.rate)
        return end

    def _write(self, data: bytes, entry: Entry | None) -> None:
        # Counted first: a client that has the last byte must find it counted.
        if entry:
            self.service.log.note(entry, sent=len(data))
        self.wfile.write(data)

    def _wait(self, seconds: float | None) -> None:
        self.service.rules.wait(seconds, self._releases)

    def _reset(self) -> None:
        """End the connection with an RST instead of a FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Closing the object would wait for the files made from it; closing the descriptor does not.
        with contextlib.suppress(OSError):
            os.close(self.connection.detach())
        raise ConnectionResetError("reset by a rule")


def pieces(body: Body, rule: Rule | None) -> Iterator[bytes]:
    """The body in pieces, small ones where it goes out slowly."""
    most = PIECE
    if rule and rule.action == "slow_body":
        most = max(1, min(PIECE, rule.rate // SLICES))
    return body.pieces(most)


def told(rule: Rule) -> Answer:
    """The answer that a rule prescribes; errors of the edge are HTML, as Cloudflare's are."""
    if rule.status in EDGE_ERRORS:
        page = f"<!DOCTYPE html><title>{rule.status}: Web server error</title>".encode()
        answer = Answer(rule.status, {"Content-Type": "text/html; charset=UTF-8"}, Body(page))
    else:
        answer = refused(Refusal(rule.status, rule.code, rule.message))
    if rule.retry_after is not None:
        answer.headers["Retry-After"] = f"{rule.retry_after:g}"
    return answer
