"""Tables and a progress bar: with rich where it is installed, plain without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Tell = Callable[[int], None]
_WIDE = 110


def _console() -> Any:
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDE  # a file has no edge
    return console


CONSOLE = _console()


def say(text: str) -> None:
    """A line."""
    if CONSOLE is None:
        print(text, flush=True)
    else:
        CONSOLE.print(text, markup=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The first column left, all others right."""
    if CONSOLE is None:
        _plain(title, columns, rows)
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        drawn.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*(Text(cell, "red" if cell.endswith("!") else "") for cell in row))
    CONSOLE.print(drawn)


def _plain(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[n]) for row in [columns, *rows]) for n in range(len(columns))]
    print(title)
    for row in [columns, *rows]:
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        print("  " + "  ".join(cells), flush=True)


@contextmanager
def progress(text: str, total: int) -> Iterator[Tell]:
    """A bar for people at a terminal; what is given is called with how much more is done."""
    if CONSOLE is None or not CONSOLE.is_terminal:
        yield lambda done: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    parts = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*parts, console=CONSOLE, transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda done: bar.advance(task, done)
