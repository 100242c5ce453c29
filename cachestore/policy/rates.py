"""Hit rates from sums by day and prefix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

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
