"""Folders of files, stores on an R2 double, and what its bucket holds, for tests of `ingest`."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

from concurrency_rig import on_double, remote_on

from cachestore.errors import NotFound
from cachestore.ingest import SyncReport, sync
from cachestore.options import Options
from cachestore.remote.s3 import S3Remote
from cachestore.store import CacheStore
from cachestore.testing.r2 import R2Double


def write(folder: Path, path: str, data: bytes, *, age: float = 100.0) -> Path:
    """A file that was modified `age` seconds ago."""
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    then = time.time() - age
    os.utime(target, (then, then))
    return target


def fill(folder: Path, count: int, size: int = 2_000) -> dict[str, bytes]:
    """Files with random bytes; by key."""
    rng = random.Random(count)
    made = {f"{n % 3}/f{n:04}.jpg": rng.randbytes(rng.randint(1, size)) for n in range(count)}
    for path, data in made.items():
        write(folder, path, data, age=10_000.0 - len(path))
    return made


_REMOTES: dict[str, S3Remote] = {}


def in_bucket(double: R2Double, key: str) -> bytes | None:
    """What the bucket has, None for nothing. One client for each double: making one is slow."""
    options = remote_on(double)
    remote = _REMOTES.setdefault(f"{options.endpoint} {options.bucket}", S3Remote(options))
    try:
        body = remote.get(key)
        assert body is not None
        with body as chunks:
            return b"".join(chunks)
    except NotFound:
        return None


def options_on(root: Path, double: R2Double, **fields: Any) -> Options:
    """Options for the double, with pauses short enough for tests."""
    return on_double(root, double, **fields)


def counts(report: SyncReport) -> tuple[int, int, int]:
    """Uploaded, skipped and failed; what failed is shown when it is compared."""
    return report.uploaded, report.skipped, report.failed


def synced(store: CacheStore, folder: Path, **asked: Any) -> SyncReport:
    """A sync of which nothing may fail."""
    report = sync(store, folder, **asked)
    assert report.errors == ()
    assert report.complete, report
    return report
