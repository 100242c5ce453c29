"""Pending files as paths: bytes of the spool in a file of the cache, made once for an operation."""

from __future__ import annotations

from pathlib import Path

from cachestore.files import Files
from cachestore.local.cache import CacheFiles
from cachestore.local.room import Room
from cachestore.local.spool import Spool
from cachestore.local.tickets import Ticket


class HandOuts:
    """Copies of pending bodies, among the files that pass through."""

    def __init__(self, spool: Spool, cache: CacheFiles, room: Room, files: Files) -> None:
        self._spool = spool
        self._cache = cache
        self._room = room
        self._files = files

    def hand_out(self, ticket: Ticket, copy_max: int) -> Path:
        """A clone where the file system can, a copy up to `copy_max` bytes, else a second name.

        Raises `FileNotFoundError` when the body is gone, `OSError`, and `CacheFull`.
        """
        body, place = self._spool.body(ticket), self._spool.place(ticket.key)
        path, there = self._cache.hand_out_path(body, place, ticket.key, ticket.id)
        if there:
            return path
        fd, part = self._cache.new_part(place)
        grant = self._room.grant(ticket.key, place, part)
        grant.goal, grant.passing = self._cache.name_of(path), True
        try:
            self._room.fill(grant, ticket.size)
            self._cache.hand_out(body, path, fd, part, copy_max)
            return self._room.passes(grant, path)
        finally:
            try:
                self._cache.end_part(fd, part)
            finally:
                self._room.release(grant)
