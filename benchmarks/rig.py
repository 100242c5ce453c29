"""Measuring in turns, and writing what came of it: a table, JSON and a picture."""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.screen import say
from benchmarks.screen import table as show

OUT = Path("build/benchmarks")


@dataclass(frozen=True, slots=True)
class Line:
    """One way to do the work. Seconds for one operation; `ratio` to the first line's."""

    name: str
    best: float
    median: float
    ratio: float


def compare(
    ways: dict[str, Callable[[], object]], rounds: int = 9, count: int = 2_000
) -> list[Line]:
    """Run every way in turn, `rounds` times `count` operations; the first is the yardstick.

    In turns, so that whatever else the machine does meets all alike. Ratios are the median of
    the ratios within a round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in range(count):
                way()
            seconds[name].append((time.perf_counter() - start) / count)
    first = next(iter(seconds.values()))
    return [
        Line(
            name,
            min(times),
            statistics.median(times),
            statistics.median(t / base for t, base in zip(times, first, strict=True)),
        )
        for name, times in seconds.items()
    ]


def report(name: str, title: str, lines: list[Line]) -> None:
    """Print the table, and write JSON and a picture below build/benchmarks."""
    table = Table("way", "best", "median", "ratio", title=title, title_justify="left")
    for line in lines:
        table.add_row(line.name, _time(line.best), _time(line.median), f"{line.ratio:.2f}")
    Console().print(table)
    write(name, title, {"lines": [asdict(line) for line in lines]})
    _picture(OUT / f"{name}.png", title, lines)


def publish(name: str, title: str, rows: Sequence[Mapping[str, Any]], target: str) -> None:
    """Print rows that all have the same columns, with the target below, and write them as JSON.

    A ratio is a float whose column ends in "%".
    """
    columns = list(rows[0])
    lines = [[_cell(column, row[column]) for column in columns] for row in rows]
    show(title, columns, lines)
    say(f"target: {target}")
    write(name, title, {"target": target, "rows": rows})


def write(name: str, title: str, facts: Mapping[str, Any]) -> None:
    """JSON below build/benchmarks, with the machine that it was measured on."""
    OUT.mkdir(parents=True, exist_ok=True)
    head = {
        "title": title,
        "machine": platform.platform(),
        "python": platform.python_version(),
    }
    (OUT / f"{name}.json").write_text(json.dumps({**head, **facts}, indent=2) + "\n")


def alone(run: Callable[[Path], None]) -> None:
    """Run one benchmark in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="cachestore-bench-") as folder:
        run(Path(folder))


def _cell(column: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value * 100:.2f}" if column.endswith("%") else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.2f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def _picture(path: Path, title: str, lines: list[Line]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.5 * len(lines)))
    axes.barh([line.name for line in lines], [line.ratio for line in lines], color="#4477aa")
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(f"times {lines[0].name} (median of ratios in one run)")
    axes.set_title(title, loc="left", fontsize=10)
    for line in lines:
        axes.text(line.ratio, line.name, f" {line.ratio:.2f}", va="center", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
