"""Files of the cache: clean copies, downloads under way, hand-outs, and their removal.

Only files whose name and folder are ours are ever removed, and never through a symbolic link.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from cachestore.clock import Clock
from cachestore.files import Files, allocated, is_plain, is_real_folder, unlink_unlocked
from cachestore.keys import Place, extension_of, place_of
from cachestore.local.board import SHARDS, Board, boot_id
from cachestore.local.catalog_rows import COPY_NAME, Row
from cachestore.local.room_rows import CACHE, TRANSIT
from cachestore.options import Options

_PART = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{1,16}(\.[0-9a-f]{16})?\.part")
_HANDOUT = re.compile(
    r"[0-9a-f]{64}-([0-9a-f]{16}|[0-9a-f]{32}(-[0-9a-f]{12})?)(\.[A-Za-z0-9]{1,16})?"
)
_PARTIAL = re.compile(r"[0-9a-f]{64}-[0-9a-f]{16}\.part")
_PART_AGE = 60.0
DAMAGED_AGE = 7 * 86400.0
"""Seconds that a damaged copy is kept for people to look at."""


class CacheFiles:
    """The files below `CACHE_DIR/<remote id>`; the catalog says which of them are copies."""

    def __init__(
        self,
        root: Path,
        remote_id: str,
        files: Files,
        board: Board,
        clock: Clock,
        options: Options,
    ) -> None:
        self.root = root
        self._remote_id = remote_id
        self._files = files
        self._board = board
        self._clock = clock
        self._grace = options.handout_grace
        self._parts = root / "parts"
        self._transit = root / "transit"
        self._partial = root / "partial"
        self._boot = boot_id()
        self._damaged = root / "damaged"

    # -- names ---------------------------------------------------------------------------------

    def path(self, row: Row) -> Path:
        return self.root / row.file

    def new_name(self, place: Place, key: str) -> str:
        """A name for a clean copy that nobody used before, relative to the root."""
        return f"{place.folder}/{place.digest}-{secrets.token_hex(8)}{extension_of(key)}"

    def part_path(self, place: Place, token: int) -> Path:
        """The temporary file of a download, the same in all processes; its lock is the flight."""
        return self._parts / f"{place.digest}.{token:x}.part"

    def open_part(self, path: Path) -> int:
        """A part file, made with its folder if need be."""
        self._check_inside(path.parent)
        try:
            return self._files.open_shared(path)
        except FileNotFoundError:
            self._files.make_folder(path.parent)
            return self._files.open_shared(path)

    def partial_path(self, place: Place) -> Path:
        """A new name for the file of a partial copy."""
        return self._partial / f"{place.digest}-{secrets.token_hex(8)}.part"

    # -- becoming a copy -------------------------------------------------------------------------

    def matches(self, row: Row) -> bool:
        """True when the row's file is there and is the one that the row describes."""
        try:
            stat = self._files.stat(self.root / row.file)
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns, stat.st_ino) == (
            row.size, row.mtime_ns, row.inode,
        )  # fmt: skip

    def settle(self, part: Path, fd: int, name: str) -> Path:
        """Give a whole download its final name, read-only."""
        self._files.chmod(fd, 0o444)
        final = self.root / name
        self._into_folder(part, final)
        return final

    def _check_inside(self, folder: Path) -> None:
        """Nothing is written where a planted link leads. Raises `OSError`."""
        for each in (self.root, folder):
            if each.is_symlink():
                raise OSError(errno.ELOOP, "a symbolic link inside the cache", str(each))

    def _into_folder(self, source: Path, final: Path) -> None:
        self._check_inside(final.parent)
        try:
            self._files.rename(source, final)
        except FileNotFoundError:
            self._files.make_folder(final.parent)
            self._files.rename(source, final)

    def new_part(self, place: Place) -> tuple[int, Path]:
        """A locked temporary file that nobody else knows."""
        path = self._parts / f"{place.digest}.{secrets.token_hex(8)}.part"
        fd = self.open_part(path)
        try:
            self._files.try_lock(fd)
        except OSError:
            self._files.close(fd)
            raise
        return fd, path

    def end_part(self, fd: int, part: Path) -> None:
        """Close a temporary file, and remove it where it got no other name."""
        try:
            self._files.unlink(part)
        finally:
            # By name: a process forked meanwhile would keep it locked.
            self._files.unlock(fd)
            self._files.close(fd)

    def link_in(self, source: Path, name: str, fd: int, part: Path) -> None:
        """A spool body as a clean copy: a second name, or a copy on another file system.

        `part`: a temporary file, open as `fd`, through which a copy comes.
        """
        final = self.root / name
        self._check_inside(final.parent)
        self._files.make_folder(final.parent)
        try:
            self._files.link(source, final)
        except FileNotFoundError:
            raise
        except OSError:
            self._copy(source, fd)
            self._files.chmod(fd, 0o444)
            self._into_folder(part, final)

    def _copy(self, source: Path, fd: int) -> None:
        origin = self._files.open_read(source)
        try:
            self._files.copy(origin, fd)
        finally:
            self._files.close(origin)

    # -- hand-outs that are no copies --------------------------------------------------------------

    def to_transit(self, path: Path) -> Path:
        """A whole file that is not admitted stays readable for the grace."""
        target = self._transit / path.name
        self._into_folder(path, target)
        return target

    def hand_out_path(self, body: Path, place: Place, key: str, id_: str) -> tuple[Path, bool]:
        """Where a pending body's bytes are handed out, and whether they are there already.

        The copy has a set modification time, so one that was edited in place is not used again.
        It is not synced, so one from before the machine went down is not used again either.
        """
        stat = self._files.stat(body)
        id_ = hashlib.sha256(f"{id_} {self._boot}".encode()).hexdigest()[:32]
        path = self._transit / f"{place.digest}-{id_}{extension_of(key)}"
        if self._is_copy_of(path, stat):
            return path, True
        if os.path.lexists(path):
            name = f"{place.digest}-{id_}-{secrets.token_hex(6)}{extension_of(key)}"
            path = path.with_name(name)
        return path, False

    def hand_out(self, body: Path, path: Path, fd: int, part: Path, copy_max: int) -> None:
        """Give a pending body's bytes the name `path`, by way of a temporary file.

        A clone where the file system can, a copy up to `copy_max` bytes, else a second name.
        """
        stat = self._files.stat(body)
        self._check_inside(self._transit)
        self._files.make_folder(self._transit)
        if stat.st_size > copy_max:
            try:
                self._files.link(body, path)
                return
            except FileExistsError:
                return
            except FileNotFoundError:
                raise
            except OSError:
                pass  # another file system: copied after all
        self._copy(body, fd)
        self._files.chmod(fd, 0o444)
        os.utime(fd, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        self._files.rename(part, path)

    def _is_copy_of(self, path: Path, body: os.stat_result) -> bool:
        try:
            there = self._files.stat(path)
        except OSError:
            return False
        return (there.st_size, there.st_mtime_ns) == (body.st_size, body.st_mtime_ns)

    # -- removal -----------------------------------------------------------------------------------

    def discard(self, rows: Iterable[Row]) -> None:
        """Remove files whose rows are gone. Handed-out and leased ones wait for `Room.tidy`."""
        for row in rows:
            self._board.change(place_of(self._remote_id, row.key).slot)
            self.remove(row.file)

    def quarantine(self, row: Row) -> str | None:
        """Set a damaged copy aside under its name, for people to look at; that name, if it could.

        `sweep` removes it.
        """
        self._board.change(place_of(self._remote_id, row.key).slot)
        path = self.root / row.file
        try:
            self._files.make_folder(self._damaged)
            self._files.rename(path, self._damaged / path.name)
        except OSError:
            self.discard([row])
            return None
        return f"{self._damaged.name}/{path.name}"

    def in_use(self, file: str) -> float:
        """Until when (wall seconds) a path that was handed out stays.

        0: not handed out lately, or not there.
        """
        slot, now = int(file.rpartition("/")[2][:4], 16), self._clock.now()
        handed = self._board.handed_out(slot)
        if handed - now > self._grace:
            self._board.hand_out(slot, now)  # the clock went back: the grace begins anew
            handed = now
        if now - handed < self._grace and os.path.lexists(self.root / file):
            return handed + self._grace
        return 0.0

    def remove(self, file: str, patience: float = 0.0) -> bool:
        """Unlink unless handed out within the grace, or leased for so many seconds; True when it
        is gone."""
        return not self.in_use(file) and self.unlink_unleased(self.root / file, patience)

    def is_free(self, file: str) -> bool:
        """False while somebody writes the file; true also if there is none."""
        try:
            fd = self._files.open_read(self.root / file)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            return self._files.try_lock(fd, shared=True)
        except OSError:
            return False
        finally:
            self._files.close(fd)

    def is_idle(self, file: str) -> bool:
        """True if nobody has the file open under a lock, or there is none."""
        try:
            fd = self._files.open_read(self.root / file)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            return self._files.try_lock(fd)
        except OSError:
            return False
        finally:
            self._files.close(fd)

    def unlink_unleased(self, path: Path, patience: float = 0.0) -> bool:
        """Unlink a file of ours that nobody has open under a lease; True when it is gone."""
        if not is_real_folder(path.parent):
            return not os.path.lexists(path)
        return unlink_unlocked(self._files, path, patience)

    # -- what is on disk ---------------------------------------------------------------------------

    def copies(self, shard: int | None = None) -> Iterator[tuple[str, Path]]:
        """Files with a clean copy's name, by their name relative to the root; of one shard only."""
        for number in range(SHARDS) if shard is None else (shard,):
            folder = self.root / f"{number:02x}"
            if is_real_folder(folder):
                for name in self._files.list(folder):
                    if COPY_NAME.fullmatch(name) and name[:2] == folder.name:
                        yield f"{folder.name}/{name}", folder / name

    def is_old(self, path: Path, seconds: float) -> bool:
        """True for a regular file whose inode changed more than `seconds` ago."""
        try:
            changed = self._files.stat(path).st_ctime
        except OSError:
            return False
        return is_plain(path) and self._clock.now() - changed > seconds

    def orphan(self, path: Path) -> bool:
        """Remove a copy without a row, once it is out of its grace; True when it went."""
        if not self.is_old(path, max(self._grace, _PART_AGE)):
            return False
        return self.remove(self.name_of(path))

    def name_of(self, path: Path) -> str:
        """A file's name relative to the root."""
        return path.relative_to(self.root).as_posix()

    def _others(self) -> Iterator[tuple[Path, int, float]]:
        """Our files that are no copies: path, what they count to, seconds that they stay."""
        stays = max(self._grace, _PART_AGE)
        for folder, pattern, area, age in (
            (self._parts, _PART, CACHE, _PART_AGE),
            (self._partial, _PARTIAL, CACHE, _PART_AGE),
            (self._transit, _HANDOUT, TRANSIT, stays),
            (self._damaged, COPY_NAME, CACHE, DAMAGED_AGE),
        ):
            if is_real_folder(folder):
                for name in self._files.list(folder):
                    if pattern.fullmatch(name):
                        yield folder / name, area, age

    def sweep(self, partials: set[str] | None) -> int:
        """Remove old downloads and hand-outs; how many files went.

        `partials`: the partial copies with a row, which stay; None: not known now.
        """
        gone = 0
        for path, _, age in self._others():
            name = self.name_of(path)
            stays = path.parent == self._partial and (partials is None or name in partials)
            gone += not stays and self.is_old(path, age) and self.remove(name)
        return gone

    def census(self) -> list[tuple[str, int, int, float]]:
        """All files of ours: name, bytes on disk, what they count to, when they may go."""
        stays = max(self._grace, _PART_AGE)
        found = []
        for path, area, age in (
            *((path, CACHE, stays) for _, path in self.copies()), *self._others(),
        ):  # fmt: skip
            try:
                stat = self._files.stat(path)
            except OSError:
                continue
            if is_plain(path):
                found.append((self.name_of(path), allocated(stat), area, stat.st_ctime + age))
        return found
