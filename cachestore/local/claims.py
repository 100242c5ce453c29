"""Claims: keys that somebody sends to the remote from outside the spool, for all processes to see.

A sync has no tickets: its files stay where they are. So that there is never a second request for
a key beside a ticket's (L4), it writes the key down here before it looks for a ticket, and the
leader looks here after it has read one: one of the two sees the other. A process has one small
file with a slot for each request, locked for as long as the process lives. What it leaves in its
slots when it dies may still arrive at the remote, and is a doubt from then on.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cachestore.clock import Clock
from cachestore.files import Files, read_file
from cachestore.local.forks import watch_forks

FOLDER = "claims"
KEPT = 3600.0
"""Seconds for which a doubt about a key is remembered."""

_SLOT = 160
_LIMIT = 4 << 20
State = Literal["wire", "doubt"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What others do with a key. `busy`: a request is out. `doubts`: since when (wall seconds)
    earlier ones may still take effect, each with the SHA-256 of what it would store."""

    busy: bool = False
    doubts: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Slot:
    number: int
    digest: str
    sha256: str
    state: State
    since: float

    def encoded(self) -> bytes:
        text = f"{self.digest} {self.sha256} {self.state} {self.since:.3f}"
        return text.ljust(_SLOT - 1).encode() + b"\n"


@dataclass(slots=True)
class Claim:
    """A key that is ours until `Claims.leave`. `doubts`: as in `Seen`, when it was entered."""

    digest: str
    sha256: str
    number: int
    doubts: tuple[tuple[float, str], ...] = ()


class Claims:
    """The claims of one spool folder. Its own file is made by the first `enter`."""

    def __init__(self, root: Path, files: Files, clock: Clock) -> None:
        self._folder = root / FOLDER
        self._files = files
        self._clock = clock
        self._renew()
        watch_forks(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._path: Path | None = None
        self._held: dict[int, str] = {}
        self._doubts: dict[int, _Slot] = {}
        self._unwritten: set[int] = set()

    def before_fork(self) -> None:
        """Nothing: the parent's requests go on."""

    def after_fork(self, *, child: bool) -> None:
        if child:
            fd = self._fd
            self._renew()
            if fd is not None:
                os.close(fd)  # the lock is the parent's, and is shared until we close it

    # -- our own requests --------------------------------------------------------------------------

    def enter(self, digest: str, sha256: str) -> Claim | None:
        """Write down that a request for a key is about to go out; None if another one is.

        Afterwards the caller looks for a ticket, and leaves again if there is one. Raises
        `OSError` when it cannot be written.
        """
        with self._lock:
            if digest in self._held.values():
                return None
            if self._fd is None:
                self._make()
            self._tidy()
            taken = self._held.keys() | self._doubts.keys()
            number = next(n for n in range(len(taken) + 1) if n not in taken)
            self._write(_Slot(number, digest, sha256 or "-", "wire", self._clock.now()))
            self._held[number] = digest
        claim = Claim(digest, sha256, number)
        try:
            seen = self.look(digest, ours=False)
        except BaseException:
            self.leave(claim)
            raise
        if seen.busy:
            self.leave(claim)
            return None
        claim.doubts = seen.doubts
        return claim

    def leave(self, claim: Claim, *, doubt: bool = False) -> None:
        """The request ended; with `doubt`, it may still take effect.

        An end that cannot be written down leaves a doubt behind, in the place of a claim.
        """
        with self._lock:
            if self._held.pop(claim.number, None) is None:
                return  # a fork, or `close`, came between
            slot = _Slot(
                claim.number, claim.digest, claim.sha256 or "-", "doubt", self._clock.now()
            )
            if not doubt and self._blank(claim.number):
                return
            for number, older in list(self._doubts.items()):
                if (older.digest, older.sha256) == (slot.digest, slot.sha256):
                    self._drop(number)
            self._doubts[claim.number] = slot
            self._unwritten.add(claim.number)
            self._tidy()

    def settle(self, digest: str) -> None:
        """The remote was seen to have what it should: our doubts about a key are over."""
        with self._lock:
            for number, slot in list(self._doubts.items()):
                if slot.digest == digest:
                    self._drop(number)

    def _tidy(self) -> None:
        """The room of doubts that are remembered no longer is used again; what could not be
        written down before is tried again (others see a claim of ours until then)."""
        oldest = self._clock.now() - KEPT
        for number, slot in list(self._doubts.items()):
            if slot.since < oldest:
                self._drop(number)
        for number in self._unwritten & self._doubts.keys():
            with contextlib.suppress(OSError):
                self._write(self._doubts[number])
                self._unwritten.discard(number)

    def _drop(self, number: int) -> None:
        if self._blank(number):
            del self._doubts[number]
            self._unwritten.discard(number)

    def close(self) -> None:
        """No more requests; the file goes, unless it holds a doubt."""
        with self._lock:
            fd, path, left = self._fd, self._path, self._held or self._doubts
            self._fd, self._path, self._held, self._doubts = None, None, {}, {}
        if fd is None or path is None:
            return
        with contextlib.suppress(OSError):
            if not left:
                self._files.unlink(path)
        self._files.close(fd)

    def _make(self) -> None:
        """Our file: nobody sees it before it is locked."""
        self._files.make_folder(self._folder)
        name = secrets.token_hex(16)
        temporary = self._folder / f"{name}.tmp"
        fd = self._files.create(temporary)
        try:
            self._files.try_lock(fd)
            self._path = self._folder / f"{name}.claims"
            self._files.rename(temporary, self._path)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._sweep()

    def _write(self, slot: _Slot) -> None:
        assert self._fd is not None
        self._files.pwrite(self._fd, slot.encoded(), slot.number * _SLOT)

    def _blank(self, number: int) -> bool:
        """False if that cannot be written now."""
        if self._fd is None:
            return True
        try:
            self._files.pwrite(self._fd, b" " * (_SLOT - 1) + b"\n", number * _SLOT)
        except OSError:
            return False
        return True

    # -- what all do -------------------------------------------------------------------------------

    def look(self, digest: str, *, ours: bool = True) -> Seen:
        """What processes do, or did when they died, with a key. `ours`: requests of our own too.

        Raises `OSError` when that cannot be known.
        """
        busy, doubts = False, []
        oldest = self._clock.now() - KEPT
        for path in self._paths():
            mine = path == self._path
            for slot in self._slots_of(path, digest):
                if mine and slot.state == "wire":
                    held, doubt = self._own(slot.number)
                    busy = busy or (ours and held)
                    doubts.extend([] if doubt is None else [(doubt.since, doubt.sha256)])
                elif slot.state == "doubt":
                    if slot.since > oldest:
                        doubts.append((slot.since, slot.sha256))
                elif self._is_held(path):
                    busy = True
                else:
                    doubts.append((self._clock.now(), slot.sha256))
                    self._bury(path)
        return Seen(busy, tuple(doubts))

    def _own(self, number: int) -> tuple[bool, _Slot | None]:
        """What one of our slots stands for, whatever could be written into it."""
        with self._lock:
            return number in self._held, self._doubts.get(number)

    def _paths(self) -> Iterator[Path]:
        for name in self._files.list(self._folder):
            if name.endswith(".claims"):
                yield self._folder / name

    def _slots_of(self, path: Path, digest: str = "") -> list[_Slot]:
        """The slots of a file in use, of one key if it is given; empty if the file is gone."""
        try:
            data = read_file(self._files, path, _LIMIT)
        except FileNotFoundError:
            return []
        if digest and digest.encode() not in data:
            return []
        found = []
        for number in range(0, len(data) // _SLOT):
            words = data[number * _SLOT : (number + 1) * _SLOT].decode("ascii", "replace").split()
            if len(words) != 4 or (digest and words[0] != digest):
                continue
            with contextlib.suppress(ValueError):
                state: State = "doubt" if words[2] == "doubt" else "wire"
                found.append(_Slot(number, words[0], words[1], state, float(words[3])))
        return found

    def _is_held(self, path: Path) -> bool:
        """True while the process that wrote a file lives."""
        try:
            fd = self._files.open_read(path)
        except FileNotFoundError:
            return False
        try:
            return not self._files.try_lock(fd)
        finally:
            os.close(fd)

    def _bury(self, path: Path) -> None:
        """Whoever wrote this is dead: what it had on the wire is in doubt from now on."""
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
            try:
                if not self._files.try_lock(fd):
                    return
                for slot in self._slots_of(path):
                    if slot.state == "wire":
                        doubt = replace(slot, state="doubt", since=self._clock.now())
                        self._files.pwrite(fd, doubt.encoded(), slot.number * _SLOT)
            finally:
                os.close(fd)

    def _sweep(self) -> None:
        """Bury what died, and remove files of the dead that hold nothing any more."""
        oldest = self._clock.now() - KEPT
        for path in list(self._paths()):
            with contextlib.suppress(OSError):
                if path == self._path or self._is_held(path):
                    continue
                self._bury(path)
                if all(slot.since < oldest for slot in self._slots_of(path)):
                    self._files.unlink(path)
