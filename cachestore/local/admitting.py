"""Admission, in two transactions of the catalog: room before the first byte, the row at the end.

Each chooses what leaves and takes it out together with what comes in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from cachestore.local.catalog_rows import Admission, Row
from cachestore.local.catalog_schema import (
    delete,
    delete_key,
    insert,
    is_pinned,
    one,
    pinned,
    totals,
)
from cachestore.local.evictors import Evictor
from cachestore.local.partial_rows import give_up_idle
from cachestore.local.room_rows import (
    CACHE,
    TRANSIT,
    InUse,
    Leaving,
    Reserved,
    asked,
    due,
    give_up_damaged,
    gone,
    is_counted,
    reserve,
    unreserve,
    usage,
)
from cachestore.policy import room
from cachestore.policy.eviction import Need
from cachestore.policy.room import Limits, Usage, shortfall

Answer = Literal["granted", "refused", "full", "again", "uncounted"]
_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Ask:
    """Room for a file before it is there. `row`: what is known of it; `allocated` at most.

    `kept`: it is to become a copy, else it passes through. `only_kept`: not at all otherwise.
    `first`: not asked before for this download. `removed`: files that are gone since. `whole`:
    bytes of the object, where room is asked for a part of it.
    """

    row: Row
    part: str
    id: str
    kept: bool = True
    only_kept: bool = False
    first: bool = True
    removed: tuple[Leaving, ...] = ()
    whole: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all. `in_use` as in `room_rows`, `longest` in seconds.

    `idle`: whether nobody has a partial copy's file open.
    """

    limits: Limits
    rules: room.Admission
    now: float
    in_use: InUse
    longest: float
    idle: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an `Ask` was answered.

    `area`: where the file counts. `reason`: why it is not to be kept. `evicted`: rows that went.
    `going`: files to be removed before the first byte is written.
    """

    answer: Answer
    area: int = CACHE
    reason: str = ""
    evicted: list[Row] = field(default_factory=list)
    going: list[Leaving] = field(default_factory=list)


def make_room(db: sqlite3.Connection, ask: Ask, terms: Terms, evictor: Evictor) -> Outcome:
    """Reserve room in the cache, else among the files that pass through, else in the cache again.

    When the answer is "granted", the caller removes `going` and writes only then.
    """
    if not is_counted(db):
        return Outcome("uncounted")
    gone(db, ask.removed)
    going = due(db, terms.now, terms.in_use, terms.longest)
    used = usage(db, terms.now, ask.part)
    short = shortfall(ask.row.allocated, used, terms.limits, _sum(going)).bytes
    if short > 0 and give_up_idle(db, short, terms.idle, but=ask.part):
        going = due(db, terms.now, terms.in_use, terms.longest)
        used = usage(db, terms.now, ask.part)
    reason = _refusal(db, ask, terms, evictor)
    evicted: list[Row] | None = None
    area = CACHE
    if not reason:
        evicted, reason = _in_cache(db, ask, terms, evictor, used, going)
    if evicted is None and not ask.only_kept:
        if used.transit + ask.row.allocated <= terms.limits.transit:
            area, evicted = TRANSIT, []
        else:
            evicted = _beside_copies(db, ask, terms, evictor, used)
    if evicted is None:
        return _none(db, ask, terms, reason)
    for row in evicted:
        delete(db, row)
    reserve(db, Reserved(ask.part, ask.row.file, ask.row.allocated, area, ask.id))
    going = due(db, terms.now, terms.in_use, terms.longest) if evicted else going
    return Outcome("granted", area, reason, evicted, going)


def _refusal(db: sqlite3.Connection, ask: Ask, terms: Terms, evictor: Evictor) -> str:
    """What the settings say against keeping the file; a pinned key is always kept."""
    uses = terms.rules.min_uses
    if ask.first and ask.kept:
        evictor.admitting(db, ask.row)
        if terms.rules.min_uses > 1:
            uses = asked(db, ask.row.key, terms.now)
    if not ask.kept:
        return "passing"
    if is_pinned(db, ask.row.key):
        return ""
    return terms.rules.refusal(ask.row.key, max(ask.row.size, ask.whole), uses)


def _in_cache(
    db: sqlite3.Connection,
    ask: Ask,
    terms: Terms,
    evictor: Evictor,
    used: Usage,
    going: list[Leaving],
) -> tuple[list[Row] | None, str]:
    """Copies that leave for a new one; None and why, if it is not to be kept."""
    row, limits = ask.row, terms.limits
    if row.allocated > limits.bytes:
        return None, "large"
    need = shortfall(row.allocated, used, limits, _sum(going))
    if need.nothing:
        return [], ""
    newcomer = None if is_pinned(db, row.key) else row
    victims, enough = choose(db, need, evictor, newcomer, terms.in_use, terms.now)
    if victims is None:
        return None, "worth"
    if enough:
        return victims, ""
    own = shortfall(row.allocated, used, replace(limits, lacking=None), 0)
    return None, "free" if own.nothing else "room"


def _beside_copies(
    db: sqlite3.Connection,
    ask: Ask,
    terms: Terms,
    evictor: Evictor,
    used: Usage,
) -> list[Row] | None:
    """Copies that leave for a file that passes through; it is needed now, whatever it is worth."""
    if ask.row.allocated > terms.limits.bytes:
        return None
    limits = replace(terms.limits, entries=0, lacking=None)
    need = shortfall(ask.row.allocated, used, limits, 0)
    if need.nothing:
        return []
    victims, enough = choose(db, need, evictor, None, terms.in_use, terms.now)
    return victims if enough else None


def _none(db: sqlite3.Connection, ask: Ask, terms: Terms, reason: str) -> Outcome:
    """Nowhere now. "refused": nor later."""
    largest = max(terms.limits.bytes, terms.limits.transit)
    if ask.only_kept or ask.row.allocated > largest:
        return Outcome("refused", reason=reason)
    if give_up_damaged(db):
        return Outcome("again")
    return Outcome("full", reason=reason)


def _sum(files: list[Leaving]) -> int:
    return sum(each.bytes for each in files)


def choose(
    db: sqlite3.Connection,
    need: Need,
    evictor: Evictor,
    newcomer: Row | None,
    in_use: InUse,
    now: float,
) -> tuple[list[Row] | None, bool]:
    """Copies that make room at once: not those that were just handed out. And whether they do.

    None: the newcomer is worth less. Nothing is chosen where all together would not do.
    """
    (used, count), (held, kept) = totals(db), pinned(db)
    if need.bytes > used - held or need.entries > count - kept:
        return [], False
    chosen: dict[str, Row] = {}
    busy: set[str] = set()
    for _ in range(_ROUNDS):
        found = evictor.victims(db, need, frozenset((*chosen, *busy)), newcomer)
        if found is None:
            return None, False
        again = False
        for row in found:
            if in_use(row.file) > now:
                busy.add(row.key)
                again = True
            else:
                chosen[row.key] = row
                need = need.without(row)
        if need.nothing:
            return list(chosen.values()), True
        if not again:
            break
    return [], False


def admit(
    db: sqlite3.Connection,
    row: Row,
    limits: Limits,
    evictor: Evictor,
    *,
    now: float,
    in_use: InUse,
    reserved: tuple[str, str] | None = None,
) -> Admission:
    """Put one row in and its victims out.

    The older row of its key leaves in any case: the caller has something newer. `reserved`: part
    and id of the room that was made for it; such a row comes in whatever became of the limits,
    since its bytes are there.
    """
    replaced = one(db, row.key)
    delete_key(db, row.key)
    announced = None if reserved is None else unreserve(db, *reserved)
    if announced is None:
        evictor.admitting(db, row)
        if row.allocated > limits.bytes:
            return Admission(False, [], replaced)
    need = shortfall(row.allocated, usage(db, now), limits, 0)
    victims: list[Row] | None = []
    if not need.nothing:
        newcomer = row if announced is None else None
        victims, enough = choose(db, need, evictor, newcomer, in_use, now)
        if announced is None and not enough:
            return Admission(False, [], replaced)
    for victim in victims or ():
        delete(db, victim)
    insert(db, row)
    evictor.arrived(db, row)
    return Admission(True, victims or [], replaced)
