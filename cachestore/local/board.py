"""The token board (L2): a small shared memory-mapped file in the spool folder.

Every key has a slot with a 64-bit token, set to a fresh random value after each change of the
key. Whoever remembered the token before looking, and finds it unchanged afterwards, knows that
nothing happened in between. Counters would not do: two processes' increments get lost.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import secrets
from functools import cache
from pathlib import Path

from cachestore.errors import SpoolError, SpoolFull
from cachestore.files import Files, is_plain

_BOARD = re.compile(r"board\.[0-9a-f]{16}")
SLOTS = 65536
SHARDS = 256
_HEAD = b"cachestore board 1".ljust(64, b"\0")
_TOKENS = len(_HEAD)
_SEQUENCES = _TOKENS + SLOTS * 8
_BYTES = _SEQUENCES + SHARDS * 8
_COUNTS = _BYTES + SHARDS * 8
_HANDED = _COUNTS + SHARDS * 8
_SIZE = _HANDED + SLOTS * 4


@cache
def boot_id() -> str:
    """A name of this run of the machine; mapped pages that a power cut took back are not reused."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:16]
    except OSError:
        return "any"


class Board:
    """Tokens, hand-out times and per-shard sums, shared by all processes on one spool folder.

    One board per boot: after a power cut old tokens could come back from disk, and with them
    facts that they once proved.
    """

    def __init__(self, folder: Path, files: Files) -> None:
        """Map the board in `folder`, made whole if it is not there. Raises `SpoolError`."""
        self.path = folder / f"board.{boot_id()}"
        try:
            self._map = self._open(files, folder)
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise SpoolFull(
                    f"the disk of {folder} is full: there is no room for {self.path.name}"
                    f" ({_SIZE} bytes)"
                ) from error
            raise SpoolError(f"cannot map the board {self.path}: {error}") from error
        view = memoryview(self._map)
        self._view = view
        self.tokens = view[_TOKENS:_SEQUENCES].cast("Q")
        self._sequences = view[_SEQUENCES:_BYTES].cast("Q")
        self._bytes = view[_BYTES:_COUNTS].cast("q")
        self._counts = view[_COUNTS:_HANDED].cast("q")
        self.handed = view[_HANDED:_SIZE].cast("I")

    def _open(self, files: Files, folder: Path) -> mmap.mmap:
        if not self.path.exists():
            self._create(files, folder)
        fd = os.open(self.path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        try:
            if os.fstat(fd).st_size != _SIZE or os.pread(fd, len(_HEAD), 0) != _HEAD:
                raise SpoolError(
                    f"{self.path} is not a board of this version; stop all processes that use"
                    " this folder and remove it (it holds nothing that cannot be made again)"
                )
            return mmap.mmap(fd, _SIZE, mmap.MAP_SHARED)
        finally:
            os.close(fd)

    def _create(self, files: Files, folder: Path) -> None:
        self._remove_old(files, folder)
        temporary = folder / f"board.{secrets.token_hex(8)}.tmp"
        fd = files.create(temporary)
        try:
            try:
                files.write(fd, _HEAD + os.urandom(_BYTES - _TOKENS) + bytes(_SIZE - _BYTES))
            finally:
                files.close(fd)
            files.link(temporary, self.path)
        except FileExistsError:
            pass  # somebody was faster; theirs is whole
        finally:
            files.unlink(temporary)

    def _remove_old(self, files: Files, folder: Path) -> None:
        """Boards of earlier boots are of no use; on a full disk theirs is the room for ours."""
        for name in files.list(folder):
            if _BOARD.fullmatch(name) and name != self.path.name and is_plain(folder / name):
                files.unlink(folder / name)

    def token(self, slot: int) -> int:
        """The slot's token; never 0 after a change."""
        return self.tokens[slot]

    def change(self, slot: int) -> None:
        """Something about a key of this slot changed: what was learned before is void."""
        self.tokens[slot] = secrets.randbits(64) | 1
        self._sequences[slot >> 8] = secrets.randbits(64) | 1

    def sequence(self, shard: int) -> int:
        """A value that is another one after each change in the shard."""
        return self._sequences[shard]

    def sequences(self) -> list[int]:
        """All shards' sequence values."""
        return self._sequences.tolist()

    def hand_out(self, slot: int, now: float) -> None:
        """A path of a key in this slot was handed out at `now` (wall seconds)."""
        self.handed[slot] = int(now) & 0xFFFFFFFF

    def handed_out(self, slot: int) -> float:
        """When a path of this slot was last handed out (wall seconds, coarse); 0 for never."""
        return float(self.handed[slot])

    # -- pending sums: changed only under the shard's lock (L1), so no change gets lost -----------

    def add_pending(self, shard: int, count: int, size: int) -> None:
        self._counts[shard] = max(0, self._counts[shard] + count)
        self._bytes[shard] = max(0, self._bytes[shard] + size)

    def set_pending(self, shard: int, count: int, size: int) -> None:
        self._counts[shard] = count
        self._bytes[shard] = size

    def pending(self) -> tuple[int, int]:
        """Pending operations and their bytes, over all remotes."""
        return sum(self._counts), sum(self._bytes)

    def close(self) -> None:
        """Unmap; the board must not be used afterwards."""
        for view in (self.tokens, self._sequences, self._bytes, self._counts, self.handed):
            view.release()
        self._view.release()
        self._map.close()
