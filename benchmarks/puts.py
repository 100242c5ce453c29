"""A put: durable on this disk, against writing and fsyncing one file by hand."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from benchmarks.rig import compare, report
from cachestore import open_store
from cachestore.options import Options

SIZES = {"24 KB": 24_000, "5 MB": 5_000_000}


def run(root: Path) -> None:
    """Print, and write, a comparison for each size."""
    for name, size in SIZES.items():
        room = root / f"{size}"
        room.mkdir()
        _compare(room, name, os.urandom(size))


def _compare(room: Path, name: str, data: bytes) -> None:
    numbers = itertools.count()
    local = Options(room / "cache", room / "spool", room / "local")
    spooled = Options(
        room / "cache2", room / "spool2", room / "local2", "mock", mock_dir=room / "bucket"
    )
    with open_store(local) as folder, open_store(spooled) as store:
        # As when another process leads: what is measured is the put, not the upload beside it.
        store.core.uploader.stop(5.0)
        store.core.uploader.wake = lambda ticket: None
        ways = {
            "write+fsync": lambda: _by_hand(room / f"{next(numbers)}", data),
            "cachestore put": lambda: store.put(f"{next(numbers)}.bin", data),
            "cachestore put, local mode": lambda: folder.put(f"{next(numbers)}.bin", data),
        }
        lines = compare(ways, rounds=5, count=20)
        report(f"put_{len(data)}", f"A durable put of {name}", lines)
        store.close(drain=0.0)


def _by_hand(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
