"""The janitor: removes what nobody asked for and nothing that is not ours; syncs, and goes on."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest
from cache_rig import HUGE, CacheRig
from spool_rig import put
from store_rig import make_options, store_of, until

from cachestore.events import Evicted, Hit, Trouble
from cachestore.files import Files
from cachestore.local.catalog_rows import Row
from cachestore.local.hot import HotEntry
from cachestore.remote.memory import MemoryRemote
from cachestore.testing.contract_tools import put as upload

DAY = 86400.0
NOTHING = dict.fromkeys(
    (
        "expired",
        "evicted",
        "freed",
        "condemned",
        "orphaned",
        "unfinished",
        "files",
        "bodies",
        "unconfirmed",
    ),
    0,
)


@pytest.fixture
def rig(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[CacheRig]:
    made = CacheRig(tmp_path, **getattr(request, "param", {}))
    yield made
    made.close()


def with_options(**fields: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rig", [fields], indirect=True)


def there(rig: CacheRig) -> list[str]:
    """Keys whose row and file are there; both are always there together."""
    rows = list(rig.catalog.rows_below(""))
    assert {name for name, _ in rig.cache.copies()} == {row.file for row in rows}
    return [row.key for row in rows]


def no_grace(rig: CacheRig) -> None:
    rig.clock.advance(1000.0)


# -- what nobody asked for --------------------------------------------------------------------


@with_options(ttl=DAY, unused_after=7 * DAY)
def test_what_nobody_read_for_ttl_and_a_week_goes(
    rig: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig.janitor, "start", lambda: None)  # its thread would work too
    rig.add("unread")
    rig.add("read")
    rig.add("pinned")
    rig.catalog.pin("pinned")
    rig.add("own ttl", ttl=3 * DAY)
    rig.add("for ever", ttl=inf)
    rig.clock.advance(8 * DAY - 1)
    assert rig.janitor.run_once() == NOTHING
    rig.janitor.touched("read")
    rig.clock.advance(1)
    assert rig.janitor.run_once() == NOTHING | {"expired": 1}
    assert there(rig) == ["for ever", "own ttl", "pinned", "read"]
    assert [(event.key, event.reason) for event in rig.of(Evicted)] == [("unread", "age")]
    rig.clock.advance(2 * DAY)
    assert rig.janitor.run_once()["expired"] == 1
    assert there(rig) == ["for ever", "pinned", "read"]
    rig.clock.advance(1000 * DAY)
    assert rig.janitor.run_once()["expired"] == 1
    assert there(rig) == ["for ever", "pinned"]


@with_options(ttl=None, unused_after=DAY)
def test_without_ttl_only_copies_with_one_of_their_own_go(rig: CacheRig) -> None:
    rig.add("store's")
    rig.add("own", ttl=60.0)
    rig.clock.advance(DAY + 60)
    assert rig.janitor.run_once()["expired"] == 1
    assert there(rig) == ["store's"]


@with_options(ttl=0.0, unused_after=0.0)
def test_more_than_a_batch_goes_in_one_run(rig: CacheRig) -> None:
    for number in range(520):
        rig.add(f"k{number}")
    no_grace(rig)
    assert rig.janitor.run_once()["expired"] == 520
    assert there(rig) == []


def test_hits_are_counted_once_and_keep_a_copy_from_eviction(rig: CacheRig) -> None:
    for key in ("a", "b", "c"):
        rig.add(key)
        rig.clock.advance(10)
    row = rig.catalog.get("a")
    assert row is not None
    path, slot = rig.cache.path(row), rig.place("a").slot
    entry = HotEntry(
        path, os.stat(path), slot=slot, token=rig.board.token(slot), since=0.0, expires=1e12,
        kind="fresh", info=None,  # type: ignore[arg-type]  # not looked at here
    )  # fmt: skip
    rig.hot.remember("a", entry)
    for _ in range(3):
        assert rig.hot.path("a") == path
    rig.janitor.flush_hits()
    rig.janitor.flush_hits()
    assert [(event.key, event.count) for event in rig.of(Hit)] == [("a", 3)]
    now = rig.catalog.get("a")
    assert now is not None
    assert (now.uses, now.used) == (3, rig.clock.now())
    assert [row.key for row in rig.catalog.worst(1, 0)] == ["b"]


# -- limits -----------------------------------------------------------------------------------


@with_options(ttl=None)
def test_limits_that_became_smaller_are_kept(rig: CacheRig, tmp_path: Path) -> None:
    for number in range(6):
        rig.add(f"k{number}", b"x" * 4096)
        rig.clock.advance(10)
    rig.catalog.pin("k0")
    no_grace(rig)
    used = rig.catalog.totals()[0]
    for fields in ({"cache_max_bytes": used - 1}, {"cache_max_entries": 4}):
        smaller = CacheRig(tmp_path, ttl=None, **fields)
        smaller.clock.advance(2000.0)
        assert smaller.janitor.run_once()["evicted"] == 1
        smaller.close()
    assert there(rig) == ["k0", "k3", "k4", "k5"]


@with_options(ttl=None, cache_min_free=0.5)
def test_a_disk_that_fills_up_gets_its_free_share_back(
    rig: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {}
    for key in ("a", "b", "c"):
        sizes[key] = rig.add(key, b"x" * 8192).allocated
        rig.clock.advance(10)
    real = os.statvfs(rig.root)
    fields = list(real)
    fields[0], fields[1], fields[2] = 1, 1, 1_000_000  # blocks of one byte
    fields[4] = 500_000 - sizes["a"] - 1
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(fields))
    no_grace(rig)
    assert rig.janitor.run_once()["freed"] == 2
    assert there(rig) == ["c"]


@with_options(ttl=None, cache_max_bytes=0)
def test_an_evicted_file_in_its_grace_waits_for_the_next_rounds(rig: CacheRig) -> None:
    row = rig.add("a")
    no_grace(rig)
    rig.hand_out("a")
    assert rig.janitor.run_once() == NOTHING | {"evicted": 1}
    assert rig.cache.path(row).read_bytes() == b"bytes"
    assert rig.catalog.get("a") is None
    rig.clock.advance(61)
    rig.janitor.quick()
    assert not rig.cache.path(row).exists()


# -- orphans and files that are not ours ------------------------------------------------------


@with_options(ttl=None)
def test_files_without_a_row_go_and_those_with_one_stay(rig: CacheRig) -> None:
    rig.add("kept")
    for number in range(5):
        rig.file(f"orphan{number}")
    assert rig.janitor.run_once() == NOTHING
    no_grace(rig)
    assert rig.janitor.run_once() == NOTHING | {"orphaned": 5}
    assert there(rig) == ["kept"]


@with_options(ttl=None)
def test_a_catalog_that_cannot_answer_makes_no_orphans(
    rig: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rig.cache.path(rig.add("kept"))
    no_grace(rig)
    monkeypatch.setattr(rig.catalog, "ask", lambda work, otherwise: otherwise)
    assert rig.janitor.run_once() == NOTHING
    assert path.exists()


def legacy_files(rig: CacheRig) -> dict[Path, bytes]:
    """What an older app, and whoever else, left in CACHE_DIR."""
    digest = "ab" + "0" * 62
    paths = [
        rig.options.cache_dir / "metadata.json",
        rig.options.cache_dir / f"{'1' * 32}.cache",
        rig.options.cache_dir / "sub" / "photo.jpg",
        rig.root / "metadata.json",
        rig.root / f"{digest}-{'0' * 16}.wav",
        rig.root / "ab" / f"{'1' * 64}.cache",
        rig.root / "ab" / f"{digest}.{'0' * 16}.wav",
        rig.root / "ab" / f"{digest}-{'0' * 16}.wav.bak",
        rig.root / "ab" / f"cd{'0' * 62}-{'0' * 16}.wav",
        rig.root / "zz" / f"{digest}-{'0' * 16}.wav",
        rig.root / "parts" / "notes.part",
        rig.root / "transit" / "song.wav",
        rig.root / "catalog" / "backup.db",
        rig.options.spool_dir / "notes.txt",
        rig.options.spool_dir / "ab" / "notes.ticket",
    ]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    return {path: path.name.encode() for path in paths}


@with_options(ttl=0.0, unused_after=0.0, cache_max_bytes=0)
def test_files_that_we_did_not_make_are_never_removed(rig: CacheRig) -> None:
    files = legacy_files(rig)
    rig.add("a")
    rig.file("orphan")
    # A folder, a link and a pipe with a copy's name are not ours either.
    name = rig.root / rig.cache.new_name(rig.place("x"), "x")
    name.mkdir(parents=True)
    link = rig.root / rig.cache.new_name(rig.place("y"), "y")
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(rig.options.cache_dir / "metadata.json")
    pipe = rig.root / rig.cache.new_name(rig.place("z"), "z")
    pipe.parent.mkdir(exist_ok=True)
    os.mkfifo(pipe)  # whoever opens it waits for ever
    for _ in range(3):
        rig.clock.advance(30 * DAY)
        rig.janitor.run_once()
    assert {path: path.read_bytes() for path in files} == files
    assert name.is_dir()
    assert link.is_symlink()
    assert list(rig.catalog.rows_below("")) == []
    assert {path for _, path in rig.cache.copies()} == {name, link, pipe}


# -- syncing ----------------------------------------------------------------------------------


class Counted(Files):
    """Counts fsyncs of files; fails those of the inodes in `broken`."""

    def __init__(self) -> None:
        self.synced: list[int] = []
        self.broken: set[int] = set()

    def fsync(self, fd: int) -> None:
        inode = os.fstat(fd).st_ino
        if inode in self.broken:
            raise OSError(errno.EIO, "Input/output error")
        self.synced.append(inode)
        super().fsync(fd)


def synced_rig(tmp_path: Path) -> tuple[CacheRig, Counted, list[Row]]:
    files = Counted()
    rig = CacheRig(tmp_path, files, ttl=None, sync_after=30.0)
    rows = [rig.add(key) for key in ("a", "b", "c")]
    files.synced.clear()
    return rig, files, rows


def test_copies_are_synced_after_a_while_and_once(tmp_path: Path) -> None:
    rig, files, rows = synced_rig(tmp_path)
    rig.clock.advance(29)
    rig.janitor.quick()
    assert files.synced == []
    rig.clock.advance(1)
    rig.janitor.quick()
    rig.janitor.quick()
    assert sorted(files.synced) == sorted(row.inode for row in rows)
    assert all(row.durable for row in rig.catalog.rows_below(""))
    rig.close()


def test_a_copy_that_cannot_be_synced_goes_and_stops_no_other(tmp_path: Path) -> None:
    rig, files, rows = synced_rig(tmp_path)
    files.broken.add(rows[0].inode)
    rig.cache.path(rows[1]).unlink()
    rig.clock.advance(100)
    rig.janitor.quick()
    assert files.synced == [rows[2].inode]
    assert there(rig) == ["c"]
    rig.close()


def test_a_busy_catalog_does_not_make_it_sync_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, files, rows = synced_rig(tmp_path)
    rig.clock.advance(100)
    monkeypatch.setattr(rig.catalog, "change", lambda work, otherwise, **_: otherwise)
    rig.janitor.quick()
    assert sorted(files.synced) == sorted(row.inode for row in rows)
    rig.close()


# -- trouble ----------------------------------------------------------------------------------


@with_options(ttl=0.0, unused_after=0.0)
def test_trouble_in_one_place_stops_no_other(
    rig: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    rig.add("a")
    rig.file("orphan")
    body = rig.spool.body(put(rig.spool, "b", b"body"))
    stray = body.with_name(f"{body.name[:64]}.{'f' * 32}.wav")
    stray.write_bytes(b"")
    no_grace(rig)
    monkeypatch.setattr(rig.room, "reclaim", broken)
    monkeypatch.setattr(rig.cache, "sweep", broken)
    assert rig.janitor.run_once() == NOTHING | {"expired": 1, "orphaned": 1, "bodies": 1}
    assert len(rig.of(Trouble)) == 2
    assert body.exists()
    assert not stray.exists()


def test_the_thread_starts_with_the_first_read_and_ends_with_the_store(rig: CacheRig) -> None:
    def running() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name == "cachestore-janitor"]

    before = set(running())
    for _ in range(3):
        rig.janitor.touched("a")
    [thread] = set(running()) - before
    rig.file("orphan")
    rig.clock.advance(1000.0)
    until(lambda: not list(rig.cache.copies()) or rig.clock.advance(20.0))
    rig.janitor.close()
    until(lambda: not thread.is_alive())
    rig.janitor.touched("a")
    assert set(running()) == before


@with_options(cache_min_free=0.05)
def test_a_removed_cache_is_no_trouble(rig: CacheRig) -> None:
    rig.add("a")
    rig.catalog.close()  # or it would make the folder anew at once
    shutil.rmtree(rig.options.cache_dir)
    assert rig.janitor.run_once() == NOTHING
    assert rig.of(Trouble) == []


def test_the_cache_folder_may_be_removed_while_running(tmp_path: Path) -> None:
    options = make_options(tmp_path, mode="remote", ttl=1000.0)
    remote = MemoryRemote()
    for number in range(20):
        upload(remote, f"k{number}", str(number).encode() * 100)
    failed: list[BaseException] = []
    stop = threading.Event()

    def reads() -> None:
        while not stop.is_set():
            for number in range(20):
                try:
                    # `get` promises nothing to whose path is removed by hand; `read` does.
                    assert store.read(f"k{number}") == str(number).encode() * 100
                except BaseException as error:
                    failed.append(error)
                    return

    with store_of(options, remote=remote) as store:
        store.put("pending", b"not sent yet")
        threads = [threading.Thread(target=reads) for _ in range(2)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            shutil.rmtree(options.cache_dir, ignore_errors=True)
            store.clean()
        stop.set()
        for thread in threads:
            thread.join()
        assert failed == []
        assert store.get("pending").read_bytes() == b"not sent yet"
        shutil.rmtree(options.cache_dir)
        store.clean()
        assert store.get("k1").read_bytes() == b"1" * 100
        until(lambda: store.get("k1") and store.core.catalog.get("k1"))


# -- several processes ------------------------------------------------------------------------


def test_one_of_several_stores_does_the_work(tmp_path: Path) -> None:
    bucket = MemoryRemote()
    upload(bucket, "a", b"x")
    options = make_options(tmp_path, mode="remote", sync_after=0.0)
    with store_of(options, remote=bucket) as one, store_of(options, remote=bucket) as two:
        assert one.get("a") == two.get("a")
        assert one.core.janitor._lead.held()
        two.core.janitor.quick()
        two.core.janitor.hourly()
        assert len(two.core.catalog.undurable(HUGE)) == 1, "it is the other one's work"
        assert [(each.what, each.count) for each in two.history()] == [("cache", 1)]
        one.core.janitor.quick()
        assert two.core.catalog.undurable(HUGE) == []
        one.close()
        upload(bucket, "b", b"x")
        two.get("b")
        two.core.janitor.hourly()
        assert two.core.catalog.undurable(HUGE) == [], "somebody always does it"
