"""`LocalChanges` on LOCAL_DIR: what local mode put or deleted counts as tickets (section 6)."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from cachestore.errors import SpoolError
from cachestore.files import COPY_CHUNK, Files, is_real_folder
from cachestore.local.folder import LocalFolder
from cachestore.local.folder_reader import LocalFile
from cachestore.local.records import Record
from cachestore.local.spool import Spool
from cachestore.local.tickets import Ticket
from cachestore.policy.newest import RecordFacts, newest
from cachestore.uploads.parts import Change


class FolderChanges:
    """Unsent records of one folder, as the uploader takes them."""

    def __init__(self, folder: LocalFolder, spool: Spool, files: Files) -> None:
        self._folder = folder
        self._spool = spool
        self._files = files

    def unsent(self) -> Iterable[str]:
        """Keys with an unsent change of this remote, or of none."""
        return (record.key for record in self._folder.unsent())

    def foreign(self) -> Iterable[Change]:
        """Unsent changes of other remotes, which wait until theirs is configured."""
        for record in self._folder.foreign():
            path = self._folder.root / record.file if record.operation == "put" else None
            ticket = replace(self._ticket(record), remote_id=record.remote_id)
            yield Change(ticket, path, record.replaces)

    def unreadable(self) -> Iterable[tuple[Path, str]]:
        """Records that cannot be read, and why."""
        return self._folder.unreadable()

    def newest(self, key: str, ticket: Ticket | None) -> Change | None:
        """The key's unsent change if it is newer than its pending ticket, else None."""
        record = self._folder.record(key)
        if record is None or not _wins(record, ticket):
            return None
        if record.operation == "delete":
            return Change(self._ticket(record), None, record.replaces)
        there = self._folder.locate(key)
        if there is None:
            raise SpoolError(f"the file of {key!r} in {self._folder.root} is gone before it was"
                             " uploaded; put it again, or delete the key")  # fmt: skip
        if not there.as_recorded:
            there = self._renewed(there)
        if there is None or there.record is None:
            return None
        return Change(self._ticket(there.record), there.path, there.record.replaces)

    def _renewed(self, there: LocalFile) -> LocalFile | None:
        """A file that somebody wrote since is uploaded as it is now; None while it changes."""
        sha256 = self._hash(there)
        with self._spool.lock(self._spool.place(there.key)):
            now = self._folder.locate(there.key)
            if now != there:
                return None
            self._folder.renew(there, sha256)
        return self._folder.locate(there.key)

    def _hash(self, there: LocalFile) -> str:
        digest = hashlib.sha256()
        fd = self._files.open_read(there.path)
        try:
            while chunk := os.read(fd, COPY_CHUNK):
                digest.update(chunk)
        finally:
            os.close(fd)
        return digest.hexdigest()

    def _ticket(self, record: Record) -> Ticket:
        return Ticket(
            remote_id=self._spool.remote_id,
            key=record.key,
            id=record.id,
            operation=record.operation,
            time=record.time,
            size=record.size if record.operation == "put" else 0,
            sha256=record.sha256,
            content_type=record.content_type,
            metadata=record.metadata,
            cache_control=record.cache_control,
        )

    def settle(self, ticket: Ticket, etag: str) -> None:
        """Make durable that nothing older in LOCAL_DIR is served once the ticket is gone."""
        key = ticket.key
        there = self._folder.locate(key)
        if there is None and self._folder.record(key) is None:
            return
        equal = there if there is not None and self._is_equal(there, ticket) else None
        place = self._spool.place(key)
        with self._spool.lock(place):
            pending = self._spool.read(place)
            if pending is None or pending.id != ticket.id:
                return  # whatever is in LOCAL_DIR came later, or the newer ticket will settle it
            if not _wins_at(self._folder.record(key), ticket):
                self._settle_held(ticket, etag, equal)

    def settle_outside(self, ticket: Ticket, etag: str) -> None:
        """The remote has it without a ticket: as `settle`, unless something newer is pending."""
        key = ticket.key
        if not is_real_folder(self._folder.root):
            return  # the usual case: nothing was ever kept here
        there, record = self._folder.locate(key), self._folder.record(key)
        if there is None and record is None:
            return
        if record is not None and (record.state, record.etag) == ("superseded", etag):
            return
        equal = there if there is not None and self._is_equal(there, ticket) else None
        place = self._spool.place(key)
        with self._spool.lock(place):
            if self._spool.read(place) is None and not _wins_at(self._folder.record(key), None):
                self._settle_held(ticket, etag, equal)

    def _settle_held(self, ticket: Ticket, etag: str, equal: LocalFile | None) -> None:
        """Nothing older in LOCAL_DIR is served any more (caller: L1)."""
        if ticket.operation == "delete":
            self._folder.remove_copy(ticket.key)
            return
        known = equal is not None and self._folder.recognize(equal, self._record(ticket, etag))
        if not known:
            self._folder.supersede(ticket.key, etag)

    def _is_equal(self, there: LocalFile, ticket: Ticket) -> bool:
        """True if a file here has the bytes of a put that went another way."""
        if ticket.operation == "delete" or there.size != ticket.size:
            return False
        with contextlib.suppress(OSError):  # then the remote has it
            return self._hash(there) == ticket.sha256
        return False

    def _record(self, ticket: Ticket, etag: str) -> Record:
        return Record(
            key=ticket.key,
            id=ticket.id,
            operation="put",
            remote_id=self._spool.remote_id,
            time=ticket.time,
            etag=etag,
            sha256=ticket.sha256,
            content_type=ticket.content_type,
            metadata=ticket.metadata,
            cache_control=ticket.cache_control,
        )

    def sent(self, change: Change, etag: str) -> bool:
        """The remote has an unsent change; False if a newer one took its place."""
        return self._folder.mark(change.ticket.key, change.ticket.id, "sent", etag)


def _wins_at(record: Record | None, ticket: Ticket | None) -> bool:
    return record is not None and _wins(record, ticket)


def _wins(record: Record, ticket: Ticket | None) -> bool:
    facts = RecordFacts(record.id, record.state, record.replaces)
    return newest(None if ticket is None else ticket.id, facts) == "record"
