"""Hit rates and evictions of the last days, as tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from rich.table import Table

from cachestore.cli.output import size, table
from cachestore.model import Tally

_HERE = ("cache", "spool", "local")
_NOT_READ = ("evicted: ", "refused: ")


def rates(history: Iterable[Tally], by: Callable[[Tally], str]) -> list[dict[str, Any]]:
    """Reads and their bytes grouped `by`, with the shares answered from here (0 to 1)."""
    groups: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for each in history:
        if not each.what.startswith(_NOT_READ):
            sums, here = groups[by(each)], each.what in _HERE
            sums["reads"] += each.count
            sums["bytes"] += each.bytes
            sums["hits"] += each.count if here else 0
            sums["hit_bytes"] += each.bytes if here else 0
    return [
        {
            "name": name, "reads": sums["reads"], "bytes": sums["bytes"],
            "hit_rate": sums["hits"] / max(1, sums["reads"]),
            "byte_hit_rate": sums["hit_bytes"] / max(1, sums["bytes"]),
        }
        for name, sums in sorted(groups.items())
    ]  # fmt: skip


def sources(history: Iterable[Tally]) -> list[dict[str, Any]]:
    """What was counted, grouped by where reads came from, why copies left or were not kept."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for each in history:
        sums[each.what][0] += each.count
        sums[each.what][1] += each.bytes
    return [{"what": what, "count": n, "bytes": size_} for what, (n, size_) in sorted(sums.items())]


def summary(history: list[Tally]) -> dict[str, list[dict[str, Any]]]:
    """All three groupings, for machines."""
    return {
        "by_day": rates(history, lambda each: each.day),
        "by_prefix": rates(history, lambda each: each.prefix),
        "by_source": sources(history),
    }


def tables(history: list[Tally]) -> list[Table]:
    """The same for people; none when nothing was read yet."""
    if not history:
        return []
    made = []
    number = ("reads", "hits", "bytes", "of bytes")
    for title, name in (("by day (UTC)", "by_day"), ("by prefix", "by_prefix")):
        shown = table("", *number, right=number, title=title)
        for each in summary(history)[name]:
            shown.add_row(
                each["name"] or "(none)", f"{each['reads']:,}", f"{each['hit_rate']:.1%}",
                size(each["bytes"]), f"{each['byte_hit_rate']:.1%}",
            )  # fmt: skip
        made.append(shown)
    shown = table("", "count", "bytes", right=("count", "bytes"), title="from where, and what left")
    for each in sources(history):
        shown.add_row(each["what"], f"{each['count']:,}", size(each["bytes"]))
    return [*made, shown]
