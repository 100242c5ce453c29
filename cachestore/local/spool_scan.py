"""Looking through shard folders: tickets without a lock, sums and cleaning under it (L1).

Only names of our own pattern are touched, and never what a symbolic link points to.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cachestore.errors import SpoolError
from cachestore.files import is_plain, is_real_folder, read_file
from cachestore.keys import Place
from cachestore.local.board import SHARDS
from cachestore.local.spool_reader import MAX_TICKET, SpoolReader
from cachestore.local.tickets import Ticket, UnreadableTicket, decode

QUARANTINE = "quarantine"
STRAY_AGE = 60.0
"""Seconds after which a body that no ticket needs and no putter holds is put aside."""

STALE_AGE = 3600.0
"""Seconds after which temporary files and notes of ended operations are removed."""

_ID = r"[0-9a-f]{64}\.[0-9a-f]{32}"
_TICKET = re.compile(r"([0-9a-f]{64})\.ticket")
_STATE = re.compile(rf"({_ID})\.state")
_BAD = re.compile(rf"{_ID}\.bad")
_CONDEMNED = re.compile(rf"{_ID}(\.[A-Za-z0-9]{{1,16}})?\.condemned")
_BODY = re.compile(r"([0-9a-f]{64})\.[0-9a-f]{32}(\.[A-Za-z0-9]{1,16})?")
_TEMPORARY = re.compile(
    rf"{_ID}\.ticket\.tmp|[0-9a-f]{{64}}\.ticket\.[0-9a-f]{{32}}b\.tmp|{_ID}\.state\.[0-9a-f]{{12}}\.tmp"
)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A ticket that is there but does not say what is pending.

    `passing`: it could not be read now, which may be another time.
    """

    path: Path
    reason: str
    passing: bool = False


@dataclass(slots=True)
class _Needed:
    """What the tickets of one shard need: body names, operation ids; digests not to touch."""

    bodies: set[str]
    ids: set[str]
    unknown: set[str]


def place_of_digest(digest: str) -> Place:
    """The place whose files begin with `digest`."""
    return Place(digest, int(digest[:2], 16), int(digest[:4], 16))


def ticket_digests(names: list[str]) -> list[str]:
    """The places that have a ticket, of all names in a shard folder."""
    return [match[1] for name in names if (match := _TICKET.fullmatch(name))]


def state_stems(names: list[str]) -> set[str]:
    """`<digest>.<operation id>` of every operation that has a state file."""
    return {match[1] for name in names if (match := _STATE.fullmatch(name))}


def scan_shard(spool: SpoolReader, shard: int) -> Iterator[Ticket | Unreadable]:
    """Every pending operation of a shard, of all remotes; needs no lock.

    Raises `SpoolError` if the folder cannot be listed.
    """
    folder = spool.folder(shard)
    try:
        names = spool.files.list(folder)
    except OSError as error:
        raise SpoolError(f"cannot look through {folder}: {error.strerror or error}") from error
    for digest in sorted(ticket_digests(names)):
        place = place_of_digest(digest)
        if place.shard != shard:
            continue
        item = read_item(spool, place)
        if item is not None:
            yield item


def read_item(spool: SpoolReader, place: Place) -> Ticket | Unreadable | None:
    """What is pending at a place; None for nothing."""
    try:
        return spool.read(place)
    except SpoolError as error:
        cause = error.__cause__
        reason = str(error if cause is None else cause) or type(cause).__name__
        return Unreadable(spool.ticket_path(place), reason, isinstance(cause, OSError))


def recount_shard(spool: SpoolReader, shard: int) -> bool:
    """Set the board's sums of a shard from its tickets; False if its lock is busy."""
    if not is_real_folder(spool.folder(shard)):
        spool.board.set_pending(shard, 0, 0)
        if not is_real_folder(spool.folder(shard)):
            return True  # nor was it made meanwhile
    with spool.lock_now(place_of_digest(f"{shard:02x}".ljust(64, "0"))) as held:
        if not held:
            return False
        count = size = 0
        for item in scan_shard(spool, shard):
            if isinstance(item, Ticket):
                count += 1
                size += item.size
        spool.board.set_pending(shard, count, size)
    return True


def recount(spool: SpoolReader) -> None:
    """`recount_shard` for all; what cannot be looked at, or is busy, keeps its sums."""
    for shard in range(SHARDS):
        with suppress(SpoolError, OSError):
            recount_shard(spool, shard)


# -- cleaning -----------------------------------------------------------------------------------


def tidy_shard(spool: SpoolReader, shard: int, now: float | None = None) -> list[Path]:
    """Put aside bodies that no ticket needs, and remove what ended operations left.

    `now` in wall seconds. Returns where the bodies were moved to (`quarantine` in the spool).
    Does nothing when the shard's lock is busy. What cannot be looked at is left as it is.
    """
    now = time.time() if now is None else now
    folder = spool.folder(shard)
    if not is_real_folder(folder):
        return []
    moved: list[Path] = []
    with spool.lock_now(place_of_digest(f"{shard:02x}".ljust(64, "0"))) as held:
        if not held:
            return []
        names = sorted(spool.files.list(folder))
        needed = _needed(spool, shard, names)
        for name in names:
            try:
                target = _tidy_name(spool, folder, name, needed, now)
            except OSError:
                continue
            if target is not None:
                moved.append(target)
    return moved


def _needed(spool: SpoolReader, shard: int, names: list[str]) -> _Needed:
    needed = _Needed(set(), set(), set())
    for digest in ticket_digests(names):
        path = spool.ticket_path(place_of_digest(digest))
        try:
            ticket: Ticket | None = decode(read_file(spool.files, path, MAX_TICKET))
        except (OSError, UnreadableTicket):
            # Perhaps of a newer version: whatever is beside it may be its own.
            needed.unknown.add(digest)
            continue
        while ticket is not None:
            needed.ids.add(f"{digest}.{ticket.id}")
            if ticket.body is not None:
                needed.bodies.add(ticket.body)
            ticket = ticket.prev
    return needed


def _tidy_name(
    spool: SpoolReader, folder: Path, name: str, needed: _Needed, now: float
) -> Path | None:
    """Deal with one name; the new path if it was put aside."""
    path = folder / name
    if name[:64] in needed.unknown or name in needed.bodies or not is_plain(path):
        return None
    state = _STATE.fullmatch(name)
    if state is not None:
        if state[1] not in needed.ids and _age(spool, path, now) > STALE_AGE:
            spool.files.unlink(path)
        return None
    if _TEMPORARY.fullmatch(name):
        if _age(spool, path, now) > STALE_AGE:
            spool.files.unlink(path)
        return None
    if _CONDEMNED.fullmatch(name):
        spool.files.unlink(path)
        return None
    stray = _BAD.fullmatch(name) or _BODY.fullmatch(name)
    if stray and _age(spool, path, now) > STRAY_AGE:
        return _put_aside(spool, path)
    return None


def _age(spool: SpoolReader, path: Path, now: float) -> float:
    info = spool.files.stat(path)
    return now - max(info.st_mtime, info.st_ctime)


def _put_aside(spool: SpoolReader, path: Path) -> Path | None:
    """Move a body to the quarantine, unless a putter stages it or a reader holds it open.

    The lock is held while it moves: a putter who comes for it later sees that it is gone.
    """
    folder = spool.root / QUARANTINE
    spool.files.make_folder(folder)
    if not is_real_folder(folder):
        return None  # a planted link: what may be an only copy stays where it is
    fd = spool.files.open_read(path)
    try:
        if not spool.files.try_lock(fd):
            return None
        target = folder / path.name
        spool.files.rename(path, target)
        return target
    finally:
        spool.files.close(fd)


def quarantined(spool: SpoolReader) -> list[Path]:
    """What was put aside; no other files, and nothing behind a link."""
    folder = spool.root / QUARANTINE
    if not is_real_folder(folder):
        return []
    names = (
        name for name in spool.files.list(folder) if _BAD.fullmatch(name) or _BODY.fullmatch(name)
    )
    return [folder / name for name in sorted(names) if is_plain(folder / name)]
