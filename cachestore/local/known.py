"""What eviction policies know of files, those that left included, and how processes share it.

The table `seen` has a row for each file, `learned` what is small and changes often, `kept` the
larger states, each one value. Every process reads again what another one changed.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Mapping

from cachestore.local.catalog_rows import Row
from cachestore.options import Options
from cachestore.policy.costs import MissCosts
from cachestore.policy.hazard import Hazard, Seen, ghosts

_SAVE_AFTER = 500
_FETCHED = 200
SEEN = "size, tick, uses, gap, kind, heat, floor"


class Known:
    """The part that all policies with a memory have in common. Runs in write transactions."""

    def __init__(self, options: Options) -> None:
        self._model = Hazard(options.objective)
        self._costs = MissCosts()
        self._fetched: deque[tuple[int, float]] = deque(maxlen=_FETCHED)
        self._floor = 0.0
        self._version = -1

    def fetched(self, size: int, seconds: float) -> None:
        """Kept until something is written anyway."""
        self._fetched.append((size, seconds))

    def requested(self, db: sqlite3.Connection, reads: Mapping[str, int]) -> None:
        tick = self._load(db)
        for key, count in reads.items():
            seen = seen_of(db, key)
            if seen is not None:
                tick += count
                self._touch(db, key, seen, seen.size, tick, count)
        self._save(db, tick)

    def admitting(self, db: sqlite3.Connection, row: Row) -> None:
        tick = self._load(db) + 1
        self._touch(db, row.key, seen_of(db, row.key), row.allocated, tick, 1)
        self._save(db, tick)

    def _touch(
        self, db: sqlite3.Connection, key: str, seen: Seen | None, size: int, tick: int, count: int
    ) -> None:
        """`count` requests that came since the last look, the last of them now."""
        new = self._model.touch(seen, size, tick, self._floor)
        if count > 1:
            # They lie between, nobody knows where: as if they had come at even distances.
            new = new._replace(
                uses=new.uses + count - 1, gap=max(0, new.gap // count), heat=new.heat + count - 1
            )
        self._write(db, key, new)

    def _write(self, db: sqlite3.Connection, key: str, seen: Seen) -> None:
        db.execute(
            "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)", (key, *seen)
        )

    def _load(self, db: sqlite3.Connection) -> int:
        """Be up to date with what other processes learned; the tick."""
        sql = "SELECT tick, version, floor, costs FROM learned"
        tick, version, self._floor, costs = db.execute(sql).fetchone()
        if version != self._version:
            self._model.adopt(state_of(db, "hazard"))
            self._costs.adopt(costs)
            self._model.prices.costs = self._costs.costs
            self._version = version
        return int(tick)

    def _save(self, db: sqlite3.Connection, tick: int) -> None:
        db.execute("UPDATE learned SET tick = ?", (tick,))
        if self._fetched:
            self._pay(db)
        if self._model.fresh >= _SAVE_AFTER:
            self._model.absorb()
            self._version += 1
            keep_state(db, "hazard", self._model.dump())
            db.execute("UPDATE learned SET version = ?", (self._version,))

    def _pay(self, db: sqlite3.Connection) -> None:
        """Learn what misses cost, on top of what all processes did."""
        fetched = [self._fetched.popleft() for _ in range(len(self._fetched))]
        [costs] = db.execute("SELECT costs FROM learned").fetchone()
        self._costs.adopt(costs)
        self._costs.learn(fetched)
        self._model.prices.costs = self._costs.costs
        db.execute("UPDATE learned SET costs = ?", (self._costs.dump(),))

    def _trim(self, db: sqlite3.Connection) -> None:
        """Forget those that left and were not asked for longest."""
        [known] = db.execute("SELECT count(*) FROM seen").fetchone()
        [here] = db.execute("SELECT entries FROM totals").fetchone()
        surplus = known - here - ghosts(here)
        if surplus > 0:
            db.execute(
                "DELETE FROM seen WHERE key IN (SELECT key FROM seen WHERE key NOT IN"
                " (SELECT key FROM entries) ORDER BY tick LIMIT ?)",
                (surplus,),
            )


def seen_of(db: sqlite3.Connection, key: str) -> Seen | None:
    """What is known of a key's file."""
    found = db.execute(f"SELECT {SEEN} FROM seen WHERE key = ?", (key,)).fetchone()
    return None if found is None else Seen(*found)


def state_of(db: sqlite3.Connection, name: str) -> object:
    """A kept state; None if there is none."""
    found = db.execute("SELECT state FROM kept WHERE name = ?", (name,)).fetchone()
    return None if found is None else found[0]


def keep_state(db: sqlite3.Connection, name: str, state: bytes) -> None:
    """Keep a state."""
    db.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (name, state))
