"""Hours of the day: over midnight, in a time zone, on the days when clocks are put."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from cachestore.errors import ConfigError
from cachestore.policy.hours import active_hours

BERLIN = ZoneInfo("Europe/Berlin")


def inside(text: str, moment: datetime) -> bool:
    hours = active_hours(text)
    assert hours is not None
    assert hours.contains_seconds(moment.timestamp()) == hours.contains(moment)
    return hours.contains(moment)


@pytest.mark.parametrize(
    ("clock", "night", "day"),
    [
        ("00:00", True, False), ("05:59", True, False), ("06:00", False, True),
        ("19:59", False, True), ("20:00", True, False), ("23:59", True, False),
    ],
)  # fmt: skip
def test_the_start_is_inside_and_the_end_is_not(clock: str, night: bool, day: bool) -> None:
    moment = datetime.fromisoformat(f"2026-01-15T{clock}:30+00:00").replace(second=0)
    assert inside("20:00-06:00", moment) is night
    assert inside("06:00-20:00", moment) is day
    assert inside("0:00-24:00", moment)


def minutes_inside(text: str, first: datetime, hours: int) -> int:
    """Real minutes inside, of so many hours."""
    asked = active_hours(text)
    assert asked is not None
    return sum(asked.contains(first + timedelta(minutes=n)) for n in range(hours * 60))


def test_clocks_that_are_put_forward() -> None:
    # 29 March 2026 in Berlin: 02:00 becomes 03:00; the night is an hour shorter.
    evening = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert minutes_inside("20:00-06:00 Europe/Berlin", evening, 24) == 9 * 60
    assert minutes_inside("02:00-03:00 Europe/Berlin", evening, 24) == 0
    assert inside("03:00-04:00 Europe/Berlin", datetime(2026, 3, 29, 1, 0, tzinfo=UTC))
    assert not inside("20:00-06:00 Europe/Berlin", datetime(2026, 3, 29, 4, 0, tzinfo=UTC))


def test_clocks_that_are_put_back() -> None:
    # 25 October 2026 in Berlin: 03:00 becomes 02:00; an hour comes twice.
    evening = datetime(2026, 10, 24, 12, tzinfo=UTC)
    assert minutes_inside("20:00-06:00 Europe/Berlin", evening, 24) == 11 * 60
    assert minutes_inside("02:00-03:00 Europe/Berlin", evening, 24) == 2 * 60
    for fold in (0, 1):
        twice = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=fold)
        assert inside("02:00-03:00 Europe/Berlin", twice)


def test_the_zone_behind_the_hours_comes_first() -> None:
    noon = datetime(2026, 1, 15, 12, tzinfo=UTC)
    here = active_hours("12:00-12:30", BERLIN)
    there = active_hours("12:00-12:30  UTC", BERLIN)
    assert here is not None
    assert there is not None
    assert not here.contains(noon)
    assert there.contains(noon)
    assert str(active_hours("8:05-9:00")) == "08:05-09:00"


def test_any_time() -> None:
    assert active_hours(None) is active_hours("none") is active_hours(" Always ") is None


@pytest.mark.parametrize(
    "text",
    ["", "20-6", "20:00", "20:00-20:00", "24:00-06:00", "25:00-06:00", "20:60-06:00",
     "20:00-06:00 Mars", "20:00-06:00 Europe/Berlin x"],
)  # fmt: skip
def test_what_cannot_be_meant_is_said(text: str) -> None:
    with pytest.raises(ConfigError):
        active_hours(text)
