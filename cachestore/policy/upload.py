"""Decisions about an upload: what an error means for it, which condition it is sent with."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from typing import Literal

from cachestore.errors import (
    Corrupt,
    NotSent,
    PreconditionFailed,
    Rejected,
    RemoteRefused,
    RemoteUnavailable,
    SourceError,
    Throttled,
    Unsupported,
)
from cachestore.model import RemoteObject

Kind = Literal["throttled", "refused", "transport", "passing", "condition", "permanent"]
_AMBIGUOUS_FROM = 500
_NOT_DONE = 503
_PARKED = re.compile(r"condition failed: expected (.*), found (.*)", re.DOTALL)


def kind_of(error: BaseException) -> Kind:
    """What a failed try means.

    `throttled`: this key rests. `refused`: all keys wait, none is given up. `transport`: the
    remote does not work. `passing`: this key is tried again. `condition`: a condition did not
    hold. `permanent`: a person has to look at it.
    """
    if isinstance(error, Throttled):
        return "throttled"
    if isinstance(error, RemoteRefused):
        return "refused"
    if isinstance(error, Corrupt):
        return "passing"
    if isinstance(error, RemoteUnavailable):
        return "transport"
    if isinstance(error, PreconditionFailed):
        return "condition"
    if isinstance(error, SourceError):
        cause = error.__cause__
        # Out of descriptors, or a disk error: the body itself may be well. Not where there is
        # none, or a link in its place.
        gone = isinstance(cause, FileNotFoundError)
        passes = isinstance(cause, OSError) and not gone and cause.errno != errno.ELOOP
        return "passing" if passes else "permanent"
    if isinstance(error, (Rejected, Unsupported, ValueError)):
        return "permanent"
    return "passing"


def is_ambiguous(error: BaseException) -> bool:
    """True if the request may have taken effect, or may still do so later."""
    if isinstance(error, (NotSent, Throttled)) or not isinstance(error, RemoteUnavailable):
        return False
    status = error.status
    return status is None or (status >= _AMBIGUOUS_FROM and status != _NOT_DONE)


def conditions(
    conditional: bool, if_match: str | None, if_none_match: str | None, base: str | None
) -> tuple[str | None, str | None]:
    """`if_match` and `if_none_match` to send: the caller's, else our own fence.

    `conditional`: the remote honours them. `base`: the remote's ETag that the change was made
    on, "" for nothing there, None for unknown (no fence then).
    """
    if if_match is not None or if_none_match is not None:
        return if_match, if_none_match
    if not conditional or base is None:
        return None, None
    return (None, "*") if base == "" else (base, None)


def same_content(found: RemoteObject, size: int, sha256: str, etag: str | None = None) -> bool:
    """True if `found` has the bytes that we sent. `etag`: the one we were given for them."""
    if found.size != size:
        return False
    if found.sha256 is not None:
        return found.sha256 == sha256
    return etag is not None and found.etag == etag


def same_object(
    found: RemoteObject,
    size: int,
    sha256: str,
    content_type: str,
    metadata: Mapping[str, str],
    cache_control: str | None,
) -> bool:
    """True if `found` is what we would send again: the bytes and all that goes with them."""
    return (
        same_content(found, size, sha256)
        and found.content_type == content_type
        and dict(found.metadata) == dict(metadata)
        and (found.cache_control or None) == (cache_control or None)
    )


def condition_reason(expected: str | None, found: str | None) -> str:
    """Why a conditional put was parked, with both ETags; `None` found: nothing there."""
    return f"condition failed: expected {json.dumps(expected)}, found {json.dumps(found)}"


def parse_condition(reason: str | None) -> tuple[str | None, str | None] | None:
    """Both ETags of `condition_reason`; None for any other reason."""
    match = _PARKED.fullmatch(reason or "")
    if match is None:
        return None
    try:
        return json.loads(match[1]), json.loads(match[2])
    except ValueError:
        return None
