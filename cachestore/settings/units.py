"""What people write for sizes, times, shares and switches, and how it is shown. Pure.

Every parser takes text or a Python value, and raises `ValueError` that says what is expected. The
messages never repeat the value; the caller adds it where it cannot be a secret.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cachestore.errors import ConfigError, InvalidKey
from cachestore.keys import check_prefix
from cachestore.policy.hours import active_hours

_NUMBER = re.compile(r"(\d[\d_]*(?:\.\d+)?|\.\d+)\s*([A-Za-z%]*)")
_SIZES = {"": 1, "b": 1, "bytes": 1}
_SIZES |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}
_SIZES |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)}
_TIMES = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_TRUE = {"true", "1", "yes", "on", "t", "y"}
_FALSE = {"false", "0", "no", "off", "f", "n"}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: its unit in the documentation, its parser, how a value is shown.

    `scale`: what a number is multiplied with for `Options`. `open`: a wrong value may be shown.
    """

    unit: str
    parse: Callable[[Any], Any]
    show: Callable[[Any], str]
    scale: float | None = None
    open: bool = True


def _number(value: Any, expected: str) -> tuple[float, str]:
    """The number and the lower-case unit behind it."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(expected)
    if not isinstance(value, str):
        if not 0 <= value < math.inf:
            raise ValueError(expected)
        return float(value), ""
    match = _NUMBER.fullmatch(value.strip())
    if match is None:
        raise ValueError(expected)
    return float(match[1].replace("_", "")), match[2].lower()


def parse_bool(value: Any) -> bool:
    """A switch: true or false, yes or no, on or off, 1 or 0."""
    text = str(value).strip().lower() if isinstance(value, (bool, int, str)) else ""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError("expected true or false")


def parse_size(value: Any) -> int:
    """Bytes: `5GB` and `5000MB` are decimal, `64MiB` binary, a plain number is bytes."""
    expected = "expected a size such as 5GB (decimal), 64MiB (binary) or a number of bytes"
    number, unit = _number(value, expected)
    if unit not in _SIZES:
        raise ValueError(expected)
    if isinstance(value, int):
        return value
    return round(number * _SIZES[unit])


def parse_seconds(value: Any) -> float:
    """Seconds: a plain number, or with `ms`, `s`, `m`, `h`, `d` or `w` behind it."""
    return _time(value, 1.0, "expected seconds, or a time such as 30s, 15m, 2h or 7d")


def parse_hours(value: Any) -> float | None:
    """Hours: a plain number, or a time with its unit; `none` (never expires) gives None."""
    if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
        return None
    expected = "expected hours (fractions and 0 are allowed), a time such as 30m or 7d, or none"
    return _time(value, 3600.0, expected) / 3600.0


def parse_confirm_hours(value: Any) -> float | None:
    """Hours, at least 2: no clock that a bucket accepts is so wrong; `none` gives None."""
    hours = parse_hours(value)
    if hours is not None and hours < 2:
        raise ValueError("it must be at least 2 hours, or none")
    return hours


def _time(value: Any, plain: float, expected: str) -> float:
    if isinstance(value, timedelta):
        if value < timedelta(0):
            raise ValueError(expected)
        return value.total_seconds()
    number, unit = _number(value, expected)
    if not unit:
        return number * plain
    if unit not in _TIMES:
        raise ValueError(expected)
    return number * _TIMES[unit]


def parse_share(value: Any) -> float:
    """A share between 0 and 1, or percent: `0.05` and `5%` are the same."""
    expected = "expected a share such as 5% or 0.05"
    number, unit = _number(value, expected)
    if unit not in ("", "%"):
        raise ValueError(expected)
    share = number / 100 if unit else number
    if not 0 <= share < 1:
        raise ValueError(f"{expected}, at least 0 and below 1")
    return share


def parse_mark(value: Any) -> float:
    """A share up to the whole: `90%`, `0.9`, `100%`."""
    expected = "expected a share such as 90% or 0.9, at most 100%"
    number, unit = _number(value, expected)
    share = number / 100 if unit == "%" else number
    if unit not in ("", "%") or not 0 <= share <= 1:
        raise ValueError(expected)
    return share


def parse_free(value: Any) -> float:
    """A share of a disk (`5%`, `0.05`) or a size of at least 1 MB (`10GB`, a number of bytes)."""
    expected = "expected a share such as 5% or 0.05, below 1, or a size such as 10GB"
    number, unit = _number(value, expected)
    if unit == "%" or (not unit and number < 1):
        return parse_share(value)
    if unit not in _SIZES or number * _SIZES[unit] < 1_000_000:
        raise ValueError(expected)
    return float(parse_size(value))


def parse_count(value: Any) -> int:
    """A whole number, at least 0."""
    number, unit = _number(value, "expected a whole number")
    if unit or number != int(number):
        raise ValueError("expected a whole number")
    return int(number)


def at_least(parse: Callable[[Any], int], least: int, shown: str) -> Callable[[Any], int]:
    """A parser that refuses less than `least`."""

    def parse_more(value: Any) -> int:
        number = parse(value)
        if number < least:
            raise ValueError(f"it must be at least {shown}")
        return number

    return parse_more


def multiple_of(step: int) -> Callable[[Any], int]:
    """A parser for sizes that are multiples of `step` bytes; 0 is one."""

    def parse_multiple(value: Any) -> int:
        size = parse_size(value)
        if size % step:
            raise ValueError(f"it must be a multiple of {step} bytes, or 0")
        return size

    return parse_multiple


def one_of(*words: str, nothing: Iterable[str] = ()) -> Callable[[Any], str | None]:
    """A parser for one of `words` in any case; a word of `nothing` gives None."""

    def parse_word(value: Any) -> str | None:
        text = str(value).strip().lower()
        if text in nothing:
            return None
        if text not in words:
            raise ValueError(f"expected one of {', '.join([*words, *nothing])}")
        return text

    return parse_word


def parse_text(value: Any) -> str:
    """Text without line breaks, and without space around it."""
    if not isinstance(value, str):
        raise ValueError("expected text")
    text = value.strip()
    if any(ord(char) < 32 for char in text):
        raise ValueError("it holds a line break or another control character")
    return text


def parse_secret(value: Any) -> str:
    """Text, taken out of a `SecretStr` if it is one."""
    reveal = getattr(value, "get_secret_value", None)
    text = parse_text(value if reveal is None else reveal())
    if any(char.isspace() for char in text):
        raise ValueError("it holds a space or line break; copy it again")
    return text


def parse_endpoint(value: Any) -> str:
    """Text without a user or password; the rest is checked when the account id is known."""
    text = parse_text(value)
    if "@" in text:
        raise ValueError("it holds a user name or password; keys have variables of their own")
    return text


def parse_url(value: Any) -> str:
    """An http(s) URL without user, password, query or trailing slash; https where none is said."""
    text = parse_text(value).rstrip("/")
    if "://" not in text:
        host = text.split("/", 1)[0]
        if ":" in host or "." not in host:
            raise ValueError("it must begin with https:// or http://")
        text = f"https://{text}"
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or any(char.isspace() for char in text):
        raise ValueError("expected a URL such as https://files.example.com")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("it holds a user name, a password, or a part after '?' or '#'")
    return text


def parse_day_hours(value: Any) -> str | None:
    """Hours as `20:00-06:00`, a time zone behind them or not; `none` gives None."""
    if not isinstance(value, str):
        raise ValueError("expected hours as 20:00-06:00, or none")
    try:
        return None if active_hours(value) is None else value.strip()
    except ConfigError as error:
        raise ValueError(str(error)) from None


def parse_folder(value: Any) -> Path:
    """A folder as an absolute path, from the present working directory; `~` is the home."""
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError("expected a folder")
    text = os.fspath(value)
    if not isinstance(text, str) or "\0" in text:
        raise ValueError("expected a folder")
    return Path(os.path.abspath(os.path.expanduser(text)))


def parse_prefixes(value: Any) -> tuple[str, ...]:
    """Key prefixes: text with commas, or several texts."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple, set, frozenset)):
        raise ValueError("expected prefixes such as samples/, catalog/")
    found = []
    for part in parts:
        text = parse_text(part).strip()
        if not text:
            continue
        if text.startswith("/"):
            raise ValueError("keys do not begin with '/', so no prefix does")
        try:
            found.append(check_prefix(text))
        except InvalidKey as error:
            raise ValueError(str(error)) from None
    return tuple(dict.fromkeys(found))


def parse_prefix_hours(value: Any) -> tuple[tuple[str, float | None], ...]:
    """Hours by key prefix: `segments/=6, renders/=30m, samples/=none`, or a mapping."""
    expected = "expected prefixes with hours, such as segments/=6, renders/=30m, samples/=none"
    pairs: Any = value
    if isinstance(value, str):
        parts = [part.rpartition("=") for part in value.split(",") if part.strip()]
        if not all(equals for _, equals, _ in parts):
            raise ValueError(expected)
        pairs = [(prefix, hours) for prefix, _, hours in parts]
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    if not isinstance(pairs, (list, tuple)) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs
    ):
        raise ValueError(expected)
    found: dict[str, float | None] = {}
    for prefix, hours in pairs:
        names = parse_prefixes([prefix])
        if not names or names[0] in found:
            raise ValueError(f"{expected}; each prefix once")
        found[names[0]] = parse_hours(hours)
    return tuple(found.items())


def parse_patterns(value: Any) -> tuple[str, ...]:
    """Patterns for keys, as of file names: text with commas, or several texts."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple, set, frozenset)):
        raise ValueError("expected patterns such as *.tmp, previews/*")
    texts = (unicodedata.normalize("NFC", parse_text(part)) for part in parts)
    return tuple(dict.fromkeys(text for text in texts if text))


# -- how values are shown ------------------------------------------------------------------------


def show_size(value: int) -> str:
    """The largest unit that loses nothing."""
    for name in ("TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "KB"):
        if value and value % _SIZES[name.lower()] == 0:
            return f"{value // _SIZES[name.lower()]} {name}"
    return f"{value} bytes"


def show_seconds(value: float) -> str:
    """The largest unit that loses nothing, else seconds."""
    for name in ("d", "h", "m"):
        if value and value % _TIMES[name] == 0:
            return f"{value / _TIMES[name]:g}{name}"
    return f"{value:g}s"


def show_hours(value: float | None) -> str:
    """Hours, or `none`."""
    return "none" if value is None else f"{value:g}"


def show_prefix_hours(value: tuple[tuple[str, float | None], ...]) -> str:
    """As it is written."""
    return ", ".join(f"{prefix}={show_hours(hours)}" for prefix, hours in value)


def show_share(value: float) -> str:
    """Percent."""
    return f"{value * 100:g}%"


def show_free(value: float) -> str:
    """Percent, or a size."""
    return show_share(value) if value < 1 else show_size(int(value))


def show_text(value: Any) -> str:
    """Text as it is; nothing where there is none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def show_secret(value: Any) -> str:
    """Only whether it is set."""
    return "" if value is None else "********"
