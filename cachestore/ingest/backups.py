"""`backup`: a file under a timestamped key, with so many older ones kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cachestore.clock import Deadline
from cachestore.core import Core
from cachestore.errors import CacheStoreError, ConfigError, NotFound, RemoteError, SourceError
from cachestore.events import log
from cachestore.files import COPY_CHUNK, read_file
from cachestore.ingest.databases import copy_database, is_database
from cachestore.ingest.plan import prefix_of
from cachestore.keys import check_key
from cachestore.model import ObjectInfo
from cachestore.policy.templates import split_suffix
from cachestore.receipts import Receipt
from cachestore.store import CacheStore

Every = Literal["daily", "weekly"]
PERIODS: Mapping[str, float] = {"daily": 86400.0, "weekly": 7 * 86400.0}

FOLDER = "backups"
_TIME = "%Y%m%d_%H%M%S"
_LEEWAY = 0.1
"""A backup is due a tenth of its period early: a job does not start at the same second each day."""

_SETTLED = 1.0
_TRIES = 5


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup did. `key`: of the newest backup, "" if there is none.

    `state`: `stored`; `unchanged` (the newest one has the same bytes); `recent` (it is younger than
    `every`, and the file was not looked at). `pending`: the bucket does not have it yet.
    `pruned`: older ones that were deleted. `problem`: why older ones were left alone, else "".
    """

    key: str
    state: Literal["stored", "unchanged", "recent"]
    size: int = 0
    sha256: str = ""
    pending: bool = False
    pruned: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Old:
    """An earlier backup. `at`: the wall seconds in its key."""

    key: str
    at: float
    pending: bool
    sha256: str | None


def backup(
    store: CacheStore,
    file: str | os.PathLike[str],
    *,
    prefix: str = "backups/",
    keep: int | None = 8,
    every: Every | None = None,
    wait: float = 0.0,
    patience: float = 60.0,
) -> BackupReport:
    """Store a file as `<prefix><name>_<YYYYmmdd_HHMMSS><suffix>` (UTC), and prune older ones.

    An SQLite database is copied as it is at one moment, also while others write to it, and checked;
    any other file as it is, again if it changes meanwhile. Nothing is stored if the newest backup
    has the same bytes. `keep`: so many stay (None: all); only keys of this very form are ever
    deleted, and those that the bucket does not have yet do not count. `every`: do nothing while
    the newest is younger than a day or a week (a tenth less, so that a daily job is not skipped).
    `wait`: seconds to wait for the upload, ahead of pruning. `patience`: seconds for which a
    locked or changing file is tried.

    Processes on one SPOOL_DIR take turns. Raises `SourceError` (cannot be read, or a damaged
    database), `ConfigError`, `InvalidKey`, and what `put` raises.
    """
    if keep is not None and keep < 1:
        raise ConfigError(f"keep is {keep}; it must be at least 1")
    if every is not None and every not in PERIODS:
        raise ConfigError(f"every is 'daily' or 'weekly', not {every!r}")
    store.core.check_open()
    store.core.warn_if_in_loop("backup")
    job = _Backup(store, Path(file), prefix_of(prefix))
    with job.turn(patience):
        return job.run(keep, every, wait, patience)


class _Backup:
    """Backups of one file under one prefix."""

    def __init__(self, store: CacheStore, file: Path, prefix: str) -> None:
        self._store = store
        self._core: Core = store.core
        self._file = file
        stem, suffix = split_suffix(file.name)
        self._start, self._suffix = f"{prefix}{stem}_", suffix
        check_key(self._key(0.0))
        pattern = f"{re.escape(self._start)}([0-9]{{8}}_[0-9]{{6}}){re.escape(suffix)}"
        self._pattern = re.compile(pattern)
        name = f"{self._core.remote_id}\0{self._start}\0{suffix}"
        digest = hashlib.sha256(name.encode()).hexdigest()[:32]
        self._folder = self._core.options.spool_dir / FOLDER
        self._note = self._folder / f"{digest}.json"
        self._copy = self._folder / f"{digest}.copy"

    def _key(self, at: float) -> str:
        return f"{self._start}{datetime.fromtimestamp(at, UTC).strftime(_TIME)}{self._suffix}"

    @contextmanager
    def turn(self, patience: float) -> Iterator[None]:
        """One process at a time; what a killed one left is removed."""
        files = self._core.files
        try:
            files.make_folder(self._folder)
            fd = files.open_shared(self._folder / f"{self._note.stem}.lock")
        except OSError as error:
            raise SourceError(f"cannot write in {self._folder}: {error.strerror}") from error
        try:
            if not files.lock(fd, patience):
                raise SourceError(f"another process backs up {self._file}; try again later")
            self._remove_copy()
            yield
        finally:
            self._remove_copy()
            os.close(fd)

    def _remove_copy(self) -> None:
        for ending in ("", "-journal", "-wal", "-shm"):
            self._core.files.unlink(self._copy.with_name(self._copy.name + ending))

    # -- the steps -------------------------------------------------------------------------------

    def run(
        self, keep: int | None, every: Every | None, wait: float, patience: float
    ) -> BackupReport:
        """Under the lock: look, store, prune."""
        self._look_at_source()
        old, problem = self._earlier()
        newest = old[-1] if old else None
        if newest is not None and every is not None and self._is_recent(newest, PERIODS[every]):
            return BackupReport(newest.key, "recent", pending=newest.pending)
        source, sha256 = self._taken(patience)
        if newest is not None and sha256 == newest.sha256:
            pruned, late = self._prune(old, keep, problem)
            return BackupReport(
                newest.key, "unchanged", source.stat().st_size, sha256, newest.pending, pruned, late
            )
        receipt = self._put(source, newest, sha256)
        state = _waited(receipt, wait)
        log.info("cachestore: backup of %s: %s", self._file, receipt.key)
        new = _Old(receipt.key, 0.0, state in ("pending", "parked"), receipt.sha256)
        pruned, late = self._prune([*old, new], keep, problem)
        return BackupReport(
            receipt.key, "stored", receipt.size, receipt.sha256, new.pending, pruned, late
        )

    def _look_at_source(self) -> None:
        if not self._file.is_file():
            raise SourceError(f"{self._file} is not a file")

    def _is_recent(self, newest: _Old, period: float) -> bool:
        age = self._core.clock.now() - newest.at
        # One from the future was made by a clock that was wrong.
        return -_LEEWAY * period < age < (1 - _LEEWAY) * period

    # -- what is there ---------------------------------------------------------------------------

    def _earlier(self) -> tuple[list[_Old], str]:
        """Earlier backups, oldest first; and why these may not be all."""
        try:
            listed = list(self._store.list(self._start))
        except RemoteError as error:
            return self._remembered(), f"older backups cannot be listed: {error}"
        found = []
        for item in listed:
            at = self._time_of(item.key)
            if at is not None and isinstance(item, ObjectInfo):
                found.append(_Old(item.key, at, item.storage == "pending", item.sha256))
        found.sort(key=lambda old: old.key)
        if found and found[-1].sha256 is None:
            last = found.pop()
            found.append(_Old(last.key, last.at, last.pending, self._digest_of(last.key)))
        return found, ""

    def _time_of(self, key: str) -> float | None:
        match = self._pattern.fullmatch(key)
        if match is None:
            return None
        try:
            return datetime.strptime(match[1], _TIME).replace(tzinfo=UTC).timestamp()
        except ValueError:  # the 99th of a month is somebody else's
            return None

    def _digest_of(self, key: str) -> str | None:
        try:
            return self._store.head(key).sha256
        except (NotFound, RemoteError):
            return None

    def _remembered(self) -> list[_Old]:
        """The last one of this spool, while the bucket cannot be listed."""
        try:
            found = json.loads(read_file(self._core.files, self._note))
            key, sha256 = str(found["key"]), str(found["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return []
        at = self._time_of(key)
        pending = {item.key for item in self._store.pending()}
        return [] if at is None else [_Old(key, at, key in pending, sha256)]

    # -- storing ---------------------------------------------------------------------------------

    def _taken(self, patience: float) -> tuple[Path, str]:
        """What to store, and its SHA-256: a copy of a database, else the file itself."""
        try:
            if not is_database(self._file):
                self._settle(patience)
                return self._file, _sha256(self._file)
            copy_database(self._file, self._copy, patience)
            return self._copy, _sha256(self._copy)
        except OSError as error:
            raise SourceError(f"{self._file} cannot be read: {error.strerror}") from error

    def _settle(self, patience: float) -> None:
        """Wait until nobody has written for a moment: between two writes a file is not whole."""
        clock = self._core.clock
        deadline, never = Deadline(clock, patience), threading.Event()
        while 0 <= (age := clock.now() - self._file.stat().st_mtime) < _SETTLED:
            if deadline.passed():
                raise SourceError(f"{self._file} is written all the time; try again later")
            clock.wait(never, _SETTLED - age)

    def _put(self, source: Path, newest: _Old | None, sha256: str) -> Receipt:
        now = self._core.clock.now()
        if newest is not None and now < newest.at + 1:
            now = newest.at + 1  # a key has whole seconds; and a clock may have been set back
        for tries in range(1, _TRIES + 1):
            try:
                receipt = self._store.put(self._key(now), source)
                break
            except SourceError:  # it changed while it was read
                if tries == _TRIES:
                    raise
                self._core.clock.wait(threading.Event(), 0.2 * tries)
        note = {"key": receipt.key, "sha256": receipt.sha256}
        try:
            self._note.write_text(json.dumps(note), "utf-8")
        except OSError as error:
            self._core.trouble("spool", error)
        return receipt

    # -- pruning ---------------------------------------------------------------------------------

    def _prune(
        self, old: list[_Old], keep: int | None, problem: str
    ) -> tuple[tuple[str, ...], str]:
        """Delete the oldest beyond `keep`, of those that the bucket has; why not, if not."""
        if keep is None or problem:
            return (), problem
        kept = [each.key for each in old if not each.pending]
        gone = kept[:-keep]
        for key in gone:
            try:
                self._store.delete(key)
            except CacheStoreError as error:
                return tuple(gone[: gone.index(key)]), f"{key!r} was not deleted: {error}"
        return tuple(gone), ""


def _waited(receipt: Receipt, wait: float) -> str:
    try:
        return receipt.wait(wait)
    except TimeoutError:
        return "pending"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(COPY_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
