"""Misses: one download of a key for all threads and processes, verified before it is shown."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cachestore import events
from cachestore.clock import Clock
from cachestore.errors import CacheFull, CacheStoreError, Corrupt, SpoolError
from cachestore.events import Events
from cachestore.files import Files, allocated
from cachestore.keys import Place
from cachestore.landed import Answer, Landed, Probe, T
from cachestore.local.board import Board
from cachestore.local.bypass import Bypass
from cachestore.local.cache import CacheFiles
from cachestore.local.catalog import Catalog
from cachestore.local.catalog_rows import Row
from cachestore.local.room import Grant, Room
from cachestore.local.spool import Spool
from cachestore.local.tickets import Ticket
from cachestore.model import RemoteObject
from cachestore.options import Options
from cachestore.remote.base import RemoteStore
from cachestore.remote.budget import Budget
from cachestore.remote.fetching import fetch, has_digest, verify_digest

_STEP = 8 << 20
"""Bytes at a time for which room is asked while a file's size is not known."""


class Downloader:
    """Downloads into the cache; bypasses it when the disk does not work."""

    def __init__(
        self,
        remote: RemoteStore | None,
        *,
        spool: Spool,
        catalog: Catalog,
        cache: CacheFiles,
        room: Room,
        events: Events,
        clock: Clock,
        options: Options,
        budget: Budget,
        bypass: Bypass,
    ) -> None:
        self._remote = remote
        self._spool = spool
        self._board: Board = spool.board
        self._files: Files = spool.files
        self._catalog = catalog
        self._cache = cache
        self._room = room
        self._events = events
        self._clock = clock
        self._options = options
        self._budget = budget
        self._progress: dict[str, float] = {}
        self._checked: set[str] = set()
        self._bypass = bypass

    def silence(self, key: str) -> float | None:
        """Seconds since the last bytes of a key's download arrived; None if none is under way."""
        last = self._progress.get(key)
        return None if last is None else self._clock.monotonic() - last

    def crowded(self, key: str) -> CacheFull | None:
        """Set while a download waits for room, and not for the remote."""
        return self._room.full(key) if self._room.waits(key) else None

    def trustworthy(self, row: Row, *, verify: bool) -> bool:
        """Hash a copy that was not yet synced when the machine went down, once; or any on demand.

        A damaged one is taken out of the way, and one that went down unsynced and has no digest
        to be compared with. `verify`: hash it whatever is known of it.
        """
        known = not self._catalog.needs_verification(row) or row.file in self._checked
        if known and not verify:
            return True
        if not known and not has_digest(_digests(row)):
            self._catalog.remove(row.key, row.file)
            self._cache.discard([row])
            return False
        if self._is_whole(row):
            self._checked.add(row.file)
            return True
        self._catalog.remove(row.key, row.file)
        self._room.quarantine(row)
        return False

    def _is_whole(self, row: Row) -> bool:
        try:
            fd = self._files.open_read(self._cache.path(row))
        except OSError:
            return False
        try:
            verify_digest(fd, _digests(row))
        except Corrupt as error:
            self._events.emit(events.Trouble(row.key, "cache", str(error)))
            return False
        finally:
            self._files.close(fd)
        return True

    def check_pending(self, ticket: Ticket) -> None:
        """Hash a pending body. Raises `SpoolError` if it is not what was put."""
        body = self._spool.body(ticket)
        try:
            fd = self._files.open_read(body)
        except FileNotFoundError:
            return  # sent meanwhile; the caller looks again
        try:
            info = RemoteObject(ticket.key, ticket.size, "", sha256=ticket.sha256)
            verify_digest(fd, info)
        except Corrupt as error:
            raise SpoolError(
                f"the pending body of {ticket.key!r} was damaged on disk ({error}); it is not"
                f" uploaded. It is {body}: put the file again, or delete the key"
            ) from error
        finally:
            self._files.close(fd)

    @contextmanager
    def under_way(self, key: str) -> Iterator[Callable[[], None]]:
        """Inside, the key's bytes are on their way; what is handed over is called as they come."""

        def progress() -> None:
            self._progress[key] = self._clock.monotonic()

        progress()
        try:
            yield progress
        finally:
            self._progress.pop(key, None)

    def download(
        self, key: str, place: Place, old: Row | None, probe: Probe[T] | None = None
    ) -> Landed | T:
        """The key's bytes as a file, from another process's download if one is under way.

        `old`: the copy that is no longer current, never taken for the answer. `probe`: asks the
        remote first, given the token; it returns something to read instead, or an answer with the
        whole object, or None. Raises `NotFound` and the other errors of the remote.
        """
        token = self._board.token(place.slot)
        with self.under_way(key):
            try:
                claimed = self._claim(key, place, token, old)
            except OSError as error:
                return self._past_the_cache(key, error)
            if isinstance(claimed, Landed):
                return claimed
            fd, part = claimed
            failed: OSError | None = None
            try:
                source, answer = (None, None) if probe is None else self._probed(probe, part, token)
                if source is not None:
                    return source
                landed = self._into(fd, part, key, place, token, answer)
            finally:
                failed = self._let_go(fd)
            if failed is not None and landed.row is not None:
                # Some disks say only now that they did not take the bytes.
                self._catalog.remove(key, landed.row.file)
                self._cache.discard([landed.row])
                return self._past_the_cache(key, failed)
            return landed

    def _probed(self, probe: Probe[T], part: Path, token: int) -> tuple[T | None, Answer | None]:
        """What the probe says; where it stands for the download, the temporary file goes."""
        try:
            source, answer = probe(token)
        except OSError as error:
            if isinstance(error, CacheStoreError):
                self._drop(part)
                raise
            self._events.emit(events.Trouble("", "cache", f"no partial copy: {error}"))
            return None, None
        except BaseException:
            self._drop(part)
            raise
        if source is not None:
            self._drop(part)
        return source, answer

    def _let_go(self, fd: int) -> OSError | None:
        """Unlock and close; what went wrong with that."""
        try:
            # Given back by name: a process forked meanwhile would keep it, like a lease.
            self._files.unlock(fd)
            self._files.close(fd)
        except OSError as error:
            return error
        return None

    # -- one download among processes --------------------------------------------------------------

    def _claim(
        self, key: str, place: Place, token: int, old: Row | None
    ) -> tuple[int, Path] | Landed:
        """The locked temporary file to download into, or what somebody else landed meanwhile."""
        part = self._cache.part_path(place, token)
        while True:
            fd = self._cache.open_part(part)
            kept = False
            try:
                mine = self._wait_for(fd, key)
                landed = self._landed(key, old)
                if landed is None and mine and self._is_at(fd, part):
                    self._files.truncate(fd, 0)
                    kept = True
                    return fd, part
                if mine and self._is_at(fd, part):
                    self._files.unlink(part)
            finally:
                if not kept:
                    self._files.close(fd)
            if landed is not None:
                return landed
            if not mine:
                return self._cache.new_part(place)  # its holder does not move: alone

    def _wait_for(self, fd: int, key: str) -> bool:
        """Lock the file; False when its holder makes no progress for the flight's patience."""
        seen, since = (-1, -1), self._clock.monotonic()
        while not self._files.lock(fd, 0.25):
            stat = os.fstat(fd)
            if (stat.st_size, stat.st_mtime_ns) != seen:
                seen, since = (stat.st_size, stat.st_mtime_ns), self._clock.monotonic()
                self._progress[key] = since  # the other one's bytes are as good as ours
            elif self._clock.monotonic() - since > self._options.flight_patience:
                return False
        return True

    def _is_at(self, fd: int, path: Path) -> bool:
        try:
            there = self._files.stat(path)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(fd))

    def _landed(self, key: str, old: Row | None) -> Landed | None:
        """What another process put into the catalog since we looked."""
        row = self._catalog.get(key)
        if row is None or (old is not None and row.file == old.file):
            return None
        if not self._cache.matches(row):
            return None
        info = RemoteObject(
            key, row.size, row.etag, row.content_type, row.metadata, row.cache_control,
            row.modified, row.sha256,
        )  # fmt: skip
        return Landed(self._cache.path(row), info, row)

    # -- the bytes -----------------------------------------------------------------------------

    def _fetch(
        self, key: str, fd: int, grant: Grant | None, answer: Answer | None = None
    ) -> RemoteObject:
        """Fill `fd` with the object's verified bytes, in the room that `grant` stands for."""
        assert self._remote is not None

        waited = 0.0

        def begins(info: RemoteObject) -> None:
            nonlocal waited
            if grant is not None:
                asked = self._clock.monotonic()
                self._room.fill(grant, info.size if info.size >= 0 else _STEP, info)
                waited += self._clock.monotonic() - asked

        def write_at(offset: int, data: bytes) -> None:
            end = offset + len(data)
            if grant is not None and end > grant.bytes:  # its size was not told, or is another
                self._room.fill(grant, end + _STEP)
            self._files.pwrite(fd, data, offset)
            self._progress[key] = self._clock.monotonic()

        start = self._clock.monotonic()
        fetched = fetch(
            self._remote,
            key,
            write_at,
            parts=self._options.download_parts,
            part_size=self._options.part_size,
            budget=self._budget,
            on_info=begins,
            answer=answer,
        )
        # What a miss costs is the remote's time; waiting for room is ours.
        self._catalog.fetched(fetched.info.size, self._clock.monotonic() - start - waited)
        if not fetched.verified:
            verify_digest(fd, fetched.info)
        return fetched.info

    def _into(
        self, fd: int, part: Path, key: str, place: Place, token: int, answer: Answer | None
    ) -> Landed:
        grant = self._room.grant(key, place, part)
        try:
            info = self._fetch(key, fd, grant, answer)
            return self._admit(fd, part, info, grant, place, token)
        except BaseException as error:
            self._drop(part)
            self._room.release(grant)
            if not isinstance(error, OSError) or isinstance(error, CacheStoreError):
                raise
            return self._past_the_cache(key, error)

    def land(
        self, fd: int, part: str, info: RemoteObject, grant: Grant, place: Place, token: int,
        validated: float, *, patient: bool,
    ) -> Landed | None:  # fmt: skip
        """Make a partial copy that is whole, and verified, a copy. `part`: below the root.

        `validated`: when the remote last said that it is current (wall seconds). None: a put of a
        neighbour is under way, and with `patient` another time is as good.
        """
        with contextlib.suppress(SpoolError), self._spool.lock_now(place) as free:
            if patient and not free:
                return None
        return self._admit(fd, self._cache.root / part, info, grant, place, token, validated)

    def copy_of(self, key: str) -> Landed | None:
        """The key's copy, whoever brought it."""
        return self._landed(key, None)

    def _drop(self, part: Path) -> None:
        with contextlib.suppress(OSError):  # then the janitor finds it
            self._files.unlink(part)

    def _admit(
        self, fd: int, part: Path, info: RemoteObject, grant: Grant, place: Place, token: int,
        validated: float | None = None,
    ) -> Landed:  # fmt: skip
        """Make the file a clean copy if nothing about the key changed (L1, L2); else transit."""
        final = self._cache.settle(part, fd, grant.goal)
        row = self._row(info, grant, final, validated)
        try:
            with self._spool.lock_now(place) as got:
                unchanged = got and self._board.token(place.slot) == token
                if unchanged and self._spool.read(place) is None and self._room.keep(grant, row):
                    return Landed(final, info, row)
        except SpoolError:
            pass
        return Landed(self._room.passes(grant, self._cache.to_transit(final)), info, None)

    def _row(
        self, info: RemoteObject, grant: Grant, final: Path, validated: float | None
    ) -> Row:  # fmt: skip
        stat = self._files.stat(final)
        now = self._clock.now()
        return Row(
            key=grant.key,
            file=grant.goal,
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            inode=stat.st_ino,
            allocated=allocated(stat),
            etag=info.etag,
            sha256=info.sha256,
            content_type=info.content_type,
            metadata=info.metadata,
            cache_control=info.cache_control,
            modified=info.modified,
            validated=now if validated is None else validated,
            used=now,
            uses=1,
        )

    def _past_the_cache(self, key: str, error: OSError) -> Landed:
        """The cache's disk does not work: the caller's bytes go elsewhere."""
        self._events.emit(events.Trouble(key, "cache", f"bypassed: {error}"))
        path, info = self._bypass.fill(key, lambda fd: self._fetch(key, fd, None))
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self._shrink(info.size)
        return Landed(path, info, None)

    def _shrink(self, size: int) -> None:
        """The disk was full before the cache reached its limit: the next file is to find room."""
        worst = self._catalog.worst(size, 0)
        self._cache.discard(worst)  # the files first: the catalog may have no room to say so
        gone = self._catalog.remove_many(worst)
        for row in gone:
            self._events.emit(events.Evicted(row.key, row.size, "space"))

    def close(self) -> None:
        """Remove what went past the cache."""
        self._bypass.close()


def _digests(row: Row) -> RemoteObject:
    return RemoteObject(row.key, row.size, row.etag, sha256=row.sha256)
