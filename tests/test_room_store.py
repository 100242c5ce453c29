"""Room as a store's reads and uploads see it."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cache_rig import HUGE, make_row, open_catalog
from process_rig import say, start
from spool_rig import REMOTE
from store_rig import make_options, store_of, until

from cachestore.errors import CacheFull
from cachestore.events import Trouble
from cachestore.local import catalog_log
from cachestore.local.bookkeeping import Bookkeeping, log_pages
from cachestore.policy import room
from cachestore.policy.eviction import Need
from cachestore.remote.memory import MemoryBody, MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.clock import FakeClock
from cachestore.testing.contract_tools import put as upload
from cachestore.testing.remotes import CountingRemote

BLOCK = 4096


@pytest.fixture
def remote() -> MemoryRemote:
    made = MemoryRemote()
    for number in range(12):
        upload(made, f"{number}.bin", bytes([number]) * 2 * BLOCK)
    return made


@contextmanager
def small(root: Path, remote: Any, **fields: Any) -> Iterator[CacheStore]:
    """Room for five of the remote's files, and for two that pass through."""
    values = {"cache_max_bytes": 10 * BLOCK, "cache_transit_bytes": 4 * BLOCK, "eviction": "lru"}
    options = make_options(root, mode="remote", **(values | fields))
    with store_of(options, remote=remote) as store:
        yield store


def handed(store: CacheStore, key: str) -> float:
    return store.core.board.handed_out(store.core.spool.place(key).slot)


def test_paths_have_a_grace_and_open_files_need_none(tmp_path: Path, remote: MemoryRemote) -> None:
    with small(tmp_path, remote) as store:
        for _ in range(2):  # a miss, and hot
            store.read("0.bin")
            store.open("0.bin").close()
            store.download("0.bin", tmp_path / "own")
            with store.lease("0.bin"):
                pass
        assert handed(store, "0.bin") == 0
        store.get("0.bin")
        assert handed(store, "0.bin") > 0


class Slow(MemoryRemote):
    """Takes longer than the grace."""

    clock = FakeClock(time.time())

    def get(self, key: str, **fields: Any) -> Any:
        self.clock.advance(100.0)
        return super().get(key, **fields)


def test_the_grace_begins_when_the_path_is_given(tmp_path: Path) -> None:
    remote = Slow()
    upload(remote, "0.bin", b"0")
    with store_of(make_options(tmp_path, mode="remote"), remote=remote, clock=Slow.clock) as store:
        store.get("0.bin")
        assert handed(store, "0.bin") >= int(Slow.clock.now())


def test_reads_without_a_grace_never_fill_the_cache(tmp_path: Path, remote: MemoryRemote) -> None:
    with small(tmp_path, remote) as store:
        for number in range(12):
            assert store.read(f"{number}.bin") == bytes([number]) * 2 * BLOCK
        assert store.core.room.usage().transit == 0
        assert store.stats().refused == 0


def test_warming_up_keeps_nothing_out(tmp_path: Path, remote: MemoryRemote) -> None:
    with small(tmp_path, remote) as store:
        report = store.warm(f"{number}.bin" for number in range(12))
        assert (report.here, report.bytes, report.failed) == (12, 24 * BLOCK, {})
        # Some may leave while whoever brought them still holds them: then one more leaves.
        taken, entries, _ = store.core.catalog.totals()
        assert 3 <= entries <= 5
        assert taken == entries * 2 * BLOCK


def test_get_says_when_all_is_in_use_and_read_goes_on(tmp_path: Path, remote: MemoryRemote) -> None:
    with small(tmp_path, remote, miss_deadline=0.2) as store:
        paths = [store.get(f"{number}.bin") for number in range(7)]
        for read in (store.get, store.read):
            with pytest.raises(CacheFull, match="`lease`"):
                read("7.bin")
        assert all(path.exists() for path in paths)
        assert store.read("0.bin")
        pending = b"x" * BLOCK
        store.core.uploader.stop(5.0)
        store.put("pending.bin", pending)
        with pytest.raises(CacheFull, match="pending"):
            store.get("pending.bin")
        assert store.read("pending.bin") == pending


def test_a_copy_is_served_when_there_is_no_room_for_a_newer_one(
    tmp_path: Path, remote: MemoryRemote
) -> None:
    with small(tmp_path, remote, ttl=0.0, revalidate_deadline=0.2, miss_deadline=0.5) as store:
        for number in range(7):
            store.get(f"{number}.bin")
        upload(remote, "0.bin", b"newer" * BLOCK)
        assert store.get("0.bin").read_bytes() == bytes(2 * BLOCK)


def test_what_fits_nowhere_goes_past_the_cache(tmp_path: Path, remote: MemoryRemote) -> None:
    upload(remote, "huge.bin", b"h" * 11 * BLOCK)
    heard: list[Any] = []
    with small(tmp_path, remote) as store:
        store.subscribe(heard.append)
        path = store.get("huge.bin")
        assert path.read_bytes() == b"h" * 11 * BLOCK
        assert not path.is_relative_to(store.options.cache_dir)
        [trouble] = [event for event in heard if isinstance(event, Trouble)]
        assert "larger than" in trouble.error


class Unsized(MemoryRemote):
    """Does not say how large its objects are."""

    def get(self, key: str, **fields: Any) -> Any:
        body = super().get(key, **fields)
        assert isinstance(body, MemoryBody)
        unknown = _Unsized(replace(body.info, size=-1), body._data)
        unknown.pieces, unknown.length = list(body), -1
        return unknown


class _Unsized(MemoryBody):
    pieces: list[bytes]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.pieces)


@pytest.mark.parametrize("size", [3, 9_000_000, 20_000_000])
def test_a_download_of_unknown_size_takes_room_as_it_comes(tmp_path: Path, size: int) -> None:
    remote = Unsized()
    data = os.urandom(size)
    upload(remote, "a.bin", data)
    with small(tmp_path, remote, cache_max_bytes=40_000_000) as store:
        taken = []
        reserve = store.core.room.fill

        def fill(grant: Any, wanted: int, info: Any = None) -> None:
            reserve(grant, wanted, info)
            taken.append(store.core.room.usage().announced)

        store.core.room.fill = fill  # type: ignore[method-assign]  # an instance's own
        assert store.get("a.bin").read_bytes() == data
        assert store.core.room.usage().announced == 0
        assert taken == sorted(taken)
        assert taken[-1] >= size
        row = store.core.catalog.get("a.bin")
        assert row is not None
        assert row.size == size


class Stuck(MemoryRemote):
    """Sends the first bytes of a large object, and then nothing."""

    def get(self, key: str, **fields: Any) -> Any:
        body = super().get(key, **fields)
        assert isinstance(body, MemoryBody)
        stuck = _Stuck(body.info, body._data)
        stuck.pieces = list(body)
        return stuck


class _Stuck(_Unsized):
    def __iter__(self) -> Iterator[bytes]:
        yield self.pieces[0]
        say("began")
        input()


def child_reads_what_gets_stuck(root: str) -> None:
    remote = Stuck()
    remote.remote_id = REMOTE
    upload(remote, "a.bin", b"a" * 2_000_000)
    with small(Path(root), remote, cache_max_bytes=2_500_000, cache_transit_bytes=0) as store:
        store.get("a.bin")


def test_a_store_that_is_killed_in_a_download_frees_its_room(tmp_path: Path) -> None:
    child = start("test_room_store:child_reads_what_gets_stuck", tmp_path)
    assert child.stdout is not None
    assert child.stdout.readline() == "began\n"
    remote = MemoryRemote()
    remote.remote_id = REMOTE
    upload(remote, "b.bin", b"b" * 2_000_000)
    fields = {"cache_max_bytes": 2_500_000, "cache_transit_bytes": 0, "miss_deadline": 0.2}
    with small(tmp_path, remote, **fields) as store:
        with pytest.raises(CacheFull):
            store.get("b.bin")
        parts = store.core.cache.root / "parts"
        until(lambda: len(list(parts.glob("*.part"))) == 1)  # ours goes when its turn is over
        [part] = parts.glob("*.part")
        child.kill()
        child.communicate()
        assert store.get("b.bin").read_bytes() == b"b" * 2_000_000
        assert not part.exists()
        assert store.core.room.usage().announced == 0


def test_uploaded_files_are_kept_only_where_there_is_room(
    tmp_path: Path, remote: MemoryRemote
) -> None:
    with small(tmp_path, remote) as store:
        for number in range(5):
            store.pin(f"{number}.bin")
            store.read(f"{number}.bin")
        linked = []
        link_in = store.core.cache.link_in

        def watched(source: Path, name: str, *rest: Any) -> None:
            linked.append(name)
            link_in(source, name, *rest)

        store.core.cache.link_in = watched  # type: ignore[method-assign]  # an instance's own
        store.put("new.bin", b"x" * BLOCK).wait(30)
        assert linked == [], "a second name takes room as soon as it is there"
        assert store.core.catalog.get("new.bin") is None
        assert store.core.room.usage().cache == 0
        store.unpin("0.bin")
        store.put("newer.bin", b"x" * BLOCK).wait(30)
        assert store.core.catalog.get("newer.bin") is not None
        assert store.core.catalog.get("0.bin") is None
        assert store.core.room.usage().announced == 0


def test_health_tells_what_takes_room(tmp_path: Path, remote: MemoryRemote) -> None:
    with small(tmp_path, remote) as store:
        for number in range(6):
            store.get(f"{number}.bin")
        store.core.uploader.stop(5.0)
        store.put("pending.bin", b"x" * BLOCK)
        health = store.health()
        cache = health["cache"]
        assert (cache["bytes"], cache["transit"]) == (10 * BLOCK, 2 * BLOCK)
        assert cache["bookkeeping"] > 10 * BLOCK
        assert health["pending"].items() >= {"count": 1, "bytes": BLOCK}.items()


def test_a_hit_costs_no_statement(tmp_path: Path, remote: MemoryRemote) -> None:
    counting = CountingRemote(remote)
    with small(tmp_path, counting) as store:
        for call in (store.get, store.read):
            call("0.bin")
        store.core.catalog.close()
        for _ in range(3):
            assert store.get("0.bin").exists()
            assert store.read("0.bin")
            with store.lease("0.bin"), store.open("0.bin"):
                pass
        assert counting.calls["get"] == 1


# -- bookkeeping ----------------------------------------------------------------------------------


def test_the_catalogs_log_stays_short_whoever_writes(tmp_path: Path) -> None:
    catalog = open_catalog(tmp_path / "catalog", log_pages=32)
    longest = 0

    def work(name: int) -> None:
        nonlocal longest
        for number in range(60):
            assert catalog.admit(make_row(f"{name}/{number}"), max_bytes=HUGE).admitted
            for log in (tmp_path / "catalog").glob("*-wal"):
                longest = max(longest, log.stat().st_size)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < longest < 32 * 4120 + 6 * 40 * 4120
    catalog.close()


def test_a_reader_that_does_not_end_stops_no_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_log, "_REST", 1e6)
    tries: list[Any] = []
    checkpoint = catalog_log._checkpoint

    def tried(db: Any) -> Any:
        tries.append(checkpoint(db))
        return tries[-1]

    monkeypatch.setattr(catalog_log, "_checkpoint", tried)
    catalog = open_catalog(tmp_path / "catalog", log_pages=16)
    assert catalog.admit(make_row("a"), max_bytes=HUGE).admitted
    [database] = (tmp_path / "catalog").glob("*.db")
    with closing(sqlite3.connect(database)) as reader:
        rows = reader.execute("SELECT key FROM entries UNION ALL SELECT key FROM entries")
        rows.fetchone()
        for number in range(20):
            assert catalog.admit(make_row(str(number)), max_bytes=HUGE).admitted
        rows.close()
    assert [busy for busy, *_ in tries] == [1], "the second try is long after"
    catalog.close()


def test_bookkeeping_counts_the_log_before_it_is_long(tmp_path: Path) -> None:
    root = tmp_path / "cache" / REMOTE
    books = Bookkeeping(tmp_path / "cache", root, 100_000_000)
    catalog = open_catalog(root / "catalog")
    catalog.pin("a")
    first = books.measure()
    assert log_pages(100_000_000) * 4096 < first < 10_000_000
    for number in range(50):
        catalog.admit(make_row(f"{number}"), max_bytes=HUGE)
    catalog.close()
    grown = books.measure() - first
    assert grown < 300_000, "what the log grew by was counted before"


# -- decisions ------------------------------------------------------------------------------------


def test_a_limit_smaller_than_the_bookkeeping_counts_files_alone() -> None:
    assert room.for_files(100, 50) == 50
    assert room.for_files(100, 51) == 100
    assert room.for_files(0, 7) == 0


def test_what_has_to_leave() -> None:
    used = room.Usage(copies=70, entries=7, cache=20, arriving=1, announced=15)
    limits = room.Limits(100)
    assert room.shortfall(10, used, limits, 0).nothing
    assert room.shortfall(11, used, limits, 0) == Need(1, 0)
    assert room.shortfall(11, used, room.Limits(100, entries=8), 0) == Need(1, 1)
    assert room.shortfall(1, used, room.Limits(100, lacking=-16), 0).nothing
    assert room.shortfall(1, used, room.Limits(100, lacking=5), 6) == Need(15, 0)


def test_watermarks() -> None:
    limits = room.Limits(100, entries=10)
    assert room.background(room.Usage(80, 8), limits, 0.8, 0.5).nothing
    assert room.background(room.Usage(60, 8, cache=21), limits, 0.8, 0.5) == Need(31, 0)
    assert room.background(room.Usage(10, 9), limits, 0.8, 0.5) == Need(0, 4)


def test_a_file_takes_whole_blocks() -> None:
    assert [room.on_disk(size) for size in (0, 1, BLOCK, BLOCK + 1)] == [0, BLOCK, BLOCK, 2 * BLOCK]
    assert room.on_disk(1 << 30) > 1 << 30


def test_free_space_is_a_share_or_bytes() -> None:
    assert room.free_wanted(0.05, 1000) == 50
    assert room.free_wanted(2_000_000.0, 1000) == 2_000_000
