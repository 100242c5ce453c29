"""A mirror reads every file once: how soon the hot files are here again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.replay import POLICIES, Cache
from benchmarks.rig import alone, publish
from benchmarks.screen import Tell, progress
from benchmarks.traces import Trace, synthetic

SIZES = (0.1, 0.3)
AFTER, WINDOW = 1_000, 4_000
HOT = 0.1
TARGET = "after 1,000 requests at most 2 points below before; lost: against nobody having crawled"


def hot_keys(keys: list[int]) -> set[int]:
    """The tenth of all files that is asked for most."""
    counts = Counter(keys)
    return {key for key, _ in counts.most_common(max(1, int(len(counts) * HOT)))}


def measure(make: Any, trace: Trace, fraction: float, *, crawled: bool) -> list[float]:
    """Hit ratio of hot files in windows of requests: just before, at once after, and later.

    The requests are the same whether somebody crawls between them or not.
    """
    cache: Cache = make(max(1, int(trace.footprint * fraction)), "time")
    files, half = trace.files, len(trace.keys) // 2
    hot = hot_keys(trace.keys[:half])
    hits = [cache.request(key, files[key], tick) for tick, key in enumerate(trace.keys[:half])]
    ratios = [_ratio(hits[-WINDOW:], trace.keys[half - WINDOW : half], hot)]
    tick = half
    for key in sorted(files) if crawled else ():
        cache.request(key, files[key], tick)
        tick += 1
    later = trace.keys[half : half + AFTER + WINDOW]
    hits = [cache.request(key, files[key], tick + number) for number, key in enumerate(later)]
    ratios.append(_ratio(hits[:AFTER], later[:AFTER], hot))
    ratios.append(_ratio(hits[AFTER:], later[AFTER:], hot))
    return ratios


def _ratio(hits: list[bool], keys: list[int], hot: set[int]) -> float:
    mine = [hit for hit, key in zip(hits, keys, strict=True) if key in hot]
    return sum(mine) / len(mine) if mine else 0.0


def rows_for(trace: Trace, tell: Tell = lambda done: None) -> list[dict[str, Any]]:
    """A row for each policy and cache size; `tell` is called after each."""
    rows = []
    for fraction in SIZES:
        for policy, make in POLICIES.items():
            _, _, undisturbed = measure(make, trace, fraction, crawled=False)
            before, at_once, after = measure(make, trace, fraction, crawled=True)
            rows.append(
                {
                    "policy": policy,
                    "cache": f"{fraction:.0%}",
                    "before %": before,
                    "first 1,000 %": at_once,
                    "after 1,000 %": after,
                    "without crawl %": undisturbed,
                    "lost %": undisturbed - after,
                }
            )
            tell(1)
    return rows


def run(root: Path) -> None:
    """Print, and write, the hot files' hit ratio around a crawl."""
    with progress("crawling", len(SIZES) * len(POLICIES)) as tell:
        rows = rows_for(synthetic(), tell)
    publish("crawl", "Hot files around a crawl of everything", rows, TARGET)


if __name__ == "__main__":
    alone(run)
