"""Buckets with something in them, and folders read back, for tests of `export` and `migrate`."""

from __future__ import annotations

import hashlib
import io
import os
import random
from collections.abc import Mapping
from pathlib import Path

from concurrency_rig import remote_on
from process_rig import load_options
from store_rig import store_of

from cachestore.ingest import MigrateReport, export, migrate
from cachestore.ingest.placing import HIDDEN
from cachestore.model import Attributes
from cachestore.remote.s3 import S3Remote
from cachestore.testing.r2 import R2Double


def objects(count: int, size: int = 2_000, prefix: str = "cam/") -> dict[str, bytes]:
    """Random bytes by key, in a few folders."""
    rng = random.Random(count)
    return {
        f"{prefix}{n % 3}/f{n:04}.jpg": rng.randbytes(rng.randint(0, size)) for n in range(count)
    }


def bucket_of(double: R2Double) -> S3Remote:
    """The double's bucket, as somebody else sees it."""
    return S3Remote(remote_on(double), workers=1, in_flight=1)


def fill_bucket(double: R2Double, made: Mapping[str, bytes], *, ours: bool = False) -> None:
    """Objects of somebody else, or with the SHA-256 that we store."""
    remote = bucket_of(double)
    for key, data in made.items():
        sha256 = hashlib.sha256(data).hexdigest() if ours else ""
        remote.put(
            key, io.BytesIO(data), size=len(data), sha256=sha256,
            attributes=Attributes("image/jpeg", {"who": "Jürgen"}, "max-age=60"),
        )  # fmt: skip
    remote.close()


def in_parts(double: R2Double, key: str, data: bytes) -> None:
    """An object whose ETag says nothing of its bytes."""
    remote, size = bucket_of(double), 5 << 20
    upload = remote.create_upload(key, sha256="", attributes=Attributes("video/mp4"))
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    etags = [remote.upload_part(key, upload, n + 1, part) for n, part in enumerate(parts)]
    remote.complete_upload(key, upload, etags)
    remote.close()


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file by its path, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def without(prefix: str, made: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same by paths."""
    return {key.removeprefix(prefix): data for key, data in made.items()}


def unfinished(folder: Path) -> list[str]:
    """What lies there without a name."""
    hidden = folder / HIDDEN
    return os.listdir(hidden) if hidden.exists() else []


def shown(report: MigrateReport) -> tuple[int, int, int]:
    """Copied, skipped and failed."""
    return report.copied, report.skipped, report.failed


# -- children --------------------------------------------------------------------------------------


def export_child(options: str, prefix: str, folder: str, how: str) -> None:
    """A process that exports, and says what it did."""
    with store_of(load_options(options)) as store:
        report = export(store, prefix, folder, past_cache=how == "past", workers=2)
        print(report.exported, report.skipped, report.failed, flush=True)


def migrate_child(options: str, folder: str) -> None:
    """A process that migrates a folder, and says what it did."""
    with store_of(load_options(options)) as store:
        report = migrate(store, folder, workers=2)
        print(*shown(report), flush=True)
