"""Stores for tests: on folders of the test, in memory, on a directory or on a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cachestore.open import assemble
from cachestore.options import Options, RemoteOptions
from cachestore.store import CacheStore

PATIENCE = 60.0


class Shifted:
    """A machine whose clock is wrong by so many seconds."""

    def __init__(self, offset: float) -> None:
        self._offset = offset

    def now(self) -> float:
        return time.time() + self._offset

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(max(0.0, seconds))


def make_options(root: Path, **fields: Any) -> Options:
    """Options with folders below `root`, quick retries, no limits from the test's disk.

    A machine that is busy must not make answers late: who tests a deadline says which.
    """
    values: dict[str, Any] = {
        "cache_dir": root / "cache",
        "spool_dir": root / "spool",
        "local_dir": root / "output",
        "mode": "local",
        "cache_min_free": 0.0,
        "retry_base": 0.05,
        "retry_cap": 0.5,
        "key_interval": 0.0,
        "doubt_wait": 0.3,
        "leader_interval": 0.1,
        "lock_timeout": PATIENCE,
        "revalidate_deadline": PATIENCE,
    }
    return Options(**(values | fields))


def on_server(root: Path, server: Any, bucket: str, **fields: Any) -> Options:
    """Options for a real S3 server."""
    remote = RemoteOptions(
        bucket=bucket,
        endpoint=server.endpoint,
        region=server.region,
        access_key=server.access_key,
        secret_key=server.secret_key,
        conditional=server.conditional,
    )
    return make_options(root, **({"mode": "remote", "remote": remote, "reason": "test"} | fields))


def store_of(options: Options, **parts: Any) -> CacheStore:
    """A store with injected parts: files, clock, events, remote."""
    return CacheStore(lambda: assemble(options, **parts))


def until(condition: Callable[[], Any], what: str = "the state", seconds: float = PATIENCE) -> Any:
    """Poll until `condition()` is true, and return its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come about within {seconds:g} s")
        time.sleep(0.01)  # between two looks: the one place where tests poll
