"""`watch` when something goes wrong: lost events, folders that go away, processes that die."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ingest_rig import in_bucket, options_on, write
from process_rig import load_options, save_options, start
from store_rig import store_of, until

from cachestore.ingest import watch
from cachestore.store import CacheStore
from cachestore.testing.r2 import R2Double

_QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")


@pytest.fixture
def store(r2_double: R2Double, tmp_path: Path) -> Iterator[CacheStore]:
    with store_of(options_on(tmp_path / "store", r2_double)) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    return made


def arrived(double: R2Double, key: str, data: bytes) -> None:
    until(lambda: in_bucket(double, key) == data, f"{key} in the bucket")


def child_watch(options: str, folder: str) -> None:
    with store_of(load_options(options)) as store, watch(store, folder, settle=0.3, every=None):
        signal.pause()  # until it is killed


@contextmanager
def watched(options: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that watches; killed at the end, whatever happens."""
    with start("test_watch_faults:child_watch", options, folder) as child:
        try:
            yield child
        finally:
            child.kill()


def _writes(path: Path, data: bytes, rng: random.Random) -> None:
    """A file as one of three kinds of writers makes it."""
    how = rng.randrange(3)
    if how == 0:
        path.write_bytes(data)
    elif how == 1:
        path.with_suffix(".tmp").write_bytes(data)
        path.with_suffix(".tmp").rename(path)
    else:
        with open(path, "wb") as file:
            for at in range(0, len(data), 100):
                file.write(data[at : at + 100])
                file.flush()


@pytest.mark.parametrize("kills", [3, pytest.param(25, marks=pytest.mark.torture)])
def test_killed_at_random_everything_arrives_once(
    folder: Path, r2_double: R2Double, tmp_path: Path, kills: int
) -> None:
    rng = random.Random(7)
    options = options_on(tmp_path / "store", r2_double, doubt_wait=1.0)
    saved = save_options(options, tmp_path / "options")
    files: dict[str, bytes] = {}
    for life in range(kills):
        with watched(saved, folder) as child:
            target = r2_double.log.count("PUT", status=200) + rng.randint(1, 10)
            for n in range(15):
                name, data = f"f{life:02}-{n:02}.bin", rng.randbytes(rng.randint(1, 3_000))
                _writes(folder / name, data, rng)
                files[name] = data
            until(partial(_has_sent, r2_double, target, child), "some files")
        # While nobody watches.
        name = f"between-{life}.bin"
        files[name] = write(folder, name, rng.randbytes(500)).read_bytes()
    with watched(saved, folder):
        for name, data in files.items():
            arrived(r2_double, name, data)
    sent = Counter(entry.key for entry in r2_double.log.entries("PUT", status=200))
    assert set(sent) - set(files) <= {name.replace(".bin", ".tmp") for name in files}
    for name in files:
        found = {e.received for e in r2_double.log.entries("PUT", name, status=200)}
        assert found == {len(files[name])}, name  # whole, each time
    # Only what was on the wire when a process died may have been sent twice.
    assert sum(sent[name] - 1 for name in files) <= 8 * (kills + 1)


def _has_sent(double: R2Double, target: int, child: Any) -> bool:
    return double.log.count("PUT", status=200) >= target or child.poll() is not None


@pytest.mark.skipif(not _QUEUE.exists(), reason="inotify only")
def test_events_that_were_lost_are_made_good(
    folder: Path, r2_double: R2Double, tmp_path: Path
) -> None:
    """The process stands still until the system's queue is full: the last events are dropped."""
    queue = int(_QUEUE.read_text())
    if queue > 100_000:
        pytest.skip("the queue of this machine is too long to fill")
    saved = save_options(options_on(tmp_path / "store", r2_double), tmp_path / "options")
    write(folder, "a", b"a")
    with watched(saved, folder) as child:
        arrived(r2_double, "a", b"a")
        (folder / "b").write_bytes(b"b")
        arrived(r2_double, "b", b"b")  # it listens
        child.send_signal(signal.SIGSTOP)
        one, two = folder / "a", folder / "b"
        for n in range(queue // 2 + 50):
            os.utime(one, (n, n))
            os.utime(two, (n, n))
        (folder / "new").mkdir()
        (folder / "c").write_bytes(b"c")
        (folder / "new/d").write_bytes(b"d")
        child.send_signal(signal.SIGCONT)
        arrived(r2_double, "c", b"c")
        arrived(r2_double, "new/d", b"d")
        (folder / "new/e").write_bytes(b"e")  # and it is watched
        arrived(r2_double, "new/e", b"e")


def test_a_folder_that_goes_away_and_comes_back(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    with watch(store, folder, settle=0.2, every=None) as watcher:
        (folder / "a").write_bytes(b"a")
        arrived(r2_double, "a", b"a")
        folder.rename(folder.with_name("away"))
        (folder.with_name("away") / "a").unlink()
        folder.with_name("away").rmdir()
        until(lambda: not watcher.status().watching, "it to notice")
        assert watcher.status().problem
        write(folder, "b", b"b")
        arrived(r2_double, "b", b"b")
        until(lambda: watcher.status().watching, "it to listen again")
        (folder / "c").write_bytes(b"c")
        arrived(r2_double, "c", b"c")
        assert watcher.status().problem == ""


def test_a_bucket_that_is_down_gets_everything_later(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    reasons: list[str] = []
    with watch(
        store, folder, settle=0.2, every=None, patience=0.3,
        reported=lambda report: reasons.append(report.stopped),
    ) as watcher:  # fmt: skip
        until(lambda: watcher.status().last_sync is not None, "the first sync")
        r2_double.down()
        for n in range(5):
            (folder / f"f{n}").write_bytes(b"%d" % n)
        until(lambda: any(reasons), "a sync to give up")
        assert watcher.status().waiting
        r2_double.up()
        for n in range(5):
            arrived(r2_double, f"f{n}", b"%d" % n)
        until(lambda: not watcher.status().waiting, "nothing to wait")


def test_a_file_that_fails_holds_nobody_up_and_is_tried_again(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    r2_double.rules.add("status", method="PUT", key="bad", status=400, code="InvalidRequest")
    with watch(store, folder, settle=0.2, every=None) as watcher:
        (folder / "bad").write_bytes(b"bad")
        until(lambda: watcher.status().failed, "it to fail")
        (folder / "good").write_bytes(b"good")
        arrived(r2_double, "good", b"good")
        until(lambda: watcher.status().waiting == ("bad",), "the other to be done")
        r2_double.rules.clear()
        arrived(r2_double, "bad", b"bad")


def test_what_nobody_heard_of_is_found_by_the_periodic_sync(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    with watch(store, folder, settle=0.2, every=0.5) as watcher:
        until(lambda: watcher.status().last_sync is not None, "the first sync")
        watcher._observing.close()  # type: ignore[union-attr]  # as one that fails
        until(lambda: not watcher.status().problem, "another one")
        (folder / "a").write_bytes(b"a")
        arrived(r2_double, "a", b"a")
        before = watcher.status().last_sync_at
        until(lambda: watcher.status().last_sync_at != before, "the next sync")


def test_the_store_is_closed_first(folder: Path, r2_double: R2Double, tmp_path: Path) -> None:
    with store_of(options_on(tmp_path / "store", r2_double)) as store:
        watcher = watch(store, folder, settle=0.2)
    (folder / "a").write_bytes(b"a")
    until(lambda: watcher.status().problem == "the store is closed", "it to end")
    watcher.close()
