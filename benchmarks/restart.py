"""A restart, and a second process on the same cache: what they cost in hits."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.lab import Answered, ask, fill, options_for, small
from benchmarks.rig import alone, publish
from benchmarks.screen import Tell, progress
from benchmarks.traces import Trace, synthetic
from cachestore import CacheStore, open_store
from cachestore.options import Options
from cachestore.remote.directory import DirectoryRemote

REQUESTS, FILES = 4_000, 1_200
FRACTION = 0.2
PARTS = 4
TURN = 50
TARGET = "less than one point lost, of requests and of bytes"


def options_of(root: Path, bucket: Path, trace: Trace) -> Options:
    """A cache of its own in front of a bucket that is a folder, so that processes can share it."""
    limit = int(trace.footprint * FRACTION)
    return options_for(root, limit, mode="mock", mock_dir=bucket)


def undisturbed(options: Options, trace: Trace, tell: Tell) -> Answered:
    """One store from the beginning to the end."""
    with open_store(options) as store:
        ask(store, trace.keys, tell)
        return Answered.by(store)


def restarted(options: Options, trace: Trace, tell: Tell) -> Answered:
    """Closed and opened again after each part."""
    found = Answered()
    step = -(-len(trace.keys) // PARTS)
    for start in range(0, len(trace.keys), step):
        with open_store(options) as store:
            ask(store, trace.keys[start : start + step], tell)
            found += Answered.by(store)
    return found


def shared(options: Options, trace: Trace, tell: Tell) -> Answered:
    """This process and another one, in turns."""
    with open_store(options) as store, _other(options, trace) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        for turn, start in enumerate(range(0, len(trace.keys), TURN)):
            if turn % 2 == 0:
                ask(store, trace.keys[start : start + TURN], tell)
            else:
                other.stdin.write(f"{start}\n")
                other.stdin.flush()
                other.stdout.readline()
                tell(TURN)
        other.stdin.write("end\n")
        other.stdin.flush()
        theirs = Answered(*map(int, other.stdout.readline().split()))
        return Answered.by(store) + theirs


@contextmanager
def _other(options: Options, trace: Trace) -> Iterator[subprocess.Popen[str]]:
    path = options.cache_dir.parent / "second.pickle"
    path.write_bytes(pickle.dumps((options, trace)))
    command = [sys.executable, "-m", "benchmarks.restart", str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            yield other
        finally:
            other.kill()


def _second(path: Path) -> None:
    """The other process: a turn for each number it is given."""
    options, trace = pickle.loads(path.read_bytes())
    store: CacheStore
    with open_store(options) as store:
        for line in sys.stdin:
            if line.strip() == "end":
                break
            start = int(line)
            ask(store, trace.keys[start : start + TURN])
            print("done", flush=True)
        found = Answered.by(store)
        print(found.requests, found.hits, found.bytes, found.hit_bytes, flush=True)


WAYS = {"one run": undisturbed, f"{PARTS - 1} restarts": restarted, "two processes": shared}


def rows_for(root: Path, trace: Trace, tell: Tell = lambda done: None) -> list[dict[str, Any]]:
    """A row for each way; losses against the first."""
    bucket = root / "bucket"
    fill(DirectoryRemote(bucket, durable=False), trace)
    rows: list[dict[str, Any]] = []
    first: Answered | None = None
    for name, way in WAYS.items():
        (root / name).mkdir()
        found = way(options_of(root / name, bucket, trace), trace, tell)
        first = first or found
        rows.append(
            {
                "run": name,
                "requests": found.requests,
                "objects %": found.object_hit_ratio,
                "bytes %": found.byte_hit_ratio,
                "objects lost %": first.object_hit_ratio - found.object_hit_ratio,
                "bytes lost %": first.byte_hit_ratio - found.byte_hit_ratio,
            }
        )
    return rows


def run(root: Path) -> None:
    """Print, and write, hit ratios of one run, of restarts and of two processes."""
    trace = small(synthetic(REQUESTS, FILES), REQUESTS)
    with progress("restarts and processes", len(trace.keys) * len(WAYS)) as tell:
        rows = rows_for(root, trace, tell)
    publish("restart", "Restarts, and two processes on one cache", rows, TARGET)


if __name__ == "__main__":
    if sys.argv[1:]:
        _second(Path(sys.argv[1]))
    else:
        alone(run)
