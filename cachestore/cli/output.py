"""How commands speak: tables for people, JSON for machines, one exit code for each outcome."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from cachestore.errors import (
    CacheStoreError,
    ConfigError,
    InvalidKey,
    NotFound,
    RemoteError,
    TimedOut,
)
from cachestore.settings.units import parse_seconds

# Without markup: keys and messages may hold square brackets.
out = Console(highlight=False, soft_wrap=True, markup=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


class Exit(IntEnum):
    """Exit codes; docs/cli.md explains them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REMOTE = 4
    PENDING = 5
    INTERRUPTED = 130


def code_of(error: Exception) -> Exit:
    """The exit code that an error stands for."""
    if isinstance(error, (ConfigError, InvalidKey)):
        return Exit.USAGE
    if isinstance(error, NotFound):
        return Exit.NOT_FOUND
    if isinstance(error, TimedOut):
        return Exit.PENDING
    return Exit.REMOTE if isinstance(error, RemoteError) else Exit.FAILED


@contextmanager
def telling(as_json: bool) -> Iterator[None]:
    """Errors of ours become one line (or one JSON object) and an exit code."""
    try:
        yield
    except (CacheStoreError, ValueError, OSError) as error:
        fail(error, as_json)


def fail(error: Exception, as_json: bool) -> NoReturn:
    """Say what went wrong and leave."""
    code = code_of(error)
    if as_json:
        show_json({"error": str(error), "type": type(error).__name__, "exit": int(code)})
    else:
        err.print("error:", style="red", end=" ")
        err.print(str(error))
    raise typer.Exit(int(code))


def show_json(value: Any) -> None:
    """One JSON value on standard output."""
    json.dump(value, sys.stdout, default=_plain, indent=2, ensure_ascii=False)
    print()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    return dict(value)


def table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """An empty table; columns named in `right` hold numbers."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def span(seconds: float) -> str:
    """A time span for people."""
    for limit, unit, name in ((1e-3, 1e-6, "µs"), (1.0, 1e-3, "ms"), (120.0, 1.0, "s")):
        if seconds < limit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def seconds_of(name: str, text: str) -> float:
    """A time span as settings take it. `name`: the option. Raises `ConfigError`."""
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise ConfigError(f"{name} {text!r}: {error}") from None


def rows(found: list[Any], as_json: bool, header: Callable[[], Table], row: Any) -> None:
    """A list of things: JSON, or a table with a row for each."""
    if as_json:
        show_json(found)
        return
    made = header()
    for each in found:
        made.add_row(*row(each))
    out.print(made)
