"""`watch`: files arrive when they are whole, once, and nothing else happens to them."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ingest_rig import in_bucket, options_on, write
from settings_rig import Place
from settings_rig import place as place
from store_rig import make_options, store_of, until

from cachestore.clock import SystemClock
from cachestore.errors import ConfigError
from cachestore.files import is_written_at
from cachestore.ingest import SyncReport, Watcher, watch
from cachestore.ingest.waiting import QUIET, Waiting
from cachestore.open import open_store
from cachestore.settings.live import set_flag
from cachestore.store import CacheStore
from cachestore.testing.clock import FakeClock
from cachestore.testing.r2 import R2Double

SETTLE = 0.4


@pytest.fixture
def store(r2_double: R2Double, tmp_path: Path) -> Iterator[CacheStore]:
    with store_of(options_on(tmp_path / "store", r2_double)) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    return made


def watching(store: CacheStore, folder: Path, **asked: Any) -> Watcher:
    """A watcher that has caught up."""
    watcher = watch(store, folder, **{"settle": SETTLE, "every": None} | asked)
    if asked.get("upload_hours") is None:
        until(lambda: watcher.status().last_sync is not None, "the first sync")
    return watcher


def arrived(double: R2Double, key: str, data: bytes) -> None:
    until(lambda: in_bucket(double, key) == data, f"{key} in the bucket")


def idle(watcher: Watcher) -> None:
    until(lambda: not watcher.status().waiting, "nothing to wait")


def sizes(double: R2Double, key: str) -> set[int]:
    """The sizes of all versions that the bucket ever had of a key."""
    return {entry.received for entry in double.log.entries("PUT", key, status=200)}


# -- whole files -----------------------------------------------------------------------------------


def test_what_is_there_then_what_comes(
    store: CacheStore, folder: Path, r2_double: R2Double, tmp_path: Path
) -> None:
    write(folder, "old/a.jpg", b"before")
    write(folder, "old/young.jpg", b"a moment ago", age=0.0)
    with watching(store, folder, prefix="cam") as watcher:
        arrived(r2_double, "cam/old/a.jpg", b"before")
        (folder / "new.jpg").write_bytes(b"written")
        write(tmp_path, "outside.jpg", b"renamed into place")
        (tmp_path / "outside.jpg").rename(folder / "moved.jpg")
        arrived(r2_double, "cam/new.jpg", b"written")
        arrived(r2_double, "cam/moved.jpg", b"renamed into place")
        arrived(r2_double, "cam/old/young.jpg", b"a moment ago")
        (folder / "new.jpg").rename(folder / "newer.jpg")
        arrived(r2_double, "cam/newer.jpg", b"written")
        idle(watcher)
        assert watcher.status().uploaded == 5
    assert in_bucket(r2_double, "cam/new.jpg") == b"written"  # it stays
    assert r2_double.log.count("PUT", status=200) == 5
    names = {each.name for each in threading.enumerate()}
    assert "cachestore-watch" not in names, names


def test_a_rename_into_place_needs_no_settle_time(
    store: CacheStore, folder: Path, r2_double: R2Double, tmp_path: Path
) -> None:
    with watching(store, folder, settle=3600.0):
        write(tmp_path, "outside", b"renamed", age=0.0)
        (tmp_path / "outside").rename(folder / "a")
        write(folder, "b.part", b"by its writer", age=0.0)
        (folder / "b.part").rename(folder / "b")
        (folder / "c").write_bytes(b"closed")
        for key, data in (("a", b"renamed"), ("b", b"by its writer"), ("c", b"closed")):
            arrived(r2_double, key, data)


def test_a_folder_that_appears_with_files_in_it(
    store: CacheStore, folder: Path, r2_double: R2Double, tmp_path: Path
) -> None:
    with watching(store, folder):
        write(tmp_path, "made/deep/er/a.jpg", b"moved in", age=0.0)
        (tmp_path / "made").rename(folder / "made")
        (folder / "x/y").mkdir(parents=True)
        (folder / "x/y/b.jpg").write_bytes(b"at once")
        shutil.copytree(folder / "x", folder / "z")
        for key, data in (
            ("made/deep/er/a.jpg", b"moved in"), ("x/y/b.jpg", b"at once"),
            ("z/y/b.jpg", b"at once"),
        ):  # fmt: skip
            arrived(r2_double, key, data)
        # And what comes later into them.
        (folder / "made/deep/er/c.jpg").write_bytes(b"later")
        arrived(r2_double, "made/deep/er/c.jpg", b"later")


def slow_writer(path: Path, bursts: int, burst: bytes, pause: float) -> None:
    with open(path, "wb") as file:
        for _ in range(bursts):
            file.write(burst)
            file.flush()
            time.sleep(pause)  # the writer is slow


@pytest.mark.parametrize("mb", [6, pytest.param(50, marks=pytest.mark.torture)])
def test_a_slow_writer_one_that_renames_and_one_that_overwrites(
    store: CacheStore, folder: Path, r2_double: R2Double, mb: int
) -> None:
    """The bucket ends with the final bytes of each, and never held a part of one."""
    burst, versions = os.urandom(1_000_000), [os.urandom(10_000 + n) for n in range(5)]

    def renames() -> None:
        slow_writer(folder / ".renamed.tmp", mb, burst, 0.1)
        (folder / ".renamed.tmp").rename(folder / "renamed.bin")

    def overwrites() -> None:
        for version in versions:
            with open(folder / "over.bin", "wb") as file:
                for at in range(0, len(version), 1_000):
                    file.write(version[at : at + 1_000])
                    file.flush()
                    time.sleep(0.005)  # the writer is slow
            time.sleep(0.15)  # five times a second, about

    # Longer pauses than the settle time: only the end of writing says that it is whole.
    writers = [
        threading.Thread(target=slow_writer, args=(folder / "slow.bin", mb, burst, 2 * SETTLE)),
        threading.Thread(target=renames), threading.Thread(target=overwrites),
    ]  # fmt: skip
    with watching(store, folder, exclude=["*.tmp"], settle=SETTLE / 2) as watcher:
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        arrived(r2_double, "slow.bin", burst * mb)
        arrived(r2_double, "renamed.bin", burst * mb)
        arrived(r2_double, "over.bin", versions[-1])
        idle(watcher)
    assert sizes(r2_double, "slow.bin") == {mb * 1_000_000}
    assert sizes(r2_double, "renamed.bin") == {mb * 1_000_000}
    assert sizes(r2_double, "over.bin") <= {len(version) for version in versions}
    counted = Counter(entry.key for entry in r2_double.log.entries("PUT", status=200))
    assert (counted["slow.bin"], counted["renamed.bin"]) == (1, 1)
    assert counted["over.bin"] <= 5


def test_a_writer_that_began_before(store: CacheStore, folder: Path, r2_double: R2Double) -> None:
    with open(folder / "a.bin", "wb") as file:
        file.write(b"half")
        file.flush()
        then = time.time() - 100
        os.utime(folder / "a.bin", (then, then))  # it looks old
        with watching(store, folder, every=0.2) as watcher:
            (folder / "b.bin").write_bytes(b"b")
            arrived(r2_double, "b.bin", b"b")
            assert watcher.sync_now().left == 1
            assert in_bucket(r2_double, "a.bin") is None
            file.write(b" and half")
            file.close()
            arrived(r2_double, "a.bin", b"half and half")
    assert r2_double.log.count("PUT", "a.bin") == 1


def test_files_that_go_away_or_are_left_out(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    (folder / "skipped").mkdir()
    with watching(store, folder, exclude=["*.part", "skipped/"]) as watcher:
        with open(folder / "gone.bin", "wb") as file:
            file.write(b"x")
            file.flush()
            until(lambda: watcher.status().waiting == ("gone.bin",), "it to be heard of")
            (folder / "gone.bin").unlink()
        (folder / "a.part").write_bytes(b"x")
        (folder / "skipped/b").write_bytes(b"x")
        (folder / "a").write_bytes(b"a")
        arrived(r2_double, "a", b"a")
        idle(watcher)
        (folder / "a").unlink()
        (folder / "last").write_bytes(b"last")
        arrived(r2_double, "last", b"last")
    assert in_bucket(r2_double, "a") == b"a"
    assert {entry.key for entry in r2_double.log.entries("PUT")} == {"a", "last"}


def test_a_sidecar_that_tells_the_time_may_come_a_moment_later(
    r2_double: R2Double, tmp_path: Path, folder: Path
) -> None:
    clock = FakeClock(1_768_500_000.0)
    asked = {"template": "s/{mtime:%Y}/{mtime:%m}/{name}", "settle": 2.0}
    with (
        store_of(options_on(tmp_path / "store", r2_double), clock=clock) as store,
        watching(store, folder, **asked) as watcher,
    ):
        (folder / "x.jpg").write_bytes(b"image")
        until(lambda: watcher.status().waiting == ("x.jpg",), "it to be heard of")
        clock.advance(1.5)
        later = time.monotonic() + 0.3
        until(lambda: time.monotonic() > later, "enough time to send it")
        with open(folder / "x.json", "w") as file:
            file.write('{"timestamp": ')
            file.flush()
            until(lambda: len(watcher.status().waiting) == 2, "both to be heard of")
            clock.advance(10.0)
            file.write('"2025-01-15T08:30:22"}')
        _tick_until(clock, partial(_has, r2_double, "s/2025/01/x.json"))
    sent = [entry.key for entry in r2_double.log.entries("PUT")]
    assert sent == ["s/2025/01/x.jpg", "s/2025/01/x.json"]


def test_two_files_do_not_get_the_same_key(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    write(folder, "a/x.jpg", b"first")
    (folder / "b").mkdir()
    reports: list[SyncReport] = []
    with watching(store, folder, template="{name}", reported=reports.append):
        (folder / "b/x.jpg").write_bytes(b"second")
        until(lambda: any(report.failed for report in reports), "the second to fail")
    assert in_bucket(r2_double, "x.jpg") == b"first"
    assert "has the same key" in reports[-1].errors[0].error


# -- hours -----------------------------------------------------------------------------------------


def test_only_files_of_the_ingest_hours_are_taken(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    asked = {"time_pattern": "%Y%m%d_%H%M%S", "ingest_hours": "20:00-06:00 UTC"}
    for clock in ("195959", "200000", "055959", "060000"):
        write(folder, f"e_20260115_{clock}.jpg", clock.encode())
    with watching(store, folder, **asked) as watcher:
        (folder / "e_20260116_120000.jpg").write_bytes(b"noon")
        (folder / "e_20260116_000000.jpg").write_bytes(b"midnight")
        arrived(r2_double, "e_20260116_000000.jpg", b"midnight")
        sent = {entry.key for entry in r2_double.log.entries("PUT")}
        assert sent == {f"e_2026011{day}.jpg" for day in ("5_200000", "5_055959", "6_000000")}
        idle(watcher)
        assert watcher.sync_now().uploaded == 3  # by hand: all


def test_files_wait_for_the_upload_hours(r2_double: R2Double, tmp_path: Path, folder: Path) -> None:
    clock = FakeClock(1_768_500_000.0)  # 15 January 2026, 18:00 UTC
    with store_of(options_on(tmp_path / "store", r2_double), clock=clock) as store:
        write(folder, "a", b"a")
        with watching(store, folder, upload_hours="20:00-06:00") as watcher:
            (folder / "b").write_bytes(b"b")
            until(lambda: watcher.status().waiting == ("b",), "it to be heard of")
            status = watcher.status()
            assert not status.is_active_hours
            assert status.current_time.isoformat() == "2026-01-15T18:00:00+00:00"
            assert status.settings["upload_hours"] == "20:00-06:00"
            clock.advance(3599)
            later = time.monotonic() + 0.2
            until(lambda: time.monotonic() > later, "enough time to look")
            assert watcher.status().last_sync is None
            assert r2_double.log.count("PUT") == 0
            clock.advance(3600)
            _tick_until(clock, partial(_has, r2_double, "a", "b"))
            assert watcher.status().is_active_hours
            clock.advance(10 * 3600)  # six in the morning
            (folder / "c").write_bytes(b"c")
            until(lambda: watcher.status().waiting == ("c",), "it to be heard of")
            assert watcher.sync_now().uploaded == 1  # by hand: at any time


def test_hours_that_are_switched_off_live(
    place: Place, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = datetime.now(UTC) + timedelta(hours=2)
    monkeypatch.setenv("WATCH_UPLOAD_HOURS", f"{soon:%H}:00-{soon:%H}:59")
    write(folder, "a", b"a")
    with open_store() as store, watch(store, folder) as watcher:
        assert not watcher.status().is_active_hours
        assert watcher.status().settings["upload_hours"] == f"{soon:%H}:00-{soon:%H}:59"
        assert not store.exists("a")
        set_flag(store.options.spool_dir, "WATCH_ACTIVE_HOURS", False)
        store.reload()
        until(lambda: store.exists("a"), "it to be taken")
        assert watcher.status().is_active_hours
        set_flag(store.options.spool_dir, "WATCH_ACTIVE_HOURS", True)
        store.reload()
        assert not watcher.status().is_active_hours


def _has(double: R2Double, *keys: str) -> bool:
    return all(in_bucket(double, key) is not None for key in keys)


def _tick_until(clock: FakeClock, check: Any) -> None:
    """Let time pass by small steps until it is true."""

    def ticked() -> bool:
        clock.advance(0.5)
        return bool(check())

    until(ticked, "it to happen as time passes")


@pytest.mark.parametrize(
    "asked",
    [{"every": 0}, {"settle": -1}, {"ingest_hours": "8-9"}, {"upload_hours": "x"},
     {"template": "{nam}"}, {"timezone": "Mars"}],
)  # fmt: skip
def test_what_is_wrong_is_said_at_once(
    store: CacheStore, folder: Path, asked: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        watch(store, folder, **asked)
    with pytest.raises(ConfigError):
        watch(store, folder / "nowhere")


# -- what waits ------------------------------------------------------------------------------------


def test_a_file_settles_where_the_system_tells_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    waiting = Waiting(str(tmp_path), clock, 2.0)
    waiting.closes = False
    write(tmp_path, "a", b"1")
    waiting.written("a")
    assert not waiting.whole()
    clock.advance(2.0)
    assert list(waiting.whole()) == ["a"]
    write(tmp_path, "a", b"12", age=50.0)  # found by its size: nothing was heard
    assert not waiting.whole()
    clock.advance(1.9)
    assert not waiting.whole()
    clock.advance(0.1)
    taken = waiting.whole()
    waiting.written("a")
    waiting.done(taken)
    assert waiting.paths == ["a"]  # more was heard meanwhile
    clock.advance(2.0)
    waiting.done(waiting.whole())
    assert waiting.paths == []


def test_a_burst_is_taken_once_and_a_long_one_in_between(tmp_path: Path) -> None:
    clock = FakeClock()
    waiting = Waiting(str(tmp_path), clock, 2.0)
    seen = 0
    for _ in range(100):
        waiting.written("a")
        waiting.closed("a")
        clock.advance(QUIET / 2)
        seen += bool(waiting.whole())
    assert seen > 0
    clock.advance(2 * QUIET)
    waiting.done(waiting.whole())
    for _ in range(2):
        waiting.closed("a")
        clock.advance(0.75 * QUIET)
        assert not waiting.whole()
    clock.advance(0.75 * QUIET)
    assert waiting.whole()


def test_what_was_heard_says_more_than_what_was_found(tmp_path: Path) -> None:
    clock = FakeClock()
    waiting = Waiting(str(tmp_path), clock, 3600.0)
    waiting.closed("a")
    waiting.found("a")  # by a sync that began before
    clock.advance(2 * QUIET)
    assert list(waiting.whole()) == ["a"]


def test_who_changes_while_it_is_sent_does_not_rest(tmp_path: Path) -> None:
    clock = FakeClock()
    waiting = Waiting(str(tmp_path), clock, 3600.0)
    for name in ("a", "b"):
        waiting.closed(name)
    clock.advance(2 * QUIET)
    taken = waiting.whole()
    waiting.closed("a")
    waiting.rest(taken)
    waiting.again(["a", "b"], taken, 900.0)
    waiting.done({"b": taken["b"] + 1})
    clock.advance(2 * QUIET)
    assert waiting.due(waiting.whole()) == {"a"}


def test_what_fails_rests_longer_each_time(tmp_path: Path) -> None:
    clock = FakeClock()
    waiting = Waiting(str(tmp_path), clock, 1.0)
    write(tmp_path, "a", b"a")
    waiting.closed("a")
    pauses = []
    for _ in range(6):
        clock.advance(2 * QUIET)
        waiting.again(["a"], waiting.whole(), 10.0)
        at = clock.monotonic()
        while not waiting.due(waiting.whole()):
            clock.advance(0.25)
        pauses.append(clock.monotonic() - at)
    assert pauses == pytest.approx([1.0, 2.0, 4.0, 8.0, 10.0, 10.0])
    waiting.closed("a")  # another version is another thing
    clock.advance(2 * QUIET)
    assert waiting.due(waiting.whole()) == {"a"}


def test_who_writes_a_file_is_known(tmp_path: Path) -> None:
    path = write(tmp_path, "a", b"a")
    if is_written_at(str(path)) is None:
        pytest.skip("this system does not tell")
    with open(path, "ab"):
        assert is_written_at(str(path))
        waiting = Waiting(str(tmp_path), SystemClock(), 0.0)
        waiting.found("a")
        assert not waiting.whole()
    assert is_written_at(str(path)) is False
    assert list(waiting.whole()) == ["a"]


def test_the_status_is_plain(store: CacheStore, folder: Path) -> None:
    with watching(store, folder, timezone="Europe/Berlin", every=60.0) as watcher:
        status = watcher.status()
    assert status.watching
    assert (status.problem, status.uploaded, status.failed, status.waiting) == ("", 0, 0, ())
    assert status.is_active_hours
    assert json.loads(json.dumps(dict(status.settings))) == {
        "enabled": True, "ingest_hours": None, "upload_hours": None,
        "timezone": "Europe/Berlin", "every": 60.0, "settle": SETTLE,
    }  # fmt: skip


def test_in_local_mode_files_go_into_the_folder(tmp_path: Path, folder: Path) -> None:
    with store_of(make_options(tmp_path / "store")) as store, watching(store, folder):
        (folder / "a.txt").write_bytes(b"a")
        until(lambda: store.exists("a.txt"), "it in LOCAL_DIR")
        assert store.read("a.txt") == b"a"
