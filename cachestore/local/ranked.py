"""The eviction policy `gdsf` in the catalog: one column, and the file at the low end leaves.

GDSF (Cherkasova, HP Labs 98-69) with the frequencies of evicted files kept (GDSF-G): a file's
rank is its uses times a miss's cost over its bytes, above what was given up last when it was
asked for. Only the ranks of copies that are here are in the column and its index; those of copies
that went otherwise are taken out when they are met.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing

from cachestore.local.catalog_rows import Row
from cachestore.local.catalog_schema import one
from cachestore.local.known import Known, seen_of
from cachestore.local.learned import Lesson
from cachestore.policy.eviction import Need
from cachestore.policy.hazard import GDSF, Seen, refit_after

_RANKED = "SELECT 1 FROM seen WHERE key = ? AND rank IS NOT NULL"
_BY_RANK = "SELECT key, rank FROM seen INDEXED BY ranked WHERE rank IS NOT NULL ORDER BY rank"


class Ranked(Known):
    """The lowest rank leaves, and lifts what all later ranks start from; the newcomer competes."""

    def _write(self, db: sqlite3.Connection, key: str, seen: Seen) -> None:
        rank = self._model.value(seen, seen.tick, GDSF)
        sql = "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        db.execute(sql, (key, *seen, rank))

    def victims(
        self, db: sqlite3.Connection, need: Need, spare: frozenset[str], newcomer: Row | None
    ) -> list[Row] | None:
        tick = self._load(db)
        own = None if newcomer is None else seen_of(db, newcomer.key)
        bar = None if own is None else self._model.value(own, tick, GDSF)
        chosen: list[Row] = []
        gone: list[str] = []
        floor, refused = self._floor, False
        with closing(self._candidates(db)) as candidates:
            for key, rank in candidates:
                row = None if newcomer is not None and key == newcomer.key else one(db, key)
                if row is None:
                    gone.append(key)
                elif not row.pinned and key not in spare:
                    floor = max(floor, rank if bar is None else min(rank, bar))
                    refused = bar is not None and bar < rank
                    if refused:
                        break
                    chosen.append(row)
                    need = need.without(row)
                    if need.nothing:
                        break
        if db.in_transaction:
            kept = "" if newcomer is None or refused else newcomer.key
            self._forget_ranks(db, [key for key in gone if key != kept], floor)
        return None if refused else chosen

    def _candidates(self, db: sqlite3.Connection) -> Generator[tuple[str, float], None, None]:
        """Copies that were not asked for since this policy is in use, then all others by rank."""
        sql = "SELECT key FROM entries WHERE pinned = 0 ORDER BY used"
        with closing(db.execute(sql)) as unread:
            for [key] in unread:
                if db.execute(_RANKED, (key,)).fetchone():
                    break
                yield key, 0.0
        with closing(db.execute(_BY_RANK)) as ranked:
            yield from ranked

    def _forget_ranks(self, db: sqlite3.Connection, keys: list[str], floor: float) -> None:
        db.executemany("UPDATE seen SET rank = NULL WHERE key = ?", [(key,) for key in keys])
        if floor > self._floor:
            db.execute("UPDATE learned SET floor = ?", (floor,))

    def learn(self, db: sqlite3.Connection, breathe: Callable[[], None]) -> Lesson | None:
        """There is nothing to learn, but what is known of files is to be trimmed."""
        tick, refit_at = db.execute("SELECT tick, refit_at FROM learned").fetchone()
        return None if tick < refit_at else Lesson(0, GDSF, 0, self._floor, b"", None)

    def keep(self, db: sqlite3.Connection, lesson: Lesson) -> None:
        tick = self._load(db)
        self._trim(db)
        [known] = db.execute("SELECT count(*) FROM seen").fetchone()
        db.execute("UPDATE learned SET refit_at = ?", (tick + refit_after(known, tick),))
