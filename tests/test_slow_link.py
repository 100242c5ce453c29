"""The test kit's slow line: late, not too fast, and every byte as it was."""

from __future__ import annotations

import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from store_rig import on_server

from cachestore.errors import RemoteUnavailable
from cachestore.model import Attributes
from cachestore.remote.s3 import S3Remote
from cachestore.testing.link import SlowLink
from cachestore.testing.r2 import R2Double

DATA = os.urandom(400_000)


def remote_at(endpoint: str, root: Path, double: R2Double) -> S3Remote:
    options = on_server(root, double, double.bucket)
    assert options.remote is not None
    return S3Remote(replace(options.remote, endpoint=endpoint))


def fetch(remote: S3Remote) -> bytes:
    body = remote.get("a")
    assert body is not None
    with body:
        return b"".join(body)


def test_all_connections_share_its_rate(tmp_path: Path, r2_double: R2Double) -> None:
    with (
        SlowLink(r2_double.endpoint, latency=0.0, rate=2e6) as link,
        ThreadPoolExecutor(3) as pool,
    ):
        remote = remote_at(link.endpoint, tmp_path, r2_double)
        remote.put("a", io.BytesIO(DATA), size=len(DATA), sha256=None, attributes=Attributes("a/b"))
        start = time.monotonic()
        assert list(pool.map(fetch, [remote] * 3)) == [DATA] * 3
        assert time.monotonic() - start >= 3 * len(DATA) / 2e6 * 0.9
        assert 3 * len(DATA) <= link.received < 3 * len(DATA) + 50_000
        remote.close()


def test_every_answer_is_late(tmp_path: Path, r2_double: R2Double) -> None:
    with SlowLink(r2_double.endpoint, latency=0.2, rate=1e9) as link:
        remote = remote_at(link.endpoint, tmp_path, r2_double)
        remote.put("a", io.BytesIO(b"x"), size=1, sha256=None, attributes=Attributes("a/b"))
        start = time.monotonic()
        for _ in range(3):
            assert fetch(remote) == b"x"
        assert time.monotonic() - start >= 0.6
        link.close()
        with pytest.raises(RemoteUnavailable):
            fetch(remote)
        remote.close()
