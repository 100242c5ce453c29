"""Records of LOCAL_DIR: damage, several remotes on one folder, locks, strays, the last remote."""

from __future__ import annotations

import errno
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from local_rig import Faulty, content, hidden, idle, keys, local, look, remote
from store_rig import make_options, store_of

from cachestore.clock import SystemClock
from cachestore.errors import NotFound, SpoolBusy, SpoolError
from cachestore.files import Files
from cachestore.local.folder import STRAY_AGE, LocalFolder
from cachestore.local.last_remote import last_remote, remember_remote
from cachestore.local.records import Record, Records, _check, key_digest
from cachestore.local.spool import new_id
from cachestore.model import Attributes
from cachestore.remote.memory import MemoryRemote
from cachestore.testing.clock import FakeClock

KEY = "a/b.txt"
ONE, TWO = "1" * 16, "2" * 16


def folder_of(root: Path, remote_id: str, files: Files | None = None) -> LocalFolder:
    return LocalFolder(root, remote_id, files or Files(), SystemClock(), 5.0)


def put(folder: LocalFolder, data: bytes, key: str = KEY) -> Record:
    staged = folder.stage(key, data, Attributes("text/x"))
    folder.publish(staged, replaces=None)
    record = folder.record(key)
    assert record is not None
    return record


def read(folder: LocalFolder, key: str = KEY) -> bytes | None:
    there = folder.locate(key)
    return None if there is None else there.path.read_bytes()


def record_path(root: Path, key: str = KEY) -> Path:
    digest = key_digest(key)
    return root / ".cachestore" / "records" / digest[:2] / f"{digest}.json"


# -- damage -------------------------------------------------------------------------------------


def damaged(path: Path, damage: str) -> bytes:
    data = path.read_bytes()
    plain = json.loads(data)
    plain["local"]["records"][""]["file"] = "../../secret"
    plain["check"] = _check(plain["local"])
    return {
        "empty": b"",
        "torn": data[: len(data) // 2],
        "junk": b"\0\xff",
        "flipped": data.replace(b'"size": 3', b'"size": 4'),
        "deep": b"[" * 100_000,
        "a list": b"[]",
        "planted": json.dumps(plain).encode(),
    }[damage]


@pytest.mark.parametrize("work", ["put", "delete"])
@pytest.mark.parametrize(
    "damage", ["empty", "torn", "junk", "flipped", "deep", "a list", "planted"]
)
def test_a_damaged_record_is_an_error_and_the_next_change_mends_it(
    tmp_path: Path, damage: str, work: str
) -> None:
    path = record_path(tmp_path / "output")
    with local(tmp_path) as store:
        store.put(KEY, b"one")
        bad = damaged(path, damage)
        path.write_bytes(bad)
        for ask in (store.get, store.read, store.head, store.exists):
            with pytest.raises(SpoolError, match="cannot be read"):
                ask(KEY)
        if work == "put":
            store.put(KEY, b"two")
        else:
            store.delete(KEY)
        assert look(store, KEY) == (b"two" if work == "put" else None)
    (kept,) = path.parent.glob("*.bad")
    assert kept.read_bytes() == bad


def test_a_failed_put_on_a_damaged_record_leaves_the_error(tmp_path: Path) -> None:
    """The older file must not come to light as a legacy one."""
    path = record_path(tmp_path / "output")
    files = Faulty()
    with local(tmp_path, files) as store:
        store.put(KEY, b"one")
        path.write_bytes(b"torn")
        files.arm(1, errno.ENOSPC, ("rename",))
        with pytest.raises(SpoolError):
            store.put(KEY, b"two")
        assert files.disarm()
        with pytest.raises(SpoolError, match="cannot be read"):
            store.get(KEY)


def test_a_record_that_cannot_be_read_now_is_not_replaced(tmp_path: Path) -> None:
    """It may be another remote's only trace."""
    files = Faulty()
    one, two = folder_of(tmp_path, ONE), folder_of(tmp_path, TWO, files)
    put(one, b"of one")
    staged = two.stage(KEY, b"of two", Attributes("text/x"))
    files.arm(1, errno.EMFILE, ("open_read",))
    with pytest.raises(SpoolError):
        two.publish(staged, replaces=None)
    assert files.disarm()
    two.drop(staged)
    assert read(one) == b"of one"
    assert read(two) is None
    assert [path.name for path in record_path(tmp_path).parent.iterdir()] == [
        record_path(tmp_path).name
    ]


def test_a_record_of_a_newer_version_is_left_untouched(tmp_path: Path) -> None:
    path = record_path(tmp_path / "output")
    with local(tmp_path) as store:
        store.put(KEY, b"one")
        data = path.read_bytes().replace(b'"format": 1', b'"format": 2')
        path.write_bytes(data)
        with pytest.raises(SpoolError, match="format 2"):
            store.get(KEY)
        with pytest.raises(SpoolError, match="format 2"):
            store.put(KEY, b"two")
        with pytest.raises(SpoolError, match="format 2"):
            store.delete(KEY)
    assert path.read_bytes() == data
    assert hidden(tmp_path) == []


def test_a_record_of_another_key_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ONE)
    put(folder, b"one")
    other = record_path(tmp_path, "other")
    other.parent.mkdir(exist_ok=True)
    os.rename(record_path(tmp_path), other)
    with pytest.raises(SpoolError, match="another key"):
        folder.record("other")


# -- several remotes on one folder ----------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> tuple[LocalFolder, LocalFolder]:
    return folder_of(tmp_path, ONE), folder_of(tmp_path, TWO)


def test_an_unsent_file_of_another_remote_is_left_alone(
    pair: tuple[LocalFolder, LocalFolder],
) -> None:
    one, two = pair
    put(one, b"of one")
    assert read(two) is None
    assert list(two.unsent()) == []
    two.publish_delete(KEY, new_id(), replaces=None)
    two.remove_copy(KEY)
    two.supersede(KEY, "e")
    assert read(one) == b"of one"
    put(two, b"of two")
    assert (read(one), read(two)) == (b"of one", b"of two")
    two.publish_delete(KEY, new_id(), replaces=None)
    assert (read(one), read(two)) == (b"of one", None)
    assert [record.id for record in one.unsent()] == [one.record(KEY).id]  # type: ignore[union-attr]


def test_nor_when_somebody_edited_it(pair: tuple[LocalFolder, LocalFolder]) -> None:
    one, two = pair
    put(one, b"of one")
    (one.root / KEY).write_bytes(b"of one, edited")
    assert read(two) is None
    put(two, b"of two")
    two.publish_delete(KEY, new_id(), replaces=None)
    two.remove_copy(KEY)
    assert read(one) == b"of one, edited"


def test_a_sent_file_may_be_replaced_and_is_no_longer_the_others(
    pair: tuple[LocalFolder, LocalFolder],
) -> None:
    one, two = pair
    record = put(one, b"of one")
    assert one.mark(KEY, record.id, "sent", "e1")
    assert read(two) is None
    put(two, b"of two")
    assert (two.root / KEY).read_bytes() == b"of two"
    assert (read(one), read(two)) == (None, b"of two")


def test_two_stores_with_locks_of_their_own_lose_no_record(tmp_path: Path) -> None:
    """Their spools differ, so only the records' own lock is between them."""
    folders = [folder_of(tmp_path, f"{n:016x}") for n in range(4)]
    start = threading.Barrier(len(folders))

    def work(number: int) -> None:
        start.wait()
        for turn in range(15):
            put(folders[number], f"{number} {turn}".encode())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(folders))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [read(folder) for folder in folders] == [f"{n} 14".encode() for n in range(4)]


def test_a_held_lock_is_named(tmp_path: Path) -> None:
    records = Records(tmp_path, Files(), 0.02)
    with records.lock("ab"), pytest.raises(SpoolBusy, match=str(os.getpid())), records.lock("ab"):
        pass


def test_stores_on_two_buckets_and_one_folder(tmp_path: Path) -> None:
    first, second = MemoryRemote(), MemoryRemote()
    with idle(tmp_path, first):
        pass
    with local(tmp_path) as store:
        store.put(KEY, b"of the first")
        store.put("deleted", b"x")
        store.delete("deleted")
    with remote(tmp_path, second) as store:
        with pytest.raises(NotFound):
            store.get(KEY)
        assert keys(store) == []
        store.put(KEY, b"of the second")
        assert store.flush(30).done
        store.delete(KEY)
        assert store.flush(30).done
    assert content(second) == {}
    with local(tmp_path) as store:  # belongs to the second now
        assert look(store, KEY) is None
    with remote(tmp_path, first) as store:
        assert look(store, KEY) == b"of the first"
        assert store.flush(30).done
    assert content(first) == {KEY: b"of the first"}


def test_the_first_remote_takes_what_no_remote_had(tmp_path: Path) -> None:
    none = folder_of(tmp_path, "")
    record = put(none, b"before any remote")
    one, two = folder_of(tmp_path, ONE), folder_of(tmp_path, TWO)
    assert read(one) == b"before any remote"
    assert [each.id for each in one.unsent()] == [record.id]
    assert one.mark(KEY, record.id, "sent", "e")
    assert (read(none), read(two)) == (None, None)
    taken = one.record(KEY)
    assert taken == replace(record, remote_id=ONE, state="sent", etag="e")
    assert list(two.unsent()) == []


def test_marks_are_for_the_operation_that_was_sent(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ONE)
    old = put(folder, b"old")
    new = put(folder, b"new")
    assert not folder.mark(KEY, old.id, "sent", "e")
    assert [record.id for record in folder.unsent()] == [new.id]


def test_unsent_records_are_seen_anew_after_each_change(tmp_path: Path) -> None:
    """A listing that was read is used again only while the folder's time proves it."""
    folder, other = folder_of(tmp_path, ONE), folder_of(tmp_path, ONE)
    for number in range(5):
        record = put(folder, b"x%d" % number)
        shard = record_path(tmp_path).parent
        os.utime(shard, ns=(10**18 + number, 10**18 + number))  # settled long ago
        assert [each.id for each in other.unsent()] == [record.id]
        assert [each.id for each in other.unsent()] == [record.id]


# -- strays -------------------------------------------------------------------------------------


@pytest.fixture
def old() -> FakeClock:
    """A clock a day and more ahead of the files."""
    return FakeClock(SystemClock().now() + STRAY_AGE + 60)


def test_strays_are_removed_and_nothing_else(tmp_path: Path, old: FakeClock) -> None:
    with store_of(make_options(tmp_path), clock=old) as store:
        folder = store.core.folder
        store.put("a", b"plain")
        store.put("a/b", b"hidden")
        root = tmp_path / "output" / ".cachestore"
        digest = key_digest("a/b")
        strays = [
            root / "staged" / f"{digest}.{'0' * 32}.txt", root / "objects" / f"{digest}.{'0' * 32}",
            record_path(tmp_path / "output").with_name(f"{key_digest(KEY)}.json.{'0' * 16}.tmp"),
        ]  # fmt: skip
        kept = [root / "staged" / "somebody's", root / "objects" / f"{digest}.x", root / "staged/d"]
        for path in strays + kept:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"stray")
        staged = folder.stage("c", b"on its way", Attributes("text/x"))
        assert keys(store) == ["a", "a/b"]
        assert store.clean()["files"] == len(strays)
        assert not any(path.exists() for path in strays)
        assert all(path.exists() for path in [*kept, staged.path])
        assert (look(store, "a"), look(store, "a/b")) == (b"plain", b"hidden")
        folder.drop(staged)
        assert folder.tidy() == 0


def test_young_strays_and_those_of_damaged_records_stay(tmp_path: Path, old: FakeClock) -> None:
    digest = key_digest(KEY)
    folder = folder_of(tmp_path, ONE)
    put(folder, b"x")
    stray = tmp_path / ".cachestore" / "staged" / f"{digest}.{'0' * 32}"
    stray.write_bytes(b"perhaps the newest")
    assert folder.tidy() == 0
    late = LocalFolder(tmp_path, ONE, Files(), old, 5.0)
    good = record_path(tmp_path).read_bytes()
    record_path(tmp_path).write_bytes(b"torn")
    assert late.tidy() == 0
    record_path(tmp_path).write_bytes(good)
    assert late.tidy() == 1
    assert not stray.exists()


# -- the last remote ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"name": 1}', b"\xff"])
def test_the_last_remote_is_remembered_over_anything(tmp_path: Path, text: bytes) -> None:
    files = Files()
    assert last_remote(files, tmp_path) == ""
    (tmp_path / "last_remote.json").write_bytes(text)
    assert last_remote(files, tmp_path) == ""
    remember_remote(files, tmp_path, ONE, "s3://one")
    assert last_remote(files, tmp_path) == ONE
    remember_remote(files, tmp_path, TWO, "s3://two")
    assert last_remote(files, tmp_path) == TWO
    assert os.listdir(tmp_path) == ["last_remote.json"]


def test_the_last_remote_is_synced_before_it_is_named(tmp_path: Path) -> None:
    files = Faulty()
    files.arm(99, errno.EIO)
    remember_remote(files, tmp_path, ONE, "s3://one")
    calls = [name for name in files.calls if name in ("write", "fsync", "rename", "fsync_dir")]
    assert calls == ["write", "fsync", "rename", "fsync_dir", "fsync"]
