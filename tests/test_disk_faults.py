"""Disks that are full, broken or read-only, at every call (the real ones are in a file beside)."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disk_rig import CHANGING, FOREVER, BrokenDisk, open_below
from local_rig import content
from store_rig import make_options, store_of, until

from cachestore import events
from cachestore.errors import CacheFull, NotFound, SpoolError, SpoolFull
from cachestore.local.board import SHARDS
from cachestore.local.spool_scan import recount_shard
from cachestore.model import Attributes
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.clock import FakeClock
from cachestore.testing.remotes import CountingRemote

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

FULL = (errno.ENOSPC, errno.EDQUOT)
CODES = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
BYTES = bytes(range(256)) * 700
MORE_THAN_THERE_ARE = 400


def named(code: int) -> str:
    return errno.errorcode[code]


def opened(root: Path, disk: BrokenDisk, remote: Any, **fields: Any) -> CacheStore:
    options = make_options(root, mode="remote", **({"leader_interval": 0.02} | fields))
    return store_of(options, files=disk, remote=remote)


def idle(root: Path, disk: BrokenDisk, remote: Any, **fields: Any) -> CacheStore:
    """A store that never uploads, so that all calls are the test's own."""
    store = opened(root, disk, remote, **fields)
    store.core.uploader.stop(5.0)
    return store


def seed(remote: Any, key: str, data: bytes) -> None:
    import hashlib
    import io

    remote.put(
        key, io.BytesIO(data), size=len(data), sha256=hashlib.sha256(data).hexdigest(),
        attributes=Attributes("audio/wav"),
    )  # fmt: skip


def spooled(store: CacheStore, key: str) -> list[str]:
    """The key's files in the spool."""
    place = store.core.spool.place(key)
    return sorted(p.name for p in store.core.spool.folder(place.shard).glob(f"{place.digest}*"))


def looked_at(store: CacheStore, key: str) -> bytes | None:
    try:
        data = store.get(key).read_bytes()
    except NotFound:
        assert not store.exists(key)
        return None
    assert store.read(key) == data
    return data


def sums(store: CacheStore) -> tuple[int, int]:
    """What is pending, counted anew."""
    for shard in range(SHARDS):
        recount_shard(store.core.spool, shard)
    return store.core.board.pending()


def each_call(disk: BrokenDisk, attempt: Callable[[int], None]) -> int:
    """Let `attempt(nth)` meet a fault at each of its calls in turn; how many there were."""
    for nth in range(1, MORE_THAN_THERE_ARE):
        attempt(nth)
        if len(disk.seen) < nth:
            return nth - 1
    raise AssertionError("there is no end to the calls")


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


def _put(store: CacheStore, key: str) -> bytes | None:
    store.put(key, BYTES)
    return BYTES


def _delete(store: CacheStore, key: str) -> bytes | None:
    store.delete(key)
    return None


@pytest.mark.parametrize("code", CODES, ids=named)
@pytest.mark.parametrize("work", [_put, _delete])
@pytest.mark.parametrize("before", BEFORE)
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


@pytest.mark.parametrize("code", CODES, ids=named)
@pytest.mark.parametrize("burst", [1, 3])
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
    assert any(isinstance(e, events.Trouble) and e.where == "cache" for e in heard)
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


# -- uploads ---------------------------------------------------------------------------------------


def flushed(store: CacheStore) -> bool:
    try:
        return store.flush(1).done
    except SpoolError:  # what is left could not be looked at
        return False


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=named)
@pytest.mark.parametrize("folder", ["spool", "cache"])
def test_a_fault_at_any_call_of_an_upload_delays_it_at_most(
    tmp_path: Path, folder: str, code: int
) -> None:
    disk, bucket = BrokenDisk(), MemoryRemote()
    store = opened(tmp_path, disk, bucket)
    store.start()
    for nth in range(1, 26):
        key = f"songs/{nth}.wav"
        seed(bucket, key, b"older")
        store.get(key)
        store.put(key, BYTES)
        disk.fail(tmp_path / folder, code, nth=nth, times=2)
        until(lambda: flushed(store), f"the upload after a fault at call {nth}")
        disk.mend()
        assert content(bucket)[key] == BYTES
        assert looked_at(store, key) == BYTES
        assert not any(name.endswith(".ticket") for name in spooled(store, key))
    assert sums(store) == (0, 0)
    store.close()


@pytest.mark.parametrize("when", ["before it starts", "while it runs"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("work", [_put, _delete])
def test_a_ticket_that_cannot_be_read_for_a_while_is_not_forgotten(
    tmp_path: Path, work: Any, count: int, when: str
) -> None:
    bucket, disk = MemoryRemote(), BrokenDisk()
    other = idle(tmp_path, BrokenDisk(), bucket)
    store = opened(tmp_path, disk, bucket)
    keys = [f"songs/{number}.wav" for number in range(count)]
    for key in keys:
        seed(bucket, key, b"older")
    if when == "while it runs":
        store.start()
        assert store.flush(60).done
    disk.fail(store.options.spool_dir, errno.EIO, calls=("open_read",), times=FOREVER)
    for key in keys:
        work(other, key)
    store.start()
    until(lambda: sum(".ticket" in call for call in disk.seen) > count + 2, "looks at the tickets")
    assert not store.flush(0.2).done
    disk.mend()
    want = {} if work is _delete else dict.fromkeys(keys, BYTES)
    until(lambda: content(bucket) == want, "the uploads")
    store.close()
    other.close(drain=0)
