"""Partial copies of large objects: their rows, their files, their room, and who fetches what.

The file of a partial copy is as long as the object, with holes where nothing came yet. Whoever
reads or writes it holds a shared lock on it, so nobody removes it meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from cachestore.clock import Clock
from cachestore.files import Files, is_plain, is_real_folder
from cachestore.keys import Place
from cachestore.local import partial_rows as rows
from cachestore.local.cache import CacheFiles
from cachestore.local.catalog import Catalog
from cachestore.local.forks import watch_forks
from cachestore.local.partial_rows import PartialRow
from cachestore.local.room import Grant, Room
from cachestore.local.room_rows import give_up
from cachestore.locks import ForkLock
from cachestore.model import RemoteObject

_MOMENT = 0.05
_USED = 60.0
_OLD = 86400.0
"""Seconds after which a partial copy that nobody read goes."""


class Partials:
    """The partial copies of one cache folder, shared by all processes that use it."""

    def __init__(
        self, catalog: Catalog, cache: CacheFiles, room: Room, files: Files, clock: Clock
    ) -> None:
        self._catalog = catalog
        self._cache = cache
        self._room = room
        self._files = files
        self._clock = clock
        self._locks = _Locks(files, cache.root / "partial" / "lock")

    # -- rows ------------------------------------------------------------------------------------

    def find(self, key: str, token: int) -> PartialRow | None:
        """The key's partial copy; one from before the key changed is given up."""
        row = self._catalog.ask(lambda db: rows.find(db, key), None)
        if row is None or row.token == token:
            return row
        self.drop(row)
        return None

    def begin(
        self, key: str, place: Place, token: int, info: RemoteObject, block: int
    ) -> tuple[PartialRow, int] | None:
        """A new partial copy with room for its first block, and its file open; None: no room.

        Raises `OSError` where the disk does not work.
        """
        part = self._cache.partial_path(place)
        grant = self._room.grant(key, place, part)
        try:
            # Locked first: a reservation without a row counts as long as somebody holds its file.
            fd = self._cache.open_part(part)
            try:
                self._files.lock(fd, _MOMENT, shared=True)
                row = self._begun(grant, fd, token, info, block)
                if row is not None:
                    return row, fd
            except BaseException:
                self._files.close(fd)
                raise
            self._files.close(fd)
        except BaseException:
            self._end(grant, part)
            raise
        self._end(grant, part)
        return None

    def _begun(
        self, grant: Grant, fd: int, token: int, info: RemoteObject, block: int
    ) -> PartialRow | None:
        if not self._room.try_fill(grant, min(block, info.size), info.size):
            return None
        now = self._clock.now()
        row = PartialRow(
            grant.key, grant.part, grant.goal, grant.id, grant.bytes, block, token, now, now, info
        )
        self._files.truncate(fd, info.size)
        return row if self._catalog.change(lambda db: _noted(db, row), False) else None

    def _end(self, grant: Grant, part: Path) -> None:
        self._cache.unlink_unleased(part)
        self._room.release(grant)

    def open(self, row: PartialRow) -> int | None:
        """The file, locked against removal; None if it has gone."""
        path = self._cache.root / row.part
        if not is_plain(path) or not is_real_folder(path.parent):
            return None
        try:
            fd = self._files.open_shared(path)
        except OSError:
            return None
        try:
            if self._files.lock(fd, _MOMENT, shared=True):
                there = self._files.stat(path)
                if os.path.samestat(there, os.fstat(fd)) and there.st_size == row.info.size:
                    return fd
        except OSError:
            pass
        self._files.close(fd)
        return None

    def used(self, row: PartialRow) -> None:
        """Somebody reads it; noted once a minute."""
        now = self._clock.now()
        if abs(now - row.used) > _USED:
            self._set("used", row, now)

    def validated(self, row: PartialRow) -> None:
        """The remote said just now that this version is current."""
        self._set("validated", row, self._clock.now())

    def _set(self, column: str, row: PartialRow, value: float) -> None:
        sql = f"UPDATE partials SET {column} = ? WHERE part = ?"
        self._catalog.change(lambda db: db.execute(sql, (value, row.part)).rowcount, 0)

    def drop(self, row: PartialRow) -> None:
        """Give a partial copy up; its file goes when nobody reads it."""
        self._catalog.change(lambda db: give_up(db, row.reserved, files=(row.part,)), None)
        self._room.tidy()

    def stays(self, row: PartialRow) -> bool:
        """False when it is over: whole, replaced or given up."""
        found = self._catalog.ask(lambda db: rows.find(db, row.key), None)
        return found is not None and found.part == row.part

    # -- blocks ----------------------------------------------------------------------------------

    def make_room(self, row: PartialRow, blocks: Iterable[int]) -> bool:
        """Room for these blocks beside those that are counted; False: none, or it is over."""
        wanted = list(blocks)
        told = self._catalog.change(lambda db: rows.announce(db, row.part, wanted), None)
        if told is None:
            return False
        count, new = told
        size = min(count * row.block, row.info.size)
        if size <= row.bytes or self._room.try_fill(self.grant(row), size):
            return True
        self._catalog.change(lambda db: rows.withdraw(db, row.part, new), None)
        return False

    def grant(self, row: PartialRow) -> Grant:
        """Its room, as it was granted when it was begun."""
        return Grant(row.key, row.part, row.goal, bytes=row.bytes, id=row.id, asked=True)

    def load(self, row: PartialRow, first: int, end: int) -> dict[int, dict[int, int]]:
        """By block: page to CRC-32 of what is said to be here."""
        return self._catalog.ask(lambda db: rows.load(db, row.part, first, end), {})

    def note(self, row: PartialRow, block: int, pages: dict[int, int], whole: int) -> None:
        """Pages of a block are in the file."""
        if pages:
            self._catalog.change(
                lambda db: rows.note(db, row.part, block, pages, whole=whole), None
            )

    def damaged(self, row: PartialRow, block: int, pages: Iterable[int]) -> None:
        """Pages that are not what was written: they are fetched again."""
        gone = list(pages)
        self._catalog.change(lambda db: rows.damaged(db, row.part, block, gone), None)

    def whole_blocks(self, row: PartialRow) -> int:
        return self._catalog.ask(lambda db: rows.whole_blocks(db, row.part), 0)

    # -- one at a time among processes -----------------------------------------------------------

    def try_lock(self, row: PartialRow, block: int) -> bool:
        """Be the one who fetches a block; False while another process does."""
        return self._locks.take(row.part, block)

    def unlock(self, row: PartialRow, block: int) -> None:
        self._locks.give_back(row.part, block)

    # -- upkeep ----------------------------------------------------------------------------------

    def expire(self) -> int:
        """Give up what nobody read for a day; how many."""
        before = self._clock.now() - _OLD
        found = self._catalog.ask(rows.all_of, list[PartialRow]())
        old = [row for row in found if row.used < before and self._cache.is_idle(row.part)]
        for row in old:
            self.drop(row)
        return len(old)

    def names(self) -> set[str] | None:
        """The files that have a row; None where that is not known now."""
        found = self._catalog.ask(rows.all_of, None)
        return None if found is None else {row.part for row in found}

    def close(self) -> None:
        self._locks.end()


def _noted(db: sqlite3.Connection, row: PartialRow) -> bool:
    rows.begin(db, row)
    return True


class _Locks:
    """One byte of a file for each block that is on its way; a dead process's are free at once."""

    def __init__(self, files: Files, path: Path) -> None:
        self._files = files
        self._path = path
        self._opening = ForkLock()
        self._fd: int | None = None
        self._ended = False
        watch_forks(self)

    def before_fork(self) -> None:
        """Nothing: the parent's threads go on."""

    def after_fork(self, *, child: bool) -> None:
        if child:
            self.close()  # the parent's locks stay, as long as its own descriptor is open

    def take(self, part: str, block: int) -> bool:
        try:
            return self._files.try_lock_byte(self._open(), _byte(part, block))
        except OSError:
            return True  # without locks each process fetches what it needs

    def _open(self) -> int:
        with self._opening:
            if self._ended:
                raise OSError(errno.EBADF, "the store was closed")
            if self._fd is None:
                self._files.make_folder(self._path.parent)
                self._fd = self._files.open_shared(self._path)
            return self._fd

    def give_back(self, part: str, block: int) -> None:
        if self._fd is not None:
            with contextlib.suppress(OSError):
                self._files.unlock_byte(self._fd, _byte(part, block))

    def end(self) -> None:
        """For good; what is still under way goes on without locks."""
        with self._opening:
            self._ended = True
        self.close()

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _byte(part: str, block: int) -> int:
    """Where in the file: blocks of one partial copy follow one another."""
    return (int(part.rpartition("-")[2][:8], 16) << 24) + block
