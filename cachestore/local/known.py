"""What eviction policies know of files, those that left included, and how processes share it.

The table `seen` has a row for each file that is here, by a number that is a hash of its key, so
that a run of rows is a random sample; `ghosts` those that left: a row moves there when it is met
and the file is gone, since not all that is chosen to leave does. `learned` has what is small and
changes often, `kept` the larger states, each one value. Every process reads again what another one
changed.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Container, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from cachestore.local.catalog_rows import Row
from cachestore.local.catalog_schema import one
from cachestore.local.noted import Part, Read
from cachestore.options import Options
from cachestore.policy.costs import MissCosts
from cachestore.policy.hazard import Hazard, Seen, ghosts
from cachestore.policy.tournament import name_of

_SAVE_AFTER = 500
_FETCHED = 200
_BATCH = 200
SEEN = "size, tick, uses, gap, kind, heat, floor"
_INSERT = "INSERT OR REPLACE INTO seen VALUES (?,?,?,?,?,?,?,?,?,?,?)"
_ENTER = (
    "UPDATE seen SET tick = ?, uses = ?, gap = ?, kind = ?, heat = ?, floor = ?, rank = ?,"
    " last = max(last, ?) WHERE name = ?"
)
_ANYWHERE = (
    f"SELECT {SEEN} FROM seen WHERE name = ? UNION ALL SELECT {SEEN} FROM ghosts WHERE name = ?"
)
Asked = Callable[[Seen | None, int, int, float], Seen]


class Known:
    """The part that all policies with a memory have in common. Runs in write transactions."""

    _is_known = "SELECT 1 FROM seen WHERE name = ?"

    def __init__(self, options: Options) -> None:
        self._model = Hazard(options.objective)
        self._costs = MissCosts()
        self._fetched: deque[tuple[int, float]] = deque(maxlen=_FETCHED)
        self._floor = 0.0
        self._version = -1
        self._rule = self._shift = self._upto = 0

    def fetched(self, size: int, seconds: float) -> None:
        """Kept until something is written anyway."""
        self._fetched.append((size, seconds))

    def requested(self, db: sqlite3.Connection, reads: Mapping[str, tuple[int, float]]) -> None:
        tick = self._load(db)
        found: dict[int, list[Read]] = {}
        for key, (count, when) in reads.items():
            tick += count
            found[name_of(key)] = [(key, count, tick, when)]
        self._enter(db, found)
        self._save(db, tick)

    def parts(self, db: sqlite3.Connection, breathe: Callable[[], None]) -> list[Part]:
        return []  # all reads are entered at once

    def enter(self, db: sqlite3.Connection, part: Part) -> bool:
        return True

    def read_last(self, db: sqlite3.Connection, keys: Iterable[str]) -> dict[str, float]:
        names = {name_of(key): key for key in keys}
        return {names[name]: last for name, last in rows_of(db, "last", "seen", names)}

    def admitting(self, db: sqlite3.Connection, row: Row) -> None:
        tick = self._caught_up(db) + 1
        name = name_of(row.key)
        seen = self._current(name, seen_of(db, name), self._model.touch)
        seen = self._after(seen, row.allocated, tick, 1, self._model.touch)
        db.execute("DELETE FROM ghosts WHERE name = ?", (name,))
        self._write(db, name, row, seen)
        self._save(db, tick)

    def _caught_up(self, db: sqlite3.Connection) -> int:
        """Be up to date with what files others asked for, too; the tick."""
        return self._load(db)

    def arrived(self, db: sqlite3.Connection, row: Row) -> None:
        """Met while it was on its way, it was taken for one that had left."""
        name = name_of(row.key)
        sql = f"SELECT {SEEN} FROM ghosts WHERE name = ?"
        found = db.execute(sql, (name,)).fetchone()
        if found is not None:
            db.execute("DELETE FROM ghosts WHERE name = ?", (name,))
            Known._write(self, db, name, row, Seen(*found))  # no request of its own

    def _current(self, name: int, seen: Seen | None, ask: Asked) -> Seen | None:
        """What is known of a file, reads that are not entered included."""
        return seen

    def _after(self, seen: Seen | None, size: int, tick: int, count: int, ask: Asked) -> Seen:
        """What is known after `count` requests since the last look, the last of them now."""
        new = ask(seen, size, tick, self._floor)
        if count > 1:
            # They lie between, nobody knows where: as if they had come at even distances.
            new = new._replace(
                uses=new.uses + count - 1, gap=max(0, new.gap // count), heat=new.heat + count - 1
            )
        return new

    def _read(self, seen: Seen, reads: Iterable[Read], ask: Asked) -> Seen:
        """What is known after these, if they are not entered yet."""
        for _, times, tick, _ in reads:
            if tick <= seen.tick:
                continue
            if times == 1:
                seen = ask(seen, seen.size, tick, self._floor)
            else:
                seen = self._after(seen, seen.size, tick, times, ask)
        return seen

    def _enter(self, db: sqlite3.Connection, reads: Mapping[int, Sequence[Read]]) -> None:
        """Enter reads in the rows of their files."""
        rows, unknown, touch = [], dict(reads), self._model.touch
        for name, *known in rows_of(db, SEEN, "seen", reads):
            asked = unknown.pop(name)
            seen = self._read(Seen(*known), asked, touch)
            self._entered(db, name, seen.size, asked)
            rows.append((*seen[1:], self._rank(seen), asked[-1][3], name))
        db.executemany(_ENTER, rows)
        for name, *known in rows_of(db, SEEN, "ghosts", list(unknown)):
            # Taken for gone while it was handed out, or on its way.
            asked = unknown.pop(name)
            old, (key, _, tick, last) = Seen(*known), asked[-1]
            if tick > old.tick:
                seen = self._read(old, asked, touch)
                self._entered(db, name, seen.size, asked)
                db.execute(_INSERT, (name, key, *seen, self._rank(seen), last))
                db.execute("DELETE FROM ghosts WHERE name = ?", (name,))
        for asked in unknown.values():
            key, _, _, last = asked[-1]
            db.execute("UPDATE entries SET used = max(used, ?) WHERE key = ?", (last, key))

    def _entered(self, db: sqlite3.Connection, name: int, size: int, reads: Sequence[Read]) -> None:
        """These were entered."""

    def _write(self, db: sqlite3.Connection, name: int, row: Row, seen: Seen) -> None:
        db.execute(_INSERT, (name, row.key, *seen, self._rank(seen), row.used))

    def _rank(self, seen: Seen) -> float | None:
        """What the index is to be ordered by; None: there is none."""
        return None

    def _left(self, db: sqlite3.Connection, names: Iterable[int]) -> None:
        """Files that are not here any more are remembered elsewhere."""
        values = [(name,) for name in names]
        if values:
            sql = f"INSERT OR REPLACE INTO ghosts SELECT name, key, {SEEN} FROM seen WHERE name = ?"
            db.executemany(sql, values)
            db.executemany("DELETE FROM seen WHERE name = ?", values)

    def _load(self, db: sqlite3.Connection) -> int:
        """Be up to date with what other processes learned; the tick."""
        sql = "SELECT tick, version, floor, costs, rule, shift, entered FROM learned"
        tick, version, self._floor, costs, self._rule, self._shift, self._upto = db.execute(
            sql
        ).fetchone()
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

    def _trim(self, db: sqlite3.Connection) -> int:
        """Forget those that left and were not asked for longest; how many are known."""
        [left] = db.execute("SELECT count(*) FROM ghosts").fetchone()
        [here] = db.execute("SELECT entries FROM totals").fetchone()
        surplus = max(0, left - ghosts(here))
        sql = "DELETE FROM ghosts WHERE name IN (SELECT name FROM ghosts ORDER BY tick LIMIT ?)"
        db.execute(sql, (surplus,))
        return int(here + left - surplus)

    def _longest_unread(
        self, db: sqlite3.Connection, spare: Container[str], *, unknown: bool
    ) -> Generator[Row, None, None]:
        """Unpinned copies, longest unread first. `unknown`: only up to the first that is known.

        Known are those that were asked for since this policy is in use, so that the others were
        not read for longer.
        """
        sql = "SELECT key FROM entries WHERE pinned = 0 ORDER BY used"
        with closing(db.execute(sql)) as keys:
            for [key] in keys:
                if unknown and db.execute(self._is_known, (name_of(key),)).fetchone():
                    return
                row = None if key in spare else one(db, key)
                if row is not None:
                    yield row


def seen_of(db: sqlite3.Connection, name: int) -> Seen | None:
    """What is known of a file, here or not."""
    found = db.execute(_ANYWHERE, (name, name)).fetchone()
    return None if found is None else Seen(*found)


def rows_of(
    db: sqlite3.Connection, columns: str, table: str, names: Iterable[int]
) -> Generator[tuple[Any, ...], None, None]:
    """Of each of these files that the table has: its name, and `columns`."""
    wanted = list(names)
    for start in range(0, len(wanted), _BATCH):
        some = wanted[start : start + _BATCH]
        sql = f"SELECT name, {columns} FROM {table} WHERE name IN ({','.join('?' * len(some))})"
        yield from db.execute(sql, some).fetchall()


def state_of(db: sqlite3.Connection, name: str) -> object:
    """A kept state; None if there is none."""
    found = db.execute("SELECT state FROM kept WHERE name = ?", (name,)).fetchone()
    return None if found is None else found[0]


def keep_state(db: sqlite3.Connection, name: str, state: bytes) -> None:
    """Keep a state."""
    db.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (name, state))
