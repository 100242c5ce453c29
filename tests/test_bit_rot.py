"""Bits that flip on disk: found by hashing, not served where that is asked for, never uploaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from store_rig import make_options, on_server, store_of, until

from cachestore.errors import NotFound, RemoteUnavailable, SpoolError
from cachestore.events import Event, Trouble
from cachestore.policy.verification import SAMPLE, is_due, may_be_hot
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore

KEY = "a/b.wav"
DATA = bytes(range(256)) * 64


def flip(path: Path) -> None:
    """Turn a bit in the middle, and leave the times of the file as they were."""
    stat = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(len(DATA) // 2)
        file.write(bytes([DATA[len(DATA) // 2] ^ 1]))
    path.chmod(stat.st_mode & 0o777)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def clean_store(tmp_path: Path, **fields: Any) -> CacheStore:
    options = make_options(tmp_path, mode="remote", **fields)
    store = store_of(options, remote=MemoryRemote())
    store.put(KEY, DATA)
    assert store.flush(30).done
    assert store.read(KEY) == DATA
    return store


@pytest.mark.parametrize("way", ["get", "read", "open", "lease", "download"])
def test_always_finds_a_flipped_bit_sets_it_aside_and_fetches_again(
    tmp_path: Path, way: str
) -> None:
    with clean_store(tmp_path, verify="always") as store:
        seen: list[Event] = []
        store.subscribe(seen.append)
        path = store.get(KEY)
        flip(path)
        assert read_by(store, way, tmp_path) == DATA
        assert any(isinstance(event, Trouble) and event.where == "cache" for event in seen)
        damaged = store.core.cache.root / "damaged"
        assert [each.name for each in damaged.iterdir()] == [path.name]
        assert store.stats().misses == 1
        assert read_by(store, way, tmp_path) == DATA
        assert store.stats().misses == 1


def read_by(store: CacheStore, way: str, tmp_path: Path) -> bytes:
    if way == "get":
        return store.get(KEY).read_bytes()
    if way == "read":
        return store.read(KEY)
    if way == "open":
        with store.open(KEY) as file:
            return file.read()
    if way == "lease":
        with store.lease(KEY) as path:
            return path.read_bytes()
    return store.download(KEY, tmp_path / "mine").read_bytes()


def test_never_means_that_the_disk_is_trusted(tmp_path: Path) -> None:
    with clean_store(tmp_path) as store:
        flip(store.get(KEY))
        store.core.hot.clear()
        assert store.read(KEY) != DATA
        assert store.stats().misses == 0


def test_sample_looks_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with clean_store(tmp_path, verify="sample") as store:
        flip(store.get(KEY))
        monkeypatch.setattr("cachestore.finding.random", lambda: SAMPLE)
        store.core.hot.clear()
        assert store.read(KEY) != DATA
        monkeypatch.setattr("cachestore.finding.random", lambda: SAMPLE / 2)
        store.core.hot.clear()
        assert store.read(KEY) == DATA


def test_when_it_is_due() -> None:
    assert is_due("always", 0.999)
    assert not is_due("never", 0.0)
    assert is_due("sample", 0.0)
    assert not is_due("sample", SAMPLE)
    assert [may_be_hot(verify) for verify in ("never", "sample", "always")] == [True, True, False]


def test_a_damaged_pending_body_is_never_uploaded_and_is_reported(
    moto_server: Any, tmp_path: Path
) -> None:
    options = on_server(tmp_path, moto_server, moto_server.new_bucket(), verify="always")
    with store_of(options) as store:
        store.core.uploader.stop(5.0)
        store.put(KEY, DATA)
        store.close(drain=0.0)
    [body] = (tmp_path / "spool").glob("*/*.wav")
    flip(body)
    with store_of(options) as store:
        with pytest.raises(SpoolError, match="damaged"):
            store.get(KEY)
        store.flush(30)
        [item] = until(lambda: [each for each in store.pending() if each.state == "parked"])
        assert "changed" in (item.last_error or "")
        assert store.core.remote is not None
        with pytest.raises(NotFound):
            store.core.remote.head(KEY)
        assert any(KEY in finding.where for finding in store.fsck().findings)
        store.put(KEY, b"again")  # as the error says
        assert store.flush(30).done
        assert store.core.remote.head(KEY).size == 5


def test_a_damaged_copy_in_local_mode_is_not_served(tmp_path: Path) -> None:
    with clean_store(tmp_path, verify="always") as store:
        path, remote_id = store.get(KEY), store.core.remote_id
        flip(path)
    assert remote_id
    (tmp_path / "spool" / "last_remote.json").exists()
    with (
        store_of(make_options(tmp_path, verify="always")) as store,
        pytest.raises((NotFound, RemoteUnavailable)),
    ):
        store.get(KEY)
