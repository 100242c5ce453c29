"""A broken, missing or busy catalog is a miss, and a new one is begun; forks harm nobody."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from cache_rig import HUGE, Box, make_row, open_catalog
from cache_rig import box as box
from process_rig import finish, say, start

from cachestore.local import catalog_files


def garbage(box: Box) -> None:
    box.database.write_bytes(os.urandom(box.database.stat().st_size))


def emptied(box: Box) -> None:
    box.edit("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(box.database, 0)


def halved(box: Box) -> None:
    box.edit("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(box.database, box.database.stat().st_size // 2)


def replaced(box: Box) -> None:
    """Another program's database is renamed over it."""
    other = box.folder / "other"
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE entries (x)")
    db.close()
    os.replace(other, box.database)


def of_another_version(box: Box) -> None:
    box.edit("PRAGMA user_version = 99")


def without_tables(box: Box) -> None:
    box.edit("DROP TABLE entries")


def removed(box: Box) -> None:
    shutil.rmtree(box.folder)


def database_removed(box: Box) -> None:
    box.database.unlink()


def log_removed(box: Box) -> None:
    """Rows that were taken out, and are in the log only, would be back."""
    Path(f"{box.database}-wal").unlink(missing_ok=True)


def pointer_removed(box: Box) -> None:
    (box.folder / "current").unlink()


def pointer_to_elsewhere(box: Box) -> None:
    shutil.copy(box.database, box.folder.parent / "stolen.db")
    (box.folder / "current").write_text("../stolen.db")


def junk_row(box: Box) -> None:
    box.edit("UPDATE entries SET metadata = '[not json'")


def row_outside_the_cache(box: Box) -> None:
    box.edit("UPDATE entries SET file = '../../../etc/passwd'")


def row_of_wrong_types(box: Box) -> None:
    box.edit("UPDATE entries SET size = 'many', key = 'a'")


BREAKS: list[Callable[[Box], None]] = [
    garbage, emptied, halved, replaced, of_another_version, without_tables, removed,
    database_removed, pointer_removed, pointer_to_elsewhere, junk_row, row_outside_the_cache,
    row_of_wrong_types,
]  # fmt: skip


@pytest.mark.parametrize("damage", BREAKS)
@pytest.mark.parametrize("while_open", [True, False])
def test_a_broken_catalog_is_a_miss_and_a_new_one_works(
    box: Box, damage: Callable[[Box], None], while_open: bool
) -> None:
    if not while_open:
        box.catalog.close()
    damage(box)
    catalog = box.catalog if while_open else open_catalog(box.folder, box.said)
    found = catalog.get("a")
    # What is in memory already may be answered until somebody opens the database anew.
    assert found is None or (while_open and damage in (of_another_version, garbage, halved))
    fresh = open_catalog(box.folder)
    assert fresh.get("a") is None
    box.fill(fresh, "b")
    box.fill(catalog, "c")
    for each in (fresh, catalog):
        assert [row.key for row in each.rows_below("")] == ["b", "c"]
        assert each.totals()[:2] == (2 * 4096, 2)
    fresh.close()
    catalog.close()


def test_a_removed_log_is_noticed(box: Box) -> None:
    box.catalog.remove("a")
    log_removed(box)
    assert box.catalog.get("a") is None
    assert any("log was removed" in line for line in box.said)
    box.fill(box.catalog, "b")
    assert [row.key for row in open_catalog(box.folder).rows_below("")] == ["b"]


def test_a_catalog_that_cannot_be_made_is_empty_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_files, "_REST_SECONDS", 0.0)
    (tmp_path / "catalog").write_text("a file is in its place")
    said: list[str] = []
    catalog = open_catalog(tmp_path / "catalog", said)
    for _ in range(5):
        assert catalog.get("a") is None
        assert not catalog.admit(make_row("a"), max_bytes=HUGE).admitted
        assert catalog.totals() == (0, 0, 0)
        assert catalog.files_in("ab") is None
    assert len(said) == 1
    assert (tmp_path / "catalog").read_text() == "a file is in its place"


def test_a_linked_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "catalog").symlink_to(tmp_path / "real")
    catalog = open_catalog(tmp_path / "catalog")
    assert not catalog.admit(make_row("a"), max_bytes=HUGE).admitted
    assert list((tmp_path / "real").iterdir()) == []


def test_a_busy_catalog_is_waited_for_and_never_replaced(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_files, "_BUSY_SECONDS", 0.1)
    catalog = open_catalog(box.folder, box.said)
    holder = sqlite3.connect(box.database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    before = box.database
    assert not catalog.admit(make_row("b"), max_bytes=HUGE).admitted
    assert catalog.remove("a") is None
    assert catalog.get("a") is not None, "readers do not wait for a writer"
    holder.execute("ROLLBACK")
    box.fill(catalog, "b")
    assert (box.database, box.said) == (before, [])
    holder.close()
    catalog.close()


def test_what_cannot_be_known_is_not_called_absent(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delete is acknowledged once no row is left: a row that cannot be seen may come back."""
    assert not box.catalog.lacks("a")
    assert box.catalog.lacks("b")
    with monkeypatch.context() as patch:
        patch.setattr(catalog_files, "_REST_SECONDS", 0.0)
        patch.setattr(catalog_files.CatalogFiles, "_open", _no_more_files)
        thread_sees: list[object] = []
        thread = threading.Thread(
            target=lambda: thread_sees.extend((box.catalog.get("a"), box.catalog.lacks("a")))
        )
        thread.start()
        thread.join()
    assert thread_sees == [None, False]
    assert box.catalog.get("a") is not None
    assert box.said == []
    removed(box)
    box.catalog.close()
    assert box.catalog.lacks("a")


def _no_more_files(*_: object) -> None:
    raise OSError(errno.EMFILE, "too many open files")


def child_without_descriptors(folder: str) -> None:
    catalog = open_catalog(Path(folder))
    hoard: list[int] = []
    for spare in range(12):
        with suppress(OSError):
            while True:
                hoard.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(spare):
            os.close(hoard.pop())
        catalog.get("a")
    for fd in hoard:
        os.close(fd)
    assert catalog.get("a") is not None
    say("kept")


def test_a_process_without_free_descriptors_does_not_cost_the_catalog(box: Box) -> None:
    child = start("test_catalog_broken:child_without_descriptors", box.folder)
    assert "kept" in finish(child)
    assert box.catalog.get("a") is not None
    assert len(list(box.folder.glob("*.db"))) == 1


def test_after_close_nothing_is_found(box: Box) -> None:
    box.catalog.close()
    assert box.catalog.get("a") is None
    assert not box.catalog.admit(make_row("b"), max_bytes=HUGE).admitted
    assert not Path(f"{box.database}-wal").exists(), "a connection was left open"


def test_a_value_that_no_database_holds_is_not_admitted(box: Box) -> None:
    before = box.database
    assert not box.catalog.admit(make_row("b", 1 << 70), max_bytes=1 << 80).admitted
    assert box.catalog.get("\ud800") is None
    assert box.database == before


def test_only_old_databases_of_our_own_are_tidied_away(box: Box, tmp_path: Path) -> None:
    left = box.database
    junk_row(box)
    box.catalog.get("a")
    box.fill(box.catalog, "kept")
    stranger = box.folder / "photos.db"
    stranger.write_text("not ours")
    link = box.folder / ("0" * 16 + ".db")
    link.symlink_to(stranger)
    assert box.catalog.tidy() == 0
    long_ago = time.time() - 7200
    for path in box.folder.iterdir():
        os.utime(path, (long_ago, long_ago), follow_symlinks=False)
    assert box.catalog.tidy() >= 1
    assert not left.exists()
    assert stranger.exists()
    assert link.is_symlink()
    assert box.catalog.get("kept") is not None
    box.fill(box.catalog, "b")
    assert box.catalog.get("b") is not None


# -- threads and forks ------------------------------------------------------------------------


def test_connections_of_ended_threads_are_closed(box: Box) -> None:
    def open_files() -> int:
        links = (os.readlink(f"/dev/fd/{name}") for name in os.listdir("/dev/fd") if _is_fd(name))
        return sum(str(box.folder) in link for link in links)

    for _ in range(20):
        thread = threading.Thread(target=box.catalog.get, args=("a",))
        thread.start()
        thread.join()
    assert open_files() <= 3 * 3


def _is_fd(name: str) -> bool:
    return os.path.lexists(f"/dev/fd/{name}")


def child_forks_and_closes(folder: str) -> None:
    """The parent's last connection goes while a forked child lives, and takes the log along."""
    catalog = open_catalog(Path(folder))
    assert catalog.admit(make_row("before"), max_bytes=HUGE).admitted
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        good = catalog.get("before") is not None
        good &= catalog.admit(make_row("child"), max_bytes=HUGE).admitted
        os._exit(0 if good else 1)
    catalog.close()
    os.close(write)
    assert os.waitpid(pid, 0)[1] == 0
    fresh = open_catalog(Path(folder))
    assert fresh.get("before") is not None
    assert fresh.get("child") is not None
    say("kept")


def child_forks_while_writing(folder: str) -> None:
    """Children are forked while other threads are in the middle of their transactions."""
    catalog = open_catalog(Path(folder))
    stop = threading.Event()
    written: list[str] = []

    def write(name: str) -> None:
        number = 0
        while not stop.is_set():
            key = f"{name}/{number}"
            if catalog.admit(make_row(key), max_bytes=HUGE).admitted:
                written.append(key)
            number += 1

    threads = [threading.Thread(target=write, args=(f"thread{n}",), daemon=True) for n in range(3)]
    for thread in threads:
        thread.start()
    children = []
    for number in range(20):
        pid = os.fork()
        if pid == 0:
            key = f"child/{number}"
            # Among so many writers one may find the catalog busy for longer than it waits.
            good = any(catalog.admit(make_row(key), max_bytes=HUGE).admitted for _ in range(20))
            os._exit(0 if good and catalog.get(key) is not None else 1)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    stop.set()
    for thread in threads:
        thread.join()
    there = {row.key for row in catalog.rows_below("")}
    assert there >= {f"child/{number}" for number in range(20)}
    assert there >= set(written)
    assert written
    assert len(list(Path(folder).glob("*.db"))) == 1
    db = sqlite3.connect(Path(folder) / (Path(folder) / "current").read_text())
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    say("whole")


def test_a_forked_child_has_connections_of_its_own(tmp_path: Path) -> None:
    child = start("test_catalog_broken:child_forks_and_closes", tmp_path / "catalog")
    assert "kept" in finish(child, 200)


def test_forks_in_the_middle_of_transactions_lose_nothing(tmp_path: Path) -> None:
    child = start("test_catalog_broken:child_forks_while_writing", tmp_path / "catalog")
    assert "whole" in finish(child, 200)
