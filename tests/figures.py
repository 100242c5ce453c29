"""Figures of long tests: printed, and appended to `build/torture/<name>.json` for the docs."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "build" / "torture"


def record(name: str, **figures: Any) -> None:
    """Add one run's figures to a JSON list, beside other processes that do the same."""
    print(f"{name}: " + ", ".join(f"{what} {value}" for what, value in figures.items()))
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    with (FOLDER / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        runs = json.loads(path.read_text()) if path.exists() else []
        runs.append({"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **figures})
        new = path.with_suffix(".new")
        new.write_text(json.dumps(runs, indent=1) + "\n")
        os.replace(new, path)
