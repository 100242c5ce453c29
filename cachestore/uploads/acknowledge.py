"""The acknowledgement: the remote has it, so the ticket may go. Order is everything here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cachestore import events
from cachestore.local.tickets import Ticket
from cachestore.model import RemoteObject
from cachestore.uploads.parts import Change, Parts
from cachestore.uploads.request import Job

OwnChange = Callable[[int, int, int], None]


def acknowledge(parts: Parts, job: Job, etag: str, changed: OwnChange) -> bool:
    """End the operation that was sent; False if a newer one took its place meanwhile.

    `changed` learns the shard and its sequence before and after our own change, so that the
    leader need not read the shard again for it.

    Until the last step the ticket hides everything that is done before. Raises when something
    that has to be durable before the ticket goes could not be made so; it can be called again.
    """
    if job.change is not None:
        return _end_change(parts, job, job.change, etag)
    ticket = job.ticket
    admitted = _admit(parts, job, etag)
    if admitted is None:
        # Without this an older copy would come to light when the ticket goes.
        parts.copies.forget(ticket.key)
    parts.changes.settle(ticket, etag)
    gone = _retire(parts, job, changed)
    if not gone and admitted is not None:
        _withdraw(parts, ticket, admitted)
    return gone


def _retire(parts: Parts, job: Job, changed: OwnChange) -> bool:
    spool, shard = parts.spool, job.place.shard
    with spool.lock(job.place) as folder:
        before = spool.board.sequence(shard)
        gone = spool.retire_held(job.ticket, folder)
        after = spool.board.sequence(shard)
    spool.condemn(job.ticket)
    if gone:
        changed(shard, before, after)
    return gone


def _admit(parts: Parts, job: Job, etag: str) -> Any:
    """Keep the body as a clean copy; None if that did not work, which costs a download."""
    ticket = job.ticket
    if ticket.operation == "delete" or job.path is None:
        return None
    found = RemoteObject(
        ticket.key, ticket.size, etag, ticket.content_type, dict(ticket.metadata),
        ticket.cache_control, parts.clock.now(), ticket.sha256,
    )  # fmt: skip
    try:
        return parts.copies.admit(ticket, job.path, found)
    except Exception as error:  # the cache is no reason to keep the ticket
        parts.events.emit(events.Trouble(ticket.key, "cache", f"{type(error).__name__}: {error}"))
        return None


def _withdraw(parts: Parts, ticket: Ticket, admitted: Any) -> None:
    try:
        parts.copies.withdraw(admitted)
    except Exception as error:  # the newer ticket hides the copy, and its end replaces it
        parts.events.emit(events.Trouble(ticket.key, "cache", f"{type(error).__name__}: {error}"))


def _end_change(parts: Parts, job: Job, change: Change, etag: str) -> bool:
    """A local change has no ticket: its record says that it was sent."""
    parts.copies.forget(job.ticket.key)
    with parts.spool.lock(job.place) as folder:
        pending = parts.spool.read(job.place)
        if pending is not None and pending.id == change.voids:
            # Once the record says "sent" it would hide this older version no longer.
            parts.spool.retire_held(pending, folder)
            parts.spool.condemn(pending)
        gone = parts.changes.sent(change, etag)
        parts.spool.board.change(job.place.slot)
    # Only the notes about its tries are left; the body stays where it is.
    parts.spool.condemn(replace(job.ticket, operation="delete"))
    return gone
