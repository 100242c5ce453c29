"""Hit ratios on request traces: `python -m benchmarks.hit_rate [TRACE.npz ...]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.replay import POLICIES, replay
from benchmarks.traces import Trace, load, synthetic

Row = dict[str, Any]


def rows(
    traces: Sequence[Trace], fractions: Sequence[float], policies: Sequence[str], objective: Any
) -> Iterator[Row]:
    """One row for each trace, cache size and policy, as it is measured."""
    for trace in traces:
        for fraction in fractions:
            limit = max(1, int(trace.footprint * fraction))
            for policy in policies:
                cache = POLICIES[policy](limit, objective)
                outcome = replay(cache, trace.keys, trace.sizes)
                yield {
                    "trace": trace.name,
                    "size_fraction": fraction,
                    "policy": policy,
                    "objective": objective,
                    **asdict(outcome),
                }


def show(row: Row) -> None:
    """A line for people."""
    print(
        f"{row['trace'][:24]:24} {row['size_fraction']:6.1%}  {row['policy']:5}"
        f"  objects {row['object_hit_ratio']:6.1%}  bytes {row['byte_hit_ratio']:6.1%}"
        f"  peak {row['peak_ratio']:.3f}  {row['us_per_request']:6.1f} µs/request",
        flush=True,
    )


def draw(found: Sequence[Row], path: Path) -> None:
    """Hit ratio over cache size, a panel for each trace."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    traces = list(dict.fromkeys(row["trace"] for row in found))
    figure, panels = pyplot.subplots(
        len(traces), 2, figsize=(9, 2.6 * len(traces)), squeeze=False, sharey="row"
    )
    for panel, trace in zip(panels, traces, strict=True):
        for axes, what in zip(panel, ("object_hit_ratio", "byte_hit_ratio"), strict=True):
            for policy in dict.fromkeys(row["policy"] for row in found):
                mine = [r for r in found if r["trace"] == trace and r["policy"] == policy]
                axes.plot(
                    [row["size_fraction"] for row in mine], [row[what] for row in mine], "o-",
                    label=policy,
                )  # fmt: skip
            axes.set_xscale("log")
            axes.set_title(f"{trace}: {what.replace('_', ' ')}", fontsize=9, loc="left")
            axes.set_xlabel("cache size, share of all files", fontsize=8)
            axes.legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Replay, print, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hit_rate", description=__doc__)
    parser.add_argument("traces", nargs="*", type=Path, help="none: a synthetic media trace")
    parser.add_argument("--sizes", default="0.01,0.1,0.3", help="cache sizes, shares of all files")
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--objective", default="time", choices=("time", "object", "bytes"))
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--picture", type=Path, help="draw hit ratio over size there")
    given = parser.parse_args(arguments)
    policies = given.policies.split(",")
    unknown = set(policies) - POLICIES.keys()
    if unknown:
        parser.error(f"no policy {', '.join(sorted(unknown))}; there are {', '.join(POLICIES)}")
    traces = [load(path) for path in given.traces] or [synthetic()]
    fractions = [float(text) for text in given.sizes.split(",")]
    found = []
    for row in rows(traces, fractions, policies, given.objective):
        show(row)
        found.append(row)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    if given.picture is not None:
        draw(found, given.picture)
    return found


if __name__ == "__main__":
    main()
