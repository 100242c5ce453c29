"""The catalog's tables, and the statements that its transactions are made of."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

from cachestore.local.catalog_rows import COLUMNS, Admission, Limits, Row
from cachestore.policy.eviction import EvictionPolicy, Need

VERSION = 1
SCHEMA = f"""
CREATE TABLE entries ({", ".join(COLUMNS)}, PRIMARY KEY (key)) WITHOUT ROWID;
CREATE INDEX used ON entries (pinned, used);
CREATE INDEX file ON entries (file);
CREATE INDEX undurable ON entries (validated) WHERE durable = 0;
CREATE TABLE pins (key PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE totals (bytes INTEGER, entries INTEGER);
INSERT INTO totals VALUES (0, 0);
CREATE TRIGGER added AFTER INSERT ON entries BEGIN
    UPDATE totals SET bytes = bytes + new.allocated, entries = entries + 1;
END;
CREATE TRIGGER removed AFTER DELETE ON entries BEGIN
    UPDATE totals SET bytes = bytes - old.allocated, entries = entries - 1;
END;
PRAGMA user_version = {VERSION};
"""
ALL = ", ".join(COLUMNS)
_INSERT = f"INSERT INTO entries ({ALL}) VALUES ({', '.join('?' * len(COLUMNS))})"
_DELETE = "DELETE FROM entries WHERE key = ?"


def one(db: sqlite3.Connection, key: str) -> Row | None:
    """The key's row."""
    found = db.execute(f"SELECT {ALL} FROM entries WHERE key = ?", (key,)).fetchone()
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


def delete(db: sqlite3.Connection, row: Row) -> bool:
    """Take out this row and no other one of its key; False if it is not there."""
    return db.execute(f"{_DELETE} AND file = ?", (row.key, row.file)).rowcount > 0


def stir(db: sqlite3.Connection) -> None:
    """Change a page, so that this commit is synced, and with it all that came before it.

    SQLite syncs nothing for a transaction that found nothing to change.
    """
    db.execute("UPDATE totals SET entries = entries + 1")
    db.execute("UPDATE totals SET entries = entries - 1")


def admit(
    db: sqlite3.Connection,
    row: Row,
    limits: Limits,
    policy: EvictionPolicy,
    *,
    need_free: int = 0,
    spare: frozenset[str] = frozenset(),
) -> Admission:
    """Put one row in and its victims out; keys in `spare` are no victims.

    The older row of its key leaves in any case: the caller has something newer.
    """
    replaced = one(db, row.key)
    db.execute(_DELETE, (row.key,))
    used, count = totals(db)
    need = Need(
        max(used + row.allocated - limits.bytes, need_free),
        count + 1 - limits.entries if limits.entries else 0,
    )
    victims = [] if need.nothing else _victims(db, need, policy, spare)
    if victims is None or row.allocated > limits.bytes:
        return Admission(False, [], replaced)
    for victim in victims:
        delete(db, victim)
    is_pinned = db.execute("SELECT 1 FROM pins WHERE key = ?", (row.key,)).fetchone() is not None
    db.execute(_INSERT, replace(row, pinned=row.pinned or is_pinned).values())
    return Admission(True, victims, replaced)


def _victims(
    db: sqlite3.Connection, need: Need, policy: EvictionPolicy, spare: frozenset[str]
) -> list[Row] | None:
    """Rows that make room; None if all of them together would not."""
    (used, count), (held, kept) = totals(db), pinned(db)
    if need.bytes > used - held or need.entries > count - kept:
        return None
    chosen = choose(db, need, policy, spare)
    for row in chosen:
        need = need.without(row)
    return chosen if need.nothing else None


def choose(
    db: sqlite3.Connection, need: Need, policy: EvictionPolicy, spare: frozenset[str] = frozenset()
) -> list[Row]:
    """What the policy would evict; may be too little."""
    with closing(_unpinned(db, spare)) as candidates:
        return policy.victims(candidates, need)


def _unpinned(db: sqlite3.Connection, spare: frozenset[str]) -> Generator[Row, None, None]:
    """Unpinned rows, longest unread first."""
    cursor = db.execute(f"SELECT {ALL} FROM entries WHERE pinned = 0 ORDER BY used")
    with closing(cursor):
        for values in cursor:
            row = Row.load(values)
            if row.key not in spare:
                yield row


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
