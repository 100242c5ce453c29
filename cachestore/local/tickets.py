"""Tickets: one small JSON file for each pending operation. Format only; no files are touched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cachestore.model import Attributes

FORMAT = 1


class UnreadableTicket(Exception):
    """Torn, junk or altered: the ticket does not say what is pending."""


class UnknownFormat(UnreadableTicket):
    """Written by a newer version; left untouched."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One pending operation of one key.

    `body`: the body's file name in the shard folder (puts only). `base_etag`: the remote's ETag
    that this change was made on, "" for "nothing there", None for unknown. `replaces`: the id of
    the unsent local record that this ticket makes void. `prev`: the pending ticket that this one
    replaced; needed only while a power cut may take this one's body back. `if_match` and
    `if_none_match` are the caller's conditions. `ttl` in seconds, None for the store's.
    `announced`, of a delete: only an object with this mark (see `announcements`) is deleted.
    """

    remote_id: str
    key: str
    id: str
    operation: Literal["put", "delete"]
    time: float
    body: str | None = None
    size: int = 0
    sha256: str = ""
    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=dict)
    cache_control: str | None = None
    base_etag: str | None = None
    replaces: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    ttl: float | None = None
    announced: str | None = None
    prev: Ticket | None = None

    @property
    def attributes(self) -> Attributes:
        return Attributes(self.content_type, self.metadata, self.cache_control)

    @property
    def conditional(self) -> bool:
        """True when the caller set a condition."""
        return self.if_match is not None or self.if_none_match is not None

    def alone(self) -> Ticket:
        """The same without what it replaced."""
        return replace(self, prev=None)


def encode(ticket: Ticket) -> bytes:
    """The ticket as it is written."""
    text = json.dumps(_plain(ticket), ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    check = hashlib.sha256(text.encode()).hexdigest()[:32]
    return f'{{"check":"{check}","ticket":{text}}}\n'.encode()


def decode(data: bytes) -> Ticket:
    """The ticket that was written; raises `UnreadableTicket` or `UnknownFormat`."""
    try:
        outer = json.loads(data)
        plain = outer["ticket"]
        check = outer["check"]
        form = plain["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreadableTicket(f"not a ticket ({len(data)} bytes)") from error
    if form != FORMAT:
        raise UnknownFormat(f"format {form!r}, this version knows {FORMAT}")
    text = json.dumps(plain, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    if hashlib.sha256(text.encode()).hexdigest()[:32] != check:
        raise UnreadableTicket("its check value does not fit its content")
    try:
        return _ticket(plain)
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableTicket(f"a field is missing or wrong: {error}") from error


_FIELDS = (
    "remote_id", "key", "id", "operation", "time", "body", "size", "sha256", "content_type",
    "cache_control", "base_etag", "replaces", "if_match", "if_none_match", "ttl",
)  # fmt: skip


def _plain(ticket: Ticket) -> dict[str, Any]:
    plain: dict[str, Any] = {name: getattr(ticket, name) for name in _FIELDS}
    plain["format"] = FORMAT
    if ticket.announced is not None:
        plain["announced"] = ticket.announced
    plain["metadata"] = dict(ticket.metadata)
    plain["prev"] = None if ticket.prev is None else _plain(ticket.prev.alone())
    return plain


def _ticket(plain: Mapping[str, Any]) -> Ticket:
    if plain["operation"] not in ("put", "delete"):
        raise ValueError("operation")
    if plain["operation"] == "put" and not _safe_name(plain["body"]):
        raise ValueError("body")
    prev = plain["prev"]
    values = {name: plain[name] for name in _FIELDS}
    return Ticket(
        **values,
        metadata={str(k): str(v) for k, v in plain["metadata"].items()},
        announced=plain.get("announced"),
        prev=None if prev is None else _ticket({**prev, "prev": None}),
    )


def _safe_name(name: Any) -> bool:
    """A planted ticket must not name a file outside its folder."""
    return isinstance(name, str) and 0 < len(name) < 200 and "/" not in name and name[0] != "."


@dataclass(frozen=True, slots=True)
class TicketState:
    """What was tried so far; losing it costs a retry.

    `next_attempt` in wall seconds. `doubt`: since when (wall seconds) an earlier attempt may
    still take effect at the remote. `upload`: multipart state. `sent_etag`: what the remote
    answered, while its acknowledgement awaits a confirming look.
    """

    tries: int = 0
    last_error: str | None = None
    next_attempt: float = 0.0
    parked: str | None = None
    on_wire: bool = False
    doubt: float | None = None
    sent_etag: str | None = None
    upload: Mapping[str, Any] | None = None


def encode_state(state: TicketState) -> bytes:
    plain = {name: getattr(state, name) for name in TicketState.__slots__}
    return json.dumps(plain).encode()


def decode_state(data: bytes) -> TicketState:
    """The state that was written; a fresh one if it cannot be read."""
    try:
        plain = json.loads(data)
        state = TicketState(**plain)
        valid = isinstance(state.tries, int) and isinstance(state.next_attempt, (int, float))
    except (ValueError, TypeError, RecursionError):
        return TicketState()
    return state if valid else TicketState()
