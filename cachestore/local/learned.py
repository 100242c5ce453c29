"""The eviction policy `hz` in the catalog: the least valuable of a random sample leaves."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

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

    Requests of the few files that take part in the tournament are written down in `asked`, and
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

    def _touch(
        self, db: sqlite3.Connection, key: str, seen: Seen | None, size: int, tick: int, count: int
    ) -> None:
        super()._touch(db, key, seen, size, tick, count)
        name = name_of(key)
        if not name & ((1 << self._shift) - 1):
            values = (name, size, tick, count)
            db.execute("INSERT INTO asked (name, size, tick, count) VALUES (?, ?, ?, ?)", values)

    def learn(self, db: sqlite3.Connection, breathe: Callable[[], None]) -> Lesson | None:
        tick, refit_at = db.execute("SELECT tick, refit_at FROM learned").fetchone()
        [waiting] = db.execute("SELECT count(*) FROM asked").fetchone()
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
        sql = "SELECT id, name, size, tick, count FROM asked ORDER BY id DESC LIMIT ?"
        asked = db.execute(sql, (_PLAY_AT_MOST,)).fetchall()
        for _, name, size, tick, count in reversed(asked):
            for _ in range(min(count, 2) if contest.takes(name) else 0):
                contest.request(name, size, tick, breathe)
        return int(asked[0][0]) if asked else 0

    def _refit(
        self, db: sqlite3.Connection, model: Hazard, tick: int, breathe: Callable[[], None]
    ) -> None:
        [known] = db.execute("SELECT count(*) FROM seen").fetchone()
        share = refit_share(known)
        sql = f"SELECT {SEEN} FROM seen WHERE abs(random()) % ? = 0"
        rows = (Seen(*row) for row in db.execute(sql, (share,)))
        model.refit(rows, tick, weight=share, breathe=breathe)

    def keep(self, db: sqlite3.Connection, lesson: Lesson) -> None:
        tick = self._load(db)
        sql = "UPDATE learned SET rule = ?, shift = ?, floor = ?"
        db.execute(sql, (lesson.rule, lesson.shift, lesson.floor))
        db.execute("DELETE FROM asked WHERE id <= ?", (lesson.upto,))
        keep_state(db, "contest", lesson.contest)
        if lesson.model is not None:
            keep_state(db, "hazard", lesson.model)
            self._trim(db)
            [known] = db.execute("SELECT count(*) FROM seen").fetchone()
            sql = "UPDATE learned SET refit_at = ?, version = version + 1"
            db.execute(sql, (tick + refit_after(known, tick),))

    # -- choosing --------------------------------------------------------------------------------

    def victims(
        self, db: sqlite3.Connection, need: Need, spare: frozenset[str], newcomer: Row | None
    ) -> list[Row] | None:
        tick = self._load(db)
        own = None if newcomer is None else seen_of(db, newcomer.key)
        bar = None if own is None else self._model.value(own, tick, self._rule)
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
        found: list[tuple[float, str, Seen | None]] = []
        known: dict[str, Seen] = {}
        for key, size, *rest in self._run_of(db, SAMPLE * wanted):
            if key in spare or key in chosen or len(found) + len(known) >= SAMPLE * wanted:
                continue
            if size is None:
                found.append((0.0, key, None))
            else:
                known[key] = Seen(size, *rest)
        worths = self._model.values(known.values(), tick, self._rule)
        found += [(worth, *each) for worth, each in zip(worths, known.items(), strict=True)]
        found.sort(key=lambda each: each[0])
        return found[: max(1, min(wanted, len(found) // SAMPLE))]

    def _run_of(
        self, db: sqlite3.Connection, count: int
    ) -> Generator[tuple[str, *tuple[Any, ...]], None, None]:
        """Names begin with a hash: a run of them, from anywhere on, is a random sample."""
        start = f"{self._random.getrandbits(256):064x}"
        start = f"{start[:2]}/{start}"
        for where in ("e.file >= ?", "e.file < ?"):
            yield from db.execute(f"{_RUN} AND {where} ORDER BY e.file LIMIT ?", (start, count))


def _in_slices(breathe: Callable[[], None]) -> Callable[[], None]:
    """Breathe only after a slice of work: it takes a thousand times longer than to ask."""
    last = time.perf_counter()

    def maybe() -> None:
        nonlocal last
        if time.perf_counter() - last > _SLICE:
            breathe()
            last = time.perf_counter()

    return maybe


_RUN = (
    f"SELECT e.key, {', '.join(f's.{name}' for name in SEEN.split(', '))} FROM entries e"
    " INDEXED BY file LEFT JOIN seen s ON s.key = e.key WHERE e.pinned = 0"
)
