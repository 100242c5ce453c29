"""Measuring in turns, and writing what came of it: a table, JSON and a picture."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

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
    OUT.mkdir(parents=True, exist_ok=True)
    facts = {
        "title": title,
        "machine": platform.platform(),
        "python": platform.python_version(),
        "lines": [asdict(line) for line in lines],
    }
    (OUT / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    _picture(OUT / f"{name}.png", title, lines)


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
