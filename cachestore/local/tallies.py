"""Sums by day and prefix, kept in the catalog: how reads were answered, what left, what stayed out.

They are collected here, from events, and written down in the janitor's batches.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime

from cachestore import events
from cachestore.clock import Clock
from cachestore.locks import ForkLock
from cachestore.model import Tally

DAYS = 90
OTHERS = "*"
"""The prefix of what is counted together, where there are too many."""

_MOST_PREFIXES = 200
_FROM = {"pending": "spool", "local": "local"}


def prefix_of(key: str) -> str:
    """A key's first segment with its slash; empty for a key without one."""
    head, slash, _ = key.partition("/")
    return head + slash if slash else ""


class Tallies:
    """The hook; subscribe `take`. What is collected is written, then added to the catalog's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = ForkLock()
        self._sums: dict[tuple[str, str, str], tuple[int, int]] = {}
        self._prefixes: set[str] = set()

    def take(self, event: events.Event) -> None:
        match event:
            case events.Hit(kind=kind, size=size, count=count):
                self._add(event.key, _FROM.get(kind, "cache"), count, size * count)
            case events.Miss(size=size):
                self._add(event.key, "remote", 1, size)
            case events.Fetched(size=size):
                self._add(event.key, "remote", 0, size)
            case events.Evicted(size=size, reason=reason):
                self._add(event.key, f"evicted: {reason}", 1, size)
            case events.Refused(size=size, reason=reason):
                self._add(event.key, f"refused: {reason}", 1, size)

    def _add(self, key: str, what: str, count: int, size: int) -> None:
        day = datetime.fromtimestamp(self._clock.now(), UTC).date().isoformat()
        prefix = prefix_of(key)
        with self._lock:
            if prefix not in self._prefixes and len(self._prefixes) >= _MOST_PREFIXES:
                prefix = OTHERS
            self._prefixes.add(prefix)
            name = (day, prefix, what)
            before = self._sums.get(name, (0, 0))
            self._sums[name] = (before[0] + count, before[1] + size)

    def drain(self) -> list[Tally]:
        """What was collected since the last call."""
        with self._lock:
            sums, self._sums = self._sums, {}
        return [Tally(*name, *sum_) for name, sum_ in sums.items()]

    def put_back(self, tallies: Iterable[Tally]) -> None:
        """They could not be written down: for the next time."""
        with self._lock:
            for each in tallies:
                name = (each.day, each.prefix, each.what)
                before = self._sums.get(name, (0, 0))
                self._sums[name] = (before[0] + each.count, before[1] + each.bytes)


# -- in the catalog -----------------------------------------------------------------------------

SCHEMA = """
CREATE TABLE tallies (day, prefix, what, count, bytes, PRIMARY KEY (day, prefix, what))
    WITHOUT ROWID;
"""


def add(db: sqlite3.Connection, tallies: Iterable[Tally]) -> bool:
    """Add to what is there, and forget the oldest days."""
    db.executemany(
        "INSERT INTO tallies VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET count = count + excluded.count, bytes = bytes + excluded.bytes",
        [(each.day, each.prefix, each.what, each.count, each.bytes) for each in tallies],
    )
    db.execute(
        "DELETE FROM tallies WHERE day NOT IN"
        " (SELECT DISTINCT day FROM tallies ORDER BY day DESC LIMIT ?)",
        (DAYS,),
    )
    return True


def latest(db: sqlite3.Connection, days: int) -> list[Tally]:
    """Those of the last `days` days on which something happened, oldest first."""
    sql = (
        "SELECT day, prefix, what, count, bytes FROM tallies WHERE day IN"
        " (SELECT DISTINCT day FROM tallies ORDER BY day DESC LIMIT ?) ORDER BY day, prefix, what"
    )
    return [Tally(*row) for row in db.execute(sql, (days,))]
