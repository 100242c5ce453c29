"""The catalog: an index of the clean copies. Losing it costs downloads and nothing else.

Any trouble with it is a miss: methods then answer as if it were empty, and a new one is begun
where that helps. Nothing that belongs to it is raised.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from cachestore.clock import Clock
from cachestore.files import Files
from cachestore.local import tallies
from cachestore.local.admitting import admit
from cachestore.local.board import boot_id
from cachestore.local.catalog_files import CatalogFiles, Unavailable, is_passing
from cachestore.local.catalog_log import LogKeeper
from cachestore.local.catalog_rows import Admission, Row
from cachestore.local.catalog_schema import (
    ALL,
    delete,
    delete_unpinned,
    end_of_prefix,
    one,
    pinned,
    stir,
    totals,
)
from cachestore.local.evictors import Evictor, Ordered
from cachestore.local.expiry import unused_before
from cachestore.local.noted import Part
from cachestore.local.room_rows import InUse, Leaving, gone
from cachestore.model import RemoteObject, Tally
from cachestore.options import Options
from cachestore.policy.eviction import Need
from cachestore.policy.room import Limits

T = TypeVar("T")
_BATCH = 500
_OLD = 3600.0


def _not_in_use(file: str) -> float:
    return 0.0


class Catalog:
    """Rows by key. Every method is one short transaction and keeps no cursor."""

    def __init__(
        self,
        folder: Path,
        files: Files,
        clock: Clock,
        on_trouble: Callable[[str], None],
        evictor: Evictor | None = None,
        log_pages: int = 1000,
    ) -> None:
        """`folder` is made when it is needed. `on_trouble` is told of each change of state once.

        `evictor` None: the longest unread copies leave first. `log_pages`: after so many the log
        is written back and begun anew.
        """
        self._files = CatalogFiles(folder, files, on_trouble)
        self._log = LogKeeper(log_pages)
        self._clock = clock
        self.evictor: Evictor = evictor or Ordered()
        self._boot = boot_id()

    # -- running things --------------------------------------------------------------------------

    def ask(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Do `work`, which only reads, on this thread's connection; once more on a new database
        if it is broken. `otherwise` where there is none now.
        """
        for again in (True, False):
            try:
                return self._files.run(work)
            except sqlite3.Error as error:
                path = self._files.held_path()
                if is_passing(error, path) or not again:
                    return otherwise
                self._files.give_up(error, path)
            except (Unavailable, OSError, ValueError, TypeError, OverflowError):
                return otherwise  # no catalog now, or a value that none could hold
        return otherwise

    def change(
        self, work: Callable[[sqlite3.Connection], T], otherwise: T, *, full: bool = False
    ) -> T:
        """Do `work` inside a write transaction; `otherwise` where there is no catalog now.

        `full`: synced to disk before it returns.
        """

        def inside(connection: sqlite3.Connection) -> T:
            if full:
                connection.execute("PRAGMA synchronous = FULL")
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    result = work(connection)
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
                return result
            finally:
                if full:
                    connection.execute("PRAGMA synchronous = NORMAL")

        result = self.ask(inside, otherwise)
        path = self._files.held_path()
        if path is not None:
            self._log.keep_short(path, self.ask)
        return result

    def _update(self, sql: str, values: Iterable[tuple[object, ...]]) -> int:
        """Run one statement for each of `values` in a transaction; how many rows it changed."""
        batch = list(values)
        if not batch:
            return 0
        return self.change(lambda db: max(0, db.executemany(sql, batch).rowcount), 0)

    def _select(self, where: str, values: tuple[object, ...]) -> list[Row]:
        sql = f"SELECT {ALL} FROM entries WHERE {where}"
        return self.ask(lambda db: [Row.load(r) for r in db.execute(sql, values).fetchall()], [])

    # -- one key ---------------------------------------------------------------------------------

    def get(self, key: str) -> Row | None:
        """The key's row."""
        return self.ask(lambda db: one(db, key), None)

    def lacks(self, key: str) -> bool:
        """True only when it is known that the key has no row; a busy catalog does not know."""
        if not self._files.exists():
            return True
        known = self.ask(lambda db: one(db, key) is None, None)
        return self._files.frozen(lambda db: one(db, key) is None) if known is None else known

    def admit(
        self,
        row: Row,
        *,
        max_bytes: int,
        max_entries: int = 0,
        reserved: tuple[str, str] | None = None,
        removed: Sequence[Leaving] = (),
        in_use: InUse = _not_in_use,
        full: bool = False,
    ) -> Admission:
        """Put a row in, and take out as many as it needs, in one transaction.

        The allocated bytes of all rows never pass `max_bytes`, nor their number `max_entries`
        (0: no limit). Victims are unpinned, not `in_use`, and never the newcomer. Not admitted,
        and nothing evicted, if it cannot fit; the older row of its key is gone (`replaced`) all
        the same. `reserved`: part and id of its reservation, which ends. `removed`: files that
        left for it. `full`: synced before this returns.
        """
        limits, now = Limits(max_bytes, max_entries), self._clock.now()

        def work(db: sqlite3.Connection) -> Admission:
            gone(db, removed)
            return admit(db, row, limits, self.evictor, now=now, in_use=in_use, reserved=reserved)

        return self.change(work, Admission(False), full=full)

    def remove(self, key: str, file: str | None = None, *, full: bool = False) -> Row | None:
        """Take a key's row out (only if it names `file`, when given); the row that went.

        `full`: synced before this returns, so that a power cut does not bring it back; also
        one that went earlier.
        """

        def work(db: sqlite3.Connection) -> Row | None:
            if full:
                stir(db)
            row = one(db, key)
            if row is None or (file is not None and row.file != file):
                return None
            return row if delete(db, row) else None

        return self.change(work, None, full=full)

    def remove_many(self, rows: Iterable[Row]) -> list[Row]:
        """Take out exactly these rows, except ones pinned by now; the rows that went."""
        batch = sorted(rows, key=attrgetter("key"))  # as they lie

        def work(db: sqlite3.Connection) -> list[Row]:
            gone = []
            for row in batch:
                if delete_unpinned(db, row):
                    gone.append(row)
            return gone

        return self.change(work, [])

    def validated(self, key: str, file: str, when: float, obj: RemoteObject | None = None) -> None:
        """The remote said at `when` (wall seconds) that this copy is current.

        `obj`: what it said of the object's attributes, which may change without its bytes.
        """
        sql = "validated = ?"
        values: tuple[object, ...] = (when,)
        if obj is not None:
            sql += ", content_type = ?, metadata = ?, cache_control = ?, modified = ?"
            text = json.dumps(dict(obj.metadata))
            values += (obj.content_type, text, obj.cache_control, obj.modified)
        self._update(f"UPDATE entries SET {sql} WHERE key = ? AND file = ?", [(*values, key, file)])

    def needs_verification(self, row: Row) -> bool:
        """True for a copy that was not yet synced when the machine last went down."""
        return not row.durable and row.boot != self._boot

    # -- batches ---------------------------------------------------------------------------------

    def touch(self, reads: Mapping[str, tuple[int, float]]) -> None:
        """Note reads: key to how many and the last one's wall seconds."""
        self.change(lambda db: self.evictor.requested(db, reads), None)

    def fetched(self, size: int, seconds: float) -> None:
        """A miss took so long; noted with whatever is written next."""
        self.evictor.fetched(size, seconds)

    def tend(self, breathe: Callable[[], None]) -> None:
        """Let the evictor learn from what was read since; from the background."""
        parts: list[Part] = self.ask(lambda db: self.evictor.parts(db, breathe), [])
        for part in parts:
            if not self.change(partial(self.evictor.enter, part=part), False):
                return  # a busy catalog; what was written down stays
            breathe()
        lesson = self.ask(lambda db: self.evictor.learn(db, breathe), None)
        if lesson is not None:
            self.change(lambda db: self.evictor.keep(db, lesson), None)

    def mark_durable(self, rows: Iterable[Row]) -> int:
        """These copies were synced; how many rows say so now."""
        return self._update(
            "UPDATE entries SET durable = 1 WHERE key = ? AND file = ?",
            [(row.key, row.file) for row in rows],
        )

    def undurable(self, before: float, limit: int = _BATCH) -> list[Row]:
        """Copies of this run of the machine, last validated before `before`, not synced yet."""
        return self._select(
            "durable = 0 AND boot = ? AND validated <= ? ORDER BY validated LIMIT ?",
            (self._boot, before, limit),
        )

    def unused_before(
        self,
        when: float,
        options: Options,
        limit: int = _BATCH,
        breathe: Callable[[], None] = lambda: None,
    ) -> list[Row]:
        """Unpinned copies whose TTL was over at `when`, counted from the last read or validation.

        At most `limit` of them, longest unread first. `breathe` is called after as many were
        looked at.
        """
        condition, values = unused_before(when, options)
        while rows := self._select(f"{condition} ORDER BY used LIMIT ?", (*values, limit)):
            read = self._read_last([row.key for row in rows])
            if read is None:
                return []
            # Kept elsewhere, and here only now that somebody wants to know.
            later = [(read[r.key], r.key) for r in rows if read.get(r.key, 0.0) > r.used]
            if not later:
                return rows
            if not self._update("UPDATE entries SET used = max(used, ?) WHERE key = ?", later):
                return []
            breathe()
        return []

    def _read_last(self, keys: Sequence[str]) -> dict[str, float] | None:
        return self.ask(lambda db: self.evictor.read_last(db, keys), None)

    def worst(self, need: int, surplus: int) -> list[Row]:
        """What would be evicted so that `need` bytes and `surplus` rows go; maybe less."""
        wanted = Need(need, surplus)
        return self.ask(lambda db: self.evictor.victims(db, wanted, frozenset(), None) or [], [])

    def rows(self, after: str | None = None, limit: int = _BATCH) -> list[Row]:
        """Rows in key order, behind the key `after`; fewer than `limit` at the end."""
        return self._below("", after, limit)

    def keys_below(self, prefix: str, after: str | None = None, limit: int = _BATCH) -> list[str]:
        """Keys that start with `prefix`, in UTF-8 order, behind the key `after`."""
        where, values = _range(prefix, after)
        sql = f"SELECT key FROM entries WHERE {where} ORDER BY key LIMIT ?"
        return self.ask(lambda db: [key for [key] in db.execute(sql, (*values, limit))], [])

    def rows_below(self, prefix: str) -> Iterator[Row]:
        """Rows whose key starts with `prefix`, read in batches."""
        after: str | None = None
        while batch := self._below(prefix, after, _BATCH):
            yield from batch
            after = batch[-1].key

    def _below(self, prefix: str, after: str | None, limit: int) -> list[Row]:
        where, values = _range(prefix, after)
        return self._select(f"{where} ORDER BY key LIMIT ?", (*values, limit))

    def files_in(self, folder: str) -> set[str] | None:
        """The files with a row in a shard folder; None if that cannot be known now.

        An empty answer of a catalog that is merely busy would make every copy an orphan.
        """
        sql = "SELECT file FROM entries WHERE file >= ? AND file < ?"
        values = (f"{folder}/", f"{folder}0")  # "0" is what follows "/"
        return self.ask(lambda db: {name for [name] in db.execute(sql, values)}, None)

    def totals(self) -> tuple[int, int, int]:
        """Allocated bytes, entries, and pinned entries."""
        return self.ask(lambda db: (*totals(db), pinned(db)[1]), (0, 0, 0))

    # -- statistics ------------------------------------------------------------------------------

    def tally(self, sums: list[Tally]) -> bool:
        """Add to the sums by day; False when they could not be written."""
        return self.change(lambda db: tallies.add(db, sums), False)

    def tallies(self, days: int) -> list[Tally]:
        """The sums of the last `days` days on which something happened, oldest first."""
        return self.ask(lambda db: tallies.latest(db, days), [])

    # -- pins ------------------------------------------------------------------------------------

    def pin(self, key: str) -> None:
        """Never evict the key's copy, the one there is and those to come."""
        self._pin(key, "INSERT OR REPLACE INTO pins VALUES (?)", 1)

    def unpin(self, key: str) -> None:
        self._pin(key, "DELETE FROM pins WHERE key = ?", 0)

    def _pin(self, key: str, sql: str, value: int) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute(sql, (key,))
            db.execute("UPDATE entries SET pinned = ? WHERE key = ?", (value, key))

        self.change(work, None)

    def pins(self) -> list[str]:
        """Pinned keys, with a copy or without, in order."""
        return self.known_pins() or []

    def known_pins(self) -> list[str] | None:
        """The same; None if they cannot be known now."""
        sql = "SELECT key FROM pins ORDER BY key"
        return self.ask(lambda db: [key for [key] in db.execute(sql)], None)

    # -- keeping ---------------------------------------------------------------------------------

    def tidy(self) -> int:
        """Remove databases that were left behind more than an hour ago; how many files went."""
        return self._files.remove_old(self._clock.now() - _OLD)

    def close(self) -> None:
        """For good: what is asked later finds nothing."""
        self._files.close()


def _range(prefix: str, after: str | None) -> tuple[str, tuple[str, ...]]:
    """The primary key's range that holds what starts with `prefix` and lies behind `after`."""
    where, values = ("key >= ?", (prefix,)) if after is None else ("key > ?", (max(after, prefix),))
    if after is not None and after < prefix:
        where = "key >= ?"
    end = end_of_prefix(prefix)
    return (where, values) if end is None else (f"{where} AND key < ?", (*values, end))
