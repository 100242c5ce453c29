"""Conditional requests (RFC 9110, section 13): is a client's version the present one? Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Literal

from cachestore.model import ObjectInfo

Outcome = Literal["send", "not modified", "failed"]
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')


def tags(info: ObjectInfo) -> tuple[str, ...]:
    """What names this version: the bucket's ETag, and our digest, which it also has before that."""
    return tuple(tag for tag in (info.etag, info.sha256) if tag)


def etag_of(info: ObjectInfo) -> str | None:
    """The strong ETag to send, with its quotes; None if nothing names this version."""
    known = tags(info)
    return f'"{known[0]}"' if known else None


def date_of(moment: datetime) -> str:
    """A date as HTTP has it."""
    return format_datetime(moment.astimezone(UTC).replace(microsecond=0), usegmt=True)


def evaluate(headers: Mapping[str, str], info: ObjectInfo) -> Outcome:
    """What a GET or HEAD with these (lower-case) headers gets."""
    if_match, unless_since = headers.get("if-match"), headers.get("if-unmodified-since")
    if if_match is not None:
        if not _names(if_match, info, weak=False):
            return "failed"
    elif unless_since is not None and _later(info, unless_since) is True:
        return "failed"
    if_none, since = headers.get("if-none-match"), headers.get("if-modified-since")
    if if_none is not None:
        return "not modified" if _names(if_none, info, weak=True) else "send"
    if since is not None and _later(info, since) is False:
        return "not modified"
    return "send"


def range_holds(if_range: str | None, info: ObjectInfo) -> bool:
    """Whether a Range header counts: If-Range, when there is one, names this very version."""
    if if_range is None:
        return True
    if '"' in if_range:
        return not if_range.startswith("W/") and _names(if_range, info, weak=False)
    moment = _moment(if_range)
    return moment is not None and _seconds(info) == int(moment.timestamp())


def _names(header: str, info: ObjectInfo, *, weak: bool) -> bool:
    if header.strip() == "*":
        return True
    known = tags(info)
    return any(match[2] in known and (weak or not match[1]) for match in _TAG.finditer(header))


def _later(info: ObjectInfo, text: str) -> bool | None:
    """Whether the file changed after a date; None if that is no date."""
    moment = _moment(text)
    return None if moment is None else _seconds(info) > int(moment.timestamp())


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    except (ValueError, IndexError, OverflowError):
        return None


def _seconds(info: ObjectInfo) -> int:
    return int(info.last_modified.timestamp())
