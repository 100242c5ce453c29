"""Which of a key's pending ticket and its unsent local change is the newer one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["unsent", "sent", "superseded"]


@dataclass(frozen=True, slots=True)
class RecordFacts:
    """A local record, as far as order goes. `replaces`: the ticket that was pending before it."""

    id: str
    state: State
    replaces: str | None


def newest(ticket_id: str | None, facts: RecordFacts | None) -> Literal["ticket", "record"] | None:
    """The one that holds the newest version; None if neither is pending.

    A record names the ticket that was pending when it was made, read under the shard's lock. A
    ticket that it does not name came later, and makes it void (L5: no clock decides).
    """
    unsent = facts is not None and facts.state == "unsent"
    if ticket_id is None:
        return "record" if unsent else None
    if facts is not None and unsent and facts.replaces == ticket_id:
        return "record"
    return "ticket"


def local_readable(state: State | None, *, newer_known: bool) -> bool:
    """Whether a file of LOCAL_DIR may be served in local mode; `state` None: a legacy file.

    What was sent is as good as any clean copy, until the remote is known to hold another version.
    """
    if state == "superseded":
        return False
    return state != "sent" or not newer_known
