"""Conditional requests and byte ranges, as R2 understands them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from cachestore.testing.r2.request import Refusal

RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Version:
    """What conditions are about; the time has no parts of a second."""

    etag: str
    modified: datetime


def precondition_failed() -> Refusal:
    message = "At least one of the pre-conditions you specified did not hold."
    return Refusal(412, "PreconditionFailed", message)


def check_write(headers: Mapping[str, str], now: Version | None) -> None:
    """Raises 412 where a write's conditions do not hold; None is a missing key."""
    if _fails(headers, now) or _not_modified(headers, now):
        raise precondition_failed()


def check_read(headers: Mapping[str, str], now: Version) -> bool:
    """True where a reader has this version already (304). Raises 412."""
    if _fails(headers, now):
        raise precondition_failed()
    return _not_modified(headers, now)


def _fails(headers: Mapping[str, str], now: Version | None) -> bool:
    if "if-match" in headers:
        return not _matches(headers["if-match"], now)
    since = _date(headers.get("if-unmodified-since"))
    return since is not None and (now is None or now.modified > since)


def _not_modified(headers: Mapping[str, str], now: Version | None) -> bool:
    if "if-none-match" in headers:
        return _matches(headers["if-none-match"], now)
    since = _date(headers.get("if-modified-since"))
    return since is not None and now is not None and now.modified <= since


def _matches(field: str, now: Version | None) -> bool:
    """Lists, weak ETags and `*` are allowed; quotes may be missing."""
    if now is None:
        return False
    wanted = (_bare(item) for item in field.split(","))
    return any(item in ("*", _bare(now.etag)) for item in wanted)


def _bare(etag: str) -> str:
    return etag.strip().removeprefix("W/").strip('"')


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def parse_range(field: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the length that are asked for, None for all. Raises 400 and 416."""
    if field is None:
        return None
    match = RANGE.fullmatch(field.strip())
    if match is None or match.group(1) == match.group(2) == "":
        message = "range must be in format 'bytes=start-end', 'bytes=start-' or 'bytes=-suffix'."
        raise Refusal(400, "InvalidArgument", message)
    first, last = match.groups()
    if first and last and int(last) < int(first):
        raise Refusal(400, "InvalidArgument", "range must be positive.")
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        raise Refusal(416, "InvalidRange", "The requested range is not satisfiable")
    return start, end - start
