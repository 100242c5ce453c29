"""Real child processes for tests: each runs one function of a module with JSON arguments."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from cachestore.options import Options

TESTS = Path(__file__).parent


def save_options(options: Options, path: Path) -> Path:
    """Options for a child process."""
    path.write_bytes(pickle.dumps(options))
    return path


def load_options(path: str) -> Options:
    options: Options = pickle.loads(Path(path).read_bytes())
    return options


def start(target: str, *arguments: Any, **extra: Any) -> subprocess.Popen[str]:
    """Run `module:function(*arguments)` in a new process; its lines can be read from stdout."""
    module, function = target.split(":")
    code = (
        "import json, sys; import importlib;"
        f"f = getattr(importlib.import_module({module!r}), {function!r});"
        "f(*json.loads(sys.argv[1]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, json.dumps([str(a) for a in arguments])],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        bufsize=1,
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
        **extra,
    )


def say(*words: Any) -> None:
    """A line for the parent, in one piece: forked children write to the same pipe."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def finish(process: subprocess.Popen[str], seconds: float = 120.0) -> str:
    """Wait for a child's end; its output. Fails if it failed."""
    out, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, f"child failed with {process.returncode}: {out[-2000:]}"
    return out
