"""Puts and deletes: check, stage, publish under the shard's lock, wake the uploader."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from cachestore import events
from cachestore.clock import Deadline
from cachestore.core import Core
from cachestore.errors import (
    PreconditionFailed,
    RemoteUnavailable,
    SpoolError,
    SpoolFull,
    TimedOut,
    Unsupported,
)
from cachestore.keys import Place, check_key
from cachestore.local.folder_reader import LocalFile
from cachestore.local.media import guess_type
from cachestore.local.spool import Overtaken, Staged, new_id
from cachestore.local.spool_batch import publish_deletes
from cachestore.local.spool_scan import recount
from cachestore.local.tickets import Ticket
from cachestore.model import Attributes
from cachestore.policy.attributes import make_attributes
from cachestore.receipts import Follower, Receipt

Durability = Literal["spooled", "remote"]
_RECOUNT_SECONDS = 10.0


class Writer:
    """The writing half of a store."""

    def __init__(self, core: Core, follower: Follower) -> None:
        self._core = core
        self._follower = follower
        self._counted: float | None = None

    # -- put -----------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        source: Any,
        *,
        content_type: str | None,
        metadata: Mapping[str, str] | None,
        cache_control: str | None,
        ttl: float | None,
        durability: Durability,
        if_match: str | None,
        if_none_match: str | None,
    ) -> Receipt:
        """See `CacheStore.put`."""
        core = self._core
        core.check_open()
        key = check_key(key)
        attributes = make_attributes(guess_type(key), content_type, metadata, cache_control)
        if durability not in ("spooled", "remote"):
            raise ValueError(f"durability is 'spooled' or 'remote', not {durability!r}")
        if ttl is not None and not ttl >= 0:
            raise ValueError(f"ttl is {ttl} seconds; it must be 0 or more, inf never expires")
        conditions = (if_match, if_none_match)
        if core.is_local(key):
            if conditions != (None, None):
                raise Unsupported(f"conditions need a remote; {key!r} is kept in LOCAL_DIR")
            return self._put_local(key, source, attributes)
        return self._put_remote(key, source, attributes, ttl, durability, conditions)

    def _put_remote(
        self,
        key: str,
        source: Any,
        attributes: Attributes,
        ttl: float | None,
        durability: Durability,
        conditions: tuple[str | None, str | None],
    ) -> Receipt:
        core = self._core
        if conditions != (None, None):
            durability = "remote"
            self._check_conditions(key, conditions)
        through = self._make_room(key)
        staged = core.spool.stage(key, source)
        try:
            ticket = self._ticket(key, staged, attributes, ttl, conditions)
        except BaseException:
            core.spool.drop(staged)
            raise
        self._publish(ticket, staged)
        receipt = Receipt(key, ticket.id, staged.size, staged.sha256, self._follower)
        if durability == "remote" or through:
            self._wait_for_remote(receipt, conditions)
        return receipt

    def _ticket(
        self,
        key: str,
        staged: Staged | None,
        attributes: Attributes,
        ttl: float | None = None,
        conditions: tuple[str | None, str | None] = (None, None),
    ) -> Ticket:
        core = self._core
        place = core.spool.place(key)
        record = core.folder.record(key)
        unsent = record is not None and record.state == "unsent"
        return Ticket(
            remote_id=core.remote_id,
            key=key,
            id=staged.id if staged else new_id(),
            operation="put" if staged else "delete",
            time=core.clock.now(),
            body=staged.name if staged else None,
            size=staged.size if staged else 0,
            sha256=staged.sha256 if staged else "",
            content_type=attributes.content_type,
            metadata=attributes.metadata,
            cache_control=attributes.cache_control,
            base_etag=self._base(key, place),
            replaces=record.id if record is not None and unsent else None,
            if_match=conditions[0],
            if_none_match=conditions[1],
            ttl=ttl,
        )

    def _base(self, key: str, place: Place) -> str | None:
        """The remote's ETag that this change is made on, as far as we know."""
        try:
            pending = self._core.spool.read(place)
        except SpoolError:
            return None
        if pending is not None:
            return pending.base_etag
        row = self._core.catalog.get(key)
        return None if row is None else row.etag

    def _publish(self, ticket: Ticket, staged: Staged | None, token: int | None = None) -> None:
        core = self._core
        replaced = core.spool.publish(ticket, staged, token)
        core.hot.forget(ticket.key)
        if replaced is not None:
            core.events.emit(events.Superseded(ticket.key, replaced.id))
        core.events.emit(events.Spooled(ticket.key, ticket.size, ticket.operation, ticket.id))
        core.uploader.wake(ticket)

    def _wait_for_remote(self, receipt: Receipt, conditions: tuple[str | None, str | None]) -> None:
        """Wait for the acknowledgement; an error carries the receipt, which stays pending."""
        timeout = self._core.options.back_pressure_timeout
        try:
            outcome = self._core.uploader.wait(receipt.key, receipt.id, timeout)
        except PreconditionFailed:
            raise
        except TimedOut as error:
            later = TimedOut(
                f"{receipt.key!r} is durable here, but the remote did not have it after"
                f" {timeout:g} s; it stays pending ({error})"
            )
            later.receipt = receipt
            raise later from error
        if outcome == "parked":
            failed = RemoteUnavailable(
                f"{receipt.key!r} is durable here, but its upload was parked; see"
                " `cachestore queue` and `cachestore retry`"
            )
            failed.receipt = receipt
            raise failed

    def _check_conditions(self, key: str, conditions: tuple[str | None, str | None]) -> None:
        """A caller's condition first waits for a pending operation of its key."""
        core = self._core
        if core.remote is None or not core.remote.conditional:
            raise Unsupported("this remote does not honour if_match and if_none_match")
        if conditions[1] not in (None, "*"):
            raise ValueError("if_none_match is '*': store only if there is nothing yet")
        pending = core.spool.read(core.spool.place(key))
        if pending is not None:
            with contextlib.suppress(PreconditionFailed):  # the earlier put's own condition
                core.uploader.wait(key, pending.id, core.options.back_pressure_timeout)

    def _make_room(self, key: str) -> bool:
        """Back-pressure; True when this put has to go through to the remote."""
        core, options = self._core, self._core.options
        if not options.spool_max_bytes or not self._is_full():
            return False
        if options.back_pressure == "through":
            return True
        limit = f"pending bytes reached their limit of {options.spool_max_bytes}"
        if options.back_pressure == "raise":
            raise SpoolFull(f"cannot store {key!r}: {limit}; flush, or raise the limit")
        deadline = Deadline(core.clock, options.back_pressure_timeout)
        while self._is_full():
            if deadline.passed():
                raise SpoolFull(
                    f"cannot store {key!r}: {limit}, and no room came up within"
                    f" {options.back_pressure_timeout:g} s; is the uploader running?"
                )
            core.uploader.wait_for_change(min(0.2, deadline.left()))
        return False

    def _is_full(self) -> bool:
        """Whether pending bytes reached their limit.

        Their sum is new after a boot, and a killed process may leave it wrong: it is counted
        anew at first, and now and then before a put has to wait.
        """
        core = self._core
        limit, now = core.options.spool_max_bytes, core.clock.monotonic()
        if self._counted is not None and core.board.pending()[1] < limit:
            return False
        if self._counted is None or now - self._counted >= _RECOUNT_SECONDS:
            recount(core.spool)
            self._counted = now
        return core.board.pending()[1] >= limit

    # -- local ---------------------------------------------------------------------------------

    def _put_local(self, key: str, source: Any, attributes: Attributes) -> Receipt:
        core = self._core
        staged = core.folder.stage(key, source, attributes)
        try:
            with core.spool.lock(core.spool.place(key)) as folder:
                void = self._void(key)
                core.folder.publish(staged, replaces=None if void is None else void.id)
                self._retire_held(key, void, folder)
        except BaseException:
            core.folder.drop(staged)
            raise
        self._after_local(key, void, events.Spooled(key, staged.size, "put", staged.id))
        return Receipt(key, staged.id, staged.size, staged.sha256, self._follower)

    def _void(self, key: str) -> Ticket | None:
        """The pending ticket that a local change makes void (caller holds the lock)."""
        return self._core.spool.replaceable(self._core.spool.place(key))

    def _retire_held(self, key: str, void: Ticket | None, folder: int) -> None:
        """The local change is durable and names the void ticket, which need not go at once."""
        core = self._core
        place = core.spool.place(key)
        try:
            core.spool.set_aside_unreadable(place, new_id())
            if void is not None:
                core.spool.retire_held(void, folder)
        except OSError as error:
            core.trouble("spool", error)
        finally:
            core.board.change(place.slot)

    def _after_local(self, key: str, void: Ticket | None, event: events.Spooled) -> None:
        core = self._core
        core.hot.forget(key)
        if void is not None:
            core.spool.condemn(void)
            core.events.emit(events.Superseded(key, void.id))
        core.events.emit(event)
        if core.shadow is not None:
            core.uploader.changed_here()

    # -- delete --------------------------------------------------------------------------------

    def delete(self, key: str) -> None:
        """See `CacheStore.delete`."""
        core = self._core
        core.check_open()
        key = check_key(key)
        if core.is_local(key):
            self._delete_local(key)
        else:
            self._publish(self._ticket(key, None, Attributes("")), None)

    def _delete_local(self, key: str, may: Callable[[], bool] = lambda: True) -> bool:
        """`may`: asked under the key's lock."""
        core, id_ = self._core, new_id()
        with core.spool.lock(core.spool.place(key)) as folder:
            if not may():
                return False
            void = self._void(key)
            core.folder.publish_delete(key, id_, replaces=None if void is None else void.id)
            self._retire_held(key, void, folder)
        self._after_local(key, void, events.Spooled(key, 0, "delete", id_))
        return True

    def _is_still(self, key: str, id_: str) -> bool:
        """True if that is the operation of the key's file, and nobody edited it."""
        core = self._core
        newest = core.newest(key, core.spool.place(key))
        there = core.folder.locate(key)
        return newest is not None and newest.id == id_ and there is not None and there.as_recorded

    def delete_received(self, key: str, id_: str, may: Callable[[], bool]) -> bool:
        """Delete what was put into LOCAL_DIR as `id_`; False if it is not the newest any more.

        `may` is asked under the key's lock.
        """
        if not self._core.is_local(key):
            return False
        return self._delete_local(key, lambda: may() and self._is_still(key, id_))

    def delete_unchanged(self, key: str, token: int, announced: str | None = None) -> bool:
        """Delete a key; False if it changed since its `token` was read, or is pending.

        With `announced` only an object with that mark is deleted in the bucket.
        """
        core = self._core
        if core.is_local(key):
            slot = core.spool.place(key).slot
            return self._delete_local(key, lambda: core.board.token(slot) == token)
        ticket = replace(self._ticket(key, None, Attributes("")), announced=announced)
        try:
            self._publish(ticket, None, token)
        except Overtaken:
            return False
        return True

    def delete_all(self, keys: list[str]) -> int:
        """Hide many keys before returning; each change is durable. Returns how many."""
        return len(self._delete_many(keys, None))

    def delete_all_unchanged(self, tokens: Mapping[str, int]) -> list[str]:
        """See `CacheStore.delete_unchanged`."""
        self._core.check_open()
        return self._delete_many(list(tokens), tokens)

    def _has_token(self, key: str, tokens: Mapping[str, int] | None) -> bool:
        board, place = self._core.board, self._core.spool.place(key)
        return tokens is None or board.token(place.slot) == tokens[key]

    def _delete_many(self, keys: list[str], tokens: Mapping[str, int] | None) -> list[str]:
        core, gone = self._core, list[str]()
        for key in keys:
            is_local = core.is_local(key)
            if is_local and self._delete_local(key, partial(self._has_token, key, tokens)):
                gone.append(key)
        tickets = [
            self._ticket(key, None, Attributes("")) for key in keys if not core.is_local(key)
        ]
        for ticket, replaced in publish_deletes(core.spool, tickets, tokens):
            core.hot.forget(ticket.key)
            if replaced is not None:
                core.events.emit(events.Superseded(ticket.key, replaced.id))
            core.events.emit(events.Spooled(ticket.key, 0, "delete", ticket.id))
            core.uploader.wake(ticket)
            gone.append(ticket.key)
        return gone

    def adopt(self, key: str, there: LocalFile, token: int) -> None:
        """Take a legacy file of LOCAL_DIR, which the bucket does not know, into the spool.

        `token`: the key's from before the bucket was asked. A change since then comes first.
        """
        staged = self._core.spool.stage(key, there.path)
        attributes = Attributes(self._core.folder.info(there).content_type)
        try:
            ticket = replace(self._ticket(key, staged, attributes), base_etag="")
        except BaseException:
            self._core.spool.drop(staged)
            raise
        with contextlib.suppress(Overtaken):
            self._publish(ticket, staged, token)
