"""A hit: `get` of a file that is here, against the file system and against peers."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import diskcache
from fsspec.implementations.cached import SimpleCacheFileSystem
from fsspec.implementations.local import LocalFileSystem

from benchmarks.rig import Line, compare, report
from cachestore import AsyncCacheStore, CacheStore, open_store
from cachestore.options import Options

KEY = "segments/a.wav"
SIZE = 24_000


def _store(root: Path) -> CacheStore:
    """A store with a clean copy of one file, in front of a folder that stands for the bucket."""
    store = open_store(
        Options(root / "cache", root / "spool", root / "output", "mock", mock_dir=root / "bucket")
    )
    store.put(KEY, b"x" * SIZE).wait(30)
    store.get(KEY)
    return store


def run(root: Path) -> None:
    """Print, and write, both comparisons."""
    with (
        _store(root) as store,
        diskcache.Cache(str(root / "diskcache"), disk_min_file_size=0) as peer,
    ):
        path = os.fspath(store.get(KEY))
        peer.set(KEY, b"x" * SIZE)
        (root / "origin").mkdir()
        (root / "origin" / "a.wav").write_bytes(b"x" * SIZE)
        remote = SimpleCacheFileSystem(fs=LocalFileSystem(), cache_storage=str(root / "fsspec"))
        origin = str(root / "origin" / "a.wav")
        remote.cat_file(origin)
        report(
            "hit_path",
            "A hit that gives a path",
            [
                *compare(
                    {
                        "os.stat": lambda: os.stat(path),
                        "cachestore get": lambda: store.get(KEY),
                        "diskcache get": lambda: peer.get(KEY, read=True).close(),
                    }
                ),
                _awaited(AsyncCacheStore(store), path),
            ],
        )
        report(
            "hit_bytes",
            f"A hit that gives {SIZE} bytes",
            compare(
                {
                    "open+read": lambda: _read(path),
                    "cachestore read": lambda: store.read(KEY),
                    "diskcache get": lambda: peer.get(KEY),
                    "fsspec simplecache": lambda: remote.cat_file(origin),
                },
                count=500,
            ),
        )


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _awaited(store: AsyncCacheStore, path: str, rounds: int = 9, count: int = 2_000) -> Line:
    """The async facade's hit, awaited in a loop; in turns with `os.stat`."""

    async def measure() -> list[tuple[float, float]]:
        pairs = []
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(count):
                os.stat(path)
            middle = time.perf_counter()
            for _ in range(count):
                await store.get(KEY)
            pairs.append((middle - start, time.perf_counter() - middle))
        return pairs

    pairs = asyncio.run(measure())
    times = sorted(after / count for _, after in pairs)
    ratios = sorted(after / before for before, after in pairs)
    return Line("cachestore async get", times[0], times[rounds // 2], ratios[rounds // 2])
