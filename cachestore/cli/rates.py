"""Hit rates and evictions of the last days, as tables."""

from __future__ import annotations

from rich.table import Table

from cachestore.cli.output import size, table
from cachestore.model import Tally
from cachestore.policy.rates import sources, summary


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
