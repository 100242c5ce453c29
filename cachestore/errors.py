"""Every error that the library raises, each saying what happened, to which key, and what to do."""

from __future__ import annotations


class CacheStoreError(Exception):
    """The base of all errors of this library."""


class InvalidKey(CacheStoreError, ValueError):
    """The key cannot name a file in every place where files are kept."""


class ConfigError(CacheStoreError, ValueError):
    """The settings contradict each other, or something is missing."""


class NotFound(CacheStoreError, FileNotFoundError):
    """No such key: never put, deleted, or gone from the bucket."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "not found"


class StoreClosed(CacheStoreError):
    """The store was closed; open a new one."""


class Unsupported(CacheStoreError):
    """This remote or mode cannot do what was asked."""


class TimedOut(CacheStoreError, TimeoutError):
    """A deadline passed; nothing was lost.

    `receipt`: of a put that is durable here and stays pending, else None.
    """

    receipt: object = None


class SourceError(CacheStoreError):
    """The source of a put cannot be read, or changed while it was read; nothing was stored."""


# -- local disk ---------------------------------------------------------------------------------


class SpoolError(CacheStoreError):
    """The spool cannot be read or written; what it holds is left untouched."""


class SpoolFull(SpoolError):
    """A put could not be made durable for lack of space, or pending bytes passed their limit."""


class SpoolBusy(SpoolError, TimeoutError):
    """Another process held the key's lock for too long; its process id is named."""


class CacheFull(CacheStoreError):
    """Everything in the cache is in use; use `read`, `open` or `lease`, which need no grace."""


# -- remote -------------------------------------------------------------------------------------


class RemoteError(CacheStoreError):
    """The remote answered with an error.

    Attributes: `status` (HTTP status or None), `code` (the remote's error code or None).
    """

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class RemoteUnavailable(RemoteError):
    """Not reachable, or a failure that passes by itself: try again later.

    `receipt`: of a put that is durable here and whose upload was parked, else None.
    """

    receipt: object = None


class NotSent(RemoteUnavailable):
    """The request did not reach the remote (no connection, breaker open): it had no effect."""


class Throttled(RemoteUnavailable):
    """Too many requests (429, SlowDown). `retry_after`: seconds the remote asked for, or None."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code)
        self.retry_after = retry_after


class RemoteRefused(RemoteError):
    """Refused for all keys: wrong or revoked credentials, no such bucket, clock skew."""


class Rejected(RemoteError):
    """Refused for this object for good: too large, bad metadata, locked."""


class PreconditionFailed(RemoteError):
    """A condition (`if_match`, `if_none_match`) did not hold.

    `expected`: the condition's ETag; `found`: the remote's ETag where known.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = 412,
        code: str | None = None,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code)
        self.expected = expected
        self.found = found


class RangeNotSatisfiable(RemoteError):
    """The range starts behind the end of the object."""


class UploadLost(RemoteError):
    """The remote no longer knows the multipart upload; start it anew."""


class Corrupt(RemoteUnavailable):
    """Bytes that arrived do not have the length or the digest they should have."""


class ConfirmFailed(CacheStoreError):
    """A direct upload is not what was announced; the key does not exist afterwards.

    One that another machine announced, and for which it is too late here, stays for that machine.
    """
