"""One request to the remote for one operation: its fence, and what a failed fence means."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cachestore.errors import (
    CacheStoreError,
    NotFound,
    PreconditionFailed,
    SourceError,
    SpoolError,
)
from cachestore.events import log
from cachestore.keys import Place
from cachestore.local.tickets import Ticket, TicketState
from cachestore.model import RemoteObject
from cachestore.policy.upload import conditions, same_content, same_object
from cachestore.remote.base import SupportsMultipart
from cachestore.remote.sending import SendCancelled, send
from cachestore.uploads.parts import Change, Parts

_ROUNDS = 5


class Abandoned(Exception):
    """This worker's leadership ended while it was busy; it must not touch anything."""


@dataclass(slots=True)
class Job:
    """An operation being worked on. `path`: its bytes; `change`: the local change it stands for.

    `token`: the key's token from before the ticket was read. `writing`: true while a request
    that changes the remote is out, and if it ended in an error. `doubted`: an earlier request
    for the key may have taken effect without our hearing so.
    """

    ticket: Ticket
    path: Path | None
    change: Change | None
    place: Place
    token: int
    state: TicketState
    writing: bool = False
    doubted: bool = False

    @property
    def digest(self) -> str:
        return self.place.digest

    @property
    def is_plain_delete(self) -> bool:
        """A delete without a history, that may share a request with others."""
        state = self.state
        new = not state.on_wire and state.parked is None and state.sent_etag is None
        return new and self.ticket.operation == "delete" and self.ticket.announced is None


def to_delete(ticket: Ticket, found: RemoteObject | None) -> bool:
    """True if the remote has what a delete is to remove: anything, or an upload given up."""
    return found is not None and ticket.announced in (None, found.announced)


class Request:
    """Makes requests. `known`: the ETags of our own last writes by place, "" for a delete."""

    def __init__(
        self, parts: Parts, known: Mapping[str, str], abandoned: Callable[[], bool]
    ) -> None:
        self._parts = parts
        self._known = known
        self._abandoned = abandoned

    def make(self, job: Job) -> str:
        """Do what the ticket says; returns the ETag that the remote has then, "" for none.

        Raises what the remote raises, `SourceError`, or `SendCancelled`.
        """
        return self._delete(job) if job.ticket.operation == "delete" else self._put(job)

    def _delete(self, job: Job) -> str:
        """An upload that was given up goes only if it is still the one."""
        key = job.ticket.key
        found = None if job.ticket.announced is None else self._look(key)
        if found is not None and not to_delete(job.ticket, found):
            log.info("cachestore: %s was stored anew since its upload was given up; kept", key)
            return found.etag
        job.writing = True
        self._parts.remote.delete(key)
        job.writing = False
        return ""

    def is_current(self, job: Job) -> bool:
        """False when a newer operation took the place of this one."""
        spool = self._parts.spool
        try:
            ticket = spool.read(job.place)
        except SpoolError:
            return True
        change = self._parts.changes.newest(job.ticket.key, ticket)
        newest = ticket if change is None else change.ticket
        return newest is not None and newest.id == job.ticket.id

    def is_claimed(self, job: Job, suspect: Callable[[str, float], None]) -> bool:
        """True while the key is sent from outside the spool. Asked after its ticket was read.

        `suspect` hears since when requests of processes that died may still arrive.
        """
        seen = self._parts.claims.look(job.digest)
        for since, _ in seen.doubts:
            suspect(job.digest, since)
        return seen.busy

    def _put(self, job: Job) -> str:
        ticket, remote = job.ticket, self._parts.remote
        base = self._known.get(job.digest, ticket.base_etag)
        if not remote.conditional and base is not None and not ticket.conditional:
            self._look_first(job, base)
        for _ in range(_ROUNDS):
            match, none_match = conditions(
                remote.conditional, ticket.if_match, ticket.if_none_match, base
            )
            try:
                return self._send(job, match, none_match).etag
            except PreconditionFailed as error:
                job.writing = False
                found = self._look(ticket.key)
                if self._explained(job, found):
                    return found.etag if found is not None else ""
                etag = None if found is None else found.etag
                if ticket.conditional:
                    raise PreconditionFailed(
                        f"put {ticket.key!r}: the condition did not hold",
                        code=error.code, expected=ticket.if_match, found=etag,
                    ) from error  # fmt: skip
                log.warning(
                    "cachestore: %s was changed by somebody else; ours replaces it", ticket.key
                )
                base = etag or ""
                failed = error
        raise failed

    def _look(self, key: str) -> RemoteObject | None:
        try:
            return self._parts.remote.head(key)
        except NotFound:
            return None

    def _look_first(self, job: Job, base: str) -> None:
        """Where nothing fences, at least say that somebody else's version is replaced."""
        found = self._look(job.ticket.key)
        etag = "" if found is None else found.etag
        ours = found is not None and same_content(found, job.ticket.size, job.ticket.sha256)
        if etag != base and not ours:
            log.warning(
                "cachestore: %s was changed by somebody else; ours replaces it", job.ticket.key
            )

    def _explained(self, job: Job, found: RemoteObject | None) -> bool:
        """True if the version that is in our way is our own, from a try whose answer was lost."""
        ticket = job.ticket
        if found is None:
            return False
        if ticket.conditional and not job.doubted:
            return False
        return same_object(
            found, ticket.size, ticket.sha256, ticket.content_type, ticket.metadata,
            ticket.cache_control,
        )  # fmt: skip

    def _send(self, job: Job, if_match: str | None, if_none_match: str | None) -> RemoteObject:
        ticket, options = job.ticket, self._parts.options
        if job.path is None:
            raise SourceError(f"put {ticket.key!r}: it has no body")

        def save(upload: Mapping[str, Any]) -> None:
            job.state = replace(job.state, upload=dict(upload) or None)
            self._parts.spool.save_state(ticket, job.state)

        job.writing = True
        try:
            found = send(
                self._parts.remote, ticket.key, job.path,
                size=ticket.size, sha256=ticket.sha256, attributes=ticket.attributes,
                if_match=if_match, if_none_match=if_none_match, budget=self._parts.budget,
                threshold=options.multipart_threshold, part_size=options.part_size,
                state=dict(job.state.upload or {}), save_state=save,
                cancelled=lambda: self._is_over(job),
            )  # fmt: skip
        except SendCancelled:
            job.writing = False
            self._drop_parts(job)
            raise
        job.writing = False
        return found

    def _is_over(self, job: Job) -> bool:
        """Asked before each piece is read: a newer version makes the rest useless."""
        if self._abandoned():
            return True
        token = self._parts.spool.board.token(job.place.slot)
        if token == job.token:
            return False
        job.token = token
        return not self.is_current(job)

    def _drop_parts(self, job: Job) -> None:
        """A superseded upload's parts are of no use; one of a stopped leader goes on later."""
        remote, upload = self._parts.remote, job.state.upload
        if upload is None or self._abandoned() or not isinstance(remote, SupportsMultipart):
            return
        with contextlib.suppress(CacheStoreError):
            remote.abort_upload(job.ticket.key, str(upload.get("upload_id", "")))
        job.state = replace(job.state, upload=None)
