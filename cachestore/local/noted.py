"""Reads that were written down and are not entered in the tables yet.

To change a row for each read costs a page of the log for each. So some hundred reads are one row of
`noted`, and much later many batches are entered at once, in the order in which the rows lie. Until
then every process that chooses copies knows of them from here. A read has a tick, and a file's row
the tick up to which it is entered: whoever enters a read twice changes nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Container, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from cachestore.locks import ForkLock
from cachestore.policy.tournament import name_of

SCHEMA = """
CREATE TABLE noted (tick INTEGER PRIMARY KEY, keys INTEGER, time REAL, reads TEXT);
"""
_ENTER_AFTER, _ENTER_AT_MOST, _SHARE = 256, 65_536, 4
_BATCH, _PART = 256, 100


Read = tuple[str, int, int, float]
"""A key, how many times it was read, the last one's tick, and wall seconds not before that."""


class Part(NamedTuple):
    """Files whose reads are entered in one transaction. `upto`: of the last part, where it ends."""

    names: tuple[int, ...]
    upto: int | None = None


def note(db: sqlite3.Connection, reads: Mapping[str, tuple[int, float]], tick: int) -> int:
    """Write down reads that follow `tick` (key to how many, and the last one's wall seconds);
    the last one's tick."""
    items = iter(reads.items())
    while some := list(islice(items, _BATCH)):
        counts = {key: count for key, (count, _) in some}
        tick += sum(counts.values())
        values = (tick, len(counts), max(when for _, (_, when) in some), json.dumps(counts))
        db.execute("INSERT INTO noted VALUES (?, ?, ?, ?)", values)
    return tick


def waiting(db: sqlite3.Connection) -> int:
    """How many keys all batches together have."""
    [keys] = db.execute("SELECT coalesce(sum(keys), 0) FROM noted").fetchone()
    return int(keys)


def enter_after(here: int) -> int:
    """So many keys are worth entering, where `here` files are."""
    return max(_ENTER_AFTER, min(_ENTER_AT_MOST, here // _SHARE))


def _counts(text: str) -> dict[str, int]:
    """What a row says; a broken one says nothing, and is gone with the next ones."""
    try:
        counts = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    if not isinstance(counts, dict) or not all(type(each) is int for each in counts.values()):
        return {}
    return counts


class Noted:
    """What a process knows of them."""

    def __init__(self) -> None:
        self._lock = ForkLock()
        self._entered = -1
        self._last = -1
        self._reads: dict[int, list[Read]] = {}

    def catch_up(
        self, db: sqlite3.Connection, entered: int, breathe: Callable[[], None] = lambda: None
    ) -> None:
        """Read what was noted since. `entered`: up to this tick all is in the tables."""
        with self._lock:
            if entered != self._entered:
                self._entered = self._last = entered
                self._reads = {}
        sql = "SELECT tick, time, reads FROM noted WHERE tick > ? ORDER BY tick LIMIT 1"
        while batch := db.execute(sql, (self._last,)).fetchone():
            self._take(*batch)
            breathe()

    def _take(self, last: int, when: float, text: str) -> None:
        counts = _counts(text)
        with self._lock:
            if last <= self._last:
                return  # another thread did
            tick = last - sum(counts.values())
            for key, times in counts.items():
                tick += times
                self._reads.setdefault(name_of(key), []).append((key, times, tick, when))
            self._last = last

    @property
    def names(self) -> Container[int]:
        """The files that were read."""
        return self._reads.keys()

    def of(self, name: int) -> Sequence[Read]:
        """A file's reads, oldest first."""
        return self._reads.get(name, ())

    def parts(self) -> list[Part]:
        """All of them, in the order of the rows."""
        with self._lock:
            names, upto = sorted(self._reads), self._last
        parts = [Part(tuple(names[at : at + _PART])) for at in range(0, len(names), _PART)]
        return [*parts[:-1], parts[-1]._replace(upto=upto)] if parts else []


def end(db: sqlite3.Connection, upto: int) -> None:
    """All reads up to this tick are in the tables."""
    db.execute("DELETE FROM noted WHERE tick <= ?", (upto,))
    db.execute("UPDATE learned SET entered = max(entered, ?)", (upto,))
