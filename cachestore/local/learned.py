"""The eviction policy `hz` in the catalog: the least valuable of a random sample leaves."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from cachestore.local.catalog_rows import Row
from cachestore.local.catalog_schema import one
from cachestore.local.known import SEEN, Known, keep_state, seen_of, state_of
from cachestore.options import Options
from cachestore.policy.eviction import Need
from cachestore.policy.hazard import Hazard, Seen, refit_after, refit_share
from cachestore.policy.tournament import Tournament, name_of

SAMPLE = 64
"""Copies looked at for each that leaves."""

_MOST = 32
_ROUNDS = 4
_SLICE = 0.0002
_PLAY_AFTER = 256
_PLAY_AT_MOST = 5_000


@dataclass(frozen=True, slots=True)
class Lesson:
    """What was learned in the background. `upto`: the last request that it takes into account;
    `model`: only after a refit."""

    upto: int
    rule: int
    shift: int
    floor: float
    contest: bytes
    model: bytes | None


class Learned(Known):
    """By `policy.hazard`, the newcomer among the sample, ranked as `policy.tournament` found best.

    Requests of the few files that take part in the tournament are written down in `requests`, and
    played in the background by whichever process comes first.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._options = options
        self._rule = 0
        self._shift = 0
        self._random = random.Random()

    # -- learning --------------------------------------------------------------------------------

    def _load(self, db: sqlite3.Connection) -> int:
        self._rule, self._shift = db.execute("SELECT rule, shift FROM learned").fetchone()
        return super()._load(db)

    def _write(self, db: sqlite3.Connection, files: Sequence[tuple[int, str, Seen]]) -> None:
        super()._write(db, files)
        mask = (1 << self._shift) - 1
        asked = [(name, seen.size, seen.tick) for name, _, seen in files if not name & mask]
        db.executemany("INSERT INTO requests (name, size, tick) VALUES (?, ?, ?)", asked)

    def learn(self, db: sqlite3.Connection, breathe: Callable[[], None]) -> Lesson | None:
        tick, refit_at = db.execute("SELECT tick, refit_at FROM learned").fetchone()
        [waiting] = db.execute("SELECT count(*) FROM requests").fetchone()
        if tick < refit_at and waiting < _PLAY_AFTER:
            return None
        breathe = _in_slices(breathe)
        # Apart from the model in use, which other threads look at.
        model = Hazard(self._options.objective, self._costs.costs)
        model.adopt(state_of(db, "hazard"))
        contest = Tournament(model, self._options.cache_max_bytes)
        contest.adopt(state_of(db, "contest"), breathe)
        upto = self._play(db, contest, breathe)
        if tick >= refit_at:
            self._refit(db, model, tick, breathe)
        return Lesson(
            upto, contest.rule, contest.shift, contest.floor, contest.dump(breathe),
            model.dump() if tick >= refit_at else None,
        )  # fmt: skip

    def _play(
        self, db: sqlite3.Connection, contest: Tournament, breathe: Callable[[], None]
    ) -> int:
        """Let the shadows take part in what was asked for; the number of the last request."""
        sql = "SELECT id, name, size, tick FROM requests ORDER BY id DESC LIMIT ?"
        asked = db.execute(sql, (_PLAY_AT_MOST,)).fetchall()
        for _, name, size, tick in reversed(asked):
            if contest.takes(name):
                contest.request(name, size, tick, breathe)
        return int(asked[0][0]) if asked else 0

    def _refit(
        self, db: sqlite3.Connection, model: Hazard, tick: int, breathe: Callable[[], None]
    ) -> None:
        tables = ("seen", "ghosts")
        known = sum(db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables)
        share = refit_share(known)
        rows = (seen for table in tables for seen in _one_of(db, table, share))
        model.refit(rows, tick, weight=share, breathe=breathe)

    def keep(self, db: sqlite3.Connection, lesson: Lesson) -> None:
        tick = self._load(db)
        sql = "UPDATE learned SET rule = ?, shift = ?, floor = ?"
        db.execute(sql, (lesson.rule, lesson.shift, lesson.floor))
        db.execute("DELETE FROM requests WHERE id <= ?", (lesson.upto,))
        keep_state(db, "contest", lesson.contest)
        if lesson.model is not None:
            keep_state(db, "hazard", lesson.model)
            known = self._trim(db)
            sql = "UPDATE learned SET refit_at = ?, version = version + 1"
            db.execute(sql, (tick + refit_after(known, tick),))

    # -- choosing --------------------------------------------------------------------------------

    def victims(
        self, db: sqlite3.Connection, need: Need, spare: frozenset[str], newcomer: Row | None
    ) -> list[Row] | None:
        tick = self._load(db)
        bar = inf
        chosen: dict[str, Row] = {}
        if newcomer is not None:
            seen = seen_of(db, name_of(newcomer.key))
            bar = inf if seen is None else self._model.value(seen, tick, self._rule)
            spare |= {newcomer.key}
        need = self._take(self._longest_unread(db, spare, unknown=True), chosen, need)
        rounds = 0
        while not need.nothing and rounds < _ROUNDS:
            need, worst = self._choose(db, need, spare, chosen, tick, bar)
            if bar < worst:
                self._left(db, [] if newcomer is None else [newcomer.key])
                return None
            rounds = 0 if worst > -inf else rounds + 1
        self._take(self._longest_unread(db, {*spare, *chosen}, unknown=False), chosen, need)
        return list(chosen.values())

    def _take(self, rows: Iterator[Row], chosen: dict[str, Row], need: Need) -> Need:
        """Choose as many as are needed; what is needed still."""
        while not need.nothing and (row := next(rows, None)) is not None:
            chosen[row.key] = row
            need = need.without(row)
        return need

    def _choose(
        self,
        db: sqlite3.Connection,
        need: Need,
        spare: frozenset[str],
        chosen: dict[str, Row],
        tick: int,
        bar: float,
    ) -> tuple[Need, float]:
        """Choose the worst of a sample, one of each `SAMPLE` copies, as long as none of them is
        worth more than `bar`; what is needed still, and the worth of the last one (-inf: none
        of the sample is here)."""
        used, entries = db.execute("SELECT bytes, entries FROM totals").fetchone()
        usual = max(1, used // max(1, entries))
        wanted = max(1, min(_MOST, max(need.bytes // usual, need.entries)))
        found = self._sample(db, SAMPLE * wanted, tick)
        worst, gone, more = -inf, [], max(1, len(found) // SAMPLE)
        for worth, key, seen in found:
            if need.nothing or not more or bar < worst:
                break
            if key in spare or key in chosen:
                continue
            row = one(db, key)
            if row is None:
                gone.append(key)
            elif not row.pinned:
                worst, more = worth, more - 1
                if worth <= bar:
                    chosen[key] = row
                    need = need.without(row)
                    self._model.evicted(seen, tick)
        if db.in_transaction:
            self._left(db, gone)
        return need, worst

    def _sample(
        self, db: sqlite3.Connection, count: int, tick: int
    ) -> list[tuple[float, str, Seen]]:
        """Files that are here, from anywhere on in the order of their hashes, worst first."""
        start = self._random.getrandbits(56)
        rows = db.execute(_RUN + ">= ? ORDER BY name LIMIT ?", (start, count)).fetchall()
        if len(rows) < count:
            rest = (start, count - len(rows))
            rows += db.execute(_RUN + "< ? ORDER BY name LIMIT ?", rest).fetchall()
        files = [Seen(*row[1:]) for row in rows]
        worths = self._model.values(files, tick, self._rule)
        order = sorted(range(len(rows)), key=worths.__getitem__)
        return [(worths[at], rows[at][0], files[at]) for at in order]


def _one_of(db: sqlite3.Connection, table: str, share: int) -> Generator[Seen, None, None]:
    """One of `share` rows, in short looks: a long one would keep the log growing."""
    sql = (
        f"SELECT name, {SEEN} FROM {table} WHERE name > ? AND abs(random()) % ? = 0"
        " ORDER BY name LIMIT 64"
    )
    after = -1
    while rows := db.execute(sql, (after, share)).fetchall():
        yield from (Seen(*row[1:]) for row in rows)
        after = rows[-1][0]


def _in_slices(breathe: Callable[[], None]) -> Callable[[], None]:
    """Breathe only after a slice of work: it takes a thousand times longer than to ask."""
    last = time.perf_counter()

    def maybe() -> None:
        nonlocal last
        if time.perf_counter() - last > _SLICE:
            breathe()
            last = time.perf_counter()

    return maybe


_RUN = f"SELECT key, {SEEN} FROM seen WHERE name "
