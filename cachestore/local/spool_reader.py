"""The reading half of the spool: places, locks, tickets, bodies and what was tried."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cachestore.errors import SpoolBusy, SpoolError, SpoolFull
from cachestore.files import (
    Files,
    lock_holder,
    lockable_folder,
    locked_folder,
    read_file,
    replace_file,
)
from cachestore.keys import Place, place_of
from cachestore.local.board import SHARDS, Board
from cachestore.local.tickets import (
    Ticket,
    TicketState,
    UnreadableTicket,
    decode,
    decode_state,
    encode_state,
)

_FULL = (errno.ENOSPC, errno.EDQUOT)
MAX_TICKET = 1 << 20


class SpoolReader:
    """Pending operations of one remote in a folder that several remotes may share."""

    def __init__(
        self,
        root: Path,
        remote_id: str,
        files: Files,
        board: Board,
        lock_timeout: float,
    ) -> None:
        self.root = root
        self.remote_id = remote_id
        self.files = files
        self.board = board
        self._lock_timeout = lock_timeout
        self._durable: set[str] = set()
        self._folders = [root / f"{shard:02x}" for shard in range(SHARDS)]
        self._prefixes = [f"{folder}{os.sep}" for folder in self._folders]

    def place(self, key: str) -> Place:
        return place_of(self.remote_id, key)

    def folder(self, shard: int) -> Path:
        return self._folders[shard]

    @contextmanager
    def lock(self, place: Place) -> Iterator[int]:
        """L1: the lock on the key's shard; yields the folder's descriptor for its fsync.

        Raises `SpoolBusy`, naming the holder, when it takes longer than the lock timeout.
        """
        folder = self._folders[place.shard]
        self.make_shard(folder)

        def refused() -> SpoolBusy:
            pid = lock_holder(folder)
            who = f"process {pid}" if pid else "another process"
            return SpoolBusy(f"{who} has held the lock on {folder} for {self._lock_timeout:g} s")

        with ExitStack() as stack:
            try:
                held = locked_folder(self.files, folder, self._lock_timeout, refused)
                fd = stack.enter_context(held)
            except OSError as error:
                if isinstance(error, SpoolError):
                    raise
                raise spool_error(f"cannot lock {folder}", error) from error
            yield fd

    @contextmanager
    def lock_now(self, place: Place) -> Iterator[bool]:
        """L1 without waiting; yields False when somebody else holds it or it cannot be had."""
        folder = self._folders[place.shard]
        self.make_shard(folder)
        with lockable_folder(self.files, folder) as fd:
            yield self.files.try_lock(fd)

    def make_shard(self, folder: Path) -> None:
        """A shard folder whose name is durable: who made it may have died before it was."""
        if folder.is_symlink():
            raise SpoolError(f"{folder} is a symbolic link; nothing was stored")
        try:
            self.files.make_folder(folder)
            if folder.name not in self._durable:
                there = self.files.list(self.root)
                self.files.fsync_dir(self.root)
                self._durable.update(there)
        except OSError as error:
            raise spool_error(f"cannot make {folder}", error) from error

    # -- reading -------------------------------------------------------------------------------

    def read(self, place: Place) -> Ticket | None:
        """The pending operation of a key; None if there is none.

        Raises `SpoolError` when the ticket is there but cannot be read: what is pending is then
        unknown, and an older version must not be shown for it.
        """
        while True:
            ticket = self._named(place)
            if ticket is None or not self._lost_its_body(place, ticket):
                return ticket
            again = self._named(place)
            # A body goes right after its ticket was acknowledged or replaced: then look again.
            if again is not None and again.id == ticket.id:
                return self._survivor(place, ticket)

    def _named(self, place: Place) -> Ticket | None:
        """What the ticket file says, whether its body is there or not."""
        path = f"{self._prefixes[place.shard]}{place.digest}.ticket"
        try:
            data = read_file(self.files, path, MAX_TICKET)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise spool_error(f"cannot read the ticket {path}", error) from error
        try:
            ticket = decode(data)
        except UnreadableTicket as error:
            raise SpoolError(
                f"the ticket {path} cannot be read ({error}); the newest version of its key is"
                " unknown. See `cachestore fsck`; a new put or delete of the key replaces it"
            ) from error
        if place_of(ticket.remote_id, ticket.key) != place:
            raise SpoolError(f"the ticket {path} belongs to another key; see `cachestore fsck`")
        return ticket

    def _lost_its_body(self, place: Place, ticket: Ticket) -> bool:
        """True for a put whose body is gone, where it matters: there is one that it replaced."""
        if ticket.prev is None or ticket.operation == "delete":
            return False
        return not _is_there(self._folders[place.shard] / str(ticket.body))

    def _survivor(self, place: Place, ticket: Ticket) -> Ticket:
        """A ticket whose body did not survive a power cut falls back to the one it replaced."""
        prev = ticket.prev
        if prev is None:
            return ticket
        if prev.operation == "delete" or _is_there(self._folders[place.shard] / str(prev.body)):
            return prev
        return ticket

    def body(self, ticket: Ticket) -> Path:
        """Where a put's body lies."""
        place = place_of(ticket.remote_id, ticket.key)
        return self._folders[place.shard] / str(ticket.body)

    def ticket_path(self, place: Place) -> Path:
        return self._folders[place.shard] / f"{place.digest}.ticket"

    # -- states ----------------------------------------------------------------------------------

    def _state_path(self, ticket: Ticket) -> Path:
        place = place_of(ticket.remote_id, ticket.key)
        return self._folders[place.shard] / f"{place.digest}.{ticket.id}.state"

    def state(self, ticket: Ticket) -> TicketState:
        """What was tried so far."""
        try:
            return decode_state(read_file(self.files, self._state_path(ticket)))
        except OSError:
            return TicketState()

    def save_state(self, ticket: Ticket, state: TicketState) -> None:
        """Remember what was tried; a failure costs a retry and is not raised."""
        try:
            replace_file(
                self.files,
                self._state_path(ticket),
                encode_state(state),
                unique=secrets.token_hex(6),
                durable=False,
            )
        except OSError:
            pass


def _is_there(path: Path) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def spool_error(what: str, error: OSError) -> SpoolError:
    """An `OSError` of the spool in the library's words."""
    if error.errno in _FULL:
        return SpoolFull(f"{what}: the disk is full; nothing was stored, free space and try again")
    return SpoolError(f"{what}: {error.strerror or error}; nothing was stored")
