"""`backup`: consistent copies under timestamped keys, and never another key deleted."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from concurrency_rig import Asked
from ingest_rig import in_bucket, options_on
from process_rig import finish, load_options, save_options, start
from store_rig import Shifted, make_options, store_of, until
from transfer_rig import bucket_of, fill_bucket

from cachestore.errors import ConfigError, InvalidKey, SourceError
from cachestore.ingest import backup
from cachestore.ingest.backups import FOLDER
from cachestore.store import CacheStore
from cachestore.testing.r2 import R2Double

DAY = 86400.0
KEY = re.compile(r"exports/app_[0-9]{8}_[0-9]{6}\.db")


@pytest.fixture
def store(r2_double: R2Double, tmp_path: Path) -> Iterator[CacheStore]:
    with store_of(options_on(tmp_path / "store", r2_double)) as opened:
        yield opened


def database(path: Path, journal: str = "wal", rows: int = 2_000) -> Path:
    """Two tables that always hold the same sum."""
    with sqlite3.connect(path, timeout=60) as db:
        db.execute(f"PRAGMA journal_mode = {journal}")
        db.execute("CREATE TABLE one (id INTEGER PRIMARY KEY, n INT, fill TEXT)")
        db.execute("CREATE TABLE two (id INTEGER PRIMARY KEY, n INT)")
        for table in ("one (n, fill) VALUES (1, hex(randomblob(200)))", "two (n) VALUES (1)"):
            db.executemany(f"INSERT INTO {table}", [()] * rows)
    db.close()
    return path


def move(db: sqlite3.Connection) -> None:
    """A transaction that changes both tables by the same."""
    with db:
        db.execute("UPDATE one SET n = n + 1 WHERE id % 7 = abs(random() % 7)")
        db.execute("UPDATE two SET n = 0")
        db.execute("UPDATE two SET n = (SELECT sum(n) FROM one) WHERE id = 1")


def is_consistent(path: Path) -> bool:
    db = sqlite3.connect(path)
    try:
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        one, two = (db.execute(f"SELECT sum(n) FROM {t}").fetchone()[0] for t in ("one", "two"))
        return bool(one == two)
    finally:
        db.close()


def keys(store: CacheStore) -> list[str]:
    return [item.key for item in store.list()]


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_database_is_consistent_while_others_write(
    store: CacheStore, r2_double: R2Double, tmp_path: Path, journal: str
) -> None:
    path = database(tmp_path / "app.db", journal)
    stop, written = threading.Event(), [0]

    def write() -> None:
        db = sqlite3.connect(path, timeout=60)
        while not stop.is_set():
            move(db)
            written[0] += 1
        db.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = set()
        for _ in range(3):
            before = written[0]
            until(lambda before=before: written[0] > before, "a write")
            report = backup(store, path, prefix="exports", wait=60)
            assert (report.state, report.pending, report.problem) == ("stored", False, "")
            assert KEY.fullmatch(report.key)
            copy = tmp_path / "copy.db"
            copy.write_bytes(in_bucket(r2_double, report.key) or b"")
            assert is_consistent(copy)
            seen.add(report.sha256)
    finally:
        stop.set()
        writer.join()
    assert len(seen) == 3
    # Three in a second have three keys, in their order.
    assert len(keys(store)) == 3
    # Nobody writes: the same bytes are not stored again.
    last = backup(store, path, prefix="exports", wait=60)
    again = backup(store, path, prefix="exports", wait=60)
    assert (again.key, again.state, again.sha256) == (last.key, "unchanged", last.sha256)
    assert sorted(os.listdir(store.options.spool_dir / FOLDER)) == [
        name for name in sorted(os.listdir(store.options.spool_dir / FOLDER))
        if name.endswith((".lock", ".json"))
    ]  # fmt: skip


def restored(double: R2Double, key: str, path: Path) -> int:
    """A backup as a database again: its number of rows."""
    path.write_bytes(in_bucket(double, key) or b"")
    assert is_consistent(path)
    db = sqlite3.connect(path)
    try:
        count: int = db.execute("SELECT count(*) FROM one").fetchone()[0]
        return count
    finally:
        db.close()


def test_what_is_in_the_log_belongs_to_it(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    path = database(tmp_path / "app.db", "wal", rows=10)
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_autocheckpoint = 0")
    with db:
        db.execute("INSERT INTO one (n) VALUES (0)")
    try:
        key = backup(store, path, prefix="exports", wait=60).key
        assert restored(r2_double, key, tmp_path / "copy.db") == 11
    finally:
        db.close()


def test_what_is_half_written_does_not(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    path = database(tmp_path / "app.db", "delete", rows=5_000)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA cache_size = 2")
    db.execute("BEGIN")
    db.execute("UPDATE one SET n = 7, fill = hex(randomblob(200))")  # goes to the file at once
    db.execute("DELETE FROM two")
    answer = Asked(lambda: backup(store, path, prefix="exports", wait=60))
    with pytest.raises(AssertionError, match="did not come about"):
        until(lambda: answer.done, "a copy of what is half written", 1.0)
    db.execute("ROLLBACK")
    db.close()
    assert restored(r2_double, answer.answer().key, tmp_path / "copy.db") == 5_000


def test_only_own_keys_are_pruned_and_only_what_the_bucket_has_counts(
    r2_double: R2Double, tmp_path: Path
) -> None:
    names = [
        "exports/app_20250101_000000.json", "exports/app_2025.db", "exports/other.db",
        "exports/app_20251399_000000.db", "exports/app_db_20250101_000000.db",
        "exports/sub/app_20250101_000000.db", "app_20250101_000000.db",
        "exports/app_20250101_000000.db.old",
    ]  # fmt: skip
    others = dict.fromkeys(names, b"not ours")
    fill_bucket(r2_double, others)
    options, path = options_on(tmp_path / "store", r2_double), tmp_path / "app.db"
    made = []
    for day in range(5):
        path.write_bytes(b"version %d" % day)
        with store_of(options, clock=Shifted(day * DAY)) as store:
            report = backup(store, path, prefix="exports/", keep=3, wait=60)
            made.append(report.key)
            assert report.pruned == ((made[day - 3],) if day >= 3 else ())
            assert store.flush(60).done
    with store_of(options, clock=Shifted(5 * DAY)) as store:
        assert sorted(keys(store)) == sorted([*others, *made[-3:]])
        # What is pending does not push out what the bucket has.
        r2_double.rules.add("status", method="PUT")
        for number in range(3):
            path.write_bytes(b"pending %d" % number)
            report = backup(store, path, prefix="exports/", keep=3)
            assert (report.state, report.pending, report.pruned) == ("stored", True, ())
        r2_double.rules.clear()
        assert store.flush(60).done
        report = backup(store, path, prefix="exports/", keep=3)
        assert (report.state, report.pruned) == ("unchanged", tuple(made[-3:]))
        assert store.flush(60).done
    there = {item.key for page in bucket_of(r2_double).list() for item in page.objects}
    assert there > others.keys()
    assert len(there) == len(others) + 3


@pytest.mark.parametrize(("every", "period"), [("daily", DAY), ("weekly", 7 * DAY)])
def test_every(tmp_path: Path, every: Any, period: float) -> None:
    path, options = database(tmp_path / "app.db"), make_options(tmp_path / "store")
    states = []
    for shift in (0.0, 0.5, 0.85, 0.95, 1.5, 2.0, -3.0):
        db = sqlite3.connect(path)
        move(db)
        db.close()
        with store_of(options, clock=Shifted(shift * period)) as store:
            report = backup(store, path, prefix="x", every=every, keep=None)
            states.append(report.state)
            assert report.key == sorted(keys(store))[-1]
    # At 2.0 the last one is 1.05 old. A clock that was set back does not end backups.
    assert states == ["stored", "recent", "recent", "stored", "recent", "stored", "stored"]


def test_without_the_bucket_backups_go_on(r2_double: R2Double, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"one")
    with store_of(options_on(tmp_path / "store", r2_double)) as store:
        first = backup(store, path, keep=1, every="daily", wait=60)
        r2_double.rules.add("status")
        path.write_bytes(b"two")
        assert backup(store, path, keep=1, every="daily").state == "recent"
        report = backup(store, path, keep=1)
        assert (report.state, report.pending, report.pruned) == ("stored", True, ())
        assert "cannot be listed" in report.problem
        assert backup(store, path, keep=1).state == "unchanged"
        r2_double.rules.clear()
        assert store.flush(60).done
        report = backup(store, path, keep=1)
        assert (report.state, report.pruned, report.problem) == ("unchanged", (first.key,), "")


def test_what_cannot_be_backed_up_is_said_and_pushes_nothing_out(
    store: CacheStore, tmp_path: Path
) -> None:
    path = database(tmp_path / "app.db", "delete")
    good = backup(store, path, keep=1, wait=60)
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SourceError, match=r"locked"):
        backup(store, path, keep=1, patience=0.3)
    lock.execute("ROLLBACK")
    lock.close()
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 20] = os.urandom(4096 * 17)
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"cannot be copied|damaged"):
        backup(store, path, keep=1)
    with pytest.raises(SourceError, match="not a file"):
        backup(store, tmp_path / "nowhere.db")
    with pytest.raises(ConfigError, match="at least 1"):
        backup(store, path, keep=0)
    with pytest.raises(ConfigError, match="daily"):
        backup(store, path, every="hourly")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidKey):
        backup(store, path, prefix="../up")
    assert keys(store) == [good.key]


def backup_child(options: str, file: str, every: str) -> None:
    """A process that backs up, and says what it did."""
    with store_of(load_options(options)) as store:
        report = backup(store, file, prefix="exports", every=every or None, wait=60)  # type: ignore[arg-type]  # as text
        print(report.state, flush=True)


def copy_child(options: str, file: str) -> None:
    """A process that is killed while its copy is half done: the database is locked."""
    with store_of(load_options(options)) as store:
        (store.options.spool_dir / FOLDER).mkdir(parents=True)
        print("ready", flush=True)
        sys.stdin.readline()
        backup(store, file, prefix="exports")


def test_processes_share_a_period(r2_double: R2Double, tmp_path: Path) -> None:
    saved = save_options(options_on(tmp_path / "store", r2_double), tmp_path / "options")
    path = database(tmp_path / "app.db")
    children = [start("test_backup:backup_child", saved, path, "daily") for _ in range(2)]
    assert sorted(finish(child).strip() for child in children) == ["recent", "stored"]
    assert len(list(bucket_of(r2_double).list())) == 1


def test_a_killed_backup_leaves_nothing_behind(r2_double: R2Double, tmp_path: Path) -> None:
    options, path = options_on(tmp_path / "store", r2_double), database(tmp_path / "app.db")
    saved = save_options(options, tmp_path / "options")
    # Not WAL: the copy begins in steps, and waits for the lock in the middle.
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = delete")
    db.close()
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    child = start("test_backup:copy_child", saved, path)
    try:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "ready\n"
        child.stdin.write("\n")
        child.stdin.flush()
        folder = options.spool_dir / FOLDER
        until(lambda: list(folder.glob("*.lock")), "its turn")
        (folder / f"{next(folder.glob('*.lock')).stem}.copy").write_bytes(b"half a copy")
        child.send_signal(signal.SIGKILL)
        child.wait(60)
    finally:
        child.kill()
        child.communicate()
    lock.execute("ROLLBACK")
    lock.close()
    with store_of(options) as store:
        assert backup(store, path, prefix="exports", wait=60).state == "stored"
        assert not list(folder.glob("*.copy*"))
        assert not store.fsck().findings


def test_a_file_is_read_when_nobody_writes_it(store: CacheStore, tmp_path: Path) -> None:
    path, stop = tmp_path / "notes.txt", threading.Event()
    path.write_bytes(b"0")

    def change() -> None:
        for number in range(20):
            stop.wait(0.05)  # it is a writer with pauses that is tested
            path.write_bytes(b"%d" % number * 100_000)

    writer = threading.Thread(target=change)
    writer.start()
    report = backup(store, path, wait=60)
    writer.join()
    assert store.read(report.key) in {b"0", *(b"%d" % n * 100_000 for n in range(20))}
    last = backup(store, path, wait=60)
    assert store.read(last.key) == path.read_bytes() == b"19" * 100_000
