"""The eviction policy `hz` in the catalog: the least valuable of a random sample leaves."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from operator import itemgetter

from cachestore.local import noted
from cachestore.local.catalog_rows import Row
from cachestore.local.catalog_schema import one_named, totals
from cachestore.local.known import (
    SEEN,
    Asked,
    Known,
    keep_state,
    seen_of,
    state_of,
)
from cachestore.local.noted import Noted, Part, Read
from cachestore.options import Options
from cachestore.policy.eviction import Need
from cachestore.policy.hazard import GDSF, Hazard, Plain, Seen, refit_after, refit_share
from cachestore.policy.tournament import Tournament, known_in, name_of

SAMPLE = 64
"""Copies looked at for each that leaves."""

_LEAST_SAMPLE = 16
_MOST, _TRUST = 32, 64
_ROUNDS = 4
_LOOK = 64
_SLICE = 0.0002
_PLAY_AFTER, _PLAY_SHARE, _FEW = 256, 8, 32
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


@dataclass(slots=True)
class Walk:
    """Once around all files, in the order of their names, from anywhere on. `at`: the next one."""

    at: int


class Learned(Known):
    """By `policy.hazard`, the newcomer among the sample, ranked as `policy.tournament` found best.

    Requests of the few files that take part in the tournament are written down in `requests`, and
    played in the background by whichever process comes first.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._options = options
        self._noted = Noted()
        self._all_known = 0  # so often nobody looks for copies that the policy never met
        self._random = random.Random()

    # -- reads -----------------------------------------------------------------------------------

    def requested(self, db: sqlite3.Connection, reads: Mapping[str, tuple[int, float]]) -> None:
        tick = noted.note(db, reads, self._load(db))
        self._save(db, tick)

    def parts(self, db: sqlite3.Connection, breathe: Callable[[], None]) -> list[Part]:
        keys = noted.waiting(db)
        if not keys:
            return []
        [here] = db.execute("SELECT entries FROM totals").fetchone()
        if keys < noted.enter_after(here):
            worth = keys if keys > here // _FEW else 0
            if not self._is_time(db, worth):
                return []
        [entered] = db.execute("SELECT entered FROM learned").fetchone()
        self._noted.catch_up(db, entered, breathe)
        return self._noted.parts()

    def enter(self, db: sqlite3.Connection, part: Part) -> bool:
        tick = self._load(db)
        reads = {name: asked for name in part.names if (asked := self._noted.of(name))}
        self._enter(db, reads)
        if part.upto is not None:
            noted.end(db, part.upto)
            self._save(db, tick)
        return True

    def _entered(self, db: sqlite3.Connection, name: int, size: int, reads: Sequence[Read]) -> None:
        if self._plays(name):
            db.executemany(_ASK, [(name, size, tick) for _, _, tick, _ in reads])

    def _plays(self, name: int) -> bool:
        return not name & ((1 << self._shift) - 1)

    def read_last(self, db: sqlite3.Connection, keys: Iterable[str]) -> dict[str, float]:
        found = super().read_last(db, keys)
        [entered] = db.execute("SELECT entered FROM learned").fetchone()
        self._noted.catch_up(db, entered)
        for key in keys:
            for _, _, _, last in self._noted.of(name_of(key)):
                found[key] = max(last, found.get(key, 0.0))
        return found

    def _current(self, name: int, seen: Seen | None, ask: Asked) -> Seen | None:
        return None if seen is None else self._read(seen, self._noted.of(name), ask)

    def _left(self, db: sqlite3.Connection, names: Iterable[int]) -> None:
        """What was noted of them came before they left."""
        names = list(names)
        reads = {name: asked for name in names if (asked := self._noted.of(name))}
        if reads:
            self._enter(db, reads)
        super()._left(db, names)

    # -- learning --------------------------------------------------------------------------------

    def _caught_up(self, db: sqlite3.Connection) -> int:
        tick = self._load(db)
        self._noted.catch_up(db, self._upto)
        return tick

    def _write(self, db: sqlite3.Connection, name: int, row: Row, seen: Seen) -> None:
        super()._write(db, name, row, seen)
        if self._plays(name):
            db.execute(_ASK, (name, seen.size, seen.tick))

    def _is_time(self, db: sqlite3.Connection, keys: int = 0) -> bool:
        """For a refit, or for the tournament to go on. `keys`: read, and not entered yet."""
        tick, refit_at, shift = db.execute("SELECT tick, refit_at, shift FROM learned").fetchone()
        [asked] = db.execute("SELECT count(*) FROM requests").fetchone()
        sql = "SELECT length(state) FROM kept WHERE name = 'contest'"
        [size] = db.execute(sql).fetchone() or (0,)
        enough = max(_PLAY_AFTER, known_in(size) // _PLAY_SHARE)
        return bool(tick >= refit_at or asked + (keys >> shift) >= enough)

    def learn(self, db: sqlite3.Connection, breathe: Callable[[], None]) -> Lesson | None:
        if not self._is_time(db):
            return None
        tick, refit_at = db.execute("SELECT tick, refit_at FROM learned").fetchone()
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
        # Reads were entered in the order of their files.
        for _, name, size, tick in sorted(asked, key=itemgetter(3)):
            if contest.takes(name):
                contest.request(name, size, tick, breathe)
        return int(asked[0][0]) if asked else 0

    def _refit(
        self, db: sqlite3.Connection, model: Hazard, tick: int, breathe: Callable[[], None]
    ) -> None:
        counts = {
            table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("seen", "ghosts")
        }
        share = refit_share(sum(counts.values()))
        rows = (
            row for table, count in counts.items() for row in self._some_of(db, table, count, share)
        )
        model.refit(rows, tick, weight=share, breathe=breathe)

    def _some_of(
        self, db: sqlite3.Connection, table: str, count: int, share: int
    ) -> Generator[tuple[int, int], None, None]:
        """One of `share` rows, in short looks: a long one would keep the log growing."""
        sql = f"SELECT kind, tick, name FROM {table} WHERE name > ? ORDER BY name LIMIT {_LOOK}"
        if share == 1:
            after = -1
            while rows := db.execute(sql, (after,)).fetchall():
                yield from (row[:2] for row in rows)
                after = rows[-1][2]
        else:
            # Names are hashes: what follows any of them is a random sample.
            for _ in range(-(-count // (share * _LOOK))):
                rows = db.execute(sql, (self._random.getrandbits(56),)).fetchall()
                yield from (row[:2] for row in rows)

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
        tick = self._caught_up(db)
        bar, walk = inf, Walk(self._random.getrandbits(56))
        chosen: dict[int, Row] = {}
        if newcomer is not None:
            seen = seen_of(db, name_of(newcomer.key))
            bar = inf if seen is None else self._model.value(seen, tick, self._rule)
            spare |= {newcomer.key}
        if self._all_known:
            self._all_known -= 1
        else:
            need = self._take(self._longest_unread(db, spare, unknown=True), chosen, need)
            self._all_known = 0 if chosen else _TRUST
        rounds = 0
        while not need.nothing and rounds < _ROUNDS:
            need, worst = self._choose(db, need, spare, chosen, walk, tick, bar)
            if bar < worst:
                self._left(db, [] if newcomer is None else [name_of(newcomer.key)])
                return None
            rounds = 0 if worst > -inf else rounds + 1
        spare |= {row.key for row in chosen.values()}
        self._take(self._longest_unread(db, spare, unknown=False), chosen, need)
        return list(chosen.values())

    def _take(self, rows: Iterator[Row], chosen: dict[int, Row], need: Need) -> Need:
        """Choose as many as are needed; what is needed still."""
        while not need.nothing and (row := next(rows, None)) is not None:
            chosen[name_of(row.key)] = row
            need = need.without(row)
        return need

    def _choose(
        self,
        db: sqlite3.Connection,
        need: Need,
        spare: frozenset[str],
        chosen: dict[int, Row],
        walk: Walk,
        tick: int,
        bar: float,
    ) -> tuple[Need, float]:
        """Choose the worst of a sample, one of each so many copies, as long as none of them is
        worth more than `bar`; what is needed still, and the worth of the last one (-inf: none
        of the sample is here)."""
        used, entries = totals(db)
        usual = max(1, used // max(1, entries))
        wanted = max(1, min(_MOST, max(need.bytes // usual, need.entries)))
        # Where a twentieth has to leave, the worst of twenty is right.
        part = min(used // max(1, need.bytes), entries // max(1, need.entries))
        each = max(_LEAST_SAMPLE, min(SAMPLE, part))
        found = self._sample(db, walk, each * wanted, tick)
        worst, gone, more = -inf, [], max(1, len(found) // each)
        for worth, name, last in found:
            if need.nothing or not more or bar < worst:
                break
            if name in chosen:
                continue
            row = one_named(db, name)
            if row is None:
                gone.append(name)
            elif not (row.pinned or row.key in spare):
                worst, more = worth, more - 1
                if worth <= bar:
                    chosen[name] = row
                    need = need.without(row)
                    self._model.evicted(last, tick)
        if db.in_transaction:
            self._left(db, gone)
        return need, worst

    def _sample(
        self, db: sqlite3.Connection, walk: Walk, count: int, tick: int
    ) -> list[tuple[float, int, int]]:
        """The next files that are here, in the order of their names, worst first: what each is
        worth, its name, and the tick of its last request."""
        start, run = walk.at, _RANKED_RUN if self._rule == GDSF else _RUN
        rows = db.execute(run + ">= ? ORDER BY name LIMIT ?", (start, count)).fetchall()
        if len(rows) < count:
            rest = (start, count - len(rows))
            rows += db.execute(run + "< ? ORDER BY name LIMIT ?", rest).fetchall()
        walk.at = rows[-1][0] + 1 if rows else 0
        files: list[Plain] = [row[1:] for row in rows]
        noted_of = self._noted.names
        for at, row in enumerate(rows):
            seen = seen_of(db, row[0]) if row[0] in noted_of else None
            if seen is not None:
                files[at] = self._read(seen, self._noted.of(row[0]), self._model.after)
        worths = self._model.values(files, tick, self._rule)
        order = sorted(range(len(rows)), key=worths.__getitem__)
        return [(worths[at], rows[at][0], files[at][1]) for at in order]


def _in_slices(breathe: Callable[[], None]) -> Callable[[], None]:
    """Breathe only after a slice of work: it takes a thousand times longer than to ask."""
    last = time.perf_counter()

    def maybe() -> None:
        nonlocal last
        if time.perf_counter() - last > _SLICE:
            breathe()
            last = time.perf_counter()

    return maybe


_ASK = "INSERT INTO requests (name, size, tick) VALUES (?, ?, ?)"
# What a rule does not look at is not read.
_RUN = "SELECT name, size, tick, 1, -1, kind, heat, 0.0 FROM seen WHERE name "
_RANKED_RUN = f"SELECT name, {SEEN} FROM seen WHERE name "
