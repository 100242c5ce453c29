"""A remote behind a breaker: while it does not work, callers learn so at once or probe it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Self, TypeVar

from cachestore.clock import Clock
from cachestore.errors import CacheStoreError, RemoteUnavailable, Unsupported
from cachestore.events import Events, RemoteCall
from cachestore.model import Attributes, ListPage, RemoteObject
from cachestore.remote.base import (
    RemoteBody,
    RemoteSource,
    RemoteStore,
    SupportsLifecycle,
    SupportsMultipart,
    SupportsPresign,
)
from cachestore.remote.circuit import Circuit

T = TypeVar("T")


class _GuardedBody:
    """Passes an answer on; a connection that breaks counts as a failure of the remote."""

    def __init__(self, inner: AbstractContextManager[RemoteBody], circuit: Circuit) -> None:
        self._inner = inner
        self._body = inner.__enter__()
        self._circuit = circuit
        self.info = self._body.info
        self.length = self._body.length

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._body
        except RemoteUnavailable as error:
            self._circuit.failed(error)
            raise

    def close(self) -> None:
        self._body.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._inner.__exit__(*exc)


class GuardedRemote:
    """`RemoteStore` and `SupportsMultipart` by way of `inner`, with an event for each request.

    `patience` of any call, in seconds, matters only while the breaker is open: 0 fails at once
    with `RemoteUnavailable`; more, or None for no limit, becomes the next probe (at most one
    begins in a second) or waits for one, and fails when that probe fails.
    """

    def __init__(self, inner: RemoteStore, clock: Clock, events: Events) -> None:
        self.inner = inner
        self._clock = clock
        self._events = events
        self._circuit = Circuit(clock, inner.name)
        self._parts = inner if isinstance(inner, SupportsMultipart) else None

    # -- what it is and how it is ----------------------------------------------------------------

    @property
    def remote_id(self) -> str:
        return self.inner.remote_id

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def conditional(self) -> bool:
        return self.inner.conditional

    @property
    def presigner(self) -> SupportsPresign | None:
        """What makes URLs, which needs no network; None where there are none."""
        return self.inner if isinstance(self.inner, SupportsPresign) else None

    @property
    def lifecycle(self) -> SupportsLifecycle | None:
        """What knows the bucket's rules, past the breaker: a key that may not see them can still
        be right for objects. None where there are none.
        """
        return self.inner if isinstance(self.inner, SupportsLifecycle) else None

    @property
    def state(self) -> Literal["closed", "open"]:
        """`closed` while the remote works."""
        return "open" if self._circuit.open else "closed"

    @property
    def last_error(self) -> str | None:
        """Why it opened, or the last failure since the last success."""
        return self._circuit.last_error

    @property
    def opened_at(self) -> float | None:
        """Seconds since the epoch when it opened; None while closed."""
        return self._circuit.opened_at

    # -- one request -----------------------------------------------------------------------------

    def _call(
        self,
        operation: str,
        key: str,
        patience: float | None,
        request: Callable[[], T],
        size: Callable[[T], int] = lambda _: 0,
    ) -> T:
        self._circuit.admit(f"{operation} {key!r}", patience)
        start = self._clock.monotonic()
        try:
            answer = request()
        except CacheStoreError as error:
            self._circuit.answered(error)
            self._emit(operation, key, type(error).__name__, start, 0)
            raise
        self._circuit.succeeded()
        self._emit(operation, key, "ok", start, size(answer))
        return answer

    def _emit(self, operation: str, key: str, status: str, start: float, size: int) -> None:
        seconds = self._clock.monotonic() - start
        self._events.emit(RemoteCall(key, operation, status, seconds, size))

    def head(
        self, key: str, *, timeout: float | None = None, patience: float | None = None
    ) -> RemoteObject:
        return self._call("head", key, patience, lambda: self.inner.head(key, timeout=timeout))

    def get(
        self,
        key: str,
        *,
        start: int = 0,
        end: int | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        timeout: float | None = None,
        patience: float | None = None,
    ) -> _GuardedBody | None:
        def request() -> _GuardedBody | None:
            answer = self.inner.get(
                key,
                start=start,
                end=end,
                if_match=if_match,
                if_none_match=if_none_match,
                timeout=timeout,
            )
            return None if answer is None else _GuardedBody(answer, self._circuit)

        return self._call("get", key, patience, request, lambda body: body.length if body else 0)

    def put(
        self,
        key: str,
        body: RemoteSource,
        *,
        size: int,
        sha256: str,
        attributes: Attributes,
        if_match: str | None = None,
        if_none_match: str | None = None,
        patience: float | None = None,
    ) -> RemoteObject:
        return self._call(
            "put",
            key,
            patience,
            lambda: self.inner.put(
                key,
                body,
                size=size,
                sha256=sha256,
                attributes=attributes,
                if_match=if_match,
                if_none_match=if_none_match,
            ),
            lambda _: size,
        )

    def delete(self, key: str, *, patience: float | None = None) -> None:
        self._call("delete", key, patience, lambda: self.inner.delete(key))

    def delete_many(
        self, keys: Iterable[str], *, patience: float | None = None
    ) -> dict[str, Exception]:
        wanted = list(keys)
        return self._call("delete_many", "", patience, lambda: self.inner.delete_many(wanted))

    def list(
        self,
        prefix: str = "",
        *,
        delimiter: str | None = None,
        after: str | None = None,
        patience: float | None = None,
    ) -> Iterator[ListPage]:
        pages = iter(self.inner.list(prefix, delimiter=delimiter, after=after))
        while True:
            try:
                page = self._call("list", prefix, patience, lambda: next(pages))
            except StopIteration:  # the end, which was no request
                return
            yield page

    def close(self) -> None:
        self.inner.close()

    # -- multipart -------------------------------------------------------------------------------

    def _multipart(self) -> SupportsMultipart:
        if self._parts is None:
            raise Unsupported(f"{self.name} does not take objects in parts")
        return self._parts

    def create_upload(
        self, key: str, *, sha256: str, attributes: Attributes, patience: float | None = None
    ) -> str:
        parts = self._multipart()
        return self._call(
            "create_upload",
            key,
            patience,
            lambda: parts.create_upload(key, sha256=sha256, attributes=attributes),
        )

    def upload_part(
        self, key: str, upload_id: str, number: int, data: bytes, *, patience: float | None = None
    ) -> str:
        parts = self._multipart()
        return self._call(
            "upload_part",
            key,
            patience,
            lambda: parts.upload_part(key, upload_id, number, data),
            lambda _: len(data),
        )

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[str],
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
        patience: float | None = None,
    ) -> RemoteObject:
        inner = self._multipart()
        return self._call(
            "complete_upload",
            key,
            patience,
            lambda: inner.complete_upload(
                key, upload_id, parts, if_match=if_match, if_none_match=if_none_match
            ),
        )

    def abort_upload(self, key: str, upload_id: str, *, patience: float | None = None) -> None:
        parts = self._multipart()
        self._call("abort_upload", key, patience, lambda: parts.abort_upload(key, upload_id))
