"""How the catalog chooses which copies leave. Every method runs inside the caller's transaction."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Protocol

from cachestore.local.catalog_rows import Row
from cachestore.local.catalog_schema import ALL, one
from cachestore.options import Options
from cachestore.policy.eviction import EvictionPolicy, LeastRecentlyUsed, Need
from cachestore.policy.hazard import Hazard, Seen

SAMPLE = 32
"""Copies looked at for each that leaves."""

_MOST = 32
_GHOSTS = 4
_REFIT_SAMPLE = 50_000
_SAVE_AFTER = 500


class Evictor(Protocol):
    """Learns of reads, and gives up copies."""

    def requested(self, db: sqlite3.Connection, reads: Mapping[str, int]) -> None:
        """These keys were asked for, each so many times."""
        ...

    def admitting(self, db: sqlite3.Connection, row: Row) -> None:
        """A copy is about to come in."""
        ...

    def victims(
        self, db: sqlite3.Connection, need: Need, spare: frozenset[str], newcomer: Row | None
    ) -> list[Row] | None:
        """Unpinned rows to take out, none of them in `spare`; too little if there are not enough.

        None: the newcomer is worth less than what would have to leave.
        """
        ...

    def learn(self, db: sqlite3.Connection, breathe: Callable[[], None]) -> bytes | None:
        """Now and then, in the background, reading only: what was learned; None if it is not time.

        Lets others run by calling `breathe` often.
        """
        ...

    def keep(self, db: sqlite3.Connection, learned: bytes) -> None:
        """Write down what `learn` gave."""
        ...


class Ordered:
    """By a policy that takes the longest unread first, and learns nothing."""

    def __init__(self, policy: EvictionPolicy | None = None) -> None:
        self._policy: EvictionPolicy = policy or LeastRecentlyUsed()

    def requested(self, db: sqlite3.Connection, reads: Mapping[str, int]) -> None:
        pass

    def admitting(self, db: sqlite3.Connection, row: Row) -> None:
        pass

    def victims(
        self, db: sqlite3.Connection, need: Need, spare: frozenset[str], newcomer: Row | None
    ) -> list[Row] | None:
        with closing(_unpinned(db, spare)) as candidates:
            return self._policy.victims(candidates, need)

    def learn(self, db: sqlite3.Connection, breathe: Callable[[], None]) -> bytes | None:
        return None

    def keep(self, db: sqlite3.Connection, learned: bytes) -> None:
        pass


def _unpinned(db: sqlite3.Connection, spare: frozenset[str]) -> Generator[Row, None, None]:
    """Unpinned rows, longest unread first."""
    cursor = db.execute(f"SELECT {ALL} FROM entries WHERE pinned = 0 ORDER BY used")
    with closing(cursor):
        for values in cursor:
            row = Row.load(values)
            if row.key not in spare:
                yield row


class Learned:
    """By `policy.hazard`: the least valuable of a random sample, the newcomer among them.

    What is known of files, those that left included, is in the table `seen`; the model is one
    value in `learned`, which all processes share and which is read again when it changed.
    """

    def __init__(self, options: Options) -> None:
        self._model = Hazard(options.objective)
        self._version = -1
        self._random = random.Random()

    # -- learning --------------------------------------------------------------------------------

    def requested(self, db: sqlite3.Connection, reads: Mapping[str, int]) -> None:
        tick = self._load(db)
        for key, count in reads.items():
            seen = _seen(db, key)
            if seen is not None:
                tick += count
                self._touch(db, key, seen, seen.size, tick, count)
        self._save(db, tick)

    def admitting(self, db: sqlite3.Connection, row: Row) -> None:
        tick = self._load(db) + 1
        self._touch(db, row.key, _seen(db, row.key), row.allocated, tick, 1)
        db.execute("UPDATE learned SET tick = ?", (tick,))

    def _touch(
        self, db: sqlite3.Connection, key: str, seen: Seen | None, size: int, tick: int, count: int
    ) -> None:
        """`count` requests that came since the last look, the last of them now."""
        new = self._model.touch(seen, size, tick)
        if count > 1:
            # They lie between, nobody knows where: as if they had come at even distances.
            new = new._replace(uses=new.uses + count - 1, gap=max(0, new.gap // count))
        db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?)", (key, *new))

    def _load(self, db: sqlite3.Connection) -> int:
        """Be up to date with what other processes learned; the tick."""
        tick, version = db.execute("SELECT tick, version FROM learned").fetchone()
        if version != self._version:
            [state] = db.execute("SELECT state FROM learned").fetchone()
            if isinstance(state, bytes):
                self._model.adopt(state)
            self._version = version
        return int(tick)

    def _save(self, db: sqlite3.Connection, tick: int) -> None:
        if self._model.fresh < _SAVE_AFTER:
            db.execute("UPDATE learned SET tick = ?", (tick,))
            return
        self._model.absorb()
        self._version += 1
        sql = "UPDATE learned SET tick = ?, version = ?, state = ?"
        db.execute(sql, (tick, self._version, self._model.dump()))

    def learn(self, db: sqlite3.Connection, breathe: Callable[[], None]) -> bytes | None:
        tick, refit_at, state = db.execute("SELECT tick, refit_at, state FROM learned").fetchone()
        if tick < refit_at:
            return None
        # Apart from the model in use, which other threads look at.
        model = Hazard(self._model.objective, self._model.costs)
        if isinstance(state, bytes):
            model.adopt(state)
        [known] = db.execute("SELECT count(*) FROM seen").fetchone()
        share = max(1, known // _REFIT_SAMPLE)
        rows = (Seen(*row) for row in _breathing(db, share, breathe))
        model.refit(rows, tick, weight=share, breathe=breathe)
        return model.dump()

    def keep(self, db: sqlite3.Connection, learned: bytes) -> None:
        """Also forgets the oldest of those that left."""
        tick = self._load(db)
        [known] = db.execute("SELECT count(*) FROM seen").fetchone()
        [here] = db.execute("SELECT entries FROM totals").fetchone()
        self._trim(db, known - (_GHOSTS + 1) * max(64, here))
        sql = "UPDATE learned SET refit_at = ?, version = version + 1, state = ?"
        db.execute(sql, (tick + self._model.refit_after(known), learned))

    def _trim(self, db: sqlite3.Connection, surplus: int) -> None:
        if surplus > 0:
            db.execute(
                "DELETE FROM seen WHERE key IN (SELECT key FROM seen WHERE key NOT IN"
                " (SELECT key FROM entries) ORDER BY tick LIMIT ?)",
                (surplus,),
            )

    # -- choosing --------------------------------------------------------------------------------

    def victims(
        self, db: sqlite3.Connection, need: Need, spare: frozenset[str], newcomer: Row | None
    ) -> list[Row] | None:
        tick = self._load(db)
        own = None if newcomer is None else _seen(db, newcomer.key)
        bar = None if own is None else self._model.value(own, tick)
        chosen: dict[str, Row] = {}
        while not need.nothing:
            sample = self._sample(db, need, spare, chosen, tick)
            if not sample:
                break
            for worth, key, seen in sample:
                if bar is not None and bar < worth:
                    return None
                row = one(db, key)
                if row is None:
                    continue
                chosen[key] = row
                if seen is not None:
                    self._model.evicted(seen, tick)
                need = need.without(row)
                if need.nothing:
                    break
        return list(chosen.values())

    def _sample(
        self,
        db: sqlite3.Connection,
        need: Need,
        spare: frozenset[str],
        chosen: Mapping[str, Row],
        tick: int,
    ) -> list[tuple[float, str, Seen | None]]:
        """The least valuable of a random sample, worst first: one of each `SAMPLE` copies."""
        used, entries = db.execute("SELECT bytes, entries FROM totals").fetchone()
        usual = max(1, used // max(1, entries))
        wanted = max(1, min(_MOST, max(need.bytes // usual, need.entries)))
        # Names begin with a hash: a run of them, from anywhere on, is a random sample.
        start = f"{self._random.getrandbits(256):064x}"
        start = f"{start[:2]}/{start}"
        found: list[tuple[float, str, Seen | None]] = []
        for sql, values in (
            (_RUN + " AND e.file >= ? ORDER BY e.file LIMIT ?", (start, SAMPLE * wanted)),
            (_RUN + " AND e.file < ? ORDER BY e.file LIMIT ?", (start, SAMPLE * wanted)),
        ):
            for key, size, *rest in db.execute(sql, values):
                if key in spare or key in chosen or len(found) >= SAMPLE * wanted:
                    continue
                seen = None if size is None else Seen(size, *rest)
                worth = 0.0 if seen is None else self._model.value(seen, tick)
                found.append((worth, key, seen))
        found.sort(key=lambda each: each[0])
        return found[: max(1, min(wanted, len(found) // SAMPLE))]


def evictor_of(options: Options) -> Evictor:
    """The one that the settings name."""
    return Learned(options) if options.eviction == "hz" else Ordered()


_RUN = (
    "SELECT e.key, s.size, s.tick, s.uses, s.gap, s.kind FROM entries e INDEXED BY file"
    " LEFT JOIN seen s ON s.key = e.key WHERE e.pinned = 0"
)


def _seen(db: sqlite3.Connection, key: str) -> Seen | None:
    sql = "SELECT size, tick, uses, gap, kind FROM seen WHERE key = ?"
    found = db.execute(sql, (key,)).fetchone()
    return None if found is None else Seen(*found)


def _breathing(
    db: sqlite3.Connection, share: int, breathe: Callable[[], None]
) -> Generator[tuple[int, int, int, int, int], None, None]:
    """One of `share` of what is known, in short looks: a long one would keep the log growing."""
    sql = (
        "SELECT key, size, tick, uses, gap, kind FROM seen WHERE key > ?"
        " AND abs(random()) % ? = 0 ORDER BY key LIMIT 64"
    )
    after = ""
    while rows := db.execute(sql, (after, share)).fetchall():
        yield from (row[1:] for row in rows)
        after = rows[-1][0]
        breathe()
