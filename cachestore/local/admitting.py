"""Admission: a row comes in and its victims leave, in one transaction of the catalog."""

from __future__ import annotations

import sqlite3

from cachestore.local.catalog_rows import Admission, Limits, Row
from cachestore.local.catalog_schema import delete, delete_key, insert, one, pinned, totals
from cachestore.local.evictors import Evictor
from cachestore.policy.eviction import Need


def admit(
    db: sqlite3.Connection,
    row: Row,
    limits: Limits,
    evictor: Evictor,
    *,
    need_free: int = 0,
    spare: frozenset[str] = frozenset(),
) -> Admission:
    """Put one row in and its victims out; keys in `spare` are no victims.

    The older row of its key leaves in any case: the caller has something newer.
    """
    replaced = one(db, row.key)
    delete_key(db, row.key)
    evictor.admitting(db, row)
    used, count = totals(db)
    need = Need(
        max(used + row.allocated - limits.bytes, need_free),
        count + 1 - limits.entries if limits.entries else 0,
    )
    if row.allocated > limits.bytes:
        return Admission(False, [], replaced)
    victims = [] if need.nothing else _victims(db, need, evictor, spare, row)
    if victims is None:
        return Admission(False, [], replaced)
    for victim in victims:
        delete(db, victim)
    insert(db, row)
    return Admission(True, victims, replaced)


def _victims(
    db: sqlite3.Connection, need: Need, evictor: Evictor, spare: frozenset[str], newcomer: Row
) -> list[Row] | None:
    """Rows that make room; None if all of them together would not, or should not."""
    (used, count), (held, kept) = totals(db), pinned(db)
    if need.bytes > used - held or need.entries > count - kept:
        return None
    chosen = evictor.victims(db, need, spare, newcomer)
    for row in chosen or ():
        need = need.without(row)
    return chosen if need.nothing else None
