"""Room: no byte is written below the cache folder before there is room for it.

A file's way: `grant` names it, `fill` reserves what it needs, and removes what has to leave,
`keep` makes it a copy or `passes` lets it go through; `release` gives back what came to nothing.
A reservation counts as long as the temporary file that it belongs to is locked.
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cachestore import events
from cachestore.clock import Clock
from cachestore.errors import CacheFull
from cachestore.events import Events
from cachestore.files import Files, allocated
from cachestore.keys import Place
from cachestore.local import partial_rows, room_rows
from cachestore.local.admitting import Ask, Outcome, Terms, make_room
from cachestore.local.bookkeeping import Bookkeeping
from cachestore.local.cache import DAMAGED_AGE, CacheFiles
from cachestore.local.catalog import Catalog
from cachestore.local.catalog_rows import Admission, Row
from cachestore.local.disks import missing_free
from cachestore.local.room_rows import CACHE, Leaving, Reserved
from cachestore.model import RemoteObject
from cachestore.options import Options
from cachestore.policy import room as policy
from cachestore.policy.eviction import Need

_OPENING = 0.25
_LONGEST = 60.0
_TURN = 0.25
_RECLAIM = 1.0
_TRIES = 100
_MOMENT = 0.003
_LOG_NEEDS = 1 << 20


@dataclass(slots=True)
class Grant:
    """Room for one file. `bytes`: what may be written; `passing`: it is not to be kept."""

    key: str
    part: str
    goal: str
    passing: bool = False
    bytes: int = 0
    area: int = CACHE
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    asked: bool = False
    told: bool = False
    ended: bool = False
    removed: list[Leaving] = field(default_factory=list)


class Room:
    """The limits of one cache folder, kept together by all processes that use it."""

    def __init__(
        self,
        catalog: Catalog,
        cache: CacheFiles,
        files: Files,
        clock: Clock,
        events: Events,
        options: Options,
    ) -> None:
        self._catalog = catalog
        self._cache = cache
        self._files = files
        self._clock = clock
        self._events = events
        self._options = options
        self._books = Bookkeeping(options.cache_dir, cache.root, options.cache_max_bytes)
        self._longest = max(_LONGEST, options.handout_grace) + _OPENING
        self._waiting: set[str] = set()
        self._never = threading.Event()
        self._reclaimed = float("-inf")
        self._rules = policy.Admission(
            options.admit_include, options.admit_exclude, options.admit_max_bytes,
            options.admit_min_uses,
        )  # fmt: skip

    # -- the limits ------------------------------------------------------------------------------

    def limits(self) -> policy.Limits:
        """What files may take now."""
        options = self._options
        return policy.Limits(
            policy.for_files(options.cache_max_bytes, self._books.measure()),
            options.cache_max_entries,
            options.cache_transit_bytes,
            missing_free(options.cache_dir, options.cache_min_free),
        )

    def usage(self) -> policy.Usage:
        """What is taken now, without what can be removed at any time."""
        now = self._clock.now()
        return self._catalog.ask(lambda db: room_rows.usage(db, now), policy.Usage(0, 0))

    def report(self) -> dict[str, int]:
        """For people: bytes that are no copies, by what they are."""
        taken = self.usage()
        return {
            "transit": taken.transit,
            "transit_max_bytes": self._options.cache_transit_bytes,
            "arriving": taken.announced,
            "other": taken.cache,
            "bookkeeping": self._books.measure(),
        }

    def surplus(self) -> Need:
        """What the janitor is to evict, by the watermarks."""
        options = self._options
        limits = replace(self.limits(), lacking=None)
        return policy.background(self.usage(), limits, options.cache_high, options.cache_low)

    def lacking(self) -> int:
        """Bytes that the disk misses to its free share."""
        return missing_free(self._options.cache_dir, self._options.cache_min_free) or 0

    # -- one file --------------------------------------------------------------------------------

    def grant(self, key: str, place: Place, part: Path) -> Grant:
        """A name for a file that will be written as `part`, which is locked; no room yet."""
        return Grant(key, self._cache.name_of(part), self._cache.new_name(place, key))

    def fill(self, grant: Grant, size: int, info: RemoteObject | None = None) -> None:
        """Reserve room for `size` bytes; more, when it is asked again.

        Waits for files in their hand-out grace up to the miss deadline, then raises `CacheFull`.
        Raises `OSError` for a file that will never fit, and where there is no catalog.
        """
        row = _expected(grant, size, info)
        end = self._clock.monotonic() + self._options.miss_deadline
        try:
            while not self._tried(grant, row, only_kept=False):
                self._wait(grant, end)
        finally:
            self._waiting.discard(grant.key)

    def try_fill(self, grant: Grant, size: int, whole: int = 0) -> bool:
        """Reserve room for a copy, now or not at all. `whole`: bytes of it, if this is a part."""
        try:
            return self._tried(grant, _expected(grant, size, None), only_kept=True, whole=whole)
        except OSError:
            return False

    def _tried(self, grant: Grant, row: Row, *, only_kept: bool, whole: int = 0) -> bool:
        """True when the room is there; False when it may come later."""
        self.reclaim(_RECLAIM)
        for _ in range(_TRIES):
            ask = Ask(
                row, grant.part, grant.id, kept=not grant.passing, only_kept=only_kept,
                first=not grant.asked, removed=tuple(grant.removed), whole=whole,
            )  # fmt: skip
            outcome = self._asked(ask)
            if outcome.answer == "uncounted":
                self._count()
                continue
            grant.asked = True
            if outcome.answer == "again":
                continue
            self._tell(grant, max(row.size, whole), outcome)
            if outcome.answer == "full":
                return False
            if outcome.answer == "refused":
                raise OSError(errno.EFBIG, "larger than CACHE_MAX_BYTES and CACHE_TRANSIT_BYTES")
            if self._cleared(grant, outcome):
                grant.bytes, grant.area = max(grant.bytes, row.size), outcome.area
                return True
        return False

    def _count(self) -> None:
        """A catalog that was begun anew learns what is on disk."""
        found = self._cache.census()
        self._catalog.change(lambda db: room_rows.count(db, found), None)

    def _asked(self, ask: Ask) -> Outcome:
        terms = Terms(
            self.limits(), self._rules, self._clock.now(), self._cache.in_use, self._longest,
            self._cache.is_idle,
        )  # fmt: skip
        evictor = self._catalog.evictor
        outcome = self._catalog.change(lambda db: make_room(db, ask, terms, evictor), None)
        if outcome is None:
            full = (missing_free(self._options.cache_dir, _LOG_NEEDS) or 0) > 0
            code = errno.ENOSPC if full else errno.EAGAIN
            raise OSError(code, "no catalog can be asked what room there is")
        return outcome

    def _tell(self, grant: Grant, size: int, outcome: Outcome) -> None:
        if outcome.reason and not (grant.passing or grant.told):
            grant.told = True
            self._events.emit(events.Refused(grant.key, size, outcome.reason))
        if outcome.answer == "granted":
            grant.passing = grant.passing or bool(outcome.reason)
        for victim in outcome.evicted:
            self._events.emit(events.Evicted(victim.key, victim.size, "space"))

    def _cleared(self, grant: Grant, outcome: Outcome) -> bool:
        """Remove what has to leave; False if some of it is in use after all."""
        self._cache.discard(outcome.evicted)
        # Whoever only looks whether a file is free holds it for a moment.
        stays = [each for each in outcome.going if not self._cache.remove(each.file, _MOMENT)]
        grant.removed = [each for each in outcome.going if each not in stays]
        if stays:
            now = self._clock.now()
            self._catalog.change(lambda db: room_rows.put_off(db, stays, now), None)
        # Handed out just when it was chosen: it counts again.
        going = {each.file for each in outcome.going}
        return not stays and all(victim.file in going for victim in outcome.evicted)

    def _wait(self, grant: Grant, end: float) -> None:
        """Until something may leave; raises `CacheFull` at the deadline."""
        self._waiting.add(grant.key)
        left = end - self._clock.monotonic()
        if left <= 0:
            raise self.full(grant.key)
        self.reclaim()
        again = self._catalog.ask(room_rows.next_due, None)
        pause = _TURN if again is None else again - self._clock.now()
        self._clock.wait(self._never, min(left, _TURN, max(0.01, pause)))

    def waits(self, key: str) -> bool:
        """True while a read of the key waits for room and not for the remote."""
        return key in self._waiting

    def full(self, key: str) -> CacheFull:
        """Why a file could not be handed out."""
        options = self._options
        return CacheFull(
            f"no room for {key!r}: CACHE_MAX_BYTES ({options.cache_max_bytes}) and"
            f" CACHE_TRANSIT_BYTES ({options.cache_transit_bytes}) are full of files that were"
            f" handed out in the last {options.handout_grace:g} s. Raise one of them, or use"
            " `read`, `open` or `lease`, which need no grace"
        )

    # -- its end ---------------------------------------------------------------------------------

    def keep(self, grant: Grant, row: Row, *, full: bool = False) -> bool:
        """Make the whole file a copy. False if it is to pass; no older copy of its key is left."""
        if grant.passing:
            older = self._catalog.remove(row.key)
            self._cache.discard([] if older is None else [older])
            return False
        done = self._admitted(grant, row, full)
        for victim in done.evicted:
            self._events.emit(events.Evicted(victim.key, victim.size, "space"))
        self._cache.discard([*done.evicted, *([done.replaced] if done.replaced else [])])
        grant.ended = done.admitted
        return done.admitted

    def _admitted(self, grant: Grant, row: Row, full: bool) -> Admission:
        return self._catalog.admit(
            row,
            max_bytes=policy.for_files(self._options.cache_max_bytes, self._books.measure()),
            max_entries=self._options.cache_max_entries,
            reserved=(grant.part, grant.id),
            in_use=self._cache.in_use,
            removed=grant.removed,
            full=full,
        )

    def passes(self, grant: Grant, path: Path) -> Path:
        """A whole file that is not kept stays while it is in use."""
        size, now = allocated(self._files.stat(path)), self._clock.now()
        file = self._cache.name_of(path)

        def work(db: Any) -> None:
            room_rows.unreserve(db, grant.part, grant.id)
            room_rows.leave(db, file, size, grant.area, now + _OPENING)
            room_rows.gone(db, grant.removed)

        self._catalog.change(work, None)
        grant.ended = True
        return path

    def release(self, grant: Grant) -> None:
        """Unless it was kept or passes: nothing came of it, and its temporary file is gone."""
        if grant.asked and not grant.ended:
            left = Reserved(grant.part, grant.goal, grant.bytes, grant.area, grant.id)
            self._catalog.change(lambda db: room_rows.give_up(db, left), None)
            grant.ended = True

    def give_up_idle(self, need: int) -> int:
        """Give up partial copies that nobody reads until `need` bytes are free; bytes freed."""
        idle = self._cache.is_idle
        freed = self._catalog.change(lambda db: partial_rows.give_up_idle(db, need, idle), 0)
        if freed:
            self.tidy()
        return freed

    # -- upkeep ----------------------------------------------------------------------------------

    def reclaim(self, age: float = 0.0) -> int:
        """Free what processes that died had reserved; how much. Not again within `age` seconds."""
        now = self._clock.monotonic()
        if now - self._reclaimed < age:
            return 0
        self._reclaimed = now
        found: list[Reserved] = self._catalog.ask(room_rows.reserved, [])
        dead = [each for each in found if self._is_dead(each)]
        if dead:
            self._catalog.change(lambda db: room_rows.give_up(db, *dead), None)
        return len(dead)

    def _is_dead(self, reservation: Reserved) -> bool:
        """True if nobody holds its temporary file, which is then removed."""
        names = (reservation.part, *room_rows.places(reservation.goal))
        if not all(self._cache.is_free(name) for name in names):
            return False
        return self._cache.unlink_unleased(self._cache.root / reservation.part)

    def tidy(self) -> int:
        """Remove what may leave by now; how many files went."""
        went = 0
        for _ in range(_TRIES):
            found = self._due()
            if not found:
                break
            went += self._removed(found)
        return went

    def _due(self) -> list[Leaving]:
        now, nothing = self._clock.now(), list[Leaving]()

        def work(db: Any) -> list[Leaving]:
            return room_rows.due(db, now, self._cache.in_use, self._longest)

        return self._catalog.change(work, nothing)

    def _removed(self, found: Sequence[Leaving]) -> int:
        now = self._clock.now()
        there = [each for each in found if os.path.lexists(self._cache.root / each.file)]
        stays = [each for each in there if not self._cache.remove(each.file)]

        def work(db: Any) -> None:
            room_rows.put_off(db, stays, now)
            room_rows.gone(db, [each for each in found if each not in stays])

        self._catalog.change(work, None)
        return len(there) - len(stays)

    def forget(self) -> None:
        """Forget what was asked for longest ago and never kept; nothing on disk goes."""
        self._catalog.change(room_rows.forget_asked, None)

    def discard(self, rows: Iterable[Row]) -> None:
        """Remove files whose rows are gone, as far as nobody uses them."""
        self._cache.discard(rows)
        self.tidy()

    def quarantine(self, row: Row) -> None:
        """Set a damaged copy aside, whose row is gone."""
        file = self._cache.quarantine(row)
        if file is not None:
            until = self._clock.now() + DAMAGED_AGE
            self._catalog.change(
                lambda db: room_rows.leave(db, file, row.allocated, CACHE, until), None
            )


def _expected(grant: Grant, size: int, info: RemoteObject | None) -> Row:
    """What is known of a copy before it is here."""
    return Row(
        key=grant.key, file=grant.goal, size=size, mtime_ns=0, inode=0,
        allocated=policy.on_disk(size), etag="" if info is None else info.etag,
        sha256=None, content_type="", metadata={}, cache_control=None, modified=0.0,
        validated=0.0,
    )  # fmt: skip
