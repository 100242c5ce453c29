"""`Settings`: what the user set, from all places, checked, and where each value came from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

from pydantic import PrivateAttr, ValidationError

from cachestore.errors import ConfigError
from cachestore.options import Options
from cachestore.policy.modes import ModeDecision
from cachestore.settings.fields import Fields
from cachestore.settings.names import SETTINGS
from cachestore.settings.options import decide, make_options
from cachestore.settings.sources import Found, Layers, read_layers


class Settings(Fields):
    """All settings; docs/settings.md lists them.

    `Settings(cache_dir="/var/cache/app", env_file="configs/.env.r2")`: arguments are names of
    settings in any case, with or without `CACHESTORE_`; None means not given, except for
    `cache_ttl_hours`, where it means that copies never expire. What is not given comes from the
    live flags, the environment and the env file.

    Raises `ConfigError` for unknown names, values that cannot be understood, and env files that
    cannot be read. Cannot be changed once made.
    """

    _layers: Layers = PrivateAttr()
    _found: dict[str, Found] = PrivateAttr()

    def __init__(self, **given: Any) -> None:
        self._build(read_layers(given, os.environ))

    def _build(self, layers: Layers) -> None:
        found = layers.winners()
        values = {field: item.value for field, item in found.items()}
        fault = None
        try:
            super().__init__(**values)
        except ValidationError as error:
            fault = _in_words(error, found)
        # Outside the handler, so that nothing that holds the values hangs on to our error.
        if fault is not None:
            raise ConfigError(fault)
        self._layers = layers
        self._found = found

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """The same as `Settings(**overrides)`."""
        return cls(**overrides)

    def refreshed(self) -> Self:
        """These settings with the live flags as they are now. Raises `ConfigError`."""
        settings = type(self).__new__(type(self))
        settings._build(self._layers.with_flags_read_again())
        return settings

    def options(self) -> Options:
        """What a store is built from; the live flags are read again. Raises `ConfigError`."""
        fresh = self.refreshed()
        return make_options(fresh, fresh._found)

    def decision(self) -> ModeDecision:
        """The mode, why, and what is missing. Raises `ConfigError`."""
        return decide(self, self._found)

    def sources(self) -> dict[str, tuple[str, str]]:
        """For each setting its value, without secrets, and where it came from.

        The second is `argument`, `flags`, `environment NAME`, the env file and the name in it, or
        `default`.
        """
        shown = {}
        for setting in SETTINGS.values():
            found = self._found.get(setting.field)
            value = getattr(self, setting.field)
            origin = "default" if found is None else found.origin
            shown[setting.name] = (setting.kind.show(value), origin)
        return shown


def _in_words(error: ValidationError, found: Mapping[str, Found]) -> str:
    """What pydantic found, by the variable, never with a value that may be a secret."""
    faults = []
    for detail in error.errors(include_url=False):
        field = str(detail["loc"][0])
        setting, item = SETTINGS[field], found.get(field)
        where = "" if item is None else f" ({item.origin})"
        value = f" is {str(item.value)[:40]!r}" if item and setting.kind.open else ""
        cause = detail.get("ctx", {}).get("error")
        faults.append(f"{setting.name}{value}{where}: {cause or detail['msg']}")
    return "; ".join(faults)
