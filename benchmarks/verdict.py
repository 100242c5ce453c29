"""What the default policy has to reach, and where it falls short."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

POLICY = "hz"
GAPS = {
    "time": {"objects": 0.58, "bytes": 0.22},
    "object": {"objects": 0.65},
    "bytes": {"bytes": 0.33},
}
"""The mean share of the way from LRU to offline, for each objective."""

LEAST_BYTES = -0.01
_KEPT = 1 + 1e-9
_OTHERS = ("lru", "cachetools-lru", "cachetools-lfu", "diskcache-lru", "diskcache-lrs", "theine")


def verdicts(found: Sequence[Row], objective: str) -> Iterator[tuple[str, bool]]:
    """A sentence for each target that these rows can tell of, and whether it is met."""
    mine = [row for row in found if row["policy"] == POLICY]
    if not mine:
        return
    for what, least in GAPS[objective].items():
        gaps = [gap for row in mine if (gap := row[f"gap_closed_{what}"]) is not None]
        if gaps:
            mean = sum(gaps) / len(gaps)
            text = f"{mean:.1%} of the gap in {what} closed, at least {least:.0%} wanted"
            yield text, mean >= least
    peak = max(row["peak_ratio"] for row in mine)
    yield f"peak/limit {peak:.4f}, at most 1 wanted", peak <= _KEPT
    if objective == "time":
        yield from _in_every_cell(found, mine)


def _in_every_cell(found: Sequence[Row], mine: Sequence[Row]) -> Iterator[tuple[str, bool]]:
    """Against LRU, and against the Python packages where they kept their limit."""
    others = [row for row in found if row["policy"] in _OTHERS and row["peak_ratio"] <= _KEPT]
    if not others:
        return
    ahead, bytes_ahead = [], []
    for row in mine:
        for other in others:
            if _cell(other) == _cell(row):
                points = row["object_hit_ratio"] - other["object_hit_ratio"]
                ahead.append((points, f"{_name(row)}, {other['policy']}"))
                if other["policy"] == "lru":
                    points = row["byte_hit_ratio"] - other["byte_hit_ratio"]
                    bytes_ahead.append((points, _name(row)))
    least, where = min(ahead)
    yield f"objects above others everywhere: least {least * 100:+.1f} points ({where})", least > 0
    if bytes_ahead:
        least, where = min(bytes_ahead)
        text = f"bytes at most a point below lru: least {least * 100:+.1f} points ({where})"
        yield text, least >= LEAST_BYTES


def _cell(row: Row) -> tuple[str, float]:
    return row["trace"], row["size_fraction"]


def _name(row: Row) -> str:
    return f"{row['trace']} {row['size_fraction']:.0%}"
