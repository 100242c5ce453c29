"""The spool: what the remote does not have yet, as bodies and tickets in 256 shard folders.

Publishing and acknowledging decide under the shard's lock (L1); copying and uploading happen
outside. Readers never take the lock.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cachestore.errors import SpoolError
from cachestore.files import Files, read_file, replace_file
from cachestore.keys import Place, extension_of, place_of
from cachestore.local.sources import Copied, copy_source
from cachestore.local.spool_reader import MAX_TICKET, SpoolReader, spool_error
from cachestore.local.tickets import (
    Ticket,
    UnknownFormat,
    UnreadableTicket,
    decode,
    encode,
)


@dataclass(slots=True)
class Staged:
    """A body under its final name, not yet durable, held by `fd` and its lock.

    `needed`: a ticket that could not be taken back names it, so it stays.
    """

    place: Place
    id: str
    name: str
    path: Path
    fd: int
    size: int
    sha256: str
    needed: bool = False


@dataclass(slots=True)
class _Draft:
    """An operation about to be published, and the one that it will replace."""

    ticket: Ticket
    place: Place
    temporary: Path
    present: Ticket | None
    staged: Staged | None


_OWN_ENDINGS = frozenset({".ticket", ".state", ".bad", ".condemned", ".tmp"})


def _body_extension(key: str) -> str:
    """The key's extension, unless a body with it would look like one of our own files."""
    extension = extension_of(key)
    return "" if extension.lower() in _OWN_ENDINGS else extension


def _is_still(files: Files, path: Path, fd: int) -> bool:
    """True if `path` names the open file; a process stopped for long may have lost it."""
    try:
        return files.stat(path).st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False


def new_id() -> str:
    """A random operation id, 32 hex digits."""
    return secrets.token_hex(16)


class Overtaken(Exception):
    """The key changed since its token was read: nothing was published."""


class Spool(SpoolReader):
    """Pending operations of one remote in a folder that several remotes may share."""

    # -- put and delete ------------------------------------------------------------------------

    def stage(self, key: str, source: Any) -> Staged:
        """Copy a source into a new body. Raises `SourceError`, `SpoolFull`, `SpoolError`."""
        place, id_ = self.place(key), new_id()
        folder = self._folders[place.shard]
        name = f"{place.digest}.{id_}{_body_extension(key)}"
        path = folder / name
        self.make_shard(folder)
        try:
            fd = self.files.create(path)
        except OSError as error:
            raise spool_error(f"cannot store {key!r}", error) from error
        staged = Staged(place, id_, name, path, fd, 0, "")
        try:
            if not self.files.try_lock(fd) or not _is_still(self.files, path, fd):
                raise SpoolError(f"a cleaner took the new body {path}; put it again")
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
            if not staged.needed:
                self.files.unlink(staged.path)
        except OSError:
            pass  # left for the janitor: nobody holds its lock any more
        finally:
            self._close(staged)

    def _close(self, staged: Staged) -> None:
        """Let go of a body that was synced, or given up: what close says changes nothing."""
        with contextlib.suppress(OSError):
            self.files.close(staged.fd)

    def publish(
        self, ticket: Ticket, staged: Staged | None, token: int | None = None
    ) -> Ticket | None:
        """Make an operation durable and visible; returns the pending one that it replaced.

        With a `token`: only if that is still the key's and nothing is pending, else `Overtaken`.

        Afterwards the key has a new token. On any error nothing is left behind and what was
        pending stays. Raises `SpoolFull`, `SpoolError` or `SpoolBusy`. The staged body is used up
        in either case.
        """
        try:
            tokens = None if token is None else {ticket.key: token}
            [(_, replaced)] = self.publish_group([(ticket, staged)], tokens)
        except BaseException as error:
            if staged is not None:
                self.drop(staged)
            if isinstance(error, OSError) and not isinstance(error, SpoolError):
                raise spool_error(f"cannot make {ticket.key!r} durable", error) from error
            raise
        if staged is not None:
            self._close(staged)
        if replaced is not None:
            self.condemn(replaced)
        return replaced

    def publish_group(
        self,
        group: Sequence[tuple[Ticket, Staged | None]],
        tokens: Mapping[str, int] | None = None,
    ) -> list[tuple[Ticket, Ticket | None]]:
        """Publish operations of one shard with one lock and one fsync of the folder.

        Returns each with the pending one that it replaced, whose body the caller condemns. With
        `tokens` (by key): only if all are as they were and nothing is pending, else `Overtaken`.
        """
        folder = self._folders[self.place(group[0][0].key).shard]
        self.make_shard(folder)
        drafts: list[_Draft] = []
        try:
            for ticket, staged in group:
                place = self.place(ticket.key)
                temporary = folder / f"{place.digest}.{ticket.id}.ticket.tmp"
                draft = _Draft(ticket, place, temporary, self.replaceable(place), staged)
                drafts.append(draft)
                self._write(temporary, replace(ticket, prev=draft.present), staged)
            with self.lock(drafts[0].place) as fd:
                if tokens is not None:
                    for draft in drafts:
                        self._check_still(draft.place, tokens[draft.ticket.key])
                self._swap(drafts, fd)
                for draft in drafts:
                    self._recount(draft)
                    self.board.change(draft.place.slot)
        except BaseException:
            for draft in drafts:
                with contextlib.suppress(OSError):
                    self.files.unlink(draft.temporary)
            raise
        return [(draft.ticket, draft.present) for draft in drafts]

    def _check_still(self, place: Place, token: int) -> None:
        if self.board.token(place.slot) != token or self.read(place) is not None:
            raise Overtaken

    def _swap(self, drafts: list[_Draft], folder: int) -> None:
        """Under the lock: put the tickets in place, all or none."""
        renamed: list[_Draft] = []
        try:
            for draft in drafts:
                present = self.replaceable(draft.place)
                if present != draft.present:
                    draft.present = present
                    self.files.unlink(draft.temporary)
                    self._write(draft.temporary, replace(draft.ticket, prev=present), None)
                self.set_aside_unreadable(draft.place, draft.ticket.id)
                self.files.rename(draft.temporary, self.ticket_path(draft.place))
                renamed.append(draft)
            self.files.fsync(folder)
        except BaseException as error:
            stuck = [draft.ticket.key for draft in renamed if not self._take_back(draft)]
            if stuck:
                raise SpoolError(
                    f"{stuck[0]!r} is perhaps not durable, and could not be taken back: {error}"
                ) from error
            raise

    def replaceable(self, place: Place) -> Ticket | None:
        """The pending ticket without its own predecessor; None also if it is junk.

        What could not be read now, or is of a newer version, is an error.
        """
        try:
            present = self.read(place)
        except SpoolError as error:
            if isinstance(error.__cause__, (UnknownFormat, OSError)):
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
            with contextlib.suppress(OSError):
                self.files.unlink(path)
            raise

    def set_aside_unreadable(self, place: Place, id_: str) -> None:
        """A ticket that cannot be believed keeps its bytes under another name (caller: L1)."""
        path = self.ticket_path(place)
        try:
            ticket = decode(read_file(self.files, path, MAX_TICKET))
            believed = place_of(ticket.remote_id, ticket.key) == place
        except UnknownFormat:
            raise
        except UnreadableTicket:
            believed = False
        except FileNotFoundError:
            return
        if not believed:
            self.files.rename(path, path.with_name(f"{place.digest}.{id_}.bad"))

    def _take_back(self, draft: _Draft) -> bool:
        """The folder could not be made durable: show again what was pending before.

        False if the disk does not do that either; then the change stands, with its body.
        """
        path = self.ticket_path(draft.place)
        try:
            if draft.present is None:
                self.files.unlink(path)
            else:
                before = encode(draft.present)
                unique = draft.ticket.id + "b"
                replace_file(self.files, path, before, unique=unique, durable=False)
        except OSError:
            if draft.staged is not None:
                draft.staged.needed = True
            self._recount(draft)
            return False
        finally:
            self.board.change(draft.place.slot)
        return True

    def _recount(self, draft: _Draft) -> None:
        """The draft took the place of what was pending (caller: L1)."""
        self._count(draft.place, draft.present, -1)
        self._count(draft.place, draft.ticket, 1)

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
        """Remove a body and its state that no ticket needs; renamed first, so never a stray."""
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
