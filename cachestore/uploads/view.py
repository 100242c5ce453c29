"""Pending work as the disk has it, whoever leads: for listing, hurrying and flushing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cachestore.errors import CacheStoreError
from cachestore.keys import Place
from cachestore.local.board import SHARDS
from cachestore.local.spool import Spool
from cachestore.local.spool_scan import Unreadable, scan_shard
from cachestore.local.tickets import Ticket, TicketState
from cachestore.model import PendingItem, PendingState
from cachestore.policy.routing import is_local
from cachestore.uploads.parts import Change, LocalChanges, Parts


class View:
    """Reads the spool; keeps nothing but what `left` saw."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._seen: list[int | None] = [None] * SHARDS
        self._open: list[int] = [0] * SHARDS
        self._open_local = 0

    @property
    def _spool(self) -> Spool:
        return self._parts.spool

    @property
    def _changes(self) -> LocalChanges:
        return self._parts.changes

    # -- listing ---------------------------------------------------------------------------------

    def items(self) -> Iterator[PendingItem]:
        """Every operation that a remote does not have, of all remotes."""
        voided = set()
        lost: list[PendingItem] = []
        for change in self._local(lost):
            voided.add(change.ticket.key)
            yield self._item(change.ticket, change.path)
        yield from lost
        yield from self._unreachable()
        for shard in range(SHARDS):
            for item in scan_shard(self._spool, shard):
                if isinstance(item, Unreadable):
                    yield PendingItem(
                        "", "", "put", "unreadable", 0, 0.0,
                        last_error=item.reason, path=item.path,
                    )  # fmt: skip
                elif item.remote_id != self._spool.remote_id or item.key not in voided:
                    put = item.operation == "put"
                    yield self._item(item, self._spool.body(item) if put else None)

    def _unreachable(self) -> Iterator[PendingItem]:
        """Local changes that cannot be sent as things are."""
        for change in self._changes.foreign():
            yield self._item(change.ticket, change.path)
        for path, reason in self._changes.unreadable():
            yield PendingItem("", "", "put", "unreadable", 0, 0.0, last_error=reason, path=path)

    def _local(self, lost: list[PendingItem] | None = None) -> Iterator[Change]:
        """Unsent local changes that are newer than any pending ticket.

        `lost` takes those that cannot be looked at, such as a file that somebody removed.
        """
        options = self._parts.options
        for key in self._changes.unsent():
            if is_local(key, options.mode, options.local_only_prefixes):
                continue
            try:
                change = self._changes.newest(key, self._spool.read(self._spool.place(key)))
            except CacheStoreError as error:
                if lost is not None:
                    lost.append(
                        PendingItem(key, "", "put", "unreadable", 0, 0.0, last_error=str(error))
                    )
                continue
            if change is not None:
                yield change

    def _item(self, ticket: Ticket, path: Path | None) -> PendingItem:
        state = self._spool.state(ticket)
        now = self._parts.clock.now()
        waits = state.next_attempt > now
        return PendingItem(
            ticket.key, ticket.id, ticket.operation, self._state_of(ticket, state), ticket.size,
            max(0.0, now - ticket.time), state.tries, state.parked or state.last_error,
            max(0.0, state.next_attempt - now) if waits else None, ticket.remote_id,
            path,
        )  # fmt: skip

    def _state_of(self, ticket: Ticket, state: TicketState) -> PendingState:
        if ticket.remote_id != self._spool.remote_id:
            return "foreign"
        if state.parked is not None:
            return "parked"
        if state.on_wire:
            return "uploading"
        return "retrying" if state.tries else "waiting"

    # -- what is left for a flush ------------------------------------------------------------------

    def left(self) -> int:
        """How many operations wait for this remote and are not parked."""
        sequences = self._spool.board.sequences()
        if self._seen != sequences:
            for shard, sequence in enumerate(sequences):
                if self._seen[shard] != sequence:
                    self._open[shard] = self._count(shard)
                    self._seen[shard] = sequence
            states = (self._spool.state(change.ticket) for change in self._local())
            self._open_local = sum(1 for state in states if state.parked is None)
        return sum(self._open) + self._open_local

    def _count(self, shard: int) -> int:
        return sum(
            1
            for item in scan_shard(self._spool, shard)
            if isinstance(item, Ticket)
            and item.remote_id == self._spool.remote_id
            and self._spool.state(item).parked is None
        )

    # -- hurrying ----------------------------------------------------------------------------------

    def hurry(self, key: str | None = None, *, parked: bool) -> list[str]:
        """Make waiting operations due now, with `parked` those too; the ids that changed."""
        changed: list[str] = []
        for ticket, place in self._own(key):
            state = self._spool.state(ticket)
            waits = state.next_attempt > self._parts.clock.now() and state.sent_etag is None
            if not waits and not (parked and state.parked is not None):
                continue
            if state.parked is not None and not parked:
                continue
            self._spool.save_state(ticket, replace(state, parked=None, next_attempt=0.0))
            self._spool.board.change(place.slot)
            changed.append(ticket.id)
        return changed

    def _own(self, key: str | None) -> Iterator[tuple[Ticket, Place]]:
        """Pending operations of this remote (of one key), newest versions only."""
        if key is not None:
            place = self._spool.place(key)
            ticket = self._spool.read(place)
            change = self._changes.newest(key, ticket)
            newest = ticket if change is None else change.ticket
            if newest is not None:
                yield newest, place
            return
        for local in self._local():
            yield local.ticket, self._spool.place(local.ticket.key)
        for shard in range(SHARDS):
            for item in scan_shard(self._spool, shard):
                if isinstance(item, Ticket) and item.remote_id == self._spool.remote_id:
                    yield item, self._spool.place(item.key)
