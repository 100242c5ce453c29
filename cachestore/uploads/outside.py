"""Uploads from outside the spool: files that stay where they are, and need no ticket.

What a ticket guards is guarded here by a claim (see `local.claims`): there is never a request
beside a ticket's own, whatever is pending goes first, and a request whose end nobody heard of is
a doubt that the next writer of the key takes into account.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cachestore import events
from cachestore.errors import CacheStoreError, NotFound, SpoolError
from cachestore.events import log
from cachestore.keys import Place
from cachestore.local.claims import Claim, Claims
from cachestore.local.spool import new_id
from cachestore.local.tickets import Ticket
from cachestore.model import Attributes, RemoteObject
from cachestore.policy.upload import is_ambiguous, same_content
from cachestore.remote.sending import send
from cachestore.uploads.parts import Parts

SaveState = Callable[[Mapping[str, Any]], None]


class ComesFirst(CacheStoreError):
    """Something else is on its way for the key. `id`: the pending operation; None: another's."""

    def __init__(self, message: str, id: str | None = None) -> None:
        super().__init__(message)
        self.id = id


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes in memory, or an open file whose position is not used; `size` in bytes."""

    source: bytes | int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Sent:
    """What the remote has. `look_at`: wall seconds from when on one has to look whether it still
    has, since an older request may come late; None if none may."""

    found: RemoteObject
    look_at: float | None = None


class Outside:
    """Sends for those who have no ticket. Safe to share by threads; one for each uploader."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def _claims(self) -> Claims:
        return self._parts.claims

    def put(
        self, key: str, body: Body, attributes: Attributes, *, state: Mapping[str, Any],
        save_state: SaveState, cancelled: Callable[[], bool], tries: int = 1,
        if_match: str | None = None, if_none_match: str | None = None,
    ) -> Sent:  # fmt: skip
        """Store a file under a checked key, in one try.

        `state` and `save_state` as in `remote.sending.send`; conditions as in `RemoteStore.put`.
        Raises `ComesFirst` when something
        is pending for the key, what the remote raises, `SourceError`, `SendCancelled`, and
        `SpoolError` when what is pending cannot be known. Afterwards no older copy is served.
        """
        spool, start = self._parts.spool, self._parts.clock.monotonic()
        place = spool.place(key)
        claim = self._claim(key, place, body.sha256)
        doubt = True
        try:
            self._check_first(key, place)
            conditions = {"if_match": if_match, "if_none_match": if_none_match}
            found = self._send(key, body, attributes, state, save_state, cancelled, conditions)
            doubt = False
            self._void(key, place, body, attributes, found.etag)
        except (CacheStoreError, ValueError) as error:
            doubt = is_ambiguous(error)
            raise
        finally:
            self._claims.leave(claim, doubt=doubt)
        seconds = self._parts.clock.monotonic() - start
        self._parts.events.emit(events.Uploaded(key, body.size, "put", new_id(), seconds, tries))
        log.info("Uploaded %s to R2 (%d bytes, %.2f s)", key, body.size, seconds)
        return Sent(found, self._look_at(claim.doubts, body.sha256))

    def _claim(self, key: str, place: Place, sha256: str) -> Claim:
        try:
            claim = self._claims.enter(place.digest, sha256)
        except OSError as error:
            raise SpoolError(f"cannot note in the spool that {key!r} is sent: {error}") from error
        if claim is None:
            raise ComesFirst(f"{key!r} is being sent by another sync")
        return claim

    def _check_first(self, key: str, place: Place) -> None:
        ticket = self._parts.spool.read(place)
        change = self._parts.changes.newest(key, ticket)
        newest = ticket if change is None else change.ticket
        if newest is not None:
            raise ComesFirst(f"a {newest.operation} of {key!r} is pending", newest.id)

    def _send(
        self, key: str, body: Body, attributes: Attributes, state: Mapping[str, Any],
        save_state: SaveState, cancelled: Callable[[], bool], conditions: Mapping[str, Any],
    ) -> RemoteObject:  # fmt: skip
        remote, options, budget = self._parts.remote, self._parts.options, self._parts.budget
        if isinstance(body.source, bytes):
            with budget.holding(body.size):
                return remote.put(
                    key, io.BytesIO(body.source), size=body.size, sha256=body.sha256,
                    attributes=attributes, **conditions,
                )  # fmt: skip
        return send(
            remote, key, body.source, size=body.size, sha256=body.sha256, attributes=attributes,
            budget=budget, threshold=options.multipart_threshold, part_size=options.part_size,
            state=dict(state), save_state=save_state, cancelled=cancelled, **conditions,
        )  # fmt: skip

    def stays(self, key: str, sha256: str) -> float | None:
        """Whether what was seen in the remote is what stays there: `look_at`, as in `Sent`.

        Raises `ComesFirst` when something is on its way for the key, and `SpoolError`.
        """
        place = self._parts.spool.place(key)
        try:
            seen = self._claims.look(place.digest)
        except OSError as error:
            raise SpoolError(f"cannot see who else sends {key!r}: {error}") from error
        if seen.busy:
            raise ComesFirst(f"{key!r} is being sent by another sync")
        self._check_first(key, place)
        return self._look_at(seen.doubts, sha256)

    def _look_at(self, doubts: tuple[tuple[float, str], ...], sha256: str) -> float | None:
        """When to look again, because an older request with other bytes may come late."""
        now, wait = self._parts.clock.now(), self._parts.options.doubt_wait
        others = [since for since, other in doubts if other != sha256]
        late = [since for since in others if now - since < wait]
        # A clock that was set back must not make anybody wait for ever.
        return min(max(late), now) + wait if late else None

    # -- afterwards --------------------------------------------------------------------------------

    def _void(self, key: str, place: Place, body: Body, attributes: Attributes, etag: str) -> None:
        """Nothing older that is here may be served any more, or admitted later."""
        parts = self._parts
        ticket = Ticket(
            parts.spool.remote_id, key, new_id(), "put", parts.clock.now(), None, body.size,
            body.sha256, attributes.content_type, attributes.metadata, attributes.cache_control,
        )  # fmt: skip
        parts.changes.settle_outside(ticket, etag)
        self.adopt(key, etag, place)

    def adopt(self, key: str, etag: str, place: Place | None = None) -> None:
        """The remote was seen to have the newest version: copies of any other are void.

        With `place` something was sent, and what was learned of the key before is void too.
        """
        parts, changed = self._parts, place is not None
        place = place or parts.spool.place(key)
        if changed:
            parts.spool.board.change(place.slot)
        elif parts.copies.is_void(key, etag):
            return
        if not os.path.isdir(parts.spool.folder(place.shard)):
            parts.copies.void(key, etag)  # nobody who admits a copy was here yet
            return
        with parts.spool.lock(place):
            # Whoever admits a copy holds the lock, and looks at the token inside.
            parts.copies.void(key, etag)
            parts.spool.board.change(place.slot)

    def confirm(self, key: str, size: int, sha256: str) -> bool:
        """Look whether the remote has these bytes, once nothing late can arrive."""
        try:
            found = self._parts.remote.head(key)
        except NotFound:
            return False
        ours = same_content(found, size, sha256)
        if ours:
            self._claims.settle(self._parts.spool.place(key).digest)
        return ours
