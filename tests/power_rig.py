"""A tape of everything that a store did, and the power cuts that may end it at every moment.

Beside the file-system calls the tape has the catalog's commits (SQLite's own files do not go
through `Files`), what the bucket holds, and what the caller was promised.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from store_rig import make_options, store_of

from cachestore.errors import NotFound
from cachestore.files import Files
from cachestore.keys import place_of
from cachestore.local import records
from cachestore.local.catalog import Catalog
from cachestore.local.records import BadRecord
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.power import Disk, Note, Recorder

REMOTE = "f" * 16
THEN = 1_700_000_000_000_000_000
"""The modification time of every file after a cut: as if sizes and times survived, at worst."""

Value = bytes | None
Objects = dict[str, Any]


class Died(BaseException):
    """The process ended here: none of its clean-up happens."""


class Quick(Files):
    """No power is cut while a state is looked at."""

    def fsync(self, fd: int) -> None:
        pass


class Tape(Recorder):
    """The recorder, with other notes between the calls; `dies_at` ends the process there."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.dies_at: int | None = None
        self._held: set[int] = set()

    def say(self, *note: Any) -> None:
        with self._lock:
            self.notes.append(note)

    def alive(self) -> None:
        if self.dies_at is not None and len(self.notes) >= self.dies_at:
            raise Died

    def fsync(self, fd: int) -> None:
        self.alive()
        with self._lock:  # the real one takes time and adds nothing here
            self._note("fsync", self._identity(fd))

    def create(self, path: str | Path, mode: int = 0o600) -> int:
        self.alive()
        fd = super().create(path, mode)
        self._held.add(fd)
        return fd

    def close(self, fd: int) -> None:
        self.alive()
        self._held.discard(fd)
        super().close(fd)

    def revive(self) -> bool:
        """A new process: what the dead one held open is closed. True if there was one."""
        died = self.dies_at is not None and len(self.notes) >= self.dies_at
        self.dies_at = None
        for fd in self._held:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._held.clear()
        return died


def _mortal(name: str) -> Callable[..., Any]:
    def call(self: Tape, *args: Any, **fields: Any) -> Any:
        self.alive()
        return getattr(Recorder, name)(self, *args, **fields)

    return call


for _name in ("open_shared", "write", "pwrite", "truncate", "rename", "link", "unlink", "mkdir"):
    setattr(Tape, _name, _mortal(_name))


class TapedRemote(MemoryRemote):
    """A bucket in memory whose every change is a note."""

    def __init__(self, tape: Tape | None, objects: Objects | None = None) -> None:
        super().__init__()
        self.remote_id = REMOTE
        self._tape = tape
        self._objects.update(objects or {})
        self._told()

    def _told(self) -> None:
        if self._tape is not None:
            self._tape.say("remote", dict(self._objects))

    def put(self, key: str, body: Any, **fields: Any) -> Any:
        found = super().put(key, body, **fields)
        self._told()
        return found

    def delete(self, key: str) -> None:
        super().delete(key)
        self._told()

    def content(self) -> dict[str, bytes]:
        return {key: data for key, (_, data) in self._objects.items()}


def watch(tape: Tape, catalog: Catalog, folder: Path) -> None:
    """Note each commit: the database's files, and whether the commit was synced."""
    change = catalog.change

    def watched(work: Any, otherwise: Any, *, full: bool = False) -> Any:
        with tape._lock:
            before = snapshot(folder)
            result = change(work, otherwise, full=full)
            after = snapshot(folder)
            if after != before:
                tape.say("commit", after, full)
        return result

    catalog.change = watched  # type: ignore[method-assign]  # an instance's own


def snapshot(folder: Path) -> dict[str, bytes]:
    """Pointer, databases and logs."""
    if not folder.is_dir():
        return {}
    names = [name for name in os.listdir(folder) if name.endswith((".db", "-wal", "current"))]
    return {name: (folder / name).read_bytes() for name in names}


class Session:
    """One store on the tape; offline it never uploads by itself."""

    def __init__(self, root: Path, tape: Tape, remote: TapedRemote | None, **fields: Any) -> None:
        mode = "local" if remote is None else "remote"
        values = {"mode": mode, "workers": 1, "leader_interval": 0.01, "local_dir": root / "o"}
        self.tape = tape
        self.store = store_of(make_options(root, **(values | fields)), files=tape, remote=remote)
        self.folder = root / "cache" / REMOTE / "catalog"
        watch(tape, self.store.core.catalog, self.folder)
        self.store.core.uploader.wake = lambda ticket: None  # type: ignore[method-assign]  # silent

    def put(self, key: str, data: bytes) -> None:
        self.tape.say("begin", key, data)
        self.store.put(key, data)
        self.tape.say("end", key, data)

    def delete(self, key: str) -> None:
        self.tape.say("begin", key, None)
        self.store.delete(key)
        self.tape.say("end", key, None)

    def delete_prefix(self, prefix: str, keys: list[str]) -> None:
        for key in keys:
            self.tape.say("begin", key, None)
        assert self.store.delete_prefix(prefix, everything=True) == len(keys)
        for key in keys:
            self.tape.say("end", key, None)

    def get(self, key: str, wanted: bytes) -> None:
        assert self.store.get(key).read_bytes() == wanted


@contextlib.contextmanager
def session(root: Path, tape: Tape, remote: TapedRemote | None, **fields: Any) -> Iterator[Session]:
    """A run of the app that only puts, deletes and gets."""
    run = Session(root, tape, remote, **fields)
    try:
        yield run
    finally:
        died = tape.revive()
        run.store.core.uploader.stop(5.0)
        run.store.close(drain=0.0)
        # The last one to close the database syncs it. A dead process does not.
        tape.say("commit", snapshot(run.folder), not died)


def upload(root: Path, tape: Tape, remote: TapedRemote, **fields: Any) -> None:
    """A run that only uploads what is pending."""
    with session(root, tape, remote, **fields) as run:
        report = run.store.flush(60)
        assert report.done, report


class Cut(Disk):
    """What a prefix of the tape may leave, with the bucket and the promises of that moment."""

    def __init__(self, notes: list[Note]) -> None:
        self.objects: Objects = {}
        self.commits: list[dict[str, bytes]] = [{}]
        self.allowed: dict[str, set[Value]] = {}
        super().__init__(notes)

    def _remote(self, objects: Objects) -> None:
        self.objects = objects
        for key, (_, data) in objects.items():
            self.allowed.setdefault(key, {data})

    def _commit(self, files: dict[str, bytes], synced: bool) -> None:
        if synced:
            self.commits.clear()
        self.commits.append(files)

    def _begin(self, key: str, value: Value) -> None:
        self.allowed.setdefault(key, {None}).add(value)

    def _end(self, key: str, value: Value) -> None:
        self.allowed[key] = {value}

    def build(self, target: Path, rng: random.Random, style: str, catalog: str) -> str:
        """Write one state; its name, the same for states that are the same.

        `catalog`: "oldest" that may be left, "newest", "any" or "gone".
        """
        self.leave(target, rng, style)
        for board in (target / "spool").glob("board.*"):
            board.unlink()  # the next run of the machine has a new one
        for path in target.rglob("*"):
            os.utime(path, ns=(THEN, THEN))
        digest = hashlib.sha256(repr((sorted(self.objects), self.allowed)).encode())
        for path in sorted(p for p in target.rglob("*") if p.is_file()):
            digest.update(f"{path.relative_to(target)}\0".encode() + path.read_bytes() + b"\0")
        folder = target / "cache" / REMOTE / "catalog"
        shutil.rmtree(folder, ignore_errors=True)
        choices = {"oldest": self.commits[:1], "newest": self.commits[-1:], "gone": [{}]}
        files = rng.choice(choices.get(catalog, self.commits))
        if files:
            folder.mkdir(parents=True)
            for name, data in files.items():
                (folder / name).write_bytes(data)
                digest.update(name.encode() + data)
            _of_another_run(folder, target / "cache" / REMOTE)
        for path in (target / "o").glob(".cachestore/records/*/*.json"):
            _of_these_files(path, target / "o")
        return digest.hexdigest()


def _of_another_run(folder: Path, root: Path) -> None:
    """Rows as they look after the machine came up again: inode and time fit where the size does."""
    if not (folder / "current").exists():
        return  # it was about to be made
    database = sqlite3.connect(folder / (folder / "current").read_text().strip())
    with contextlib.closing(database), database:
        database.execute("UPDATE entries SET boot = 'the run before'")
        for file, size in database.execute("SELECT file, size FROM entries").fetchall():
            path = root / file
            if path.exists() and path.stat().st_size == size:
                database.execute(
                    "UPDATE entries SET inode = ?, mtime_ns = ? WHERE file = ?",
                    (path.stat().st_ino, THEN, file),
                )


def _of_these_files(path: Path, root: Path) -> None:
    """The same for a record of LOCAL_DIR."""
    with contextlib.suppress(BadRecord):
        found = records._decode(path, path.read_bytes())
        for name, record in found.items():
            for file in (root / record.file, root / record.staged):
                if file.is_file() and file.stat().st_size == record.size:
                    found[name] = replace(record, inode=file.stat().st_ino, mtime_ns=THEN)
        path.write_bytes(records._encode(found))
        os.utime(path, ns=(THEN, THEN))


@contextlib.contextmanager
def next_boot() -> Iterator[None]:
    """The machine came up again (rows and the board are dealt with where states are built)."""
    with mock.patch("cachestore.local.cache.boot_id", return_value="next"):
        yield


def short(value: Value) -> str:
    """For messages: which of a test's contents this is."""
    return "none" if value is None else f"{len(value)} bytes {hashlib.md5(value).hexdigest()[:6]}"


def look(store: CacheStore, key: str) -> Value:
    """What every way of reading says of a key."""
    try:
        data = store.get(key).read_bytes()
    except NotFound:
        assert not store.exists(key), key
        return None
    assert store.read(key) == data
    assert store.head(key).size == len(data)
    return data


def examine(root: Path, cut: Cut) -> None:
    """Reopen a store on a state: nothing promised is lost, nothing wrong is served or sent."""
    remote = TapedRemote(None, cut.objects)
    options = make_options(
        root, mode="remote", workers=1, leader_interval=0.01, local_dir=root / "o"
    )
    with next_boot(), store_of(options, files=Quick(), remote=remote) as store:
        wake = store.core.uploader.wake
        store.core.uploader.wake = lambda ticket: None  # type: ignore[method-assign]  # silent
        listed = {item.key for item in store.list()}
        served = {key: look(store, key) for key in cut.allowed}
        for key, value in served.items():
            wanted = [short(each) for each in cut.allowed[key]]
            assert value in cut.allowed[key], f"{key}: {short(value)}, not of {wanted}"
        assert listed == {key for key, value in served.items() if value is not None}
        store.core.uploader.wake = wake  # type: ignore[method-assign]  # as it was
        report = store.flush(60)
        assert report.done, report
        there = remote.content()
        for key, value in served.items():
            assert short(there.get(key)) == short(value), f"{key} in the bucket"
            assert short(look(store, key)) == short(value), f"{key} after its upload"
        assert not store.pending()


def neighbours(count: int) -> list[str]:
    """Keys whose files lie in one shard folder."""
    shard = place_of(REMOTE, "0.wav").shard
    found: list[str] = []
    number = 0
    while len(found) < count:
        if place_of(REMOTE, f"{number}.wav").shard == shard:
            found.append(f"{number}.wav")
        number += 1
    return found


Scenario = Callable[[Path, Tape], None]
