"""Fixtures that give tests real S3 servers, and a summary of what is not installed."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
from servers import S3Server

# Here too, so that the tests run where the package was not installed as well.
from cachestore.testing.plugin import cachestore_store as cachestore_store
from cachestore.testing.plugin import r2_double as r2_double

ABSENT = "no S3 server: "
NO_BROWSER = "no browser: "


def _server(start: Callable[[Path], Any], folder: Path) -> Iterator[S3Server]:
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(start(folder))
        except servers.Missing as missing:
            pytest.skip(f"{ABSENT}{missing}")
        yield server


def _common_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run share, and no other run."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A moto server of this process; its shared bucket is `bucket`, `new_bucket()` makes more."""
    yield from _server(servers.moto, tmp_path_factory.mktemp("moto"))


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An `rclone serve s3` of this process."""
    yield from _server(servers.rclone, tmp_path_factory.mktemp("rclone"))


@pytest.fixture(scope="session")
def wrangler_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Cloudflare's local R2, one for all processes of this run."""
    yield from _server(servers.wrangler, _common_folder(tmp_path_factory) / "wrangler")


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.servers) for name in ("moto", "rclone", "wrangler")
    ]
)
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    """Every server in turn."""
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    return server


@pytest.fixture
def moto_bucket(moto_server: S3Server) -> str:
    """A fresh, empty bucket of the moto server."""
    return moto_server.new_bucket()


@pytest.fixture
def rclone_bucket(rclone_server: S3Server) -> str:
    """A fresh, empty bucket of the rclone server."""
    return rclone_server.new_bucket()


@pytest.fixture
def wrangler_bucket(wrangler_server: S3Server) -> str:
    """An empty bucket of the wrangler server that no other process uses."""
    return wrangler_server.new_bucket()


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """A fresh, empty bucket of `s3_server`."""
    return s3_server.new_bucket()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say loudly on which servers, and that in no browser, nothing was tested."""
    missing: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", ()):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        for cause in (ABSENT, NO_BROWSER):
            _, found, why = reason.partition(cause)
            if found:
                missing[why] += 1
    for why, count in missing.items():
        terminalreporter.write_line(f"skipped: {why}, so {count} tests did not run", yellow=True)
