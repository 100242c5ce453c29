"""`CleanCopies` on the real cache: an uploaded body becomes a clean copy without a download."""

from __future__ import annotations

from pathlib import Path

from cachestore.clock import Clock
from cachestore.errors import CacheStoreError
from cachestore.files import Files, allocated
from cachestore.keys import place_of
from cachestore.local.cache import CacheFiles
from cachestore.local.catalog import Catalog
from cachestore.local.catalog_rows import Row
from cachestore.local.room import Room
from cachestore.local.tickets import Ticket
from cachestore.model import RemoteObject


class CacheCopies:
    """Rows in the catalog and files of the cache, as acknowledgements change them."""

    def __init__(
        self, catalog: Catalog, cache: CacheFiles, room: Room, files: Files, clock: Clock
    ) -> None:
        self._catalog = catalog
        self._cache = cache
        self._room = room
        self._files = files
        self._clock = clock

    def admit(self, ticket: Ticket, body: Path, found: RemoteObject) -> Row | None:
        """Link the body in and commit its row, synced; None if it was not kept."""
        fd, part = self._cache.new_part(place_of(ticket.remote_id, ticket.key))
        grant = self._room.grant(ticket.key, place_of(ticket.remote_id, ticket.key), part)
        try:
            if not self._room.try_fill(grant, ticket.size):
                return None
            self._cache.link_in(body, grant.goal, fd, part)
            row = self._row(ticket, body, found, grant.goal)
            self._room.keep(grant, row, full=True)
            # A catalog that is busy or broken does not say so; what it holds does.
            kept = self._catalog.get(ticket.key)
            if kept is not None and kept.file == grant.goal:
                return row
            self._cache.discard([row])
            return None
        finally:
            try:
                self._cache.end_part(fd, part)
            finally:
                self._room.release(grant)

    def _row(self, ticket: Ticket, body: Path, found: RemoteObject, name: str) -> Row:
        stat, now = self._files.stat(self._cache.root / name), self._clock.now()
        return Row(
            key=ticket.key,
            file=name,
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            inode=stat.st_ino,
            allocated=allocated(stat),
            etag=found.etag,
            sha256=ticket.sha256,
            content_type=ticket.content_type,
            metadata=dict(ticket.metadata),
            cache_control=ticket.cache_control,
            modified=found.modified,
            validated=now,
            ttl=ticket.ttl,
            # A second name for the body has the body's synced bytes; a copy has not.
            durable=stat.st_ino == self._files.stat(body).st_ino,
            used=now,
        )

    def withdraw(self, admitted: Row) -> None:
        """A newer operation took the place of the one that was uploaded."""
        row = self._catalog.remove(admitted.key, admitted.file)
        if row is not None:
            self._cache.discard([row])

    def is_void(self, key: str, etag: str) -> bool:
        """True when it is known that there is no copy of the key, except of the version `etag`."""
        if self._catalog.lacks(key):
            return True
        row = self._catalog.get(key)
        return row is not None and row.etag == etag

    def void(self, key: str, etag: str) -> None:
        """`forget`, unless `is_void`."""
        if not self.is_void(key, etag):
            self.forget(key)

    def forget(self, key: str) -> None:
        """No row of the key is left, durably. Raises `CacheStoreError` if that cannot be had."""
        row = self._catalog.remove(key, full=True)
        if row is not None:
            self._cache.discard([row])
        if not self._catalog.lacks(key):
            raise CacheStoreError(f"the catalog is busy; a copy of {key!r} may still be in it")
