"""The command `doctor`: checks everything that can be wrong, and names the likely cause."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.json import JSON

from cachestore.cli.checks import (
    Check,
    Report,
    RoundTrip,
    check_cors,
    check_folders,
    check_settings,
    cors_rules,
)
from cachestore.cli.output import Exit, Json, err, out, show_json, span, telling
from cachestore.cli.stores import overrides

_MARKS = {True: ("ok  ", "green"), None: ("note", "yellow"), False: ("FAIL", "red")}


def doctor(
    context: typer.Context,
    offline: Annotated[bool, typer.Option(help="Settings and folders only.")] = False,
    origin: Annotated[
        str | None, typer.Option(help="Check CORS for a web page at this origin.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check settings and folders, then put, read and delete one small object in the bucket."""
    report = Report()

    def add(check: Check) -> None:
        report.checks.append(check)
        if not as_json:
            _show(check)

    with telling(as_json):
        first, options = check_settings(overrides(context))
        add(first)
        if options is not None:
            for check in check_folders(options):
                add(check)
            if options.mode == "remote" and not offline:
                with err.status("asking the bucket"):
                    for check in RoundTrip(options).run():
                        add(check)
                    if origin is not None:
                        add(check_cors(options, origin))
            elif not offline:
                add(Check("bucket", None, f"not asked: the mode is {options.mode}"))
    if as_json:
        show_json({"ok": report.ok, "checks": report.checks})
    elif origin is not None:
        out.print(f"\nCORS rules for {origin}:")
        out.print(JSON.from_data(cors_rules(origin)))
    if not report.ok:
        settings_failed = report.checks[0].ok is False
        raise typer.Exit(int(Exit.USAGE if settings_failed else Exit.FAILED))


def _show(check: Check) -> None:
    mark, style = _MARKS[check.ok]
    out.print(mark, style=style, end="  ")
    taken = f"  ({span(check.seconds)})" if check.seconds else ""
    out.print(f"{check.name}: {check.detail}{taken}")
    if check.cause:
        out.print(f"      likely: {check.cause}")
    if check.fix:
        out.print(f"      do:     {check.fix}")


COMMANDS = (doctor,)
