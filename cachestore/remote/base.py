"""The promises that every remote keeps. One contract suite runs over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from cachestore.model import Attributes, ListPage, PresignedUpload, RemoteObject
from cachestore.policy.wire import SHA256_NAME

__all__ = [
    "MAX_PARTS",
    "MAX_SINGLE_PUT",
    "MIN_PART",
    "SHA256_NAME",
    "RemoteBody",
    "RemoteSource",
    "RemoteStore",
    "SupportsForms",
    "SupportsLifecycle",
    "SupportsMultipart",
    "SupportsPresign",
]

MAX_SINGLE_PUT = (5 << 30) - (5 << 20)
"""Bytes that one `put`, or one part, may have on R2; more needs `SupportsMultipart`."""

MIN_PART = 5 << 20
MAX_PARTS = 10_000


class RemoteSource(Protocol):
    """What `put` reads: a binary file, or anything with these three of its methods."""

    def read(self, count: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


class RemoteBody(Protocol):
    """An answer to `get`: the object, and its bytes as they arrive.

    `info.size` is the whole object's size, `length` the number of bytes of this answer. Both are
    -1 where the remote does not say (R2 unpacks foreign gzip objects while it sends them).
    Iterating raises `RemoteUnavailable` when the connection breaks and `Corrupt` when it ends
    early; it never ends quietly with fewer than `length` bytes.
    """

    info: RemoteObject
    length: int

    def __iter__(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


@runtime_checkable
class RemoteStore(Protocol):
    """Objects under keys.

    Every method raises `NotFound`, `Throttled`, `RemoteUnavailable`, `RemoteRefused`,
    `Rejected` or `PreconditionFailed`, and nothing of the remote's own library. No method
    retries. `timeout` is in seconds, for connecting and for each silence of the server (it may
    be rounded up a little); None means the client's own. Keys are compared in NFC. Metadata
    names come back in lower case, our own entries not at all. Safe to share by threads; a forked
    child makes its own client.
    """

    @property
    def remote_id(self) -> str:
        """16 hex digits, the same for the same endpoint and bucket."""
        ...

    @property
    def name(self) -> str:
        """For people: where this is, without secrets."""
        ...

    @property
    def conditional(self) -> bool:
        """True when `if_match` and `if_none_match` of `put` are honoured."""
        ...

    def head(self, key: str, *, timeout: float | None = None) -> RemoteObject:
        """What is stored under `key`; `NotFound` if nothing."""
        ...

    def get(
        self,
        key: str,
        *,
        start: int = 0,
        end: int | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        timeout: float | None = None,
    ) -> AbstractContextManager[RemoteBody] | None:
        """The bytes from `start` to `end` (exclusive; None: the rest).

        None is returned when `if_none_match` is the current ETag (304). `PreconditionFailed`
        when `if_match` is not; that, or `NotFound`, when nothing is there. `ValueError` for an
        `end` that is not behind `start`. `RangeNotSatisfiable` when `start` is not inside the
        object; an empty object answers start=0, end=None with no bytes.
        """
        ...

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
    ) -> RemoteObject:
        """Store `size` bytes read from `body`'s position; the body is never closed.

        `sha256` (hex) is stored beside it, and checked by the remote where it can. Conditions
        raise `Unsupported` where `conditional` is False. `if_none_match` is "*". An error that
        reading `body` raises comes out as it is, and nothing is stored then. `body` may be read
        more than once (it needs `seek` and `tell`), from the position that it has.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object; no error if there is none."""
        ...

    def delete_many(self, keys: Iterable[str]) -> dict[str, Exception]:
        """Remove at most 1,000 objects in one request; the ones that failed, with why.

        The answer has the keys as they were given. An error that concerns the whole request (not
        reachable, refused) is raised instead.
        """
        ...

    def list(
        self, prefix: str = "", *, delimiter: str | None = None, after: str | None = None
    ) -> Iterator[ListPage]:
        """Pages in the order of the keys' UTF-8 bytes, starting behind `after`.

        Objects carry key, size, etag and modified; the other fields are not known here. A common
        prefix is named when a key behind `after` lies in it. Errors are raised by the iteration.
        """
        ...

    def close(self) -> None:
        """Give up connections; the remote can be used again afterwards."""
        ...


@runtime_checkable
class SupportsMultipart(Protocol):
    """Large objects in parts of equal size (the last may be smaller), at least 5 MiB each."""

    def create_upload(self, key: str, *, sha256: str, attributes: Attributes) -> str:
        """Begin; returns the upload's id."""
        ...

    def upload_part(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        """Send part `number` (from 1); returns its ETag. `UploadLost` if the upload is gone."""
        ...

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[str],
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> RemoteObject:
        """Make the parts (their ETags in order) one object. `UploadLost` if it is gone.

        The answer has key and ETag; size and attributes are what the sender knows. A condition
        that does not hold may destroy the upload.
        """
        ...

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Give up an upload; no error if it is gone."""
        ...


@runtime_checkable
class SupportsPresign(Protocol):
    """URLs that work without credentials for a while; made without the network."""

    def presign_get(self, key: str, expires_in: int) -> str:
        """A URL that reads `key` for `expires_in` seconds (1 to 604,800, else `ValueError`)."""
        ...

    def presign_put(
        self,
        key: str,
        *,
        content_type: str,
        expires_in: int,
        size: int | None,
        sha256: str | None,
        announced: str | None = None,
    ) -> PresignedUpload:
        """A URL that stores exactly one body under `key`; the headers are part of the signature.

        `size` (bytes) and `sha256` (hex) bind the body where they are given. `announced`: a mark
        that the object will carry (`RemoteObject.announced`).
        """  # fmt: skip
        ...


@runtime_checkable
class SupportsForms(Protocol):
    """Uploads by an HTML form (presigned POST); made without the network."""

    def presign_post(
        self,
        key: str,
        *,
        content_type: str,
        expires_in: int,
        least: int,
        most: int,
        sha256: str | None,
        announced: str | None = None,
    ) -> PresignedUpload:
        """A URL and form fields that store one body of `least` to `most` bytes under `key`.

        `Unsupported` where the server has no such thing, with the reason.
        """  # fmt: skip
        ...


@runtime_checkable
class SupportsLifecycle(Protocol):
    """A bucket that expires and moves objects by rules of its own, as S3 has them."""

    def lifecycle(self) -> list[Mapping[str, Any]]:
        """All rules; [] if there are none. `RemoteRefused` where the key may not see them."""
        ...

    def set_lifecycle(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """These rules in the place of all others; none of them: no rules at all."""
        ...
