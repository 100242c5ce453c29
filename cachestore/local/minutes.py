"""Sums by minute, kept in the catalog for all processes: how reads and uploads went of late.

They are collected here, from events, and written down in the janitor's batches.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from typing import Any

from cachestore import events
from cachestore.clock import Clock
from cachestore.local.catalog import Catalog
from cachestore.locks import ForkLock
from cachestore.model import Minute
from cachestore.options import Options

KEPT = 3600.0
"""Seconds for which sums are kept at least."""

HITS = ("hit", "stale", "pending", "local")
_AHEAD = 120.0
_Sums = dict[tuple[int, str], list[int]]


def outcome_of(kind: str) -> str:
    """What a hit of this kind is counted as."""
    return "hit" if kind in ("fresh", "partial") else "stale" if kind.startswith("stale") else kind


class Minutes:
    """The hook; subscribe `take`. Without a catalog this process's own sums are all there is."""

    def __init__(self, clock: Clock, catalog: Catalog, options: Options) -> None:
        self._clock = clock
        self._catalog = catalog
        self._kept = max(KEPT, 2 * options.alert_window + 60.0)
        self._lock, self._writing = ForkLock(), ForkLock()
        self._sums: _Sums = {}

    def take(self, event: events.Event) -> None:
        match event:
            case events.Hit(kind=kind, size=size, count=count):
                self._add(outcome_of(kind), count, size * count)
            case events.Miss(size=size):
                self._add("miss", 1, size)
            case events.Fetched(size=size):
                self._add("miss", 0, size)
            case events.Absent(negative=negative):
                self._add("negative" if negative else "absent", 1, 0)
            case events.Uploaded(size=size):
                self._add("uploaded", 1, size)
            case events.UploadFailed():
                self._add("failed", 1, 0)
            case events.Parked():
                self._add("parked", 1, 0)

    def _add(self, what: str, count: int, size: int) -> None:
        minute = int(self._clock.now() // 60) * 60
        with self._lock:
            sums = self._sums.setdefault((minute, what), [0, 0])
            sums[0] += count
            sums[1] += size

    def write(self) -> None:
        """Add what was collected to the catalog's; what cannot be written waits."""
        with self._writing:
            with self._lock:
                sums, self._sums = self._sums, {}
            if sums and not self._written(sums):
                self._put_back(sums)

    def _written(self, sums: _Sums) -> bool:
        now = self._clock.now()
        rows = [(*name, *both) for name, both in sums.items()]
        return self._catalog.change(
            lambda db: _add(db, rows, now - self._kept, now + _AHEAD), False
        )

    def _put_back(self, sums: _Sums) -> None:
        oldest = self._clock.now() - self._kept
        with self._lock:
            for name, (count, size) in sums.items():
                if name[0] >= oldest:
                    now = self._sums.setdefault(name, [0, 0])
                    now[0] += count
                    now[1] += size

    def since(self, start: float) -> list[Minute]:
        """The sums of the minutes that began at `start` (wall seconds) or later, oldest first."""
        sql = "SELECT minute, what, count, bytes FROM minutes WHERE minute >= ? AND minute <= ?"
        values = (start, self._clock.now() + _AHEAD)
        found: _Sums = defaultdict(lambda: [0, 0])
        with self._writing:  # what is being written would be in neither place
            with self._lock:
                rows: list[Any] = [(*name, *both) for name, both in self._sums.items()]
            rows += self._catalog.ask(lambda db: db.execute(sql, values).fetchall(), [])
        for minute, what, count, size in rows:
            if minute >= start:
                found[minute, what][0] += count
                found[minute, what][1] += size
        return [Minute(*name, *both) for name, both in sorted(found.items())]


# -- in the catalog -----------------------------------------------------------------------------


def _add(db: sqlite3.Connection, rows: list[Any], oldest: float, newest: float) -> bool:
    db.executemany(
        "INSERT INTO minutes VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET count = count + excluded.count, bytes = bytes + excluded.bytes",
        rows,
    )
    # Those ahead were counted before the clock went back.
    db.execute("DELETE FROM minutes WHERE minute < ? OR minute > ?", (oldest, newest))
    return True
