"""Rule L1: publishing and acknowledging decide under the shard's lock.

The hole that it closes, on purpose and without luck: an acknowledgement finds its own ticket,
another process puts a newer one in its place, and the acknowledgement removes that. With the
lock the put waits; without it the newest version of the key is lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from process_rig import finish, say, start
from spool_rig import REMOTE, put

from cachestore.files import Files
from cachestore.keys import Place
from cachestore.local.board import Board
from cachestore.local.spool import Spool
from cachestore.local.tickets import Ticket

KEY = "a/b.wav"


class Unlocked(Spool):
    """The spool as it would be without L1."""

    @contextmanager
    def lock(self, place: Place) -> Iterator[int]:
        fd = os.open(self.folder(place.shard), os.O_RDONLY)
        try:
            yield fd
        finally:
            os.close(fd)


class SaysBlocked(Files):
    """Tells the parent when the lock is held by somebody else."""

    said = False

    def try_lock(self, fd: int, *, shared: bool = False) -> bool:
        got = super().try_lock(fd, shared=shared)
        if not got and not self.said:
            self.said = True
            say("blocked")
        return got


class Interrupted(Files):
    """Lets another process put just before a ticket is unlinked."""

    def __init__(self, root: Path, locked: bool) -> None:
        self._arguments = (root, int(locked))
        self.heard = ""

    def unlink(self, path: str | Path) -> bool:
        if str(path).endswith(".ticket") and not self.heard:
            self.putter = start("test_rules_l1:child_put", *self._arguments)
            assert self.putter.stdout is not None
            self.heard = self.putter.stdout.readline().strip()
        return super().unlink(path)


def make(root: Path, files: Files, locked: bool) -> Spool:
    kind = Spool if locked else Unlocked
    return kind(root, REMOTE, files, Board(root, Files()), 60.0)


def child_put(root: str, locked: str) -> None:
    spool = make(Path(root), SaysBlocked(), locked == "1")
    put(spool, KEY, b"newest")
    say("published")


def race(root: Path, locked: bool) -> tuple[str, Spool, Ticket | None]:
    """Acknowledge while another process puts; what that one said, and what is pending then."""
    files = Interrupted(root, locked)
    spool = make(root, files, locked)
    older = put(spool, KEY, b"older")
    spool.retire(older)
    finish(files.putter)
    return files.heard, spool, spool.read(spool.place(KEY))


def test_without_the_lock_an_acknowledged_put_is_lost(tmp_path: Path) -> None:
    heard, _, pending = race(tmp_path, locked=False)
    assert heard == "published"
    assert pending is None


def test_with_the_lock_the_put_waits_and_nothing_is_lost(tmp_path: Path) -> None:
    heard, spool, pending = race(tmp_path, locked=True)
    assert heard == "blocked"
    assert pending is not None
    assert spool.body(pending).read_bytes() == b"newest"
    assert spool.board.pending() == (1, 6)


@pytest.mark.parametrize("locked", [False, True])
def test_a_put_that_comes_before_the_acknowledgement_is_never_removed(
    tmp_path: Path, locked: bool
) -> None:
    """Not the lock but the operation id decides here: the order is clear in either case."""
    spool = make(tmp_path, Files(), locked)
    older = put(spool, KEY, b"older")
    newer = put(spool, KEY, b"newest")
    assert not spool.retire(older)
    pending = spool.read(spool.place(KEY))
    assert pending is not None
    assert pending.id == newer.id
