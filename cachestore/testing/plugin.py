"""Fixtures for apps that use this library; pytest finds them by itself once it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cachestore.store import CacheStore
    from cachestore.testing.r2 import R2Double


@pytest.fixture
def r2_double() -> Iterator[R2Double]:
    """A double of Cloudflare R2 with an empty bucket, of this test alone."""
    # Late: this module is loaded in every test run, also where nobody asks for a double.
    from cachestore.testing.r2 import R2Double

    with R2Double() as double:
        yield double


@pytest.fixture
def cachestore_store(tmp_path: Path, r2_double: R2Double) -> Iterator[CacheStore]:
    """A store with folders below `tmp_path`, on `r2_double`; it retries soon and never waits."""
    from cachestore.open import open_store
    from cachestore.options import Options, RemoteOptions

    remote = RemoteOptions(
        bucket=r2_double.bucket,
        endpoint=r2_double.endpoint,
        region=r2_double.region,
        access_key=r2_double.access_key,
        secret_key=r2_double.secret_key,
        conditional=r2_double.conditional,
        kind="r2",
    )
    options = Options(
        cache_dir=tmp_path / "cache",
        spool_dir=tmp_path / "spool",
        local_dir=tmp_path / "output",
        mode="remote",
        reason="fixture cachestore_store",
        remote=remote,
        cache_min_free=0.0,
        retry_base=0.05,
        retry_cap=1.0,
        key_interval=0.0,
        doubt_wait=0.5,
        leader_interval=0.1,
    )
    with open_store(options) as store:
        yield store
