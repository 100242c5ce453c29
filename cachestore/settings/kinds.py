"""The types of settings: each carries its `Kind`, which parses what people write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, SecretStr

from cachestore.options import BLOCK_STEP, MIB, BackPressure, Eviction, Objective, Verify
from cachestore.settings import units
from cachestore.settings.units import Kind


@dataclass(frozen=True, slots=True)
class Spec:
    """What is declared of one setting besides its type and default.

    `also`: other names of the same thing. `live`: `set_flag` may change it while stores are open.
    `option`: the field of `Options` that it becomes.
    """

    meaning: str
    also: tuple[str, ...] = ()
    live: bool = False
    option: str | None = None
    group: str = ""


SWITCH = Kind("true, false", units.parse_bool, units.show_text)
SIZE = Kind("bytes", units.parse_size, units.show_size, scale=1)
BLOCK = Kind("bytes", units.multiple_of(BLOCK_STEP), units.show_size, scale=1)
PART = Kind("bytes", units.at_least(units.parse_size, 5 * MIB, "5 MiB"), units.show_size, scale=1)
SECONDS = Kind("seconds", units.parse_seconds, units.show_seconds, scale=1.0)
HOURS = Kind("hours", units.parse_hours, units.show_hours, scale=3600.0)
CONFIRM = Kind("hours", units.parse_confirm_hours, units.show_hours, scale=3600.0)
SHARE = Kind("share", units.parse_share, units.show_share, scale=1.0)
FREE = Kind("share or bytes", units.parse_free, units.show_free, scale=1.0)
MARK = Kind("share", units.parse_mark, units.show_share, scale=1.0)
COUNT = Kind("number", units.parse_count, units.show_text, scale=1)
WORKERS = Kind("number", units.at_least(units.parse_count, 1, "1"), units.show_text, scale=1)
FOLDER = Kind("folder", units.parse_folder, units.show_text, open=False)
FILE = Kind("file", units.parse_folder, units.show_text, open=False)
PATTERNS = Kind("patterns", units.parse_patterns, units.show_text, open=False)
PREFIXES = Kind("prefixes", units.parse_prefixes, units.show_text, open=False)
DAY_HOURS = Kind("hours of the day", units.parse_day_hours, units.show_text)
PREFIX_HOURS = Kind(
    "hours by prefix", units.parse_prefix_hours, units.show_prefix_hours, scale=3600.0, open=False
)
TEXT = Kind("text", units.parse_text, units.show_text, open=False)
# Its parts are checked where the endpoint is put together; only then is the account id known.
ENDPOINT = Kind("URL", units.parse_endpoint, units.show_text, open=False)
URL = Kind("URL", units.parse_url, units.show_text, open=False)
SECRET = Kind("secret", units.parse_secret, units.show_secret, open=False)
JURISDICTION = Kind(
    "eu, fedramp, us, none",
    units.one_of("eu", "fedramp", "us", nothing=("none", "default")),
    units.show_text,
    open=False,
)
PRESSURE = Kind(
    "block, through, raise", units.one_of("block", "through", "raise"), units.show_text, open=False
)

VERIFY = Kind(
    "never, sample, always", units.one_of("never", "sample", "always"), units.show_text, open=False
)

EVICTION = Kind("hz, gdsf, lru", units.one_of("hz", "gdsf", "lru"), units.show_text, open=False)
OBJECTIVE = Kind(
    "time, object, bytes", units.one_of("time", "object", "bytes"), units.show_text, open=False
)


def _before(kind: Kind) -> Any:
    return BeforeValidator(kind.parse)


def _maybe(kind: Kind) -> Any:
    """None is the default of what may stay unset."""
    return BeforeValidator(lambda value: None if value is None else kind.parse(value))


Switch = Annotated[bool, _before(SWITCH), SWITCH]
MaybeSwitch = Annotated[bool | None, _maybe(SWITCH), SWITCH]
Size = Annotated[int, _before(SIZE), SIZE]
BlockSize = Annotated[int, _before(BLOCK), BLOCK]
PartSize = Annotated[int, _before(PART), PART]
Seconds = Annotated[float, _before(SECONDS), SECONDS]
Hours = Annotated[float | None, _maybe(HOURS), HOURS]
DayHours = Annotated[str | None, _maybe(DAY_HOURS), DAY_HOURS]
ConfirmHours = Annotated[float | None, _maybe(CONFIRM), CONFIRM]
Share = Annotated[float, _before(SHARE), SHARE]
Free = Annotated[float, _before(FREE), FREE]
Mark = Annotated[float, _before(MARK), MARK]
Count = Annotated[int, _before(COUNT), COUNT]
AtLeastOne = Annotated[int, _before(WORKERS), WORKERS]
Folder = Annotated[Path, _before(FOLDER), FOLDER]
MaybeFile = Annotated[Path | None, _maybe(FILE), FILE]
Patterns = Annotated[tuple[str, ...], _before(PATTERNS), PATTERNS]
Prefixes = Annotated[tuple[str, ...], _before(PREFIXES), PREFIXES]
PrefixHours = Annotated[tuple[tuple[str, float | None], ...], _before(PREFIX_HOURS), PREFIX_HOURS]
Text = Annotated[str | None, _maybe(TEXT), TEXT]
EndpointText = Annotated[str | None, _maybe(ENDPOINT), ENDPOINT]
Url = Annotated[str | None, _maybe(URL), URL]
Secret = Annotated[SecretStr | None, _maybe(SECRET), SECRET]
Jurisdiction = Annotated[Literal["eu", "fedramp", "us"] | None, _maybe(JURISDICTION), JURISDICTION]
Pressure = Annotated[BackPressure, _before(PRESSURE), PRESSURE]
Evicting = Annotated[Eviction, _before(EVICTION), EVICTION]
Aiming = Annotated[Objective, _before(OBJECTIVE), OBJECTIVE]
Verifying = Annotated[Verify, _before(VERIFY), VERIFY]
