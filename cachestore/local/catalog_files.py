"""Where the catalog's database is: a folder with a pointer, so that a broken one is left behind.

A database that does not work is never repaired or removed under the feet of another process: a
new one with a new name is made, and the pointer moves there.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from cachestore.files import Files, is_plain, locked_folder, read_file, replace_file
from cachestore.local.catalog_schema import SCHEMA, VERSION
from cachestore.local.forks import inherited, watch_forks

T = TypeVar("T")
_BUSY_SECONDS = 5.0
_REST_SECONDS = 2.0
_TURN_SECONDS = 0.02
_FORK_PATIENCE = 2.0
_NAME = re.compile(r"[0-9a-f]{16}\.db")
_OURS = re.compile(r"[0-9a-f]{16}\.db(-wal|-shm|-journal)?|current\.[0-9a-f]{8}\.tmp")


class Unavailable(Exception):
    """No catalog can be had now; it is tried again after a rest."""


class _Unusable(sqlite3.DatabaseError):
    """The database was made by another version, or lost its log."""


class _Held:
    """A thread's connection. `seen`: what pointer, database and log were when it was opened."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self.path = path
        self.seen: tuple[int, ...] | None = None
        self.lock = threading.Lock()
        self.open = True
        self.thread = threading.current_thread()

    def close(self, patience: float = -1) -> bool:
        """Close unless its thread is using it for longer than `patience` seconds."""
        if not self.lock.acquire(timeout=patience):
            return False
        try:
            if self.open:
                self.open = False
                self.connection.close()
        finally:
            self.lock.release()
        return True


class CatalogFiles:
    """Connections of this process, one for each thread, to the database that is current."""

    def __init__(self, folder: Path, files: Files, report: Callable[[str], None]) -> None:
        self._folder = folder
        self._pointer = folder / "current"
        self._files = files
        self._report = report
        self._local = threading.local()
        self._lock = threading.Lock()
        self._all: list[_Held] = []
        self._closed = False
        self._frozen = False
        self._told = False
        self._rest_until = 0.0
        self._avoid: set[Path] = set()
        watch_forks(self)

    # -- using the current one -----------------------------------------------------------------

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` on this thread's connection to the current database.

        Raises `Unavailable` when there is none to be had, and what `work` raises. `work` is done
        again while the database is busy; in between the connection is free, so that a fork can
        close it.
        """
        end = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                held = self._current()
                with held.lock:
                    if held.open:
                        return work(held.connection)
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > end:
                    raise

    def _current(self) -> _Held:
        if self._closed or time.monotonic() < self._rest_until:
            raise Unavailable
        held: _Held | None = getattr(self._local, "held", None)
        if held is not None and held.open:
            now = self._identity(held.path)
            if now == held.seen:
                return held
            self._drop(held)
            if now is not None and held.seen is not None and now[:5] == held.seen[:5]:
                # Rows that were taken out would be back without it.
                self.give_up(_Unusable("its log was removed"), held.path)
        return self._reached()

    def _reached(self) -> _Held:
        """Open the current database; a new one is begun if it is broken or missing."""
        problem: Exception | None = None
        for _ in range(3):
            path = None
            try:
                path = self.path()
                if path in self._avoid:
                    raise _Unusable("a fork came in the middle of a transaction")
                held = self._open(path)
                self._told = False
                return held
            except (sqlite3.Error, OSError) as error:
                if _is_busy(error):
                    raise
                if is_passing(error, path):
                    raise Unavailable from error
                problem = error
            try:
                self._move_on(problem, path)
            except (sqlite3.Error, OSError) as error:
                if is_passing(error, path):
                    raise Unavailable from error
                problem = error
                if isinstance(error, TimeoutError):
                    break
        self._rest(problem)
        raise Unavailable from problem

    def _rest(self, problem: Exception | None) -> None:
        """Do not make every read wait for what does not work now."""
        self._rest_until = time.monotonic() + _REST_SECONDS
        if not self._told:
            self._told = True
            self._report(f"no catalog can be made ({problem}); reads go on without")

    def _identity(self, path: Path) -> tuple[int, ...] | None:
        """Pointer, database and log; the log (0: none) is there while anybody is connected."""
        try:
            pointer, base = os.stat(self._pointer), os.stat(path)
        except OSError:
            return None
        try:
            log = os.stat(f"{path}-wal").st_ino
        except OSError:
            log = 0
        return (
            pointer.st_ino, pointer.st_mtime_ns, pointer.st_dev, base.st_ino, base.st_dev, log,
        )  # fmt: skip

    def _open(self, path: Path | None) -> _Held:
        if path is None:
            raise FileNotFoundError(self._pointer)
        with self._lock:
            if self._closed:
                raise Unavailable
            self._reap()
            held = _Held(_connect(path), path)
            self._all.append(held)
        try:
            with held.lock:
                if not held.open:
                    raise Unavailable
                _check(held.connection)
                held.seen = self._identity(path)
            if held.seen is None or self.path() != path:
                raise FileNotFoundError(f"{path} moved while it was opened")
        except BaseException:
            self._drop(held)
            raise
        self._local.held = held
        return held

    def _reap(self) -> None:
        """Close connections whose thread has ended."""
        for held in [held for held in self._all if not held.thread.is_alive()]:
            held.close()
            self._all.remove(held)

    def _drop(self, held: _Held) -> None:
        held.close()
        with self._lock:
            if held in self._all:
                self._all.remove(held)

    def path(self) -> Path | None:
        """The current database, None if there is no pointer to one."""
        try:
            name = read_file(self._files, self._pointer, 200).decode("ascii").strip()
        except UnicodeDecodeError:
            return None
        except OSError as error:
            if is_passing(error, None):
                raise
            return None
        return self._folder / name if _NAME.fullmatch(name) else None

    def frozen(self, question: Callable[[sqlite3.Connection], bool]) -> bool:
        """Ask the database of a disk that became read-only; False if that is not so."""
        try:
            path = self.path()
            if path is None or os.access(path, os.W_OK):
                return False
            if os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal"):
                return False
            source = f"file:{quote(os.fspath(path))}?mode=ro&immutable=1"
            with closing(sqlite3.connect(source, uri=True)) as connection:
                _check(connection)
                return question(connection)
        except (sqlite3.Error, OSError):
            return False

    def exists(self) -> bool:
        """False when there is certainly no database, as in a new or removed cache."""
        try:
            os.stat(self._pointer)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    def held_path(self) -> Path | None:
        """The database that this thread used last."""
        held: _Held | None = getattr(self._local, "held", None)
        return None if held is None else held.path

    # -- moving on -------------------------------------------------------------------------------

    def give_up(self, error: Exception, failed: Path | None) -> None:
        """The database `failed` does not work: move to a new one, unless that happened already."""
        held: _Held | None = getattr(self._local, "held", None)
        if held is not None:
            self._drop(held)
        try:
            self._move_on(error, failed)
        except (sqlite3.Error, OSError) as worse:
            self._rest(worse)

    def _move_on(self, error: Exception, failed: Path | None) -> None:
        """Make a new database and point to it, unless another process did meanwhile."""
        self._files.make_folder(self._folder)

        def refused() -> OSError:
            return TimeoutError(f"the catalog folder {self._folder} is locked")

        with locked_folder(self._files, self._folder, _BUSY_SECONDS, refused):
            if self.path() != failed:
                return
            name = f"{secrets.token_hex(8)}.db"
            self._make(self._folder / name)
            # Durable: an older database must not be current again after a power cut.
            replace_file(self._files, self._pointer, name.encode(), unique=secrets.token_hex(4))
        if failed is not None:
            self._report(f"the catalog {failed.name} cannot be used ({error}); a new one is begun")

    def _make(self, path: Path) -> None:
        self._files.close(self._files.create(path))  # private, and so is its log
        with self._lock:
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            held = _Held(connection, path)
            self._all.append(held)
            held.lock.acquire()  # a fork waits for the end
        try:
            held.connection.execute("PRAGMA journal_mode = WAL")
            held.connection.executescript(SCHEMA)
        finally:
            held.lock.release()
            self._drop(held)

    def remove_old(self, before: float) -> int:
        """Remove databases that are not current and unchanged since `before` (wall seconds).

        Does nothing while another process is about to make one. Returns how many files went.
        """
        gone = 0

        def refused() -> OSError:
            return TimeoutError("busy")

        try:
            with locked_folder(self._files, self._folder, 0.0, refused):
                current = self.path()
                for name in self._files.list(self._folder):
                    path = self._folder / name
                    if not _OURS.fullmatch(name) or not is_plain(path):
                        continue
                    mine = current is not None and name.startswith(current.name)
                    if not mine and self._files.stat(path).st_mtime < before:
                        gone += self._files.unlink(path)
        except OSError:
            return gone
        return gone

    # -- ends and forks --------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connections of all threads of this process, for good."""
        self._closed = True
        with self._lock:
            connections, self._all = self._all, []
        for held in connections:
            held.close(_BUSY_SECONDS)

    def before_fork(self) -> None:
        """Close all connections, and wait a little for those in use.

        A child that inherits an open database believes that it holds its locks: another process
        could then remove the log under it, and what the child commits would be lost; and a
        transaction that was under way would never end there.
        """
        end = time.monotonic() + _FORK_PATIENCE
        self._frozen = self._lock.acquire(timeout=_FORK_PATIENCE)
        self._all = [held for held in self._all if not held.close(max(0.0, end - time.monotonic()))]

    def after_fork(self, *, child: bool) -> None:
        if child:
            inherited.append((self._all, self._local))
            self._avoid.update(held.path for held in self._all)
            self._all, self._local, self._lock = [], threading.local(), threading.Lock()
        elif self._frozen:
            self._lock.release()
        self._frozen = False


_PASSING = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_PROTOCOL,
}  # fmt: skip


def _is_busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def is_passing(error: Exception, path: Path | None) -> bool:
    """True for a busy database, a full disk and the like: nothing that a new one would cure.

    `path`: the database.
    """
    if isinstance(error, OSError):
        return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
        return True  # wrong use, or closed by another thread
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF == sqlite3.SQLITE_CANTOPEN:
        return path is not None and _is_usable(path)  # then descriptors ran out
    return code is not None and code & 0xFF in _PASSING


def _is_usable(path: Path) -> bool:
    """True if the database is there and may be written, with all that belongs to it."""
    parts = [Path(f"{path}{ending}") for ending in ("", "-wal", "-shm")]
    return path.exists() and all(
        is_plain(part) and os.access(part, os.R_OK | os.W_OK) for part in parts if part.exists()
    )


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.fspath(path))}?mode=rw",
        uri=True,
        timeout=_TURN_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


def _check(connection: sqlite3.Connection) -> None:
    """Fails if the database is not one of this version."""
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        raise _Unusable(f"schema version {version}, this library knows {VERSION}")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA fullfsync = 1")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # `LogKeeper` does it
    for look in ("bytes FROM totals", "key, file FROM entries", "key FROM pins"):
        connection.execute(f"SELECT {look} LIMIT 1").fetchone()
