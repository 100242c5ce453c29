"""Reads: paths, bytes, open files, leases, and what is known of a key."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cachestore import events
from cachestore.core import Core, info_of_remote, info_of_row, info_of_ticket
from cachestore.errors import CacheStoreError, NotFound, RemoteUnavailable, SpoolError
from cachestore.finding import Finder, Found
from cachestore.keys import check_key
from cachestore.local.catalog_rows import Row
from cachestore.local.hot import HotEntry
from cachestore.local.records import Record
from cachestore.local.tickets import Ticket
from cachestore.model import ObjectInfo, RemoteObject
from cachestore.opened import OpenFile
from cachestore.policy.freshness import rules_for
from cachestore.policy.verification import may_be_hot
from cachestore.progressive.past import Passing, Replaced
from cachestore.progressive.reader import Reading

_TRIES = 5
_MOMENT = 1.0


class Reader:
    """The reading half of a store."""

    def __init__(self, core: Core, finder: Finder) -> None:
        self._core = core
        self._finder = finder

    # -- paths ---------------------------------------------------------------------------------

    def get(self, key: str, max_age: float | None = None) -> Path:
        """See `CacheStore.get`; the way for all that is not hot."""
        if max_age is not None and not max_age >= 0:
            raise ValueError(f"max_age is {max_age} seconds; it must be 0 or more")
        key = check_key(key)
        for _ in range(_TRIES):
            path = self._path(key, max_age, hand_out=True)
            if path is not None:
                return path
        if max_age is not None:
            raise self._not_got(key)
        return self._elsewhere(key)

    def _path(self, key: str, max_age: float | None, *, hand_out: bool) -> Path | None:
        """A path that was right when it was looked for; None when it vanished meanwhile."""
        found = self._finder.find(key, max_age, hand_out=hand_out)
        path = found.path if found.ticket is None else self._hand_out(found, found.ticket)
        if hand_out:  # again: the grace begins when the path is given, however long it took
            core = self._core
            core.board.hand_out(core.spool.place(key).slot, core.clock.now())
        if path is None or not self._remember(key, found, path):
            return None
        self._tell(key, found)
        return path

    def _elsewhere(self, key: str) -> Path:
        """Somebody removes files of the cache as soon as they are made."""
        files = self._core.files
        fd, _ = self.open_fd(key)
        try:
            return self._core.bypass.fill(key, lambda target: files.copy(fd, target))[0]
        finally:
            files.close(fd)

    def _hand_out(self, found: Found, ticket: Ticket) -> Path | None:
        """A file of the cache with a pending body's bytes: an edit must not reach the only copy."""
        core = self._core
        try:
            return core.hand_outs.hand_out(ticket, core.options.handout_copy_max)
        except FileNotFoundError:
            return None
        except OSError as error:
            core.trouble("cache", error)
            found.expires = 0.0  # not hot: it is there for the grace only
            return self._past_the_cache(ticket.key, core.spool.body(ticket))

    def _past_the_cache(self, key: str, body: Path) -> Path | None:
        """A copy elsewhere, since the cache's disk does not work."""
        files = self._core.files
        try:
            origin = files.open_read(body)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SpoolError(f"cannot read the pending body {body}: {error}") from error
        try:
            return self._core.bypass.fill(key, lambda fd: files.copy(origin, fd))[0]
        finally:
            files.close(origin)

    def _not_got(self, key: str) -> CacheStoreError:
        """Why a file was gone each time that it was looked for."""
        core = self._core
        ticket = core.spool.read(core.spool.place(key))
        if ticket is not None and ticket.operation == "put":
            body = core.spool.body(ticket)
            if not body.exists():
                return SpoolError(
                    f"the pending body of {key!r} is missing ({body}), and it is the only copy;"
                    " put the file again, or delete the key"
                )
        return RemoteUnavailable(f"{key!r} changed faster than it could be read; try again")

    def _remember(self, key: str, found: Found, path: Path) -> bool:
        """Make a file hot; False when it vanished meanwhile."""
        try:
            stat = os.stat(path)
        except OSError:
            return False
        core = self._core
        now = core.clock.now()
        if found.expires > now and may_be_hot(core.options.verify):
            entry = HotEntry(
                path,
                stat,
                slot=core.spool.place(key).slot,
                token=found.token,
                since=now - 60.0,
                expires=found.expires,
                kind="fresh" if found.kind == "miss" else found.kind,
                info=found.info,
            )
            core.hot.remember(key, entry)
        return True

    def _tell(self, key: str, found: Found) -> None:
        size = found.info.size
        if found.kind == "miss":
            self._core.events.emit(events.Miss(key, 0 if found.counted else size, found.seconds))
            self._core.janitor.start()
        elif found.kind != "partial":  # its reader tells of that when it leaves
            self._core.events.emit(events.Hit(key, size, found.kind))
            self._core.janitor.touched(key)

    # -- descriptors ---------------------------------------------------------------------------

    def open_fd(self, key: str) -> tuple[int, ObjectInfo]:
        """An open descriptor with a shared lock on the newest version's file, and what it is."""
        source, info = self._source(key, None)
        assert isinstance(source, int), "the whole was wanted"
        return source, info

    def _source(self, key: str, at: int | None) -> tuple[int | Reading | Passing, ObjectInfo]:
        """Such a descriptor; or, with `at` (where it is read first), something on its way."""
        core = self._core
        key = check_key(key)
        hot = core.hot.path(key, hand_out=False)
        entry = None if hot is None else core.hot.entry(key)
        if entry is not None and entry.path == hot:
            with contextlib.suppress(OSError):
                fd = self._opened(entry.path)
                if entry.describes(os.fstat(fd)):
                    return fd, entry.info
                os.close(fd)
        for number in range(_TRIES):
            # The grace is for whoever lost the race against an unlinker once.
            found = self._finder.find(key, hand_out=number > 0, at=at)
            if found.reading is not None:
                self._tell(key, found)
                return found.reading, found.info
            try:
                fd = self._opened(found.path)
            except OSError:
                continue
            if os.fstat(fd).st_size != found.info.size:
                os.close(fd)  # a file of LOCAL_DIR that was replaced in between
                continue
            if found.ticket is None:
                self._remember(key, found, found.path)
            self._tell(key, found)
            return fd, found.info
        raise self._not_got(key)

    def _opened(self, path: Path) -> int:
        """The file with a shared lock: unlinkers leave it until it is closed."""
        fd = self._core.files.open_read(path)
        self._core.files.try_lock(fd, shared=True)
        return fd

    def open(self, key: str, at: int = 0) -> OpenFile:
        """See `CacheStore.open`."""
        if at < 0:
            raise ValueError(f"at={at}: it must be 0 or more")
        return OpenFile(*self._source(key, at))

    def open_whole(self, key: str) -> OpenFile:
        """The same, with all of it here."""
        return OpenFile(*self.open_fd(key))

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """See `CacheStore.read`."""
        if start < 0 or (end is not None and end < start):
            raise ValueError(f"start={start}, end={end}: need 0 <= start <= end")
        whole = start == 0 and end is None
        for _ in range(_TRIES):
            source, info = self._source(key, None if whole else start)
            stop = info.size if end is None else min(end, info.size)
            if isinstance(source, int):
                try:
                    return _read_all(source, start, stop)
                finally:
                    os.close(source)
            try:
                return _read_on_its_way(source, start, stop)
            except Replaced:
                continue  # nobody has seen a byte of it yet: all of them from the newer version
            finally:
                source.close()
        raise self._not_got(key)

    @contextmanager
    def lease(self, key: str) -> Iterator[Path]:
        """See `CacheStore.lease`."""
        fd, path = self._leased(check_key(key))
        try:
            yield path
        finally:
            os.close(fd)

    def _leased(self, key: str) -> tuple[int, Path]:
        """A path that needs no grace, since its file is open with a shared lock."""
        core = self._core
        for number in range(_TRIES + 1):
            grace = number > 0  # for whoever lost the race against an unlinker once
            path = core.hot.path(key, hand_out=grace) or self._path(key, None, hand_out=grace)
            if path is None and number == _TRIES:
                path = self._elsewhere(key)
            try:
                fd = core.files.open_read(path) if path is not None else None
            except OSError:
                core.hot.forget(key)
                continue
            if fd is None or path is None:
                continue
            # Who brings it, or removes it, holds the lock for a moment.
            if core.files.lock(fd, _MOMENT, shared=True) and _same_file(fd, path):
                return fd, path
            os.close(fd)
        raise self._not_got(key)

    def download(self, key: str, destination: Path) -> Path:
        """See `CacheStore.download`."""
        fd, _ = self.open_fd(key)
        files = self._core.files
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            temporary = destination.with_name(f".{destination.name[:100]}.{secrets.token_hex(6)}")
            try:
                target = files.create(temporary, 0o644)
                try:
                    files.copy(fd, target)
                finally:
                    os.close(target)
                os.replace(temporary, destination)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        finally:
            os.close(fd)
        return destination

    # -- what is known -------------------------------------------------------------------------

    def head(self, key: str) -> ObjectInfo:
        """See `CacheStore.head`."""
        core = self._core
        core.check_open()
        key = check_key(key)
        place = core.spool.place(key)
        token = core.board.token(place.slot)
        newest = core.newest(key, place)
        if newest is not None and newest.operation == "delete":
            self._finder.absent(key, negative=True)
        if isinstance(newest, Ticket):
            return info_of_ticket(newest)
        if isinstance(newest, Record) or core.is_local(key):
            return self._finder.find(key).info
        row, current = self._finder.copy(key, place, token)
        if row is not None and current:
            return info_of_row(row)
        partly = None if row is not None else self._finder.partly(key, place, token)
        if partly is not None:
            return partly
        return self._head_remote(key, token, row)

    def _head_remote(self, key: str, token: int, row: Row | None) -> ObjectInfo:
        core = self._core
        place = core.spool.place(key)
        known = core.facts.get(place, "head", "")
        if known is not None:
            return info_of_remote(RemoteObject(**known), key)
        if core.facts.get(place, "absent", "") is not None:
            return self._head_legacy(key, negative=True)
        if core.remote is None:
            raise RemoteUnavailable(f"{key!r} is not here, and the remote is switched off")
        core.warn_if_in_loop("a HEAD request")
        try:
            if row is None:
                obj = core.remote.head(key, timeout=core.options.miss_deadline)
            else:
                newer = self._finder.headed(row, place, token)
                if newer is None:
                    return info_of_row(row)
                obj = newer
        except NotFound:
            core.facts.put(place, "absent", "", True, core.options.negative_ttl, token)
            return self._head_legacy(key, negative=False)
        ttl = rules_for(key, None, core.options).ttl
        lasts = 86400.0 if ttl is None else ttl
        core.facts.put(place, "head", "", _plain(obj), lasts, token)
        return info_of_remote(obj, key)

    def _head_legacy(self, key: str, *, negative: bool) -> ObjectInfo:
        there = self._finder.legacy(key)
        if there is None:
            self._finder.absent(key, negative=negative)
        return self._core.folder.info(there)

    def exists(self, key: str) -> bool:
        """See `CacheStore.exists`."""
        try:
            self.head(key)
        except NotFound:
            return False
        return True


def _plain(obj: RemoteObject) -> dict[str, object]:
    return {
        "key": obj.key,
        "size": obj.size,
        "etag": obj.etag,
        "content_type": obj.content_type,
        "metadata": dict(obj.metadata),
        "cache_control": obj.cache_control,
        "modified": obj.modified,
        "sha256": obj.sha256,
    }


def _read_all(fd: int, start: int, stop: int) -> bytes:
    parts: list[bytes] = []
    while start < stop:
        chunk = os.pread(fd, min(stop - start, 1 << 24), start)
        if not chunk:
            raise CacheStoreError("a file became shorter while it was read")
        parts.append(chunk)
        start += len(chunk)
    return b"".join(parts)


def _read_on_its_way(reading: Reading | Passing, start: int, stop: int) -> bytes:
    parts: list[bytes] = []
    while start < stop:
        chunk = reading.read_at(start, stop - start)
        parts.append(chunk)
        start += len(chunk)
    return b"".join(parts)


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False
