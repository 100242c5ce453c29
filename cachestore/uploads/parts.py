"""What the uploader needs of its surroundings, as promises."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cachestore.clock import Clock
from cachestore.events import Events
from cachestore.files import Files
from cachestore.local.claims import Claims
from cachestore.local.spool import Spool
from cachestore.local.tickets import Ticket
from cachestore.model import RemoteObject
from cachestore.options import Options
from cachestore.remote.base import RemoteStore
from cachestore.remote.budget import Budget


class CleanCopies(Protocol):
    """The cache, as far as an acknowledgement changes it. `admit` and `withdraw` run outside L1."""

    def admit(self, ticket: Ticket, body: Path, found: RemoteObject) -> Any:
        """Make the body a clean copy, durably; returns what `withdraw` takes, None if not kept.

        The ticket still hides it. May raise anything: the copy is then simply missing.
        """
        ...

    def withdraw(self, admitted: Any) -> None:
        """A newer operation took the ticket's place: take the copy back."""
        ...

    def forget(self, key: str) -> None:
        """Make sure, durably, that no copy of the key is left that a reader could take for the
        newest once the ticket is gone. Raises if that cannot be had."""
        ...

    def is_void(self, key: str, etag: str) -> bool:
        """True when it is known that there is no copy of the key, except of the version `etag`."""
        ...

    def void(self, key: str, etag: str) -> None:
        """`forget`, unless `is_void`."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """An unsent local change: a ticket made of its record, and where its bytes are.

    `voids`: the id of the pending ticket that it replaced, which a crash may have left behind.
    """

    ticket: Ticket
    path: Path | None
    voids: str | None = None


class LocalChanges(Protocol):
    """Changes that local mode made and the remote does not have (DESIGN, section 6)."""

    def unsent(self) -> Iterable[str]:
        """Keys with an unsent change of this remote (or of none)."""
        ...

    def foreign(self) -> Iterable[Change]:
        """Unsent changes of other remotes, which wait until theirs is configured."""
        ...

    def unreadable(self) -> Iterable[tuple[Path, str]]:
        """Records that cannot be read, and why; nobody knows what they say is pending."""
        ...

    def newest(self, key: str, ticket: Ticket | None) -> Change | None:
        """The key's unsent change if it is newer than its pending ticket, else None."""
        ...

    def settle(self, ticket: Ticket, etag: str) -> None:
        """The remote has what the ticket says: make durable that nothing older in LOCAL_DIR is
        served or sent, before the ticket goes. Raises if that cannot be had."""
        ...

    def settle_outside(self, ticket: Ticket, etag: str) -> None:
        """`settle` for what was sent without a ticket; `ticket` only describes it."""
        ...

    def sent(self, change: Change, etag: str) -> bool:
        """The remote has an unsent change; False if a newer one took its place."""
        ...


class NoCopies:
    """A store without a cache."""

    def admit(self, ticket: Ticket, body: Path, found: RemoteObject) -> None:
        return None

    def withdraw(self, admitted: Any) -> None:
        pass

    def forget(self, key: str) -> None:
        pass

    def is_void(self, key: str, etag: str) -> bool:
        return True

    def void(self, key: str, etag: str) -> None:
        pass


class NoChanges:
    """A store without a local folder."""

    def unsent(self) -> Iterable[str]:
        return ()

    def foreign(self) -> Iterable[Change]:
        return ()

    def unreadable(self) -> Iterable[tuple[Path, str]]:
        return ()

    def newest(self, key: str, ticket: Ticket | None) -> Change | None:
        return None

    def settle(self, ticket: Ticket, etag: str) -> None:
        pass

    def settle_outside(self, ticket: Ticket, etag: str) -> None:
        pass

    def sent(self, change: Change, etag: str) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Parts:
    """What all rooms of the uploader share."""

    maybe_remote: RemoteStore | None
    spool: Spool
    copies: CleanCopies
    changes: LocalChanges
    files: Files
    clock: Clock
    events: Events
    options: Options
    budget: Budget
    claims: Claims
    dice: Callable[[], float]

    @property
    def can_send(self) -> bool:
        """False in local mode, and while uploads are paused."""
        return self.maybe_remote is not None and not self.options.upload_pause

    @property
    def paused(self) -> bool:
        """True where there is a remote that nothing is sent to for now."""
        return self.maybe_remote is not None and self.options.upload_pause

    @property
    def remote(self) -> RemoteStore:
        """The remote; only asked for where there is one."""
        assert self.maybe_remote is not None
        return self.maybe_remote
