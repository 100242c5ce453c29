"""Disks that are full, broken or read-only, at every call (the real ones are in a file beside)."""

from __future__ import annotations

import errno
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from disk_rig import CHANGING, FOREVER, BrokenDisk, open_below
from fault_rig import (
    BYTES,
    CODES,
    FULL,
    delete_it,
    each_call,
    idle,
    looked_at,
    named,
    opened,
    put_bytes,
    seed,
    spooled,
    sums,
)
from local_rig import content
from store_rig import make_options, store_of

from cachestore import events
from cachestore.errors import CacheFull, SpoolError, SpoolFull
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.clock import FakeClock
from cachestore.testing.remotes import CountingRemote

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# -- puts and deletes ------------------------------------------------------------------------------


def _nothing(store: CacheStore, remote: MemoryRemote, key: str) -> bytes | None:
    return None


def _pending(store: CacheStore, remote: MemoryRemote, key: str) -> bytes | None:
    store.put(key, b"pending before")
    return b"pending before"


def _clean(store: CacheStore, remote: MemoryRemote, key: str) -> bytes | None:
    seed(remote, key, b"clean before")
    store.get(key)
    return b"clean before"


def _deleted(store: CacheStore, remote: MemoryRemote, key: str) -> bytes | None:
    seed(remote, key, b"in the bucket, but deleted here")
    store.delete(key)
    return None


BEFORE = [_nothing, _pending, _clean, _deleted]


CASES = [
    *itertools.product(BEFORE, [put_bytes, delete_it], [errno.ENOSPC, errno.EIO]),
    *itertools.product([_pending], [put_bytes, delete_it], [errno.EDQUOT, errno.EROFS]),
]


@pytest.mark.parametrize(("before", "work", "code"), CASES)
def test_a_fault_at_any_call_of_a_change_leaves_what_was(
    tmp_path: Path, before: Any, work: Any, code: int
) -> None:
    disk, remote = BrokenDisk(), MemoryRemote()
    store = idle(tmp_path, disk, remote)
    raised = 0

    def attempt(nth: int) -> None:
        nonlocal raised
        key = f"songs/{nth}.wav"
        was = before(store, remote, key)
        files, pending = spooled(store, key), store.core.board.pending()
        disk.fail(store.options.spool_dir, code, nth=nth)
        try:
            want, error = work(store, key), None
        except SpoolError as refused:
            want, error = was, refused
        failed = disk.mend()
        assert open_below(store.options.spool_dir) == [], disk.seen[nth - 1 : nth]
        if error is not None:
            raised += 1
            assert failed
            assert isinstance(error, SpoolFull) == (code in FULL), error
            assert "nothing was stored" in str(error)
            assert store.core.board.pending() == pending
            left = [name for name in spooled(store, key) if name not in files]
            assert left == [] or _could_not_be_removed(disk.seen[nth - 1]), disk.seen[nth - 1]
        assert looked_at(store, key) == want, disk.seen[nth - 1 : nth]
        then = work(store, key)
        assert looked_at(store, key) == then
        assert store.core.board.pending() == sums(store)

    calls = each_call(disk, attempt)
    assert calls >= 8
    assert raised >= 6
    store.close()


def _could_not_be_removed(call: str) -> bool:
    return call.startswith("unlink")


@pytest.mark.parametrize("times", [2, 3, FOREVER])
@pytest.mark.parametrize("before", BEFORE)
def test_a_disk_that_fails_from_any_call_on_keeps_one_whole_version(
    tmp_path: Path, before: Any, times: float
) -> None:
    """Not even cleaning up works then; the key has its old bytes or the new ones, in one piece."""
    disk, remote = BrokenDisk(), MemoryRemote()
    store = idle(tmp_path, disk, remote)

    def attempt(nth: int) -> None:
        key = f"songs/{nth}.wav"
        was = before(store, remote, key)
        disk.fail(store.options.spool_dir, errno.EIO, nth=nth, times=times, calls=CHANGING)
        try:
            store.put(key, BYTES)
            allowed = [BYTES]
        except SpoolError:
            allowed = [was, BYTES]
        disk.mend()
        assert looked_at(store, key) in allowed, disk.seen[nth - 1 : nth]
        assert store.core.board.pending() == sums(store)
        again = store_of(store.options, files=disk, remote=remote)
        again.core.uploader.stop(5.0)
        assert looked_at(again, key) == looked_at(store, key)
        again.put(key, b"mended")
        assert looked_at(store, key) == b"mended"
        again.close(drain=0)

    assert each_call(disk, attempt) >= 6
    store.close()


# -- reads -----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _catalog_is_tried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachestore.local.catalog_files._REST_SECONDS", 0.0)


@pytest.mark.parametrize(("code", "burst"), [*((code, 1) for code in CODES), (errno.EIO, 3)])
def test_a_fault_at_any_call_of_a_first_read_costs_a_download_at_most(
    tmp_path: Path, code: int, burst: int
) -> None:
    disk, bucket = BrokenDisk(), CountingRemote(MemoryRemote())
    store = idle(tmp_path, disk, bucket)

    def attempt(nth: int) -> None:
        key = f"songs/{nth}.wav"
        seed(bucket.inner, key, BYTES)
        disk.fail(store.options.cache_dir, code, nth=nth, times=burst)
        path = store.get(key)
        disk.mend()
        assert path.read_bytes() == BYTES, disk.seen[nth - 1 : nth]
        assert path.suffix == ".wav"
        assert open_below(store.options.cache_dir) == [], disk.seen[nth - 1 : nth]
        assert store.get(key).read_bytes() == store.read(key) == BYTES
        asked = bucket.calls["get"]
        assert store.get(key).read_bytes() == store.read(key) == BYTES
        assert bucket.calls["get"] == asked, f"not cached again after {disk.seen[nth - 1]}"

    assert each_call(disk, attempt) >= 8
    store.close()


def test_bytes_that_a_disk_refuses_when_the_file_is_closed_are_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, bucket = BrokenDisk(), MemoryRemote()
    store = idle(tmp_path, disk, bucket)
    seed(bucket, "far.wav", BYTES)
    close, lost = disk.close, []

    def refuse(fd: int) -> None:
        name = os.readlink(f"/proc/self/fd/{fd}")
        if not lost and name.endswith(".wav") and name.startswith(str(store.options.cache_dir)):
            lost.append(name)
            os.ftruncate(fd, 10)
            close(fd)
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        close(fd)

    monkeypatch.setattr(disk, "close", refuse)
    for _ in range(2):
        assert store.get("far.wav").read_bytes() == store.read("far.wav") == BYTES
    assert lost
    store.close()


@pytest.mark.parametrize("code", CODES, ids=named)
def test_a_fault_at_any_call_of_a_read_of_pending_work_is_not_seen(
    tmp_path: Path, code: int
) -> None:
    disk = BrokenDisk()
    store = idle(tmp_path, disk, MemoryRemote())

    def attempt(nth: int) -> None:
        key = f"songs/{nth}.wav"
        store.put(key, BYTES)
        body = store.pending()[-1].path
        disk.fail(store.options.cache_dir, code, nth=nth)
        path = store.get(key)
        disk.mend()
        assert path.read_bytes() == BYTES, disk.seen[nth - 1 : nth]
        assert path.suffix == ".wav"
        assert not any(os.path.samefile(path, item.path) for item in store.pending() if item.path)
        assert body is not None
        assert open_below(store.options.cache_dir) == []

    assert each_call(disk, attempt) >= 5
    store.close()


@pytest.mark.parametrize("code", CODES, ids=named)
def test_a_cache_that_does_not_work_at_all_is_bypassed_until_it_does(
    tmp_path: Path, code: int
) -> None:
    disk, bucket = BrokenDisk(), CountingRemote(MemoryRemote())
    store = opened(tmp_path, disk, bucket)
    heard: list[events.Event] = []
    store.subscribe(heard.append)
    seed(bucket.inner, "far.wav", b"far")
    disk.fail(store.options.cache_dir, code, times=FOREVER)
    for _ in range(3):
        assert store.get("far.wav").read_bytes() == b"far"
        assert store.read("far.wav", 1) == b"ar"
        with store.lease("far.wav") as path, store.open("far.wav") as file:
            assert path.read_bytes() == file.read() == b"far"
        assert store.download("far.wav", tmp_path / "own.wav").read_bytes() == b"far"
        assert store.head("far.wav").size == 3
        assert store.exists("far.wav")
    receipt = store.put("near.wav", b"near")
    assert store.get("near.wav").read_bytes() == b"near"
    assert receipt.wait(60) == "uploaded"
    assert content(bucket.inner)["near.wav"] == b"near"
    assert store.get("near.wav").read_bytes() == b"near"
    store.delete("near.wav")
    assert not store.exists("near.wav")
    assert [item.key for item in store.list()] == ["far.wav"]
    store.clean()
    assert store.fsck().tickets <= 1
    assert store.health()["mode"] == "remote"
    troubles = [e for e in heard if isinstance(e, events.Trouble) and e.where == "cache"]
    assert any(e.key == "far.wav" and "bypassed" in e.error for e in troubles)
    bypass = store.core.bypass._folder
    assert bypass is not None

    assert disk.mend()
    assert store.flush(60).done
    assert store.get("far.wav").read_bytes() == b"far"
    asked = bucket.calls["get"]
    assert store.get("far.wav").read_bytes() == b"far"
    assert bucket.calls["get"] == asked
    assert str(store.get("far.wav")).startswith(str(store.options.cache_dir))
    store.close()
    assert not bypass.exists()


def test_what_went_past_the_cache_does_not_pile_up(tmp_path: Path) -> None:
    clock = FakeClock(time.time())
    disk, bucket = BrokenDisk(), MemoryRemote()
    options = make_options(tmp_path, mode="remote")
    store = store_of(options, files=disk, remote=bucket, clock=clock)
    seed(bucket, "far.wav", b"far")
    disk.fail(options.cache_dir, errno.EIO, times=FOREVER)
    first = store.get("far.wav")
    with store.lease("far.wav") as leased:
        clock.advance(options.handout_grace - 1)
        second = store.get("far.wav")
        assert first.exists()
        clock.advance(2)
        store.get("far.wav")
        assert not first.exists()
        assert second.exists()
        assert leased.exists()
        clock.advance(options.handout_grace)
        store.get("far.wav")
        assert not second.exists()
        assert leased.exists()
    clock.advance(options.handout_grace)
    store.get("far.wav")
    assert len(list(first.parent.iterdir())) == 1
    assert first.parent.stat().st_mode & 0o777 == 0o700
    store.close()


def test_where_nothing_has_room_a_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, bucket = BrokenDisk(), MemoryRemote()
    store = idle(tmp_path, disk, bucket)
    seed(bucket, "far.wav", b"far")
    store.put("near.wav", b"near")
    monkeypatch.setattr(tempfile, "tempdir", str(store.options.cache_dir))
    disk.fail(store.options.cache_dir, errno.ENOSPC, times=FOREVER)
    for key in ("far.wav", "near.wav"):
        with pytest.raises(CacheFull, match=key):
            store.get(key)
    assert store.read("near.wav") == b"near"
    disk.mend()
    assert store.get("far.wav").read_bytes() == b"far"
    assert store.get("near.wav").read_bytes() == b"near"
    store.close()


def test_a_full_cache_disk_gives_up_older_copies(tmp_path: Path) -> None:
    """The cache's limit may be more than its disk has."""
    disk, bucket = BrokenDisk(), CountingRemote(MemoryRemote())
    store = idle(tmp_path, disk, bucket, handout_grace=0.0)
    for key in ("old.wav", "new.wav"):
        seed(bucket.inner, key, BYTES)
    store.get("old.wav")
    disk.fail(store.options.cache_dir, errno.ENOSPC, calls=("pwrite",))
    assert store.get("new.wav").read_bytes() == BYTES
    disk.mend()
    assert store.core.catalog.get("old.wav") is None
    assert list(store.options.cache_dir.glob("*/??/*.wav")) == []
    store.close()
