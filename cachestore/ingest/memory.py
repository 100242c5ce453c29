"""What earlier syncs saw, in a small database beside the catalog. Losing it costs a comparison."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (
    root TEXT NOT NULL, variant TEXT NOT NULL, path TEXT NOT NULL, place TEXT NOT NULL,
    key TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL, etag TEXT NOT NULL,
    PRIMARY KEY (root, variant, path, place)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
    key TEXT PRIMARY KEY, sha256 TEXT NOT NULL, state TEXT NOT NULL
) WITHOUT ROWID;
"""
_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Seen:
    """A file that the storage has, as it was then. `place`: "bucket", or "folder" for LOCAL_DIR.

    `etag`: what the bucket called it, "" for LOCAL_DIR.
    """

    path: str
    place: str
    key: str
    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int
    sha256: str
    etag: str


_COLUMNS = tuple(Seen.__slots__)


class Memory:
    """Files that the storage has, of one folder put under keys in one way (`variant`).

    Used by one thread. Any trouble with the database is an empty memory: nothing is raised.
    """

    def __init__(self, path: Path, root: str, variant: str) -> None:
        self._path = path
        self._scope = (root, variant)
        self._db = self._opened()

    def _opened(self) -> sqlite3.Connection | None:
        for again in (True, False):
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                db = sqlite3.connect(self._path, timeout=5.0, isolation_level=None)
                try:
                    return _prepared(db)
                except BaseException:
                    db.close()
                    raise
            except sqlite3.DatabaseError as error:
                if not again or isinstance(error, sqlite3.OperationalError):
                    return None
                self._begin_anew()
            except OSError:
                return None
        return None

    def _begin_anew(self) -> None:
        """A broken database is worth nothing."""
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                self._path.with_name(self._path.name + ending).unlink()

    def all(self) -> dict[tuple[str, str], Seen]:
        """What is known, by path and place."""
        sql = f"SELECT {', '.join(_COLUMNS)} FROM seen WHERE root = ? AND variant = ?"
        return {(row[0], row[1]): Seen(*row) for row in self._run(sql, self._scope)}

    def add(self, rows: list[Seen]) -> None:
        """Remember files, in one transaction."""
        if self._db is None or not rows:
            return
        values = [(*self._scope, *(getattr(row, name) for name in _COLUMNS)) for row in rows]
        with contextlib.suppress(sqlite3.Error, ValueError):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany("REPLACE INTO seen VALUES (?,?,?,?,?,?,?,?,?,?,?)", values)
            finally:
                self._db.execute("COMMIT")

    def forget(self, paths: list[str]) -> None:
        """Files that are no longer in the folder."""
        for path in paths:
            self._run("DELETE FROM seen WHERE root = ? AND variant = ? AND path = ?",
                      (*self._scope, path))  # fmt: skip

    # -- large files -----------------------------------------------------------------------------

    def parts(self) -> dict[tuple[str, str], dict[str, Any]]:
        """How far uploads in parts had come, by key and SHA-256."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for key, sha256, state in self._run("SELECT key, sha256, state FROM parts", ()):
            with contextlib.suppress(ValueError):
                found[key, sha256] = dict(json.loads(state))
        return found

    def save_parts(self, key: str, sha256: str, state: Mapping[str, Any]) -> None:
        """Remember how far it is; an empty state forgets it."""
        if not state:
            self._run("DELETE FROM parts WHERE key = ?", (key,))
            return
        self._run("REPLACE INTO parts VALUES (?, ?, ?)", (key, sha256, json.dumps(dict(state))))

    # -- the database ----------------------------------------------------------------------------

    def _run(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if self._db is None:
            return []
        try:
            return self._db.execute(sql, values).fetchall()
        except (sqlite3.Error, ValueError):  # or a name that cannot be written as UTF-8
            return []

    def close(self) -> None:
        """Let go of the database."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()


def _prepared(db: sqlite3.Connection) -> sqlite3.Connection:
    """A database of this format; one of another is emptied."""
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")  # what a power cut takes is compared again
    if db.execute("PRAGMA user_version").fetchone()[0] not in (0, _FORMAT):
        db.executescript("DROP TABLE IF EXISTS seen; DROP TABLE IF EXISTS parts")
    db.executescript(_SCHEMA)
    db.execute(f"PRAGMA user_version = {_FORMAT}")
    return db
