"""How the catalog chooses which copies leave. Every method runs inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from typing import Protocol

from cachestore.local.catalog_rows import Row
from cachestore.local.catalog_schema import ALL
from cachestore.local.learned import Learned, Lesson
from cachestore.local.noted import Part
from cachestore.local.ranked import Ranked
from cachestore.options import Options
from cachestore.policy.eviction import EvictionPolicy, LeastRecentlyUsed, Need


class Evictor(Protocol):
    """Learns of reads, and gives up copies."""

    def fetched(self, size: int, seconds: float) -> None:
        """A miss took so long; called outside of any transaction."""
        ...

    def requested(self, db: sqlite3.Connection, reads: Mapping[str, tuple[int, float]]) -> None:
        """These keys were asked for: how many times, and the last time's wall seconds."""
        ...

    def parts(self, db: sqlite3.Connection, breathe: Callable[[], None]) -> list[Part]:
        """What is to be entered now of reads that were only written down; called often.

        Lets others run by calling `breathe` often.
        """
        ...

    def enter(self, db: sqlite3.Connection, part: Part) -> bool:
        """Enter it; True."""
        ...

    def read_last(self, db: sqlite3.Connection, keys: Iterable[str]) -> dict[str, float]:
        """When these keys were read, where that is kept elsewhere than in their rows."""
        ...

    def admitting(self, db: sqlite3.Connection, row: Row) -> None:
        """A copy is about to come in."""
        ...

    def arrived(self, db: sqlite3.Connection, row: Row) -> None:
        """The copy that was about to come in is here now."""
        ...

    def victims(
        self, db: sqlite3.Connection, need: Need, spare: frozenset[str], newcomer: Row | None
    ) -> list[Row] | None:
        """Unpinned rows to take out, none of them in `spare`; too little if there are not enough.

        None: the newcomer is worth less than what would have to leave.
        """
        ...

    def learn(self, db: sqlite3.Connection, breathe: Callable[[], None]) -> Lesson | None:
        """Now and then, in the background, reading only: what was learned; None if it is not time.

        Lets others run by calling `breathe` often.
        """
        ...

    def keep(self, db: sqlite3.Connection, lesson: Lesson) -> None:
        """Write down what `learn` gave."""
        ...


class Ordered:
    """By a policy that takes the longest unread first, and learns nothing."""

    def __init__(self, policy: EvictionPolicy | None = None) -> None:
        self._policy: EvictionPolicy = policy or LeastRecentlyUsed()

    def fetched(self, size: int, seconds: float) -> None:
        pass

    def requested(self, db: sqlite3.Connection, reads: Mapping[str, tuple[int, float]]) -> None:
        sql = "UPDATE entries SET uses = uses + ?, used = max(used, ?) WHERE key = ?"
        db.executemany(sql, [(count, when, key) for key, (count, when) in reads.items()])

    def parts(self, db: sqlite3.Connection, breathe: Callable[[], None]) -> list[Part]:
        return []

    def enter(self, db: sqlite3.Connection, part: Part) -> bool:
        return True

    def read_last(self, db: sqlite3.Connection, keys: Iterable[str]) -> dict[str, float]:
        return {}

    def admitting(self, db: sqlite3.Connection, row: Row) -> None:
        pass

    def arrived(self, db: sqlite3.Connection, row: Row) -> None:
        pass

    def victims(
        self, db: sqlite3.Connection, need: Need, spare: frozenset[str], newcomer: Row | None
    ) -> list[Row] | None:
        with closing(_unpinned(db, spare)) as candidates:
            return self._policy.victims(candidates, need)

    def learn(self, db: sqlite3.Connection, breathe: Callable[[], None]) -> Lesson | None:
        return None

    def keep(self, db: sqlite3.Connection, lesson: Lesson) -> None:
        pass


def _unpinned(db: sqlite3.Connection, spare: frozenset[str]) -> Generator[Row, None, None]:
    """Unpinned rows, longest unread first."""
    cursor = db.execute(f"SELECT {ALL} FROM entries WHERE pinned = 0 ORDER BY used")
    with closing(cursor):
        for values in cursor:
            row = Row.load(values)
            if row.key not in spare:
                yield row


def evictor_of(options: Options) -> Evictor:
    """The one that the settings name."""
    if options.eviction == "hz":
        return Learned(options)
    return Ranked(options) if options.eviction == "gdsf" else Ordered()
