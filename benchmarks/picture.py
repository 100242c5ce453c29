"""The picture of a replay: hit ratio over cache size, objects and bytes side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

BOUNDS = ("offline-object", "offline-bytes", "bound")
_OURS = {"hz": "#cc3311", "gdsf": "#ee7733"}
_LRU = "#000000"
_OTHERS = (
    "#0077bb", "#33bbee", "#009988", "#117733", "#ee3377", "#aa4499", "#999933", "#882255",
)  # fmt: skip
_OVER = "passed its limit"
_MOST_PEAK = 1.005
_SHADE = "#dddddd"
_PANELS = (
    ("object_hit_ratio", "requests answered", "offline-object"),
    ("byte_hit_ratio", "bytes answered", "offline-bytes"),
)


def draw(found: Sequence[Row], path: Path) -> None:
    """A line of two panels for each trace; the shade is out of reach for every policy."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    traces = list(dict.fromkeys(row["trace"] for row in found))
    height = 3.4 * len(traces) + 0.5
    figure, lines = pyplot.subplots(
        len(traces), 2, figsize=(11, height), squeeze=False, layout="constrained"
    )
    for panels, trace in zip(lines, traces, strict=True):
        mine = [row for row in found if row["trace"] == trace]
        for axes, (what, title, offline) in zip(panels, _PANELS, strict=True):
            _panel(axes, mine, what, offline)
            axes.set_title(f"{trace}: {title} from the cache, %", fontsize=10, loc="left")
    names: dict[str, Any] = {}
    for axes in lines.flat:
        handles, labels = axes.get_legend_handles_labels()
        names |= dict(zip(labels, handles, strict=True))
    if _OVER in names:
        names[_OVER] = names.pop(_OVER)  # last
    figure.legend(
        names.values(), names.keys(), loc="outside lower center", ncols=6, fontsize=8, frameon=False
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _panel(axes: Any, rows: Sequence[Row], what: str, offline: str) -> None:
    sizes = sorted({row["size_fraction"] for row in rows})
    limits = {name: _line(rows, name, what) for name in (offline, "bound")}
    if limits["bound"]:
        axes.fill_between(sizes, limits["bound"], 100, color=_SHADE, lw=0, label="impossible")
        axes.plot(sizes, limits[offline], color="#777777", ls="--", lw=1.2, label="best offline")
    policies = dict.fromkeys(row["policy"] for row in rows if row["policy"] not in BOUNDS)
    others = iter(_OTHERS * len(policies))
    for policy in policies:
        colour = _OURS.get(policy) or (_LRU if policy == "lru" else next(others))
        _policy(axes, policy, colour, sizes, _of(rows, policy), what)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size * 100:g} %" for size in sizes])
    axes.minorticks_off()
    least = min(row[what] for row in rows) * 100
    most = max(row[what] for row in rows if not _passed(row)) * 100
    axes.set_ylim(max(0, least - 4), min(100, most + 4))
    axes.set_xlabel("cache size, share of all files", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)


def _policy(
    axes: Any, name: str, colour: str, sizes: Sequence[float], rows: Sequence[Row], what: str
) -> None:
    """One line; points where the limit was passed are crosses, as they compare with nothing."""
    values = [row[what] * 100 for row in rows]
    ours, lru = name in _OURS, name == "lru"
    width, order, style = (2.2, 4, "-") if ours else (2.0, 3, ":") if lru else (1.2, 2, "-")
    axes.plot(sizes, values, style, color=colour, lw=width, label=name, zorder=order)
    for size, value, row in zip(sizes, values, rows, strict=True):
        mark, most = ("x", 6) if _passed(row) else ("o", 4)
        axes.plot([size], [value], mark, ms=most, color=colour, zorder=order)
    if any(_passed(row) for row in rows):
        axes.plot([], [], "x", color="#555555", label=_OVER)


def _passed(row: Row) -> bool:
    return float(row["peak_ratio"]) > _MOST_PEAK


def _of(rows: Sequence[Row], policy: str) -> list[Row]:
    mine = [row for row in rows if row["policy"] == policy]
    return sorted(mine, key=lambda row: float(row["size_fraction"]))


def _line(rows: Sequence[Row], policy: str, what: str) -> list[float]:
    return [row[what] * 100 for row in _of(rows, policy)]
