"""Consistent copies of SQLite databases, also while others write to them."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

from cachestore.errors import SourceError

_MAGIC = b"SQLite format 3\x00"
_PAGES = 512
_REST = 0.005
_RESTARTS = 3


class _Again(Exception):
    """Somebody wrote: the copy began anew too often."""


def is_database(path: Path) -> bool:
    """True for an SQLite database. Raises `OSError`."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def copy_database(source: Path, target: Path, patience: float) -> None:
    """Copy a database as it is at one moment; `target` is replaced, and checked afterwards.

    One in WAL mode is copied in one go, which holds nobody up. Any other is copied in steps first,
    so that writers come between; if they do so all the time, in one go, while they wait.
    `patience`: seconds for which a locked database is tried.

    Raises `SourceError` if it cannot be read in that time, or is damaged.
    """
    for ending in ("", "-journal", "-wal", "-shm"):
        target.with_name(target.name + ending).unlink(missing_ok=True)
    try:
        _copy(source, target, patience)
        _check(source, target)
    except sqlite3.Error as error:
        raise SourceError(f"{source} cannot be copied: {error}") from error


def _copy(source: Path, target: Path, patience: float) -> None:
    # Not `immutable`: what lies in the write-ahead log belongs to it.
    origin = sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True, timeout=patience)
    try:
        wal = origin.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        if not wal:
            try:
                _run(origin, target, _PAGES, patience)
            except _Again:
                wal = True
        if wal:
            target.unlink(missing_ok=True)
            _run(origin, target, -1, patience)
    finally:
        origin.close()


def _run(origin: sqlite3.Connection, target: Path, pages: int, patience: float) -> None:
    end, last, restarts = time.monotonic() + patience, 0, 0

    def look(status: int, remaining: int, total: int) -> None:
        nonlocal last, restarts, end
        if remaining > last > 0:
            restarts += 1
            if restarts > _RESTARTS:
                raise _Again
        if remaining != last:
            end = time.monotonic() + patience  # it gets on
        elif time.monotonic() > end:
            raise sqlite3.OperationalError(f"it was locked for {patience:g} s")
        last = remaining

    copy = sqlite3.connect(target)
    try:
        copy.execute("PRAGMA synchronous = OFF")  # `put` makes it durable
        origin.backup(copy, pages=pages, progress=look, sleep=_REST)
    finally:
        copy.close()


def _check(source: Path, target: Path) -> None:
    """A damaged database must not push whole copies out."""
    copy = sqlite3.connect(target)
    try:
        found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    finally:
        copy.close()
    if found != "ok":
        raise SourceError(f"{source} is damaged, and was not stored: {found}")
