"""The catalog's log (WAL) is begun anew when it is long, by whoever made it so.

SQLite's own way lets others write meanwhile: with many writers the log never ends, and it counts
to the cache's limit.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

_PAGE = 4096
_PATIENCE_MS = 200
_WAIT = 1.0
_TURN = 0.002
_REST = 0.25


class LogKeeper:
    """Of one process. `pages`: after so many the log is written back."""

    def __init__(self, pages: int) -> None:
        self._most = pages * _PAGE
        self._rest_until = 0.0

    def keep_short(self, database: Path, ask: Callable[..., tuple[int, int, int]]) -> None:
        """After a change: write a long log back by way of `ask`, or wait for who does so.

        A reader that does not end stops it; then nobody waits for a while.
        """
        end = time.monotonic() + _WAIT
        while self._is_long(database) and self._rest_until < time.monotonic() < end:
            busy, pages, _ = ask(_checkpoint, (1, 0, 0))
            if busy and pages >= 0:
                self._rest_until = time.monotonic() + _REST
            elif busy:
                time.sleep(_TURN)

    def _is_long(self, database: Path) -> bool:
        try:
            return os.stat(f"{database}-wal").st_size > self._most
        except OSError:
            return False


def _checkpoint(db: sqlite3.Connection) -> tuple[int, int, int]:
    """Whether somebody was in the way, and the log's pages; -1 if that one writes it back too."""
    [usual] = db.execute("PRAGMA busy_timeout").fetchone()
    db.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
    try:
        busy, pages, done = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return busy, pages, done
    finally:
        db.execute(f"PRAGMA busy_timeout = {usual}")
