"""Listings: what is pending, laid over the remote's pages; or LOCAL_DIR's files."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator

from cachestore.core import Core, info_of_remote, info_of_row, info_of_ticket
from cachestore.errors import RemoteUnavailable
from cachestore.keys import check_prefix
from cachestore.local.records import Record
from cachestore.local.tickets import Ticket
from cachestore.model import ObjectInfo, Prefix, RemoteObject
from cachestore.policy.routing import all_local

Item = ObjectInfo | Prefix


def by_bytes(item: Item) -> bytes:
    """Listings are in the order of the keys' UTF-8 bytes, as S3 gives them."""
    return item.key.encode()


class Lister:
    """The listing room. It never returns a partial truth: it raises instead."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def list(self, prefix: str = "", delimiter: str | None = None) -> Iterator[Item]:
        """See `CacheStore.list`. What is pending is read before this returns."""
        core = self._core
        core.check_open()
        prefix = check_prefix(prefix)
        if delimiter is not None and not delimiter:
            raise ValueError("delimiter is one or more characters, or None")
        options = core.options
        changed = self._changes(prefix)
        local = self._local(prefix)
        if all_local(prefix, options.mode, options.local_only_prefixes):
            items: Iterator[Item] = self._all_local(prefix, changed, local)
        else:
            if core.remote is None:
                raise RemoteUnavailable(f"cannot list {prefix!r}: the remote is switched off")
            items = self._overlay(prefix, delimiter, changed, local)
        return items if delimiter is None else _grouped(items, prefix, delimiter)

    # -- what is here --------------------------------------------------------------------------

    def _changes(self, prefix: str) -> dict[str, ObjectInfo | None]:
        """Keys that differ from the remote: their newest version, None where deleted."""
        core = self._core
        changed: dict[str, ObjectInfo | None] = {}
        tickets = core.index.below(prefix)
        for record in core.folder.unsent():
            if record.key.startswith(prefix):
                tickets.setdefault(record.key, _NOTHING)
        for key, ticket in tickets.items():
            newest = ticket if ticket is not _NOTHING and not _may_be_void(core, key) else None
            found: Ticket | Record | None = newest or core.newest(key, core.spool.place(key))
            if found is None:
                continue
            if found.operation == "delete":
                changed[key] = None
            elif isinstance(found, Ticket):
                changed[key] = info_of_ticket(found)
            else:
                there = core.folder.locate(key)
                changed[key] = None if there is None else core.folder.info(there)
        return changed

    def _local(self, prefix: str) -> Iterator[ObjectInfo]:
        """Files of keys that are kept in LOCAL_DIR only."""
        core = self._core
        for key in core.folder.list(prefix):
            if core.is_local(key):
                there = core.folder.locate(key)
                record = core.folder.record(key)
                if there is not None and (record is None or record.state != "superseded"):
                    yield core.folder.info(there)

    def _all_local(
        self, prefix: str, changed: dict[str, ObjectInfo | None], local: Iterator[ObjectInfo]
    ) -> Iterator[ObjectInfo]:
        """Local mode: the folder, clean copies of the remote, and what is pending for it."""
        core = self._core
        known: dict[str, ObjectInfo] = {}
        if core.options.mode == "local":
            for row in core.catalog.rows_below(prefix):
                known[row.key] = info_of_row(row)
        for info in local:
            known[info.key] = info
        for key, newest in changed.items():
            known.pop(key, None)
            if newest is not None:
                known[key] = newest
        yield from sorted(known.values(), key=by_bytes)

    # -- the remote ----------------------------------------------------------------------------

    def _overlay(
        self,
        prefix: str,
        delimiter: str | None,
        changed: dict[str, ObjectInfo | None],
        local: Iterator[ObjectInfo],
    ) -> Iterator[Item]:
        here = sorted((info for info in changed.values() if info is not None), key=by_bytes)
        kept = [info for info in local if info.key not in changed]
        remote = self._remote(prefix, delimiter, changed)
        # The first page is asked for now, so that a listing that cannot be had fails at once.
        first = next(remote, None)
        rest = remote if first is None else _chain(first, remote)
        return heapq.merge(rest, iter(here), iter(sorted(kept, key=by_bytes)), key=by_bytes)

    def _remote(
        self, prefix: str, delimiter: str | None, changed: dict[str, ObjectInfo | None]
    ) -> Iterator[Item]:
        core = self._core
        assert core.remote is not None
        gone = [key for key, info in changed.items() if info is None]
        for page in core.remote.list(prefix, delimiter=delimiter):
            items: list[Item] = [
                self._listed(obj)
                for obj in page.objects
                if obj.key not in changed and not core.is_local(obj.key)
            ]
            items += [Prefix(p) for p in page.prefixes if self._has_survivor(p, gone)]
            yield from sorted(items, key=by_bytes)

    def _listed(self, obj: RemoteObject) -> ObjectInfo:
        row = self._core.catalog.get(obj.key)
        cached = row is not None and row.etag == obj.etag
        if row is not None and cached:
            return info_of_row(row)
        return info_of_remote(obj, obj.key)

    def _has_survivor(self, common: str, gone: Collection[str]) -> bool:
        """A common prefix stays unless all that is below it was deleted here."""
        below = {key for key in gone if key.startswith(common)}
        if not below:
            return True
        assert self._core.remote is not None
        for page in self._core.remote.list(common):
            if any(obj.key not in below for obj in page.objects):
                return True
        return False


_NOTHING = Ticket("", "", "", "delete", 0.0)


def _may_be_void(core: Core, key: str) -> bool:
    """A local record can make a ticket void; only then is the longer look needed."""
    record = core.folder.record(key)
    return record is not None and record.state == "unsent"


def _chain(first: Item, rest: Iterator[Item]) -> Iterator[Item]:
    yield first
    yield from rest


def _grouped(items: Iterator[Item], prefix: str, delimiter: str) -> Iterator[Item]:
    """Keys that go on behind the delimiter become one common prefix, each once."""
    last: str | None = None
    for item in items:
        at = item.key.find(delimiter, len(prefix))
        if at < 0:
            yield item
            continue
        common = item.key[: at + len(delimiter)]
        if common != last:
            last = common
            yield Prefix(common)
