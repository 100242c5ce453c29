"""The eviction policy `gdsf` in the catalog: one column, and the file at the low end leaves.

GDSF (Cherkasova, HP Labs 98-69) with the frequencies of evicted files kept (GDSF-G): a file's
rank is its uses times a miss's cost over its bytes, above what was given up last when it was
asked for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing
from math import inf

from cachestore.local.catalog_rows import Row
from cachestore.local.catalog_schema import one
from cachestore.local.known import Known, seen_of
from cachestore.local.learned import Lesson
from cachestore.policy.eviction import Need
from cachestore.policy.hazard import GDSF, Seen, refit_after
from cachestore.policy.tournament import name_of

_BY_RANK = "SELECT key, rank FROM seen INDEXED BY ranked WHERE rank IS NOT NULL ORDER BY rank"


class Ranked(Known):
    """The lowest rank leaves, and lifts what all later ranks start from; the newcomer competes."""

    _is_known = "SELECT 1 FROM seen WHERE name = ? AND rank IS NOT NULL"

    def _rank(self, seen: Seen) -> float | None:
        return self._model.value(seen, seen.tick, GDSF)

    def victims(
        self, db: sqlite3.Connection, need: Need, spare: frozenset[str], newcomer: Row | None
    ) -> list[Row] | None:
        self._load(db)
        bar, own = inf, spare
        if newcomer is not None:
            seen = seen_of(db, name_of(newcomer.key))
            bar = inf if seen is None else self._model.value(seen, seen.tick, GDSF)
            own = spare | {newcomer.key}
        chosen: list[Row] = []
        gone: list[str] = []
        floor = self._floor
        with closing(self._candidates(db, own)) as candidates:
            for key, rank, row in candidates:
                if row is None:
                    gone.append(key)
                    continue
                floor = max(floor, min(rank, bar))
                if bar < rank:
                    break
                chosen.append(row)
                need = need.without(row)
                if need.nothing:
                    break
        refused = bar < inf and not need.nothing
        if newcomer is not None:
            left = [*gone, newcomer.key] if refused else gone
            self._left(db, map(name_of, left))
            db.execute("UPDATE learned SET floor = ?", (floor,))
        return None if refused else chosen

    def _candidates(
        self, db: sqlite3.Connection, spare: frozenset[str]
    ) -> Generator[tuple[str, float, Row | None], None, None]:
        """Copies with their ranks, lowest first; None for one that is no longer here."""
        met: set[str] = set()
        for row in self._longest_unread(db, spare, unknown=True):
            met.add(row.key)
            yield row.key, 0.0, row
        with closing(db.execute(_BY_RANK)) as ranked:
            for key, rank in ranked:
                here = one(db, key)
                if key not in spare and key not in met and (here is None or not here.pinned):
                    yield key, rank, here

    def learn(self, db: sqlite3.Connection, breathe: Callable[[], None]) -> Lesson | None:
        """There is nothing to learn, but what is known of files is to be trimmed."""
        tick, refit_at = db.execute("SELECT tick, refit_at FROM learned").fetchone()
        return None if tick < refit_at else Lesson(0, GDSF, 0, self._floor, b"", None)

    def keep(self, db: sqlite3.Connection, lesson: Lesson) -> None:
        tick = self._load(db)
        known = self._trim(db)
        db.execute("UPDATE learned SET refit_at = ?", (tick + refit_after(known, tick),))
