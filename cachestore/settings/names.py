"""The names of settings, how they are found in any spelling, and what a wrong one is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from cachestore.errors import ConfigError
from cachestore.settings.fields import Fields
from cachestore.settings.kinds import Spec
from cachestore.settings.units import Kind

PREFIX = "CACHESTORE_"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `field`: its attribute; `name`: the variable; `names`: all of them."""

    field: str
    kind: Kind
    spec: Spec
    default: Any

    @property
    def name(self) -> str:
        return self.field.upper()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.spec.also)


def _settings() -> dict[str, Setting]:
    found = {}
    for name, info in Fields.model_fields.items():
        (kind,) = (entry for entry in info.metadata if isinstance(entry, Kind))
        (spec,) = (entry for entry in info.metadata if isinstance(entry, Spec))
        found[name] = Setting(name, kind, spec, info.default)
    return found


SETTINGS = _settings()
_BY_NAME = {name: setting for setting in SETTINGS.values() for name in setting.names}
_BY_OPTION = {s.spec.option: s.name for s in SETTINGS.values() if s.spec.option}


def find(name: str) -> Setting:
    """The setting of that name, in any case, with or without the prefix; else `ConfigError`."""
    setting = _BY_NAME.get(name.upper()) or _BY_NAME.get(name.upper().removeprefix(PREFIX))
    if setting is None:
        raise ConfigError(unknown([name]))
    return setting


def unknown(names: Iterable[str]) -> str:
    """What is said of names that no setting has, with the nearest ones that exist."""
    return "; ".join(_unknown(name) for name in names)


def _unknown(name: str) -> str:
    bare = name.upper().removeprefix(PREFIX)
    prefix = PREFIX if name.upper().startswith(PREFIX) else ""
    near = _BY_OPTION.get(name.lower()) or _nearest(bare)
    hint = f"did you mean {prefix}{near}?" if near else "docs/settings.md lists all"
    return f"there is no setting {name}; {hint}"


def _nearest(name: str) -> str | None:
    found = get_close_matches(name, list(_BY_NAME), n=1, cutoff=0.6)
    if found:
        return found[0]
    # A name cut short ("bucket", "TTL") is far from the whole one, yet one of its words.
    words = set(name.split("_"))
    whole = [known for known in _BY_NAME if words <= set(known.split("_"))]
    return whole[0] if whole else None
