"""Hit ratios on request traces: `python -m benchmarks.hit_rate [TRACE.npz ...]`.

Each policy replays each trace at each cache size, metadata only. Beside them stand what a cache
that knows the future would reach, and with `--peers` what other caches do.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.bounds import Bound, Reuses, feasible, relaxed
from benchmarks.peers import PEERS
from benchmarks.replay import POLICIES, Cache, replay
from benchmarks.screen import Tell, progress, say, table
from benchmarks.traces import Trace, load, synthetic
from benchmarks.verdict import verdicts

Row = dict[str, Any]

SIZES = "0.01,0.1,0.3"
LEAST_GAP = 0.01
"""Cells where the gap between LRU and offline is smaller say nothing about a policy."""

_RATIOS = {"objects": ("object_hit_ratio", "offline-object"),
           "bytes": ("byte_hit_ratio", "offline-bytes")}  # fmt: skip
_BOUNDS = 2


def limit_of(trace: Trace, fraction: float) -> int:
    """Bytes of a cache for this share of all files."""
    return max(1, int(trace.footprint * fraction))


def make(policy: str, limit: int, trace: Trace, objective: Any) -> Cache:
    """A cache of ours, or of a peer."""
    if policy in POLICIES:
        return POLICIES[policy](limit, objective)
    return PEERS[policy].make(limit, trace)


def cell(
    trace: Trace, fraction: float, policies: Sequence[str], objective: Any, bounds: bool, tell: Tell
) -> list[Row]:
    """One row for each policy, then those of the bounds, for a trace and a cache size."""
    limit = limit_of(trace, fraction)
    same = {"trace": trace.name, "size_fraction": fraction}
    rows: list[Row] = []
    for policy in policies:
        outcome = replay(make(policy, limit, trace, objective), trace.keys, trace.sizes, tell)
        rows.append({**same, "policy": policy, "objective": objective, **asdict(outcome)})
    if bounds:
        for name, bound, took in _bounds(trace, limit, tell):
            each = took / len(trace.keys) * 1e6
            row = {"policy": name, "objective": objective, **asdict(bound), "us_per_request": each}
            rows.append({**same, **row})
    return with_gaps(rows)


def _bounds(trace: Trace, limit: int, tell: Tell) -> Iterator[tuple[str, Bound, float]]:
    reuses = Reuses.of(trace)
    ways: dict[str, Callable[[], Bound]] = {
        "offline-object": lambda: feasible(reuses, limit, "object", tell),
        "offline-bytes": lambda: feasible(reuses, limit, "bytes", tell),
        "bound": lambda: relaxed(reuses, limit),
    }
    for name, find in ways.items():
        start = time.process_time()
        bound = find()
        yield name, bound, time.process_time() - start


def with_gaps(rows: list[Row]) -> list[Row]:
    """Rows of one cell, with the share of the way from LRU to offline that each went.

    None where LRU or the bounds are not among them, or where the way is too short.
    """
    by_name = {row["policy"]: row for row in rows}
    for what, (ratio, offline) in _RATIOS.items():
        for row in rows:
            row[f"gap_closed_{what}"] = None
        if "lru" not in by_name or offline not in by_name:
            continue
        lru = by_name["lru"][ratio]
        gap = by_name[offline][ratio] - lru
        if gap >= LEAST_GAP:
            for row in rows:
                row[f"gap_closed_{what}"] = (row[ratio] - lru) / gap
    return rows


def show(rows: Sequence[Row], title: str) -> None:
    """The table of one cell."""
    columns = ["policy", "objects %", "bytes %", "gap closed %", "peak/limit", "µs each"]
    lines = []
    for row in rows:
        over = "!" if row["peak_ratio"] > 1 + 1e-9 else ""
        gaps = "/".join(_share(row[f"gap_closed_{what}"]) for what in _RATIOS)
        lines.append(
            [
                row["policy"],
                f"{row['object_hit_ratio'] * 100:.1f}",
                f"{row['byte_hit_ratio'] * 100:.1f}",
                gaps,
                f"{row['peak_ratio']:.3f}{over}",
                f"{row['us_per_request']:.1f}",
            ]
        )
    table(title, columns, lines)


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.0f}"


def summary(found: Sequence[Row]) -> None:
    """Means over all cells; gaps over those cells that have one."""
    columns = ["policy", "objects %", "bytes %", "gap closed %", "worst %", "peak"]
    lines = []
    for policy in dict.fromkeys(row["policy"] for row in found):
        mine = [row for row in found if row["policy"] == policy]
        means, worst = [], []
        for what in _RATIOS:
            gaps = [g for row in mine if (g := row[f"gap_closed_{what}"]) is not None]
            means.append(_share(sum(gaps) / len(gaps) if gaps else None))
            worst.append(_share(min(gaps, default=None)))
        peak = max(row["peak_ratio"] for row in mine)
        lines.append(
            [
                policy,
                *(
                    f"{sum(r[key] for r in mine) / len(mine) * 100:.1f}"
                    for key, _ in _RATIOS.values()
                ),
                "/".join(means),
                "/".join(worst),
                f"{peak:.3f}{'!' if peak > 1 + 1e-9 else ''}",
            ]
        )
    cells = len({(row["trace"], row["size_fraction"]) for row in found})
    table(f"Mean of {cells} cells (gap closed: objects/bytes)", columns, lines)


def run(
    traces: Sequence[Trace],
    fractions: Sequence[float],
    policies: Sequence[str],
    objective: Any,
    bounds: bool = True,
) -> list[Row]:
    """Replay everything, showing each cell when it is done."""
    found: list[Row] = []
    steps = len(policies) + _BOUNDS * bounds
    total = sum(len(trace.keys) for trace in traces) * len(fractions) * steps
    with progress("replaying", total) as tell:
        for trace in traces:
            for fraction in fractions:
                rows = cell(trace, fraction, policies, objective, bounds, tell)
                size = limit_of(trace, fraction) / 1e6
                show(rows, f"{trace.name}, cache of {fraction:.1%} ({size:,.1f} MB)")
                found += rows
    if len(traces) * len(fractions) > 1:
        summary(found)
    for text, met in verdicts(found, objective):
        say(f"{'met' if met else 'falls short'}: {text}")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hit_rate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("traces", nargs="*", type=Path, help="none: a synthetic media trace")
    parser.add_argument("--sizes", default=SIZES, help="cache sizes, shares of all files")
    parser.add_argument(
        "--policies", default=",".join(POLICIES),
        help=f"of ours: {', '.join(POLICIES)}; of others: {', '.join(PEERS)}",
    )  # fmt: skip
    parser.add_argument("--peers", action="store_true", help="all the others too")
    parser.add_argument("--objective", default="time", choices=("time", "object", "bytes"))
    parser.add_argument("--no-bounds", action="store_true", help="do not compute what is possible")
    parser.add_argument("--through-store", action="store_true",
                        help="replay a short part through a real store too")  # fmt: skip
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--picture", type=Path, help="draw hit ratio over size there")
    return parser


def _chosen(parser: argparse.ArgumentParser, given: argparse.Namespace) -> list[str]:
    """The policies asked for; peers whose package is missing are left out of `--peers`."""
    policies = list(dict.fromkeys(given.policies.split(",")))
    unknown = set(policies) - POLICIES.keys() - PEERS.keys()
    if unknown:
        known = ", ".join([*POLICIES, *PEERS])
        parser.error(f"no policy {', '.join(sorted(unknown))}; there are {known}")
    for name in policies:
        if name in PEERS and PEERS[name].missing:
            parser.error(
                f"{name} needs the package {PEERS[name].package}: pip install -e '.[bench]'"
            )
    if given.peers:
        for name, peer in PEERS.items():
            if peer.missing:
                say(f"left out: {name}, since the package {peer.package} is not installed")
            elif name not in policies:
                policies.append(name)
    return policies


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Replay, print, and write what was asked for."""
    parser = _parser()
    given = parser.parse_args(arguments)
    policies = _chosen(parser, given)
    traces = [load(path) for path in given.traces] or [synthetic()]
    fractions = [float(text) for text in given.sizes.split(",")]
    found = run(traces, fractions, policies, given.objective, not given.no_bounds)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    if given.picture is not None:
        from benchmarks.picture import draw

        draw(found, given.picture)
    if given.through_store:
        from benchmarks.through_store import compare

        compare(traces, fractions, policies, given.objective)
    return found


if __name__ == "__main__":
    main()
