"""The spool: what the remote does not have yet, as bodies and tickets in 256 shard folders.

Publishing and acknowledging decide under the shard's lock (L1); copying and uploading happen
outside. Readers never take the lock.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cachestore.errors import SpoolBusy, SpoolError, SpoolFull
from cachestore.files import Files, lock_holder, locked_folder, read_file, replace_file
from cachestore.keys import Place, extension_of, place_of
from cachestore.local.board import SHARDS, Board
from cachestore.local.sources import Copied, copy_source
from cachestore.local.tickets import (
    Ticket,
    TicketState,
    UnknownFormat,
    UnreadableTicket,
    decode,
    decode_state,
    encode,
    encode_state,
)

_FULL = (errno.ENOSPC, errno.EDQUOT)
MAX_TICKET = 1 << 20


@dataclass(slots=True)
class Staged:
    """A body under its final name, not yet durable, held by `fd` and its lock."""

    place: Place
    id: str
    name: str
    path: Path
    fd: int
    size: int
    sha256: str


def new_id() -> str:
    """A random operation id, 32 hex digits."""
    return secrets.token_hex(16)


class Spool:
    """Pending operations of one remote in a folder that several remotes may share."""

    def __init__(
        self, root: Path, remote_id: str, files: Files, board: Board, lock_timeout: float
    ) -> None:
        self.root = root
        self.remote_id = remote_id
        self.files = files
        self.board = board
        self._lock_timeout = lock_timeout
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
        self._make(folder)

        def refused() -> SpoolBusy:
            pid = lock_holder(folder)
            who = f"process {pid}" if pid else "another process"
            return SpoolBusy(f"{who} has held the lock on {folder} for {self._lock_timeout:g} s")

        with locked_folder(self.files, folder, self._lock_timeout, refused) as fd:
            yield fd

    def _make(self, folder: Path) -> None:
        try:
            self.files.make_folder(folder)
        except OSError as error:
            raise spool_error(f"cannot make {folder}", error) from error

    # -- reading -------------------------------------------------------------------------------

    def read(self, place: Place) -> Ticket | None:
        """The pending operation of a key; None if there is none.

        Raises `SpoolError` when the ticket is there but cannot be read: what is pending is then
        unknown, and an older version must not be shown for it.
        """
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
        return self._with_body(place, ticket)

    def _with_body(self, place: Place, ticket: Ticket) -> Ticket:
        """A ticket whose body did not survive a power cut falls back to the one it replaced."""
        if ticket.prev is None or ticket.operation == "delete":
            return ticket
        folder = self._folders[place.shard]
        if _is_there(folder / str(ticket.body)):
            return ticket
        prev = ticket.prev
        if prev.operation == "delete" or _is_there(folder / str(prev.body)):
            return prev
        return ticket

    def body(self, ticket: Ticket) -> Path:
        """Where a put's body lies."""
        place = place_of(ticket.remote_id, ticket.key)
        return self._folders[place.shard] / str(ticket.body)

    def ticket_path(self, place: Place) -> Path:
        return self._folders[place.shard] / f"{place.digest}.ticket"

    # -- put and delete ------------------------------------------------------------------------

    def stage(self, key: str, source: Any) -> Staged:
        """Copy a source into a new body. Raises `SourceError`, `SpoolFull`, `SpoolError`."""
        place, id_ = self.place(key), new_id()
        folder = self._folders[place.shard]
        name = f"{place.digest}.{id_}{extension_of(key)}"
        path = folder / name
        self._make(folder)
        try:
            fd = self.files.create(path)
        except OSError as error:
            raise spool_error(f"cannot store {key!r}", error) from error
        staged = Staged(place, id_, name, path, fd, 0, "")
        try:
            if not self.files.try_lock(fd):
                raise SpoolError(f"a new body is locked by somebody else: {path}")
            copied: Copied = copy_source(self.files, source, fd)
            staged.size, staged.sha256 = copied.size, copied.sha256
            self.files.chmod(fd, 0o444)
            self.files.start_writeback(fd)
        except OSError as error:
            self.drop(staged)
            if isinstance(error, SpoolError):
                raise
            raise spool_error(f"cannot store {key!r}", error) from error
        except BaseException:
            self.drop(staged)
            raise
        return staged

    def drop(self, staged: Staged) -> None:
        """Give up a staged body."""
        try:
            self.files.unlink(staged.path)
        except OSError:
            pass  # left for the janitor: nobody holds its lock any more
        finally:
            self.files.close(staged.fd)

    def publish(self, ticket: Ticket, staged: Staged | None) -> Ticket | None:
        """Make an operation durable and visible; returns the pending one that it replaced.

        Afterwards the key has a new token. On any error nothing is left behind and what was
        pending stays. Raises `SpoolFull`, `SpoolError` or `SpoolBusy`. The staged body is used up
        in either case.
        """
        try:
            replaced = self._publish(self.place(ticket.key), ticket, staged)
        except BaseException as error:
            if staged is not None:
                self.drop(staged)
            if isinstance(error, OSError) and not isinstance(error, SpoolError):
                raise spool_error(f"cannot make {ticket.key!r} durable", error) from error
            raise
        if staged is not None:
            self.files.close(staged.fd)
        if replaced is not None:
            self.condemn(replaced)
        return replaced

    def _publish(self, place: Place, ticket: Ticket, staged: Staged | None) -> Ticket | None:
        self._make(self._folders[place.shard])
        temporary = self._folders[place.shard] / f"{place.digest}.{ticket.id}.ticket.tmp"
        expected = self._present(place)
        self._write(temporary, replace(ticket, prev=expected), staged)
        try:
            with self.lock(place) as folder:
                present = self._present(place)
                if present != expected:
                    self.files.unlink(temporary)
                    self._write(temporary, replace(ticket, prev=present), None)
                self._set_aside_unreadable(place, ticket.id)
                self.files.rename(temporary, self.ticket_path(place))
                try:
                    self.files.fsync(folder)
                except BaseException:
                    self._take_back(place, ticket, present)
                    raise
                self._count(place, present, -1)
                self._count(place, ticket, 1)
                self.board.change(place.slot)
                return present
        except BaseException:
            self.files.unlink(temporary)
            raise

    def _present(self, place: Place) -> Ticket | None:
        """The pending ticket without its own predecessor; None also if it cannot be read."""
        try:
            present = self.read(place)
        except SpoolError as error:
            if isinstance(error.__cause__, UnknownFormat):
                raise
            return None
        return None if present is None else present.alone()

    def _write(self, path: Path, ticket: Ticket, staged: Staged | None) -> None:
        fd = self.files.create(path)
        try:
            try:
                self.files.write(fd, encode(ticket))
                if staged is not None:
                    self.files.fsync(staged.fd)
                self.files.fsync(fd)
            finally:
                self.files.close(fd)
        except BaseException:
            self.files.unlink(path)
            raise

    def _set_aside_unreadable(self, place: Place, id_: str) -> None:
        """A ticket that cannot be read keeps its bytes under another name."""
        path = self.ticket_path(place)
        try:
            decode(read_file(self.files, path, MAX_TICKET))
        except UnknownFormat:
            raise
        except UnreadableTicket:
            self.files.rename(path, path.with_name(f"{place.digest}.{id_}.bad"))
        except FileNotFoundError:
            return

    def _take_back(self, place: Place, ticket: Ticket, present: Ticket | None) -> None:
        """The folder could not be made durable: show again what was pending before."""
        path = self.ticket_path(place)
        try:
            if present is None:
                self.files.unlink(path)
            else:
                replace_file(
                    self.files, path, encode(present), unique=ticket.id + "b", durable=False
                )
        finally:
            self.board.change(place.slot)

    def _count(self, place: Place, ticket: Ticket | None, sign: int) -> None:
        if ticket is not None:
            self.board.add_pending(place.shard, sign, sign * ticket.size)

    # -- the end of an operation -----------------------------------------------------------------

    def retire(self, ticket: Ticket) -> bool:
        """Remove the ticket if it is still this operation; False if a newer one took its place.

        This is the acknowledgement (the remote has it), and the withdrawal of a put whose
        condition failed. The key gets a new token. The body is condemned in either case.
        """
        place = place_of(ticket.remote_id, ticket.key)
        with self.lock(place) as folder:
            gone = self.retire_held(ticket, folder)
        self.condemn(ticket)
        return gone

    def retire_held(self, ticket: Ticket, folder: int) -> bool:
        """`retire` for a caller who holds the shard's lock, and condemns the body afterwards."""
        place = place_of(ticket.remote_id, ticket.key)
        if not self._names(place, ticket.id):
            return False
        self.files.unlink(self.ticket_path(place))
        self.files.fsync(folder)
        self._count(place, ticket, -1)
        self.board.change(place.slot)
        return True

    def _names(self, place: Place, id_: str) -> bool:
        try:
            present = self.read(place)
        except SpoolError:
            return False
        return present is not None and present.id == id_

    def condemn(self, ticket: Ticket) -> None:
        """Remove a body and its state that no ticket needs; renamed first, so it is never 'lost'."""
        if ticket.operation == "put":
            body = self.body(ticket)
            condemned = body.with_name(body.name + ".condemned")
            try:
                self.files.rename(body, condemned)
                self.files.unlink(condemned)
            except OSError:
                pass  # gone already, or left for the janitor
        try:
            self.files.unlink(self._state_path(ticket))
        except OSError:
            pass

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
