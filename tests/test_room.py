"""Limits that the disk keeps: room before bytes, files that pass through, processes that die."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cache_rig import CacheRig
from process_rig import finish, save_options, say, start
from room_rig import LIMIT, TRANSIT, Arriving, Sampler, arrive, files, fill_bucket, small
from spool_rig import put
from store_rig import until

from cachestore.errors import CacheFull
from cachestore.events import Evicted, Refused
from cachestore.local.learned import Learned
from cachestore.policy.tournament import name_of

BLOCK = 4096
ROOM = 10 * BLOCK
GRACE = 60.0


@pytest.fixture
def rig(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[CacheRig]:
    made = limited(tmp_path, **getattr(request, "param", {}))
    yield made
    made.close()


def limited(root: Path, **fields: Any) -> CacheRig:
    """Room for ten blocks of copies and five that pass through."""
    values = {"cache_max_bytes": ROOM, "cache_transit_bytes": ROOM // 2, "eviction": "lru"}
    return CacheRig(root, **(values | fields))


def with_options(**fields: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rig", [fields], indirect=True)


def keys(rig: CacheRig) -> list[str]:
    return [row.key for row in rig.catalog.rows()]


def reasons(rig: CacheRig) -> list[str]:
    return [event.reason for event in rig.of(Refused)]


# -- all at once ----------------------------------------------------------------------------------


def test_the_disk_never_holds_more_than_the_limits(tmp_path: Path) -> None:
    """Three processes of eight threads read what does not fit, in every way there is."""
    bucket, count = tmp_path / "bucket", 300
    fill_bucket(bucket, count)
    options = save_options(small(tmp_path), tmp_path / "options")
    with Sampler(tmp_path / "cache") as sampler:
        children = [
            start("room_rig:child_reads", options, bucket, count, 4, seed) for seed in range(3)
        ]
        said = [finish(child).split() for child in children]
    assert sampler.looks > 100
    assert sum(int(words[2]) for words in said) > 30, said
    assert [words[4:] for words in said] == [[], [], []]
    assert sampler.peak <= LIMIT + TRANSIT, (sampler.peak, sampler.sure)


# -- room before bytes ----------------------------------------------------------------------------


def test_room_is_taken_before_the_first_byte(rig: CacheRig) -> None:
    first = Arriving(rig, "first", 6 * BLOCK).reserve()
    assert rig.room.usage().announced == 6 * BLOCK
    second = Arriving(rig, "second", 5 * BLOCK).reserve()
    assert second.grant.passing, "the first one has not even begun to write"
    assert reasons(rig) == ["room"]
    first.end()
    second.end()
    assert keys(rig) == ["first"]
    assert rig.room.usage().announced == 0
    assert files(rig) == 11 * BLOCK


def test_copies_leave_before_the_first_byte(rig: CacheRig) -> None:
    for number in range(5):
        arrive(rig, f"old{number}", 2 * BLOCK)
    coming = Arriving(rig, "new", 4 * BLOCK).reserve()
    assert files(rig) == 6 * BLOCK
    assert [event.reason for event in rig.of(Evicted)] == ["space", "space"]
    coming.end()
    assert files(rig) == ROOM
    assert len(keys(rig)) == 4


def test_a_download_that_failed_gives_its_room_back(rig: CacheRig) -> None:
    failed = Arriving(rig, "a", ROOM).reserve()
    rig.cache.end_part(failed.fd, failed.part)
    rig.room.release(failed.grant)
    arrive(rig, "b", ROOM)
    assert keys(rig) == ["b"]


def test_one_that_turns_out_larger_takes_more_room(rig: CacheRig) -> None:
    arrive(rig, "old", 6 * BLOCK)
    growing = Arriving(rig, "a", 4 * BLOCK).reserve()
    assert keys(rig) == ["old"]
    rig.room.fill(growing.grant, 5 * BLOCK)
    assert keys(rig) == []
    assert rig.room.usage().announced == 5 * BLOCK
    growing.size = 5 * BLOCK
    growing.end()
    assert keys(rig) == ["a"]


def child_downloads(root: str, size: str, step: str) -> None:
    arriving = Arriving(limited(Path(root)), "a", int(size)).reserve()
    os.pwrite(arriving.fd, os.urandom(arriving.size), 0)
    if step == "handed out":  # as every `get` does when it begins
        arriving.rig.hand_out("a")
    if step == "settled":
        arriving.settle()
    if step == "passing":
        arriving.rig.cache.to_transit(arriving.settle())
    say("there")
    input()


@pytest.mark.parametrize("step", ["handed out", "settled", "passing"])
def test_a_killed_process_frees_what_it_had_reserved(tmp_path: Path, step: str) -> None:
    child = start("test_room:child_downloads", tmp_path, ROOM, step)
    assert child.stdout is not None
    assert child.stdout.readline() == "there\n"
    rig = limited(tmp_path)
    passing = Arriving(rig, "b", BLOCK).reserve()
    assert passing.grant.passing, "it lives, and its room is taken"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    rig.clock.advance(2.0)
    Arriving(rig, "c", ROOM).reserve()
    assert files(rig) == 0, "nothing of the dead one is left when the next one begins to write"
    rig.close()


@with_options(cache_max_entries=3)
def test_downloads_under_way_count_as_entries(rig: CacheRig) -> None:
    for key in ("a", "b"):
        arrive(rig, key, BLOCK)
    coming = [Arriving(rig, key, BLOCK).reserve() for key in ("c", "d")]
    assert keys(rig) == ["b"]
    for each in coming:
        each.end()
    assert keys(rig) == ["b", "c", "d"]


@with_options(cache_min_free=0.5, ttl=None)
def test_a_newcomer_leaves_the_disks_free_share_alone(
    rig: CacheRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = list(os.statvfs(tmp_path))
    fields[0], fields[1], fields[2] = 1, 1, 100 * BLOCK  # blocks of one byte
    fields[4] = 90 * BLOCK  # free
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(fields))
    for key in ("a", "b", "c"):
        arrive(rig, key, BLOCK)
    fields[4] = 51 * BLOCK  # one block more than is to be left
    arrive(rig, "fits", BLOCK)
    assert keys(rig) == ["a", "b", "c", "fits"]
    arrive(rig, "does not", 3 * BLOCK)
    assert keys(rig) == ["c", "does not", "fits"]
    assert rig.janitor.run_once()["freed"] == 0
    fields[4] = 20 * BLOCK
    for _ in range(2):  # the second one has to go among the copies
        arrive(rig, "passes", 4 * BLOCK)
    assert reasons(rig) == ["free", "free"]
    assert rig.janitor.run_once()["freed"] == 3


# -- the grace ------------------------------------------------------------------------------------


def test_what_was_just_handed_out_does_not_leave_for_a_newcomer(rig: CacheRig) -> None:
    for key in ("a", "b"):
        arrive(rig, key, 5 * BLOCK)
    rig.hand_out("a")
    arrive(rig, "c", 5 * BLOCK)
    assert keys(rig) == ["a", "c"]
    rig.hand_out("c")
    path = arrive(rig, "d", 5 * BLOCK)
    assert path.parent.name == "transit"
    assert reasons(rig) == ["room"]
    assert files(rig) == ROOM + ROOM // 2
    rig.clock.advance(GRACE + 1)
    arrive(rig, "e", 5 * BLOCK)
    assert len(keys(rig)) == 2
    assert not path.exists(), "its time was over"


def test_a_copy_handed_out_just_when_it_was_chosen_makes_no_room(
    rig: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row is gone; its bytes are not."""
    for key in ("a", "b"):
        arrive(rig, key, 5 * BLOCK)
    discard = rig.cache.discard

    def late(rows: Any) -> None:
        monkeypatch.setattr(rig.cache, "discard", discard)
        rig.hand_out("a")
        discard(rows)

    monkeypatch.setattr(rig.cache, "discard", late)
    coming = Arriving(rig, "c", 5 * BLOCK).reserve()
    assert keys(rig) == []
    assert files(rig) == 5 * BLOCK
    assert not coming.grant.passing


def fill_all(rig: CacheRig) -> None:
    """The limit and the transit area are full of files in their grace."""
    for key in ("a", "b", "c"):
        arrive(rig, key, 5 * BLOCK)
        rig.hand_out(key)
    assert files(rig) == ROOM + ROOM // 2


def test_a_read_waits_for_the_oldest_grace_to_end(rig: CacheRig) -> None:
    fill_all(rig)
    thread = threading.Thread(target=arrive, args=(rig, "d", BLOCK))
    thread.start()
    until(lambda: rig.room.waits("d"))
    assert files(rig) == ROOM + ROOM // 2
    rig.clock.advance(29.0)
    assert thread.is_alive()
    for key in ("a", "b", "c"):
        rig.board.hand_out(rig.place(key).slot, 0.0)  # long ago
    for _ in range(90):  # it may not have begun to wait again when the clock moved
        rig.clock.advance(0.01)
        thread.join(0.3)
        if not thread.is_alive():
            break
    assert not thread.is_alive()
    assert not rig.room.waits("d")
    assert "d" in keys(rig)


def test_after_the_deadline_it_says_what_needs_no_grace(rig: CacheRig) -> None:
    fill_all(rig)
    failed: list[BaseException] = []

    def reads() -> None:
        try:
            Arriving(rig, "d", BLOCK).reserve()
        except CacheFull as error:
            failed.append(error)

    thread = threading.Thread(target=reads)
    thread.start()
    until(lambda: rig.room.waits("d"))
    rig.clock.advance(rig.options.miss_deadline + 0.1)
    thread.join(30)
    [error] = failed
    for word in ("'d'", "`read`", "`open`", "`lease`", "CACHE_TRANSIT_BYTES"):
        assert word in str(error)
    assert rig.room.usage().announced == 0


def test_what_fits_nowhere_is_known_at_once(rig: CacheRig) -> None:
    with pytest.raises(OSError, match="larger than") as caught:
        Arriving(rig, "huge", ROOM + BLOCK).reserve()
    assert caught.value.errno == errno.EFBIG
    assert keys(rig) == []


@with_options(cache_transit_bytes=20 * BLOCK)
def test_what_is_larger_than_the_limit_passes_through(rig: CacheRig) -> None:
    arrive(rig, "small", BLOCK)
    path = arrive(rig, "large", ROOM + BLOCK)
    assert path.parent.name == "transit"
    assert reasons(rig) == ["large"]
    assert keys(rig) == ["small"]


@with_options(cache_transit_bytes=0)
def test_without_a_transit_area_copies_leave_for_what_passes(rig: CacheRig) -> None:
    for number in range(10):
        arrive(rig, f"old{number}", BLOCK)
    rig.catalog.pin("old0")
    path = Arriving(rig, "passing", 2 * BLOCK)
    path.grant.passing = True
    path.reserve().end()
    assert len(keys(rig)) == 8
    assert files(rig) == ROOM


# -- files of other kinds -------------------------------------------------------------------------


def test_hand_outs_of_pending_files_count(rig: CacheRig) -> None:
    path = rig.hand_outs.hand_out(put(rig.spool, "a", b"x" * 3 * BLOCK), 1 << 20)
    assert rig.room.usage().transit == 3 * BLOCK
    assert rig.hand_outs.hand_out(put(rig.spool, "b", b"x" * 3 * BLOCK), 1 << 20).exists()
    assert rig.room.usage().transit == 3 * BLOCK
    assert rig.room.usage().cache == 3 * BLOCK, "there is room among the copies"
    rig.clock.advance(1.0)
    assert rig.room.tidy() == 2
    assert not path.exists()
    assert rig.room.usage().transit == 0


def test_damaged_copies_count_and_leave_only_for_want_of_room(rig: CacheRig) -> None:
    row = rig.add("a", b"x" * 9 * BLOCK)
    assert rig.catalog.remove("a") == row
    rig.room.quarantine(row)
    damaged = rig.root / "damaged" / Path(row.file).name
    assert rig.room.usage().cache == 9 * BLOCK
    arrive(rig, "b", BLOCK)
    arrive(rig, "c", 5 * BLOCK)
    assert damaged.exists()
    arrive(rig, "d", 5 * BLOCK)
    assert not damaged.exists()
    assert files(rig) <= ROOM + ROOM // 2


def test_a_new_catalog_counts_what_the_old_one_left(rig: CacheRig) -> None:
    for number in range(5):
        arrive(rig, f"old{number}", 2 * BLOCK)
    arrive(rig, "passing", 5 * BLOCK)
    rig.clock.advance(GRACE + 5)
    rig.catalog.close()
    shutil.rmtree(rig.root / "catalog")
    again = limited(rig.options.cache_dir.parent)
    again.clock.advance(GRACE + 5)
    again.catalog.pin("x")  # the new catalog is there, and knows no file
    coming = Arriving(again, "new", ROOM).reserve()
    assert files(again) == 0, "the orphans had to leave first"
    coming.end()
    assert keys(again) == ["new"]
    again.close()


# -- what is kept ---------------------------------------------------------------------------------


@with_options(admit_include=("songs/*",), admit_exclude=("*.tmp",), admit_max_bytes=4 * BLOCK)
def test_settings_say_what_is_kept(rig: CacheRig) -> None:
    rig.catalog.pin("songs/pinned.tmp")
    for key, size in (
        ("songs/a.wav", 4 * BLOCK), ("songs/b.wav", 4 * BLOCK + 1), ("songs/c.tmp", 1),
        ("other/d.wav", 1), ("songs/pinned.tmp", 1),
    ):  # fmt: skip
        assert arrive(rig, key, size).exists()
    assert keys(rig) == ["songs/a.wav", "songs/pinned.tmp"]
    assert [(event.key, event.reason) for event in rig.of(Refused)] == [
        ("songs/b.wav", "size"), ("songs/c.tmp", "pattern"), ("other/d.wav", "pattern"),
    ]  # fmt: skip


@with_options(admit_min_uses=3)
def test_a_file_is_kept_when_it_was_asked_for_often_enough(rig: CacheRig) -> None:
    for _ in range(2):
        arrive(rig, "a", 1)
        assert keys(rig) == []
    arrive(rig, "a", 1)
    assert keys(rig) == ["a"]
    assert reasons(rig) == ["uses", "uses"]


def test_a_pinned_newcomer_does_not_compete(rig: CacheRig) -> None:
    for number in range(10):
        arrive(rig, f"old{number}", BLOCK)
    rig.catalog.pin("new")
    arrive(rig, "new", BLOCK)
    assert "new" in keys(rig)


# -- the janitor ----------------------------------------------------------------------------------


@with_options(cache_high=0.8, cache_low=0.5)
def test_above_the_high_watermark_copies_leave_down_to_the_low_one(rig: CacheRig) -> None:
    for number in range(8):
        arrive(rig, f"k{number}", BLOCK)
    rig.clock.advance(GRACE + 1)
    rig.janitor.quick()
    assert len(keys(rig)) == 8
    arrive(rig, "k8", BLOCK)
    rig.janitor.quick()
    assert len(keys(rig)) == 5
    assert rig.janitor.run_once()["evicted"] == 0


def test_the_janitor_frees_what_a_dead_process_had_reserved(tmp_path: Path) -> None:
    child = start("test_room:child_downloads", tmp_path, ROOM, "downloading")
    assert child.stdout is not None
    assert child.stdout.readline() == "there\n"
    child.kill()
    child.communicate()
    rig = limited(tmp_path)
    assert rig.janitor.run_once()["unfinished"] == 1
    assert files(rig) == 0
    rig.close()


def test_a_copy_that_was_looked_for_on_its_way_is_known_when_it_is_here(rig: CacheRig) -> None:
    """It must not be taken for one that nobody asked for."""
    evictor = Learned(rig.options)
    rig.catalog.evictor = evictor
    new = Arriving(rig, "new", BLOCK).reserve()
    rig.catalog.change(lambda db: evictor._left(db, [name_of("new")]), None)
    new.end()
    assert "new" in keys(rig)
    path = rig.catalog._files.held_path()
    assert path is not None
    with closing(sqlite3.connect(path)) as db:
        known = {key for [key] in db.execute("SELECT key FROM seen")}
        assert "new" in known
        assert db.execute("SELECT count(*) FROM ghosts WHERE key = 'new'").fetchone() == (0,)
