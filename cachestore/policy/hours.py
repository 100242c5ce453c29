"""Hours of the day in which something happens: `20:00-06:00 Europe/Berlin`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from cachestore.errors import ConfigError
from cachestore.policy.filetimes import zone_of

_FORM = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})(?:\s+(\S+))?")
_DAY = 24 * 60
NEVER_SET = ("none", "always")


@dataclass(frozen=True, slots=True)
class ActiveHours:
    """From `start` to `end`, minutes of the day as clocks show it in `zone`; over midnight too.

    The start is inside, the end is not. Where clocks are put forward, an hour that does not exist
    is never inside; where they are put back, one that comes twice is inside twice.
    """

    start: int
    end: int
    zone: tzinfo

    def contains(self, moment: datetime) -> bool:
        """True if `moment`, which has a zone, is inside."""
        local = moment.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end

    def contains_seconds(self, now: float) -> bool:
        """The same for wall seconds since the epoch."""
        return self.contains(datetime.fromtimestamp(now, UTC))

    def __str__(self) -> str:
        return f"{_shown(self.start)}-{_shown(self.end)}"


def active_hours(text: str | None, zone: tzinfo = UTC) -> ActiveHours | None:
    """What `20:00-06:00`, with a time zone behind it or in `zone`, means; None for any time.

    Raises `ConfigError`.
    """
    if text is None or text.strip().lower() in NEVER_SET:
        return None
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise ConfigError(
            f"hours are written as 20:00-06:00, a time zone behind them or not: {text!r}"
        )
    start = _minute(text, found[1], found[2])
    end = _minute(text, found[3], found[4])
    if start in (end, _DAY):
        raise ConfigError(f"{text!r} has no hours in it; `none` is any time")
    return ActiveHours(start, end, zone_of(found[5]) if found[5] else zone)


def _minute(text: str, hour: str, minute: str) -> int:
    """Minutes since midnight, 24:00 included."""
    value = int(hour) * 60 + int(minute)
    if int(minute) > 59 or value > _DAY:
        raise ConfigError(f"there is no {hour}:{minute} on a clock: {text!r}")
    return value


def _shown(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
