"""Local mode when the disk fails or the process dies at any file-system call of a put or delete."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from local_rig import CALLS, WRITING, Died, Faulty, content, hidden, idle, keys, local, look, remote
from store_rig import make_options, store_of

from cachestore.errors import SpoolError, SpoolFull
from cachestore.files import Files
from cachestore.model import ObjectInfo
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.power import Disk, Recorder

OLD, NEW = b"the old version", b"the new one"
KEY = "a/b.txt"
Before = Callable[[Path, MemoryRemote], bytes | None]


def _nothing(root: Path, bucket: MemoryRemote) -> None:
    """Only the bucket was used once. Its empty catalog is made once for all tests."""
    bucket.remote_id = "f" * 16
    empty = root.parent.parent / "empty"
    if not empty.exists():
        with idle(empty, bucket) as store:
            store.core.catalog.totals()
    shutil.copytree(empty, root)


def _missing(root: Path, bucket: MemoryRemote) -> None:
    _nothing(root, bucket)


def _file(root: Path, bucket: MemoryRemote) -> bytes:
    _nothing(root, bucket)
    with local(root) as store:
        store.put(KEY, OLD, content_type="text/old")
    return OLD


def _hidden(root: Path, bucket: MemoryRemote) -> bytes:
    """A folder is where the key's file would be."""
    _nothing(root, bucket)
    with local(root) as store:
        store.put(f"{KEY}/c", b"in the way")
        store.put(KEY, OLD, content_type="text/old")
    return OLD


def _edited(root: Path, bucket: MemoryRemote) -> bytes:
    _file(root, bucket)
    (root / "output" / KEY).write_bytes(b"by somebody else")
    return b"by somebody else"


def _deleted(root: Path, bucket: MemoryRemote) -> None:
    _file(root, bucket)
    with local(root) as store:
        store.delete(KEY)


def _ticket(root: Path, bucket: MemoryRemote) -> bytes:
    _nothing(root, bucket)
    with idle(root, bucket) as store:
        store.put(KEY, OLD, content_type="text/old")
        store.close(drain=0.0)
    return OLD


def _sent(root: Path, bucket: MemoryRemote) -> bytes:
    _file(root, bucket)
    with remote(root, bucket) as store:
        assert store.flush(30).done
    return OLD


def _legacy(root: Path, bucket: MemoryRemote) -> bytes:
    _nothing(root, bucket)
    (root / "output" / "a").mkdir(parents=True)
    (root / "output" / KEY).write_bytes(OLD)
    return OLD


# A full disk and a death before a call that only reads are nothing new.
ONLY = {errno.ENOSPC: WRITING, None: (*WRITING, "fsync_dir", "unlink")}
SWITCHES = ("rename", "fsync_dir", "unlink")
BEFORE = [_missing, _file, _hidden, _edited, _deleted, _ticket, _sent, _legacy]


def _put(store: CacheStore) -> None:
    store.put(KEY, NEW, content_type="text/new")


def _delete(store: CacheStore) -> None:
    store.delete(KEY)


def attempt(root: Path, nth: int, code: int | None, work: Callable[[CacheStore], None]) -> str:
    """Run an operation whose nth call fails: "done", "failed" or "died"; "" if there is none."""
    files = Faulty()
    with local(root, files) as store:
        files.arm(nth, code, ONLY.get(code, CALLS))
        try:
            work(store)
            end = "done"
        except SpoolFull:
            end = "failed" if code == errno.ENOSPC else "failed in other words"
        except SpoolError:
            end = "failed" if code != errno.ENOSPC else "failed in other words"
        except Died:
            end = "died"
        if not files.disarm():
            return ""
        if end != "died":
            check(store, end, work)
    return f"{end} at {files.calls[nth - 1]}"


_wanted: dict[str, set[bytes | None]] = {}


def check(store: CacheStore, end: str, work: Callable[[CacheStore], None]) -> None:
    """The key is what it was, or what it was made, as the end says; with its own attributes."""
    found = look(store, KEY)
    assert not end.endswith("words")
    assert found in _wanted[end.split()[0]]
    if found in (OLD, NEW):
        kind = store.head(KEY).content_type
        assert kind in ("text/plain", "text/old" if found == OLD else "text/new")


def names(root: Path) -> set[str]:
    """Files in LOCAL_DIR that are not hidden."""
    folder = root / "output"
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    return {name for name in found if not name.startswith(".cachestore")}


@pytest.mark.parametrize("code", [errno.EIO, None], ids=["fails", "dies"])
@pytest.mark.parametrize("work", [_put, _delete])
@pytest.mark.parametrize("before", BEFORE)
def test_every_call(
    tmp_path: Path, before: Before, work: Callable[[CacheStore], None], code: int | None
) -> None:
    """Then the same in a new process; then what the bucket gets is what was served."""
    new = NEW if work is _put else None
    for nth in range(1, 200):
        root, bucket = tmp_path / str(nth), MemoryRemote()
        old = before(root, bucket)
        _wanted.update(done={new}, failed={old}, died={old, new})
        end = attempt(root, nth, code, work)
        if not end:
            break
        with local(root) as store:
            check(store, end, work)
            found = look(store, KEY)
        expected = {k: v for k, v in ((KEY, found), (f"{KEY}/c", b"in the way")) if v is not None}
        if before is not _hidden:
            expected.pop(f"{KEY}/c", None)
        assert names(root) <= {KEY, f"{KEY}/c"}
        if not (end.endswith(SWITCHES) or nth % 10 == 0):
            continue  # between these calls nothing changes that another process sees
        with remote(root, bucket) as store:
            if before is _legacy and found == OLD:
                assert store.get(KEY).read_bytes() == OLD
            assert look(store, KEY) == found
            assert store.flush(30).done
            assert content(bucket) == expected
            assert look(store, KEY) == found
    assert nth > 5


@pytest.mark.parametrize("work", [_put, _delete])
def test_a_full_disk_is_said(tmp_path: Path, work: Callable[[CacheStore], None]) -> None:
    _wanted.update(done={NEW if work is _put else None}, failed={OLD})
    ends = []
    for nth in range(1, 60):
        root = tmp_path / str(nth)
        _file(root, MemoryRemote())
        ends.append(attempt(root, nth, errno.ENOSPC, work))
        if not ends[-1]:
            break
    assert any(end.startswith("failed") for end in ends)


def test_a_disk_that_stays_broken_keeps_one_whole_version(tmp_path: Path) -> None:
    """Nothing can be taken back then; what is served afterwards is one of the two."""

    class Broken(Faulty):
        def hit(self, name: str) -> None:
            super().hit(name)
            if self._armed and len(self.calls) > self._nth and name not in ("open_read", "stat"):
                raise OSError(errno.EIO, "broken for good")

    for nth in range(1, 40):
        root, files = tmp_path / str(nth), Broken()
        _file(root, MemoryRemote())
        with local(root, files) as store:
            files.arm(nth, errno.EIO)
            try:
                _put(store)
                wanted = {NEW}
            except SpoolError:
                wanted = {OLD, NEW}
            files.disarm()
        with local(root) as store:
            assert look(store, KEY) in wanted, files.calls


def test_after_a_failure_the_next_put_works_and_leaves_nothing_hidden(tmp_path: Path) -> None:
    for nth in range(1, 34):
        root, files = tmp_path / str(nth), Faulty()
        _file(root, MemoryRemote())
        with local(root, files) as store:
            files.arm(nth, errno.EIO)
            try:
                _put(store)
            except SpoolError:
                strays = hidden(root)
                assert len(strays) <= 1, (files.calls, strays)
            files.disarm()
            store.put(KEY, b"the next")
            assert look(store, KEY) == b"the next"
            assert keys(store) == [KEY]
            store.delete(KEY)
            assert look(store, KEY) is None


def test_a_put_of_a_dead_process_is_found_where_it_was_staged(tmp_path: Path) -> None:
    """The record is durable, the move to the key's own name did not happen."""
    files = Faulty()
    with local(tmp_path, files) as store:
        store.put(KEY, OLD)
        files.arm(10_000, None)
        rename = files.calls
        files.arm(_position(tmp_path, "rename", 2), None)
        with pytest.raises(Died):
            _put(store)
        files.disarm()
        assert rename == []
    with local(tmp_path) as store:
        assert (tmp_path / "output" / KEY).read_bytes() == OLD
        assert look(store, KEY) == NEW
        assert store.core.folder.tidy() == 0
        assert look(store, KEY) == NEW
        store.put(KEY, b"the next")
        assert (tmp_path / "output" / KEY).read_bytes() == b"the next"


@pytest.mark.parametrize("recognized", [False, True], ids=["sent", "sent again past the folder"])
@pytest.mark.parametrize("deleting", ["local", "remote"])
def test_a_delete_after_a_put_that_died_brings_no_older_version_back(
    tmp_path: Path, deleting: str, recognized: bool
) -> None:
    """The older version still lies under the key's own name, as somebody's file might."""
    bucket, files = MemoryRemote(), Faulty()
    with local(tmp_path, files) as store:
        store.put(KEY, OLD)
        files.arm(_position(tmp_path, "rename", 2), None)
        with pytest.raises(Died):
            _put(store)
        files.disarm()
    with remote(tmp_path, bucket) as store:
        assert store.flush(30).done
        if recognized:
            _put(store)
            assert store.flush(30).done
        assert look(store, KEY) == NEW
    with local(tmp_path) if deleting == "local" else remote(tmp_path, bucket) as store:
        store.delete(KEY)
        assert look(store, KEY) is None
    with remote(tmp_path, bucket) as store:
        assert store.flush(30).done
        assert content(bucket) == {}
        assert look(store, KEY) is None
        assert names(tmp_path) == set()
    with local(tmp_path) as store:
        assert look(store, KEY) is None


def _position(root: Path, name: str, which: int) -> int:
    """At which call of an overwriting put `name` comes for the `which`th time."""
    files = Faulty()
    with local(root / "probe", files) as store:
        store.put(KEY, OLD)
        files.arm(10_000, errno.EIO)
        _put(store)
        places = [at for at, call in enumerate(files.calls, 1) if call == name]
        files.disarm()
    return places[which - 1]


def test_what_a_put_promised_is_durable_at_every_moment(tmp_path: Path) -> None:
    """At each call: the record on disk names bytes that are synced under a synced name."""
    files = Recorder(tmp_path / "output")
    options = make_options(tmp_path)
    with store_of(options, files=files) as store:
        store.put(KEY, OLD)
        acknowledged = len(files.notes)
        store.put(KEY, NEW)
    for moment in range(acknowledged, len(files.notes) + 1):
        for seed in range(8):
            target = tmp_path / f"{moment} {seed}"
            found = durable(files, moment, target, seed)
            assert found <= ({NEW} if moment == len(files.notes) else {OLD, NEW})


def durable(files: Recorder, moment: int, target: Path, seed: int) -> set[bytes]:
    """What the record gives after a power cut that takes all or some of what was not synced."""
    style = "mixed" if seed else "least"
    Disk(files.notes[:moment]).leave(target, random.Random(seed), style)
    (path,) = (target / ".cachestore" / "records").glob("*/*.json")
    (record,) = json.loads(path.read_bytes())["local"]["records"].values()
    there = [target / record[name] for name in ("file", "staged")]
    found = {path.read_bytes() for path in there if path.exists()}
    digests = {data for data in found if _digest(data) == record["sha256"]}
    assert digests, (moment, record, found)
    return digests


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_void_ticket_that_cannot_be_removed_stays_void(tmp_path: Path) -> None:
    """Its record is sent first; the ticket must not come to light then."""
    bucket = MemoryRemote()
    with idle(tmp_path, bucket) as store:
        store.put(KEY, OLD)
        store.close(drain=0.0)

    class Stuck(Files):
        def unlink(self, path: str | Path) -> bool:
            if str(path).endswith(".ticket"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().unlink(path)

    with local(tmp_path, Stuck()) as store:
        _put(store)
        assert look(store, KEY) == NEW
    assert list((tmp_path / "spool").glob("*/*.ticket"))
    with remote(tmp_path, bucket) as store:
        assert look(store, KEY) == NEW
        assert store.flush(30).done
        assert content(bucket) == {KEY: NEW}
        assert look(store, KEY) == NEW
        assert store.pending() == []
        (item,) = store.list()
        assert isinstance(item, ObjectInfo)
    assert not list((tmp_path / "spool").glob("*/*.ticket"))
