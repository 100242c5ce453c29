"""What a remote's error answer means: decided by HTTP status first, then code, then message."""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from cachestore.errors import (
    CacheStoreError,
    Corrupt,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    Rejected,
    RemoteError,
    RemoteRefused,
    RemoteUnavailable,
    Throttled,
    UploadLost,
)

_THROTTLES = frozenset(
    {
        "SlowDown", "TooManyRequests", "TooMuchConcurrency", "RequestLimitExceeded",
        "Throttling", "ThrottlingException", "RequestThrottled",
    }
)  # fmt: skip
_REFUSALS = frozenset(
    {
        "NoSuchBucket", "InvalidBucketName", "AccessDenied", "AllAccessDisabled",
        "SignatureDoesNotMatch", "InvalidAccessKeyId", "Unauthorized", "NotEntitled",
        "RequestTimeTooSkewed", "ExpiredRequest", "ExpiredToken", "InvalidToken",
        "AuthorizationHeaderMalformed", "AccountProblem", "PermanentRedirect",
        "InvalidRegionName", "InvalidSecurity",
    }
)  # fmt: skip
_PASSING = frozenset(
    {
        "RequestTimeout", "ClientDisconnect", "IncompleteBody", "InternalError",
        "ServiceUnavailable", "OperationAborted", "ConditionalRequestConflict",
    }
)  # fmt: skip
_DAMAGED = frozenset({"BadDigest", "XAmzContentSHA256Mismatch"})
_LOST = frozenset({"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall"})
_MAX_MESSAGE = 300
_MAX_PAUSE = 3600.0


def classify(
    status: int | None,
    code: str | None,
    message: str,
    headers: Mapping[str, str] | None = None,
    *,
    what: str = "request",
    now: float = 0.0,
) -> CacheStoreError:
    """The error to raise for an error answer.

    `status`: HTTP status, None when no answer came. `code` and `message`: the remote's. `headers`
    with lower-case names. `what` begins the text, for example "put 'a/b'". `now`: seconds since
    the epoch, for a `Retry-After` that is a date.
    """
    code = None if code is None or code.isdigit() else code
    text = f"{what}: {_shown(status, code, message)}"
    if status is None and code is None:
        return RemoteUnavailable(text)
    if _throttled(status, code, message):
        pause = retry_after(headers or {}, now)
        return Throttled(text, status=status, code=code, retry_after=pause)
    if status == 412 or code == "PreconditionFailed":
        return PreconditionFailed(text, status=status, code=code)
    if status == 416 or code == "InvalidRange":
        return RangeNotSatisfiable(text, status=status, code=code)
    if code in _LOST:
        return UploadLost(text, status=status, code=code)
    if code == "NoSuchKey" or (status == 404 and code not in _REFUSALS):
        return NotFound(text)
    return _kind(status, code)(text, status=status, code=code)


def _kind(status: int | None, code: str | None) -> type[RemoteError]:
    """The rest: for good for all keys, for good for this one, or for now."""
    if code == "ObjectLockedByBucketPolicy":
        return Rejected
    if status in (401, 403) or code in _REFUSALS:
        return RemoteRefused
    if code in _DAMAGED:
        return Corrupt
    if status in (501, 505) or code == "NotImplemented":
        return Rejected
    if code in _PASSING or status is None or status in (408, 425) or status >= 500:
        return RemoteUnavailable
    # A redirect without a code is somebody between us and the remote, such as a captive portal.
    return Rejected if status >= 400 else RemoteUnavailable


def _throttled(status: int | None, code: str | None, message: str) -> bool:
    if status == 429 or code in _THROTTLES:
        return True
    return code == "ServiceUnavailable" and "concurrent request rate" in message


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the remote asked to wait, at most an hour; None if it did not."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (TypeError, ValueError):
            return None
    return None if math.isnan(seconds) else min(max(0.0, seconds), _MAX_PAUSE)


def _shown(status: int | None, code: str | None, message: str) -> str:
    head = " ".join(str(part) for part in (status, code) if part is not None)
    text = " ".join(message.split())
    if len(text) > _MAX_MESSAGE:
        text = text[: _MAX_MESSAGE - 3] + "..."
    return f"{head}: {text}" if head and text else head or text or "no answer"
