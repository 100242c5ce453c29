"""`python -m benchmarks [name ...]`: all, or some, of the benchmarks."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks import (
    bulk_sync,
    crawl,
    facts,
    hit_rate,
    hits,
    policy_cost,
    puts,
    restart,
    seek,
    serve,
    ttl,
)
from benchmarks.rig import OUT


def _hit_rate(root: Path) -> None:
    """With the peers, and a short part through a real store."""
    out = ["--json", f"{OUT}/hit_rate.json", "--picture", f"{OUT}/hit_rate.png"]
    hit_rate.main(["--peers", "--through-store", *out])


ALL = {
    "hits": hits.run,
    "puts": puts.run,
    "hit_rate": _hit_rate,
    "ttl": ttl.run,
    "facts": facts.run,
    "restart": restart.run,
    "crawl": crawl.run,
    "policy_cost": policy_cost.run,
    "bulk_sync": bulk_sync.run,
    "seek": seek.run,
    "serve": serve.run,
}


def main(names: list[str]) -> None:
    """Run the named ones; all if none is named."""
    unknown = set(names) - ALL.keys()
    if unknown:
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    for name in names or ALL:
        with tempfile.TemporaryDirectory(prefix=f"cachestore-bench-{name}-") as folder:
            ALL[name](Path(folder))
    print("JSON and pictures are in build/benchmarks")


if __name__ == "__main__":
    main(sys.argv[1:])
