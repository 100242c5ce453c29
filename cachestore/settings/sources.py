"""Where values are found, and which place wins.

Argument, then live flags, then `CACHESTORE_...` in the environment, then the bare name there, then
the `.env` file in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from io import StringIO
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from cachestore.errors import ConfigError
from cachestore.settings import names
from cachestore.settings.kinds import FILE, FOLDER, HOURS
from cachestore.settings.live import FILE as FLAGS_FILE
from cachestore.settings.live import check_flag, read_flags
from cachestore.settings.names import PREFIX, SETTINGS, Setting
from cachestore.settings.units import parse_bool, parse_folder


class Place(IntEnum):
    """Where a value was found; the lower one wins."""

    ARGUMENT = 0
    FLAGS = 1
    PREFIXED = 2
    BARE = 3
    FILE_PREFIXED = 4
    FILE_BARE = 5
    DEFAULT = 6


@dataclass(frozen=True, slots=True)
class Found:
    """A value as it was written, and where: `origin` in words."""

    place: Place
    value: Any
    origin: str

    def __repr__(self) -> str:
        # The value may be a secret.
        return f"Found({self.place.name}, {self.origin!r})"


Layer = dict[str, Found]


@dataclass(frozen=True, slots=True)
class Layers:
    """What each place holds, by field, before one wins. Folders are absolute from here on."""

    arguments: Layer
    flags: Layer
    others: tuple[Layer, ...]

    def winners(self) -> Layer:
        """For each field the value of the place that wins."""
        merged: Layer = {}
        for layer in reversed((self.arguments, self.flags, *self.others)):
            merged.update(layer)
        return _one_endpoint(merged)

    def with_flags_read_again(self) -> Layers:
        """The same places, with the live flags as they are now."""
        return replace(self, flags=_flags(replace(self, flags={}).winners()))


def read_layers(arguments: Mapping[str, Any], environment: Mapping[str, str]) -> Layers:
    """Look in all places. Raises `ConfigError` for unknown names and files that cannot be read."""
    given = _arguments(arguments)
    in_environment = _variables(environment, "environment", Place.PREFIXED, Place.BARE)
    defaults = {
        field: Found(Place.DEFAULT, setting.default, "default")
        for field, setting in SETTINGS.items()
        if setting.kind is FOLDER
    }
    in_file: tuple[Layer, Layer] = ({}, {})
    env_file = _env_file(given, in_environment)
    if env_file is not None:
        text = _read(Path(env_file.value).expanduser(), env_file.origin)
        in_file = _variables(text, str(env_file.value), Place.FILE_PREFIXED, Place.FILE_BARE)
        for layer in in_file:
            layer.pop("env_file", None)
        defaults["env_file"] = env_file
    found = [_absolute(layer) for layer in (given, *in_environment, *in_file, defaults)]
    return Layers(found[0], {}, tuple(found[1:])).with_flags_read_again()


def _absolute(layer: Layer) -> Layer:
    """Relative folders count from the working directory of now, wherever the program goes later."""
    for field, item in layer.items():
        if SETTINGS[field].kind in (FOLDER, FILE):
            try:
                layer[field] = replace(item, value=parse_folder(item.value))
            except ValueError:
                pass  # a wrong value is reported with all the others
    return layer


def _arguments(arguments: Mapping[str, Any]) -> Layer:
    """None means not given, but for the TTL, where it means that copies never expire."""
    layer: Layer = {}
    wrong = []
    for name, value in arguments.items():
        try:
            setting = names.find(name)
        except ConfigError:
            wrong.append(name)
            continue
        if setting.field in layer:
            raise ConfigError(f"{setting.name} is given twice")
        if (value is None and setting.kind is not HOURS) or _is_empty(value):
            continue
        layer[setting.field] = Found(Place.ARGUMENT, value, "argument")
    if wrong:
        raise ConfigError(names.unknown(wrong))
    return layer


def _variables(
    variables: Mapping[str, str | None], where: str, prefixed: Place, bare: Place
) -> tuple[Layer, Layer]:
    """What the variables of the environment or of a file say, prefixed and bare."""
    ours = {name.upper(): name for name in variables if name.upper().startswith(PREFIX)}
    known = {PREFIX + name for setting in SETTINGS.values() for name in setting.names}
    wrong = [name for upper, name in ours.items() if upper not in known]
    if wrong:
        raise ConfigError(f"{names.unknown(wrong)} ({where})")
    layers: tuple[Layer, Layer] = ({}, {})
    for setting in SETTINGS.values():
        full = [ours[PREFIX + name] for name in setting.names if PREFIX + name in ours]
        # A bare ENV_FILE is likely another tool's.
        short = [] if setting.field == "env_file" else list(setting.names)
        for layer, place, spelled in ((layers[0], prefixed, full), (layers[1], bare, short)):
            found = _pick(setting, variables, spelled, where, place)
            if found is not None:
                layer[setting.field] = found
    return layers


def _pick(
    setting: Setting,
    variables: Mapping[str, str | None],
    spelled: list[str],
    where: str,
    place: Place,
) -> Found | None:
    """The one value that several names of one setting have in one place."""
    values = {name: (variables.get(name) or "").strip() for name in spelled}
    values = {name: value for name, value in values.items() if value}
    if not values:
        return None
    if len(set(values.values())) > 1:
        raise ConfigError(f"{' and '.join(values)} are both set and differ; keep one ({where})")
    name, value = next(iter(values.items()))
    return Found(place, value, f"{where} {name}")


def _env_file(given: Layer, in_environment: tuple[Layer, Layer]) -> Found | None:
    """The file to read; None when none is named and there is no `.env` here."""
    named = given.get("env_file") or in_environment[0].get("env_file")
    if named is not None:
        if not isinstance(named.value, (str, os.PathLike)):
            raise ConfigError(f"ENV_FILE ({named.origin}): expected a file")
        return named
    path = Path(".env")
    if not path.exists() or path.is_dir():
        return None
    return Found(Place.DEFAULT, path, "default")


def _read(path: Path, origin: str) -> dict[str, str | None]:
    fault = None
    try:
        # Some editors put a byte order mark first; it would become part of the first name.
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeError) as error:
        fault = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
    if fault is not None:  # outside the handler: a decoding error carries the file's bytes
        raise ConfigError(f"cannot read the settings in {path} ({origin}): {fault}")
    return dotenv_values(stream=StringIO(text))


def _flags(found: Layer) -> Layer:
    """The live flags of the spool that the other places name; mock mode has a spool of its own."""
    mock = found.get("r2_mock_mode")
    try:
        if mock is not None and parse_bool(mock.value):
            return {}
        folder = parse_folder(found["spool_dir"].value)
    except ValueError:
        return {}  # a wrong value is reported with all the others
    layer: Layer = {}
    for name, text in read_flags(folder).items():
        try:
            known, value = check_flag(name, text)
        except ConfigError as error:
            raise ConfigError(f"{error} ({folder / FLAGS_FILE}; unset the flag)") from None
        layer[known.lower()] = Found(Place.FLAGS, value, "flags")
    return layer


def _one_endpoint(found: Layer) -> Layer:
    """Two names of the endpoint in different places are no contradiction: the better place wins."""
    one, other = found.get("r2_endpoint"), found.get("r2_endpoint_url")
    if one is not None and other is not None and one.place != other.place:
        del found["r2_endpoint" if one.place > other.place else "r2_endpoint_url"]
    return found


def _is_empty(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()
