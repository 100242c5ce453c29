"""When a file was made: by its name, by its sidecar, else by its modification time. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from cachestore.errors import ConfigError

_DIGITS = {
    "Y": r"\d{4}", "m": r"\d{2}", "d": r"\d{2}", "H": r"\d{2}", "M": r"\d{2}", "S": r"\d{2}",
    "y": r"\d{2}", "j": r"\d{3}", "f": r"\d{1,6}",
}  # fmt: skip


class NamePattern:
    """Finds a time in a file's name: `%Y%m%d_%H%M%S` in `event_20260115_083022_side.jpg`."""

    def __init__(self, pattern: str) -> None:
        """Directives: %Y %y %m %d %j %H %M %S %f, and %%. Raises `ConfigError`."""
        self.pattern = pattern
        found: list[str] = []
        parts: list[str] = []
        for text in re.findall(r"%.|%$|[^%]+", pattern, re.DOTALL):
            if not text.startswith("%"):
                parts.append(re.escape(text))
            elif text == "%%":
                parts.append("%")
            elif text[1:] in _DIGITS and text[1:] not in found:
                found.append(text[1:])
                parts.append(_DIGITS[text[1:]])
            else:
                raise ConfigError(
                    f"the time pattern {pattern!r} has {text!r}; each of"
                    f" {' '.join('%' + name for name in _DIGITS)} may be there once"
                )
        if not ({"Y", "y"} & set(found) and ({"m", "d"} <= set(found) or "j" in found)):
            raise ConfigError(f"the time pattern {pattern!r} names no whole date, as %Y%m%d does")
        self._regex = re.compile(r"(?<!\d)" + "".join(parts) + r"(?!\d)")

    def find(self, name: str) -> datetime | None:
        """The first time in `name`, without a zone; None if there is none."""
        for match in self._regex.finditer(name):
            try:
                return datetime.strptime(match[0], self.pattern)
            except ValueError:  # such digits, but no date: the 45th of March
                continue
        return None


def zone_of(name: str | tzinfo | None) -> tzinfo:
    """A time zone by its IANA name; None is UTC. Raises `ConfigError`."""
    if isinstance(name, tzinfo):
        return name
    if name is None or name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError) as error:
        raise ConfigError(f"there is no time zone {name!r}; write one as Europe/Berlin") from error


def time_in(document: Mapping[str, Any], field: str) -> datetime | None:
    """The time that a sidecar's `field` holds: ISO 8601, or seconds since the epoch; else None."""
    value = document.get(field)
    try:
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def file_time(
    name: str,
    mtime_ns: int,
    *,
    pattern: NamePattern | None,
    document: Mapping[str, Any] | None,
    field: str,
    zone: tzinfo,
) -> datetime:
    """The file's own time in `zone`; one without a zone of its own is taken to be in it."""
    found = pattern.find(name) if pattern is not None else None
    if found is None and document is not None:
        found = time_in(document, field)
    if found is None:
        found = datetime.fromtimestamp(mtime_ns / 1e9, UTC)
    return found.replace(tzinfo=zone) if found.tzinfo is None else found.astimezone(zone)
