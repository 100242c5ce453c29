"""The command `flags`: every setting, its value, where it came from; and flags set live."""

from __future__ import annotations

from typing import Annotated

import typer

from cachestore.cli.output import Json, out, show_json, table, telling
from cachestore.cli.stores import overrides
from cachestore.settings import Settings
from cachestore.settings.live import set_flag, unset_flag

_FIRST = (
    "USE_R2_STORAGE", "FALLBACK_TO_LOCAL", "R2_MOCK_MODE", "CACHE_DIR", "SPOOL_DIR", "LOCAL_DIR",
)  # fmt: skip


def flags(
    context: typer.Context,
    changes: Annotated[
        list[str] | None, typer.Argument(help="set NAME=VALUE ...: change flags live.")
    ] = None,
    unset: Annotated[list[str] | None, typer.Option(help="Take a live flag back.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every setting.")] = False,
    as_json: Json = False,
) -> None:
    """Show the mode and the settings with their origin, and set flags that running apps reload."""
    with telling(as_json):
        settings = Settings(**overrides(context))
        wanted = changes or []
        for change in wanted[1:] if wanted[:1] == ["set"] else wanted:
            name, equals, value = change.partition("=")
            if not equals:
                raise ValueError(f"{change!r}: write NAME=VALUE")
            set_flag(settings.spool_dir, name, value)
        for name in unset or []:
            unset_flag(settings.spool_dir, name)
        settings = settings.refreshed()
        options, sources = settings.options(), settings.sources()
        if as_json:
            shown = {name: {"value": v, "from": origin} for name, (v, origin) in sources.items()}
            show_json({"mode": options.mode, "reason": options.reason,
                       "degraded": options.degraded, "settings": shown})  # fmt: skip
            return
        out.print(f"mode {options.mode}: {options.reason}")
        made = table("setting", "value", "from")
        for name, (value, origin) in sources.items():
            if everything or name in _FIRST or origin != "default":
                made.add_row(name, str(value), origin)
        out.print(made)


COMMANDS = (flags,)
