"""Reservations, and files that leave: the part of the catalog that says what is on disk besides.

Every file below the cache folder is in one of three tables: `entries` (clean copies), `reserved`
(what is on its way, by its locked temporary file), `leaving` (what is removed as soon as nobody
uses it: evicted and replaced copies, files that pass through, damaged ones).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cachestore.local.catalog_schema import totals
from cachestore.policy.room import Usage

CACHE, TRANSIT = 0, 1
"""What a file counts to: the cache's limit, or the one for files that pass through."""

_BATCH = 512
_LATER = 1.0
_KNOWN = 100_000

InUse = Callable[[str], float]
"""Until when (wall seconds) a file's path may be in use by whom it was handed to; 0: it is not."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """A file to be removed. `id`: of this entry, since a name may come again."""

    file: str
    bytes: int
    id: int


@dataclass(frozen=True, slots=True)
class Reserved:
    """Room for the file that is written as `part` and becomes `goal`, below the root."""

    part: str
    goal: str
    bytes: int
    area: int
    id: str


def usage(db: sqlite3.Connection, now: float, part: str = "") -> Usage:
    """What is taken, without the reservation of `part` and what can leave at `now`."""
    copies, entries = totals(db)
    taken, arriving, announced = [0, 0], 0, 0
    sql = (
        "SELECT area, sum(bytes), count(*), sum(CASE WHEN part LIKE 'partial/%' THEN 0 ELSE bytes"
        " END) FROM reserved WHERE part != ? GROUP BY area"
    )
    for area, size, count, coming in db.execute(sql, (part,)):
        taken[area] += size
        announced += coming
        arriving += count if area == CACHE else 0
    announced -= _here(db, part)
    sql = "SELECT area, sum(bytes) FROM leaving WHERE until > ? GROUP BY area"
    for area, size in db.execute(sql, (now,)):
        taken[area] += size
    return Usage(copies, entries, taken[CACHE], arriving, taken[TRANSIT], announced)


def _here(db: sqlite3.Connection, part: str) -> int:
    """What of a partial copy's room was taken before: the disk has it already."""
    if not part.startswith("partial/"):
        return 0
    found = db.execute("SELECT bytes FROM reserved WHERE part = ?", (part,)).fetchone()
    return 0 if found is None else int(found[0])


# -- reservations ---------------------------------------------------------------------------------


def reserved(db: sqlite3.Connection) -> list[Reserved]:
    """All reservations but partial copies, those of processes that died included."""
    sql = (
        "SELECT part, goal, bytes, area, id FROM reserved"
        " WHERE part NOT LIKE 'partial/%' OR part NOT IN (SELECT part FROM partials)"
    )
    return [Reserved(*row) for row in db.execute(sql)]


def reserve(db: sqlite3.Connection, wanted: Reserved) -> None:
    """Note room. What somebody left under the same name and who died since, is to be removed."""
    sql = "SELECT part, goal, bytes, area, id FROM reserved WHERE part = ?"
    found = db.execute(sql, (wanted.part,)).fetchone()
    size = wanted.bytes
    if found is not None and found[4] != wanted.id:
        give_up(db, Reserved(*found))
    elif found is not None and wanted.part.startswith("partial/"):
        size = max(size, found[2])  # several write it, and each asks with what it knew
    values = (wanted.part, wanted.goal, size, wanted.area, wanted.id)
    db.execute("INSERT OR REPLACE INTO reserved VALUES (?, ?, ?, ?, ?)", values)


def unreserve(db: sqlite3.Connection, part: str, id_: str) -> Reserved | None:
    """Take this reservation out; None if there is none."""
    sql = "SELECT part, goal, bytes, area, id FROM reserved WHERE part = ? AND id = ?"
    found = db.execute(sql, (part, id_)).fetchone()
    db.execute("DELETE FROM reserved WHERE part = ? AND id = ?", (part, id_))
    return None if found is None else Reserved(*found)


def give_up(db: sqlite3.Connection, *dead: Reserved, files: tuple[str, ...] = ()) -> None:
    """Reservations that are over: what was written for them, under any name, is to be removed.

    `files`: other names that it may have.
    """
    for each in dead:
        found = unreserve(db, each.part, each.id)
        if found is not None:  # it may have grown since it was looked at
            for file in (*files, *places(each.goal)):
                leave(db, file, found.bytes, found.area, 0.0)


def places(goal: str) -> tuple[str, ...]:
    """Where a file that was to become `goal` may be found, once it is whole."""
    name = goal.rpartition("/")[2]
    return (goal,) if goal.startswith("transit/") else (goal, f"transit/{name}")


# -- what leaves ----------------------------------------------------------------------------------


def leave(db: sqlite3.Connection, file: str, size: int, area: int, until: float) -> None:
    """A file without a row is to be removed, at `until` at the earliest; a row protects it."""
    db.execute(
        "INSERT OR REPLACE INTO leaving SELECT ?, ?, ?, ?, random()"
        " WHERE NOT EXISTS (SELECT 1 FROM entries WHERE file = ?)",
        (file, size, area, until, file),
    )


def due(db: sqlite3.Connection, now: float, in_use: InUse, longest: float) -> list[Leaving]:
    """What can be removed at `now`; what is in use is put off until that ends.

    `longest`: seconds that a use lasts at most.
    """
    # A time further ahead is from before the clock was set back.
    sql = "UPDATE leaving SET until = ? WHERE until > ? AND file NOT LIKE 'damaged/%'"
    db.execute(sql, (now, now + longest))
    sql = "SELECT file, bytes, id FROM leaving WHERE until <= ? ORDER BY until"
    free: list[Leaving] = []
    later = []
    for file, size, id_ in db.execute(sql, (now,)).fetchall():
        until = in_use(file)
        if until > now or len(free) >= _BATCH:
            later.append((max(until, now + _LATER), file))
        else:
            free.append(Leaving(file, size, id_))
    db.executemany("UPDATE leaving SET until = ? WHERE file = ?", later)
    return free


def put_off(db: sqlite3.Connection, files: Iterable[Leaving], now: float) -> None:
    """These could not be removed: somebody has them open."""
    values = [(now + _LATER, each.file, each.id) for each in files]
    db.executemany("UPDATE leaving SET until = ? WHERE file = ? AND id = ?", values)


def gone(db: sqlite3.Connection, files: Iterable[Leaving]) -> None:
    """These were removed."""
    values = [(each.file, each.id) for each in files]
    if values:
        db.executemany("DELETE FROM leaving WHERE file = ? AND id = ?", values)


def next_due(db: sqlite3.Connection) -> float | None:
    """When the next file may be removed (wall seconds); None if none is to be."""
    [until] = db.execute("SELECT min(until) FROM leaving").fetchone()
    return None if until is None else float(until)


def give_up_damaged(db: sqlite3.Connection) -> bool:
    """Damaged files are kept for people to look at, unless that is the only room left."""
    sql = "UPDATE leaving SET until = 0 WHERE until > 0 AND file LIKE 'damaged/%'"
    return db.execute(sql).rowcount > 0


# -- a catalog that was begun anew ----------------------------------------------------------------


def is_counted(db: sqlite3.Connection) -> bool:
    """False until the files that an older catalog left were noted."""
    [done] = db.execute("SELECT done FROM counted").fetchone()
    return bool(done)


def count(db: sqlite3.Connection, found: Iterable[tuple[str, int, int, float]]) -> None:
    """Note files that are on disk (name, bytes, area, until when they stay), once."""
    if is_counted(db):
        return
    for file, size, area, until in found:
        leave(db, file, size, area, until)
    db.execute("UPDATE counted SET done = 1")


# -- uses of what is not kept ---------------------------------------------------------------------


def asked(db: sqlite3.Connection, key: str, now: float) -> int:
    """Count a miss of the key; how many there were."""
    db.execute(
        "INSERT INTO asked VALUES (?, 1, ?)"
        " ON CONFLICT (key) DO UPDATE SET uses = uses + 1, last = excluded.last",
        (key, now),
    )
    [uses] = db.execute("SELECT uses FROM asked WHERE key = ?", (key,)).fetchone()
    return int(uses)


def forget_asked(db: sqlite3.Connection) -> None:
    """Keep the latest of the keys that were counted."""
    db.execute(
        "DELETE FROM asked WHERE last <= (SELECT last FROM asked ORDER BY last DESC"
        f" LIMIT 1 OFFSET {_KNOWN})"
    )
