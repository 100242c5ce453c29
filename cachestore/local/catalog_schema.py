"""The catalog's tables, and the statements that its transactions are made of."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from cachestore.local import noted, tallies
from cachestore.local.catalog_rows import COLUMNS, Row
from cachestore.policy.hazard import refit_after

VERSION = 7
KNOWN = f"""
CREATE TABLE seen (
    name INTEGER PRIMARY KEY, key, size, tick, uses, gap, kind, heat REAL, floor REAL, rank REAL,
    last REAL
);
CREATE INDEX ranked ON seen (rank) WHERE rank IS NOT NULL;
CREATE TABLE ghosts (
    name INTEGER PRIMARY KEY, key, size, tick, uses, gap, kind, heat REAL, floor REAL
);
CREATE INDEX ghosts_tick ON ghosts (tick);
CREATE TABLE requests (id INTEGER PRIMARY KEY AUTOINCREMENT, name, size, tick);
CREATE TABLE learned (
    tick INTEGER, refit_at INTEGER, version INTEGER, rule INTEGER, shift INTEGER, floor REAL,
    costs BLOB, entered INTEGER
);
INSERT INTO learned VALUES (0, {refit_after(0, 0)}, 0, 0, 0, 0, NULL, 0);
CREATE TABLE kept (name TEXT PRIMARY KEY, state BLOB);
"""
PARTIALS = """
CREATE TABLE partials (key, part UNIQUE, block, token, validated, used, info, PRIMARY KEY (key));
CREATE TABLE blocks (part, number, whole, pages BLOB, PRIMARY KEY (part, number)) WITHOUT ROWID;
CREATE TRIGGER partial_over AFTER DELETE ON reserved WHEN old.part LIKE 'partial/%' BEGIN
    DELETE FROM partials WHERE part = old.part;
    DELETE FROM blocks WHERE part = old.part;
END;
CREATE TRIGGER whole_instead AFTER INSERT ON entries BEGIN
    INSERT OR REPLACE INTO leaving SELECT part, bytes, area, 0, random() FROM reserved
        WHERE part = (SELECT part FROM partials WHERE key = new.key);
    DELETE FROM reserved WHERE part = (SELECT part FROM partials WHERE key = new.key);
END;
"""
SCHEMA = f"""
CREATE TABLE entries ({", ".join(COLUMNS)}, PRIMARY KEY (key)) WITHOUT ROWID;
CREATE INDEX used ON entries (pinned, used);
CREATE INDEX file ON entries (file);
CREATE INDEX undurable ON entries (validated) WHERE durable = 0;
CREATE TABLE pins (key PRIMARY KEY) WITHOUT ROWID;
{KNOWN}
{noted.SCHEMA}
CREATE TABLE totals (bytes INTEGER, entries INTEGER);
INSERT INTO totals VALUES (0, 0);
CREATE TRIGGER added AFTER INSERT ON entries BEGIN
    UPDATE totals SET bytes = bytes + new.allocated, entries = entries + 1;
END;
CREATE TRIGGER removed AFTER DELETE ON entries BEGIN
    UPDATE totals SET bytes = bytes - old.allocated, entries = entries - 1;
END;
{tallies.SCHEMA}
CREATE TABLE minutes (minute, what, count, bytes, PRIMARY KEY (minute, what)) WITHOUT ROWID;
CREATE TABLE reserved (part, goal, bytes, area, id, PRIMARY KEY (part)) WITHOUT ROWID;
CREATE TABLE leaving (file, bytes, area, until, id, PRIMARY KEY (file)) WITHOUT ROWID;
CREATE INDEX leaving_until ON leaving (until, area, bytes);
CREATE TABLE asked (key, uses, last, PRIMARY KEY (key)) WITHOUT ROWID;
CREATE INDEX asked_last ON asked (last);
CREATE TABLE counted (done INTEGER);
INSERT INTO counted VALUES (0);
CREATE TRIGGER left_behind AFTER DELETE ON entries BEGIN
    INSERT OR REPLACE INTO leaving VALUES (old.file, old.allocated, 0, 0, random());
END;
CREATE TRIGGER kept AFTER INSERT ON entries BEGIN
    DELETE FROM leaving WHERE file = new.file;
END;
{PARTIALS}
PRAGMA user_version = {VERSION};
"""
ALL = ", ".join(COLUMNS)
_INSERT = f"INSERT INTO entries ({ALL}) VALUES ({', '.join('?' * len(COLUMNS))})"
_DELETE = "DELETE FROM entries WHERE key = ?"


def one(db: sqlite3.Connection, key: str) -> Row | None:
    """The key's row."""
    found = db.execute(f"SELECT {ALL} FROM entries WHERE key = ?", (key,)).fetchone()
    return None if found is None else Row.load(found)


def one_named(db: sqlite3.Connection, name: int) -> Row | None:
    """The row of a key's number."""
    sql = f"SELECT {ALL} FROM entries WHERE key = (SELECT key FROM seen WHERE name = ?)"
    found = db.execute(sql, (name,)).fetchone()
    return None if found is None else Row.load(found)


def totals(db: sqlite3.Connection) -> tuple[int, int]:
    """Allocated bytes and entries, kept by triggers."""
    used, count = db.execute("SELECT bytes, entries FROM totals").fetchone()
    return int(used), int(count)


def pinned(db: sqlite3.Connection) -> tuple[int, int]:
    """Allocated bytes and entries that may not be evicted."""
    sql = "SELECT coalesce(sum(allocated), 0), count(*) FROM entries WHERE pinned = 1"
    used, count = db.execute(sql).fetchone()
    return int(used), int(count)


def is_pinned(db: sqlite3.Connection, key: str) -> bool:
    """True for a key whose copies are never evicted."""
    return db.execute("SELECT 1 FROM pins WHERE key = ?", (key,)).fetchone() is not None


def insert(db: sqlite3.Connection, row: Row) -> None:
    """Put a row in, pinned if its key is; there must be none of its key."""
    db.execute(_INSERT, replace(row, pinned=row.pinned or is_pinned(db, row.key)).values())


def delete_key(db: sqlite3.Connection, key: str) -> None:
    """Take out whatever row the key has."""
    db.execute(_DELETE, (key,))


def delete(db: sqlite3.Connection, row: Row) -> bool:
    """Take out this row and no other one of its key; False if it is not there."""
    return db.execute(f"{_DELETE} AND file = ?", (row.key, row.file)).rowcount > 0


def delete_unpinned(db: sqlite3.Connection, row: Row) -> bool:
    """The same, unless it was pinned since."""
    sql = f"{_DELETE} AND file = ? AND pinned <= ?"
    return db.execute(sql, (row.key, row.file, row.pinned)).rowcount > 0


def stir(db: sqlite3.Connection) -> None:
    """Change a page, so that this commit is synced, and with it all that came before it.

    SQLite syncs nothing for a transaction that found nothing to change.
    """
    db.execute("UPDATE totals SET entries = entries + 1")
    db.execute("UPDATE totals SET entries = entries - 1")


def end_of_prefix(prefix: str) -> str | None:
    """The first text behind all that start with `prefix`, in UTF-8 order; None: there is none."""
    while prefix:
        last = ord(prefix[-1]) + 1
        if last == 0xD800:
            last = 0xE000  # surrogates are no characters
        if last <= 0x10FFFF:
            return prefix[:-1] + chr(last)
        prefix = prefix[:-1]
    return None
