"""The double's mind: which requests R2 would take, and what becomes of them."""

from __future__ import annotations

import threading
import time

from cachestore.testing.r2.answer import Answer, refused
from cachestore.testing.r2.backend import Backend
from cachestore.testing.r2.cors import is_preflight, preflight
from cachestore.testing.r2.log import RequestLog
from cachestore.testing.r2.request import Refusal, Request
from cachestore.testing.r2.rules import Rules
from cachestore.testing.r2.signing import Credentials, check_signature
from cachestore.testing.r2.strict import check_form, check_headers, check_limits, check_operation
from cachestore.testing.r2.uploads import Received

LIMITED = ("PutObject", "CopyObject", "CompleteMultipartUpload", "DeleteObject")


class Service:
    """Checks, then the backend. Knows nothing of connections."""

    def __init__(self, credentials: Credentials, *, admin: bool) -> None:
        self.credentials = credentials
        self.admin = admin
        self.backend = Backend()
        self.rules = Rules()
        self.log = RequestLog()
        self.write_interval: float | None = None
        self.origins: set[str] = set()
        self._lock = threading.Lock()
        self._written: dict[tuple[str, str], float] = {}

    def answer(self, request: Request, received: Received) -> Answer:
        """What R2 would answer, after it has taken effect; a refusal is an answer too."""
        if self.origins and is_preflight(request.method, request.headers):
            return preflight(request.headers, self.origins)
        try:
            check_form(request)
            check_signature(request, self.credentials, time.time())
            check_operation(request, admin=self.admin)
            check_headers(request)
            check_limits(request)
            received.check()
            self._check_rate(request)
            return self.backend.handle(request, received)
        except Refusal as refusal:
            return refused(refusal)

    def _check_rate(self, request: Request) -> None:
        if self.write_interval is None or request.operation not in LIMITED:
            return
        now = time.monotonic()
        place = (request.bucket, request.key)
        with self._lock:
            if now - self._written.get(place, float("-inf")) < self.write_interval:
                message = "Reduce your concurrent request rate for the same object."
                raise Refusal(429, "ServiceUnavailable", message)
            self._written[place] = now
