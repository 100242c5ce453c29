"""The public names of a store, in local mode, on a folder that stands for R2, and on a server."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import Request, urlopen

import pytest
from store_rig import make_options, on_server, store_of, until

from cachestore.errors import (
    ConfirmFailed,
    InvalidKey,
    NotFound,
    PreconditionFailed,
    RemoteUnavailable,
    SourceError,
    StoreClosed,
    Unsupported,
)
from cachestore.events import Event, Hit, Miss
from cachestore.local.records import key_digest
from cachestore.model import ObjectInfo, Prefix
from cachestore.options import Options
from cachestore.store import CacheStore

DATA = bytes(range(256)) * 40
ODD = ["ü/ä ß.txt", "日本/語.wav", "a+b&c=d?e#f%20.bin", "q'uo\"te/[x]{y}.z", ".hidden/file", "a"]


@pytest.fixture(params=["local", "folder", "server"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> Options:
    if request.param == "server":
        server: Any = request.getfixturevalue("moto_server")
        return on_server(tmp_path, server, server.new_bucket())
    if request.param == "folder":
        return make_options(tmp_path, mode="mock", mock_dir=tmp_path / "bucket")
    return make_options(tmp_path)


@pytest.fixture
def store(options: Options) -> Iterator[CacheStore]:
    with store_of(options) as opened:
        yield opened


@pytest.fixture
def remote(moto_server: Any, tmp_path: Path) -> Iterator[CacheStore]:
    """A store on a server, for what only a bucket can do."""
    with store_of(on_server(tmp_path, moto_server, moto_server.new_bucket())) as opened:
        yield opened


def keys(store: CacheStore, prefix: str = "") -> list[str]:
    return [item.key for item in store.list(prefix)]


# -- files ---------------------------------------------------------------------------------------


def test_every_way_to_read(store: CacheStore, tmp_path: Path) -> None:
    receipt = store.put("songs/a.wav", DATA, metadata={"Who": "Jürgen"}, cache_control="no-cache")
    assert (receipt.key, receipt.size) == ("songs/a.wav", len(DATA))
    for _ in range(2):  # pending, then clean
        assert store.get("songs/a.wav").read_bytes() == DATA
        assert store.get("songs/a.wav").suffix == ".wav"
        assert store.read("songs/a.wav") == DATA
        assert store.read("songs/a.wav", 10, 20) == DATA[10:20]
        assert store.read("songs/a.wav", len(DATA) - 5, len(DATA) + 100) == DATA[-5:]
        assert store.read("songs/a.wav", len(DATA) + 1) == b""
        with store.open("songs/a.wav") as file:
            file.seek(-3, os.SEEK_END)
            assert file.read() == DATA[-3:]
        with store.lease("songs/a.wav") as path:
            assert path.read_bytes() == DATA
        copied = store.download("songs/a.wav", tmp_path / "mine" / "copy.wav")
        assert copied.read_bytes() == DATA
        info = store.head("songs/a.wav")
        assert (info.size, info.content_type) == (len(DATA), "audio/wav")
        assert info.metadata == {"who": "Jürgen"}
        assert info.cache_control == "no-cache"
        assert info.sha256 == receipt.sha256
        assert store.flush(30).done
    assert receipt.wait(10) in ("uploaded", "local")


def test_sources(store: CacheStore, tmp_path: Path) -> None:
    path = tmp_path / "source.bin"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        file.seek(7)
        for number, source in enumerate(
            [path, str(path), DATA, bytearray(DATA), memoryview(DATA), io.BytesIO(DATA), file,
             SimpleNamespace(file=file)]
        ):  # fmt: skip
            store.put(f"n{number}", source)
            assert store.read(f"n{number}") == DATA
        assert file.tell() == 7
    assert path.read_bytes() == DATA
    store.put("empty", b"")
    assert store.read("empty") == b""
    for bad in (tmp_path / "none", tmp_path, io.StringIO("text"), 5, None):
        with pytest.raises(SourceError):
            store.put("bad", bad)
    assert not store.exists("bad")
    digests = {store.core.spool.place("bad").digest, key_digest("bad")}
    assert [path for path in tmp_path.rglob("*") if path.name[:64] in digests] == []


def test_overwrite_delete_and_put_again(store: CacheStore) -> None:
    for turn in range(3):
        store.put("a.txt", f"first {turn}".encode())
        store.put("a.txt", f"second {turn}".encode())
        assert store.read("a.txt") == f"second {turn}".encode()
        if turn:
            assert store.flush(30).done
        store.delete("a.txt")
        assert not store.exists("a.txt")
        with pytest.raises(FileNotFoundError):
            store.get("a.txt")
    store.delete("a.txt")
    store.delete("never/there.txt")
    assert store.flush(30).done
    assert keys(store) == []


def test_listing_tells_the_truth_at_once(store: CacheStore) -> None:
    for key in ("b/1", "b/2", "a", "c/d/e", "b!"):
        store.put(key, b"x")
    assert keys(store) == ["a", "b!", "b/1", "b/2", "c/d/e"]
    assert store.flush(30).done
    store.delete("b/1")
    store.put("b/3", b"xyz")
    assert keys(store, "b/") == ["b/2", "b/3"]
    assert keys(store, "b") == ["b!", "b/2", "b/3"]
    level = list(store.list("", "/"))
    assert [type(item) for item in level] == [ObjectInfo, ObjectInfo, Prefix, Prefix]
    assert [item.key for item in level] == ["a", "b!", "b/", "c/"]
    assert [item.size for item in store.list("b/3") if isinstance(item, ObjectInfo)] == [3]
    assert keys(store, "zzz") == []


def test_delete_prefix_hides_all_before_it_returns(store: CacheStore) -> None:
    for number in range(12):
        store.put(f"p/{number:02}", b"x")
        if number == 5:
            assert store.flush(30).done
    store.put("q", b"x")
    assert store.delete_prefix("p/") == 12
    assert keys(store) == ["q"]
    assert not store.exists("p/00")
    with pytest.raises(ValueError, match="everything"):
        store.delete_prefix("")
    assert store.delete_prefix("", everything=True) == 1
    assert store.flush(30).done
    assert keys(store) == []


@pytest.mark.parametrize("key", ODD)
def test_odd_keys(store: CacheStore, key: str) -> None:
    store.put(key, DATA)
    assert store.flush(30).done
    store.invalidate(key)
    assert store.read(key) == DATA
    assert keys(store) == [key]
    store.delete(key)
    assert store.flush(30).done
    assert keys(store) == []


def test_copy_takes_attributes_along(store: CacheStore) -> None:
    store.put("a.wav", DATA, metadata={"n": "1"}, content_type="audio/x-mine")
    store.copy("a.wav", "b.bin")
    info = store.head("b.bin")
    assert (info.content_type, info.metadata) == ("audio/x-mine", {"n": "1"})
    assert store.read("b.bin") == DATA
    with pytest.raises(NotFound):
        store.copy("none", "c")


def test_bad_input_is_refused_and_stores_nothing(store: CacheStore) -> None:
    for key in ("", "/a", "a//b", "../a", "a/..", "a/./b", "a\x00b", "a\nb", "\ud800", "x" * 1025):
        for call in (store.get, store.delete, store.head, store.exists, store.open):
            with pytest.raises(InvalidKey):
                call(key)
        with pytest.raises(InvalidKey):
            store.put(key, b"x")
    with pytest.raises(InvalidKey, match="swapped"):
        store.put(b"data", "key.txt")  # type: ignore[arg-type]
    for wrong in ({"ttl": -1}, {"durability": "soon"}, {"metadata": {"a b": "c"}},
                  {"content_type": "a\nb"}, {"metadata": {"big": "x" * 9000}}):  # fmt: skip
        with pytest.raises(ValueError):
            store.put("a", b"x", **wrong)  # type: ignore[arg-type]
    store.put("a", b"x")
    for call in (lambda: store.read("a", -1), lambda: store.read("a", 5, 2)):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(ValueError):
        store.get("a", max_age=-1)
    assert keys(store) == ["a"]


def test_a_restart_finds_everything(options: Options) -> None:
    with store_of(options) as store:
        store.put("clean", DATA)
        assert store.flush(30).done
        store.put("pending", DATA)
        store.delete("clean")
        store.close(drain=0.0)
        with pytest.raises(StoreClosed):
            store.get("pending")
    with store_of(options) as store:
        assert store.read("pending") == DATA
        assert keys(store) == ["pending"]
        assert store.flush(30).done
        assert keys(store) == ["pending"]


def test_two_stores_on_the_same_folders(options: Options) -> None:
    with store_of(options) as one, store_of(options) as two:
        for turn in range(5):
            one.put("a", f"{turn}".encode())
            assert two.read("a") == f"{turn}".encode()
            assert one.flush(30).done
            for _ in range(2):  # the second time it is known, and the file stays for its grace
                assert two.get("a").read_bytes() == f"{turn}".encode()
            one.put("a", f"newer {turn}".encode())
            assert two.get("a").read_bytes() == f"newer {turn}".encode()
            two.delete("a")
            assert not one.exists("a")
            with pytest.raises(NotFound):
                one.get("a")


# -- a bucket ------------------------------------------------------------------------------------


def test_a_miss_a_hit_and_events(remote: CacheStore) -> None:
    seen: list[Event] = []
    remote.put("a", DATA, durability="remote")
    remote.invalidate("a")
    end = remote.subscribe(seen.append)
    assert remote.read("a") == remote.read("a") == DATA
    end()
    known = len(seen)
    assert not remote.exists("none")
    assert len(seen) == known
    assert [type(event) for event in seen if isinstance(event, (Hit, Miss))][:1] == [Miss]
    counts = remote.stats()
    assert (counts.misses, counts.miss_bytes) == (1, len(DATA))
    assert counts.hits >= 1
    assert 0 < counts.hit_rate < 1


def test_conditions(remote: CacheStore) -> None:
    remote.put("a", b"1", if_none_match="*")
    with pytest.raises(PreconditionFailed):
        remote.put("a", b"2", if_none_match="*")
    assert remote.read("a") == b"1"
    etag = remote.head("a").etag
    remote.put("a", b"3", if_match=etag)
    with pytest.raises(PreconditionFailed):
        remote.put("a", b"4", if_match=etag)
    assert remote.read("a") == b"3"
    assert remote.pending() == []
    with pytest.raises(ValueError, match="if_none_match"):
        remote.put("a", b"5", if_none_match=etag)


def test_conditions_need_a_bucket(tmp_path: Path) -> None:
    with store_of(make_options(tmp_path)) as store, pytest.raises(Unsupported):
        store.put("a", b"1", if_none_match="*")


def test_presigned_urls_and_direct_uploads(remote: CacheStore) -> None:
    remote.put("a.txt", b"text")
    with urlopen(remote.presign_get("a.txt"), timeout=20) as answer:  # waits for the upload
        assert answer.read() == b"text"
    url = remote.presign_get("a.txt")
    until(lambda: remote.presign_get("a.txt", reuse=False) != url, "the next second")
    assert remote.presign_get("a.txt") == url
    assert not remote.exists("in/b.txt")
    up = remote.presign_put("in/b.txt", content_type="text/plain", size=5)
    urlopen(Request(up.url, b"hello", dict(up.headers), method=up.method), timeout=20).close()
    info = remote.confirm_upload("in/b.txt", size=5, content_type="text/plain")
    assert info.size == 5
    assert remote.read("in/b.txt") == b"hello"
    with pytest.raises(ConfirmFailed):
        remote.confirm_upload("in/b.txt", size=6)
    assert not remote.exists("in/b.txt")
    with pytest.raises(ConfirmFailed) as caught:
        remote.confirm_upload("in/never.txt", size=6)
    assert not isinstance(caught.value, FileNotFoundError)


def test_a_direct_upload_over_an_older_version_is_what_is_read(remote: CacheStore) -> None:
    remote.put("a.txt", b"older", durability="remote")
    assert remote.get("a.txt").read_bytes() == b"older"
    up = remote.presign_put("a.txt", size=5)
    urlopen(Request(up.url, b"newer", dict(up.headers), method=up.method), timeout=20).close()
    etag = remote.confirm_upload("a.txt", size=5).etag
    assert remote.get("a.txt").read_bytes() == remote.read("a.txt") == b"newer"
    assert remote.head("a.txt").etag == etag
    # Removed in the bucket meanwhile, and not uploaded: the copy here is of nothing.
    assert remote.core.remote is not None
    remote.core.remote.delete("a.txt")
    with pytest.raises(ConfirmFailed):
        remote.confirm_upload("a.txt", size=5)
    assert not remote.exists("a.txt")
    with pytest.raises(NotFound):
        remote.get("a.txt")


def test_the_bucket_unreachable(remote: CacheStore, moto_server: Any, tmp_path: Path) -> None:
    remote.put("a", DATA, durability="remote")
    where = remote.options.remote
    assert where is not None
    gone = replace(where, endpoint="http://127.0.0.1:9")
    with store_of(make_options(tmp_path / "two", mode="remote", remote=gone)) as store:
        store.put("b", DATA)
        assert store.read("b") == DATA
        for call in (store.get, store.head, store.exists):
            with pytest.raises(RemoteUnavailable):
                call("a")
        with pytest.raises(RemoteUnavailable):
            store.list()  # at once, not when it is gone through
        with pytest.raises(RemoteUnavailable):
            store.delete_prefix("b")
        assert store.read("b") == DATA  # nothing was hidden
        report = store.flush(1)
        assert not report.done
        assert [item.key for item in report.left] == ["b"]
        assert store.health()["degraded"]
        store.close(drain=0.0)


def test_warm_pin_and_clean(remote: CacheStore) -> None:
    for number in range(6):
        remote.put(f"w{number}", DATA)
    assert remote.flush(30).done
    for number in range(6):
        remote.invalidate(f"w{number}")
    told: list[str] = []
    report = remote.warm([*(f"w{n}" for n in range(6)), "none"], told.append)
    assert (report.here, report.bytes) == (6, 6 * len(DATA))
    assert list(report.failed) == ["none"]
    assert len(told) == 7
    remote.pin("w0")
    assert remote.health()["cache"]["pinned"] == 1
    remote.unpin("w0")
    assert remote.health()["cache"]["pinned"] == 0
    remote.clean()
    assert remote.fsck().clean
    assert remote.stats().misses == 6


def test_a_ttl_of_ones_own_and_max_age(remote: CacheStore) -> None:
    remote.put("a", b"1", ttl=0, durability="remote")
    remote.put("b", b"1", durability="remote")
    before = remote.stats().revalidations
    assert remote.read("a") == b"1"
    assert remote.stats().revalidations > before
    before = remote.stats().revalidations
    assert remote.read("b") == b"1"
    assert remote.stats().revalidations == before
    assert remote.get("b", max_age=0).read_bytes() == b"1"
    assert remote.stats().revalidations > before
