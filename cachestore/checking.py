"""`fsck`: whether spool, local folder, catalog, cache and bucket agree. Safe beside live processes.

Nothing that is the only copy of something is ever removed, save what has been in quarantine for
a week.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cachestore.core import Core
from cachestore.errors import CacheStoreError, Corrupt
from cachestore.keys import place_of
from cachestore.local.board import SHARDS
from cachestore.local.catalog_rows import Row
from cachestore.local.spool_scan import Unreadable, quarantined, scan_shard, tidy_shard
from cachestore.local.tickets import Ticket
from cachestore.model import RemoteObject
from cachestore.remote.fetching import verify_digest

QUARANTINE_DAYS = 7
_YOUNG = 60.0


@dataclass(slots=True)
class Finding:
    """One thing that `fsck` saw. `repaired` says what was done, "" for nothing."""

    what: str
    where: str
    detail: str = ""
    repaired: str = ""


@dataclass(slots=True)
class FsckReport:
    """What `fsck` saw: findings, and how much it looked at."""

    tickets: int = 0
    copies: int = 0
    objects: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """True when nothing was found."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Checker:
    """One run. `deep`: hash bodies and copies; `bucket`: compare copies with its listing."""

    def __init__(self, core: Core, *, repair: bool, deep: bool, bucket: bool) -> None:
        self._core = core
        self._repair = repair
        self._deep = deep
        self._bucket = bucket
        self._report = FsckReport()
        self._moved: set[Path] = set()

    def run(self) -> FsckReport:
        """All checks, one after the other."""
        for shard in range(SHARDS):
            self._check_shard(shard)
        self._check_quarantine()
        self._check_local()
        self._check_copies()
        self._check_strays()
        if self._bucket:
            self._check_bucket()
        return self._report

    def _found(self, what: str, where: object, detail: str = "", repaired: str = "") -> None:
        self._report.findings.append(Finding(what, str(where), detail, repaired))

    # -- what is pending -------------------------------------------------------------------------

    def _check_shard(self, shard: int) -> None:
        spool = self._core.spool
        for item in scan_shard(spool, shard):
            if isinstance(item, Unreadable):
                self._found("unreadable ticket", item.path, item.reason)
                continue
            self._report.tickets += 1
            self._check_ticket(item)
        for moved in tidy_shard(spool, shard, self._core.clock.now()):
            self._moved.add(moved)
            self._found("body without ticket", moved, "", "moved to quarantine")

    def _check_ticket(self, ticket: Ticket) -> None:
        core = self._core
        if ticket.remote_id != core.remote_id:
            self._found("foreign ticket", ticket.key, f"belongs to remote {ticket.remote_id}")
        parked = core.spool.state(ticket).parked
        if parked is not None:
            self._found("parked", ticket.key, f"{parked}; see `cachestore retry`")
        if ticket.operation == "delete":
            return
        body = core.spool.body(ticket)
        try:
            size = core.files.stat(body).st_size
        except FileNotFoundError:
            if self._is_still(ticket):
                self._found("ticket without body", ticket.key, f"{body} is missing")
            return
        if size != ticket.size:
            self._found("altered body", ticket.key, f"{body} has {size} bytes, not {ticket.size}")
        elif self._deep:
            known = RemoteObject(ticket.key, ticket.size, "", sha256=ticket.sha256)
            fault = self._damage(body, known)
            if fault and self._is_still(ticket):
                self._found("altered body", ticket.key, fault)

    def _is_still(self, ticket: Ticket) -> bool:
        """False when the operation ended while it was looked at."""
        core = self._core
        try:
            present = core.spool.read(place_of(ticket.remote_id, ticket.key))
        except CacheStoreError:
            return False
        return present is not None and present.id == ticket.id

    def _damage(self, path: Path, known: RemoteObject) -> str:
        """What is wrong with a file's bytes, "" for nothing."""
        try:
            fd = self._core.files.open_read(path)
        except OSError:
            return ""
        try:
            verify_digest(fd, known)
        except Corrupt as error:
            return str(error)
        finally:
            self._core.files.close(fd)
        return ""

    def _check_quarantine(self) -> None:
        core = self._core
        for path in quarantined(core.spool):
            if path in self._moved:
                continue
            try:
                age = core.clock.now() - core.files.stat(path).st_ctime
            except OSError:
                continue
            old = age > QUARANTINE_DAYS * 86400
            done = ""
            if self._repair and old and core.files.unlink(path):
                done = "removed"
            self._found("quarantined", path, f"{age / 86400:.1f} days old", done)

    def _check_local(self) -> None:
        """Changes of local mode: unreadable records, and files that are gone before they went."""
        core = self._core
        for item in core.uploader.pending():
            if item.state == "unreadable" and item.key:
                self._found("local change without file", item.key, item.last_error or "")
        for record in core.folder.foreign():
            self._found("foreign local change", record.key, f"of remote {record.remote_id}")
        for path, reason in core.folder.unreadable():
            self._found("unreadable record", path, reason)

    # -- what can be had again -------------------------------------------------------------------

    def _check_copies(self) -> None:
        core = self._core
        for row in core.catalog.rows_below(""):
            self._report.copies += 1
            known = RemoteObject(row.key, row.size, row.etag, sha256=row.sha256)
            if not core.cache.matches(row):
                detail = f"{row.file} is not the file that was stored"
            elif self._deep:
                detail = self._damage(core.cache.path(row), known)
            else:
                continue
            if detail and self._is_current(row):
                self._found("damaged copy", row.key, detail, self._forget(row))

    def _is_current(self, row: Row) -> bool:
        """False when the copy was replaced or left while it was looked at."""
        now = self._core.catalog.get(row.key)
        return now is not None and now.file == row.file

    def _forget(self, row: Row) -> str:
        core = self._core
        if not self._repair or core.catalog.remove(row.key, row.file) is None:
            return ""
        core.room.quarantine(row)
        return "forgotten; the next read fetches it"

    def _check_strays(self) -> None:
        """Copies without a row, of a lost catalog or a crash; the janitor removes old ones."""
        core = self._core
        for shard in range(SHARDS):
            copies = list(core.cache.copies(shard))
            known = core.catalog.files_in(f"{shard:02x}") if copies else None
            if known is None:
                continue
            for name, path in copies:
                # One that is just being admitted has no row yet.
                if name not in known and core.cache.is_old(path, _YOUNG):
                    done = "removed" if self._repair and core.cache.orphan(path) else ""
                    self._found("copy without row", path, "", done)

    # -- the bucket ------------------------------------------------------------------------------

    def _check_bucket(self) -> None:
        """Whether each copy is of a version that the bucket has."""
        core = self._core
        if core.remote is None:
            self._found("bucket not compared", "", "the remote is switched off")
            return
        try:
            for row, obj in self._side_by_side(core.catalog.rows_below("")):
                self._compare(row, obj)
        except CacheStoreError as error:
            self._found("bucket not compared", core.remote.name, str(error))

    def _side_by_side(self, rows: Iterator[Row]) -> Iterator[tuple[Row, RemoteObject | None]]:
        """Each row with the bucket's object of its key; both come in the order of their bytes."""
        assert self._core.remote is not None
        objects = (obj for page in self._core.remote.list("") for obj in page.objects)
        obj = next(objects, None)
        for row in rows:
            while obj is not None and obj.key.encode() < row.key.encode():
                self._report.objects += 1
                obj = next(objects, None)
            yield row, obj if obj is not None and obj.key == row.key else None
        while obj is not None:
            self._report.objects += 1
            obj = next(objects, None)

    def _compare(self, row: Row, obj: RemoteObject | None) -> None:
        core = self._core
        if obj is not None and obj.etag == row.etag and obj.size == row.size:
            return
        pending = core.newest(row.key, core.spool.place(row.key))
        if pending is not None or not self._is_current(row):
            return  # it changed while the bucket was listed
        if obj is None:
            # Not repaired: it may be the last copy there is.
            self._found("not in the bucket", row.key, f"a copy is here: {core.cache.path(row)}")
        else:
            detail = f"the bucket has another version ({obj.etag}, not {row.etag})"
            self._found("old copy", row.key, detail, self._forget(row))
