"""The contract suite over every remote that there is."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachestore.clock import SystemClock
from cachestore.errors import NotFound, RemoteRefused
from cachestore.events import Events
from cachestore.options import RemoteOptions
from cachestore.remote.base import MIN_PART, RemoteStore
from cachestore.remote.breaker import GuardedRemote
from cachestore.remote.budget import Budget
from cachestore.remote.directory import DirectoryRemote
from cachestore.remote.fetching import fetch, verify_digest
from cachestore.remote.memory import MemoryRemote
from cachestore.remote.s3 import S3Remote
from cachestore.remote.sending import send
from cachestore.testing.contract import PLAIN, RemoteContract, keys_of, prefixes_of, put, read


class PagedContract(RemoteContract):
    """More keys than fit on one page, where that costs nothing."""

    def test_more_than_a_page(self, remote: RemoteStore, root: str) -> None:
        names = [f"{root}{number:04d}" for number in range(1050)]
        for name in names:
            put(remote, name, b"")
        pages = list(remote.list(root))
        assert [len(page.objects) for page in pages] == [1000, 50]
        assert keys_of(remote, root) == names
        assert keys_of(remote, root, after=names[999]) == names[1000:]

    def test_delete_a_thousand(self, remote: RemoteStore, root: str) -> None:
        names = [f"{root}{number:04d}" for number in range(1000)]
        for name in names:
            put(remote, name, b"")
        assert remote.delete_many(names) == {}
        assert keys_of(remote, root) == []


class TestMemory(PagedContract):
    @pytest.fixture
    def remote(self) -> RemoteStore:
        return MemoryRemote()


class TestDirectory(PagedContract):
    @pytest.fixture
    def remote(self, tmp_path: Path) -> RemoteStore:
        return DirectoryRemote(tmp_path / "bucket", durable=False)


class TestDurableDirectory(RemoteContract):
    @pytest.fixture
    def remote(self, tmp_path: Path) -> RemoteStore:
        return DirectoryRemote(tmp_path / "bucket")


class TestGuarded(RemoteContract):
    @pytest.fixture
    def remote(self) -> RemoteStore:
        return GuardedRemote(MemoryRemote(), SystemClock(), Events())


def options_of(server: Any) -> RemoteOptions:
    """How to reach an S3 server of the tests."""
    return RemoteOptions(
        bucket=server.bucket,
        endpoint=server.endpoint,
        region=server.region,
        access_key=server.access_key,
        secret_key=server.secret_key,
        conditional=server.conditional,
    )


@pytest.mark.servers
class ServerContract(RemoteContract):
    """Over the network."""

    checks_signatures = True

    @pytest.fixture
    def remote(self, server: Any) -> Iterator[S3Remote]:
        remote = S3Remote(options_of(server), workers=8, in_flight=1)
        yield remote
        remote.close()

    def test_presigned_urls_work(self, remote: S3Remote, root: str) -> None:
        data = b"hello presigned"
        sha256 = hashlib.sha256(data).hexdigest()
        key = root + "ä b+c.txt"
        up = remote.presign_put(
            key, content_type="text/plain", expires_in=60, size=len(data), sha256=sha256
        )
        request = urllib.request.Request(up.url, data, dict(up.headers), method=up.method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200
        there = remote.head(key)
        assert (there.size, there.content_type, there.sha256) == (len(data), "text/plain", sha256)
        with urllib.request.urlopen(remote.presign_get(key, 60), timeout=30) as answer:
            assert answer.read() == data

    def test_a_presigned_upload_takes_nothing_else(self, remote: S3Remote, root: str) -> None:
        if not self.checks_signatures:
            pytest.skip("this server checks no signatures")
        up = remote.presign_put(
            root + "a", content_type="image/png", expires_in=60, size=5, sha256=None
        )
        for data, headers in (
            (b"12345", {**up.headers, "Content-Type": "text/html"}),
            (b"123456", {**up.headers, "Content-Length": "6"}),
        ):
            request = urllib.request.Request(up.url, data, headers, method="PUT")
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=30)
            caught.value.close()
            assert caught.value.code == 403
        with pytest.raises(NotFound):
            remote.head(root + "a")

    def test_wrong_credentials_are_refused(self, server: Any, root: str) -> None:
        if not self.checks_signatures:
            pytest.skip("this server checks no signatures")
        wrong = dataclasses.replace(options_of(server), secret_key="wrong")
        remote = S3Remote(wrong, workers=1)
        for request in (
            lambda: remote.head(root + "a"),
            lambda: read(remote, root + "a"),
            lambda: put(remote, root + "a", b"x"),
            lambda: list(remote.list(root)),
        ):
            with pytest.raises(RemoteRefused):
                request()
        remote.close()

    def test_a_large_file_goes_there_and_back(
        self, remote: S3Remote, root: str, tmp_path: Path
    ) -> None:
        data = secrets.token_bytes(2 * MIN_PART + 99)
        (tmp_path / "source").write_bytes(data)
        states: list[dict[str, Any]] = []
        send(
            remote,
            root + "big",
            tmp_path / "source",
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            attributes=PLAIN,
            budget=Budget(48 << 20),
            threshold=MIN_PART,
            part_size=MIN_PART,
            state={},
            save_state=states.append,
        )
        assert len(states[-1]["etags"]) == 3
        with (tmp_path / "target").open("w+b") as target:
            fetched = fetch(
                remote,
                root + "big",
                lambda offset, piece: os.pwrite(target.fileno(), piece, offset),
                part_size=1 << 20,
                budget=Budget(48 << 20),
            )
            verify_digest(target.fileno(), fetched.info)
        assert (tmp_path / "target").read_bytes() == data

    def test_a_body_is_never_chunked_or_closed(self, remote: S3Remote, root: str) -> None:
        body = io.BytesIO(b"0123456789" * 10_000)
        remote.put(root + "a", body, size=100_000, sha256="0" * 64, attributes=PLAIN)
        assert not body.closed
        assert remote.head(root + "a").size == 100_000


@pytest.mark.servers
class TestMoto(ServerContract):
    checks_signatures = False

    @pytest.fixture
    def server(self, moto_server: Any) -> Any:
        return moto_server

    def test_an_aborted_upload_is_lost(self, remote: RemoteStore, root: str) -> None:
        pytest.skip("moto answers 500 for an upload that was aborted")


@pytest.mark.servers
class TestRclone(ServerContract):
    @pytest.fixture
    def server(self, rclone_server: Any) -> Any:
        return dataclasses.replace(rclone_server, conditional=False)

    def test_a_multipart_etag(self, remote: RemoteStore, root: str) -> None:
        pytest.skip("rclone forgets the ETag of an upload in parts")

    def test_a_part_may_be_sent_again(self, remote: RemoteStore, root: str) -> None:
        pytest.skip("rclone takes every part once")


@pytest.mark.servers
class TestWrangler(ServerContract):
    @pytest.fixture
    def server(self, wrangler_server: Any) -> Any:
        return wrangler_server


@pytest.mark.parametrize("make", ["memory", "directory"])
def test_small_pages_with_a_delimiter(make: str, tmp_path: Path) -> None:
    remote: RemoteStore = (
        MemoryRemote(page_size=3)
        if make == "memory"
        else DirectoryRemote(tmp_path, page_size=3, durable=False)
    )
    for name in ("a/1", "a/2", "a/3", "a/4", "b", "c/1", "c/2", "d", "e", "f/1"):
        put(remote, name, b"x")
    assert keys_of(remote, "", delimiter="/") == ["b", "d", "e"]
    assert prefixes_of(remote, "", "/") == ["a/", "c/", "f/"]
    assert [len(page.objects) for page in remote.list()] == [3, 3, 3, 1]


def test_a_directory_is_shared_by_its_users(tmp_path: Path) -> None:
    one, two = DirectoryRemote(tmp_path, durable=False), DirectoryRemote(tmp_path, durable=False)
    assert one.remote_id == two.remote_id
    assert one.remote_id != DirectoryRemote(tmp_path / "other").remote_id
    put(one, "a", b"x")
    assert read(two, "a") == b"x"
    answer = two.get("a")
    assert answer is not None
    with answer as body:
        put(one, "a", b"replaced")
        assert b"".join(body) == b"x"


def test_a_replaced_body_leaves_nothing_behind(tmp_path: Path) -> None:
    remote = DirectoryRemote(tmp_path, durable=False)
    for _ in range(5):
        put(remote, "a.txt", secrets.token_bytes(10))
    bodies = [path for path in tmp_path.rglob("*.txt") if path.is_file()]
    assert len(bodies) == 1
    remote.delete("a.txt")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
