"""What kind of disk a folder is on, and whether it can do what the store's promises need."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cachestore.files import Files
from cachestore.policy.room import free_wanted

_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_LAYERS = frozenset({"overlay", "aufs"})
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "fuse.rclone"})


@dataclass(frozen=True, slots=True)
class Disk:
    """Free and total bytes, and the file system's kind ("" where the system does not tell)."""

    kind: str
    free: int
    total: int

    @property
    def volatile(self) -> str:
        """Why files die here without being deleted, "" if they do not."""
        if self.kind in _MEMORY:
            return f"it is in memory ({self.kind}): a restart of the machine empties it"
        if self.kind in _LAYERS:
            return f"it is a container's own layer ({self.kind}): it goes with the container"
        return ""

    @property
    def network(self) -> bool:
        """True where locks and shared memory may not reach other machines."""
        return self.kind in _NETWORK


def disk_of(folder: Path) -> Disk:
    """The disk that an existing folder is on. Raises `OSError`."""
    room = os.statvfs(folder)
    return Disk(_kind(folder), room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize)


def missing_free(folder: Path, least: float) -> int | None:
    """Bytes that a disk misses to what is to be left free; below 0: it has more.

    `least`: a share below 1, else bytes. None where nothing is to be left free, or is known.
    """
    if not least:
        return None
    try:
        room = os.statvfs(folder)
    except OSError:
        return None
    wanted = free_wanted(least, room.f_blocks * room.f_frsize)
    return wanted - room.f_bavail * room.f_frsize


def _kind(folder: Path) -> str:
    """The type of the mount with the longest path above the folder (Linux)."""
    real = os.path.realpath(folder)
    best, kind = -1, ""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        left, _, right = line.partition(" - ")
        words = left.split()
        if len(words) < 5 or not right:
            continue
        mount = words[4].replace("\\040", " ")
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= best:
            best, kind = len(mount), right.split()[0]
    return kind


def refusal(folder: Path, files: Files) -> str | None:
    """Why nothing can be made durable in a folder now; None if it can, which is found by trying."""
    path = folder / f".probe-{secrets.token_hex(8)}"
    try:
        files.make_folder(folder)
        fd = files.create(path)
        try:
            files.write(fd, b"\0" * mmap.PAGESIZE)
            files.fsync(fd)
        finally:
            files.close(fd)
            files.unlink(path)
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return None


def missing_powers(folder: Path, files: Files) -> list[str]:
    """What a folder's file system cannot do: names of file-system calls, empty if all is well.

    Raises `OSError` if nothing can be written there at all.
    """
    path = folder / f".probe-{secrets.token_hex(8)}"
    failed: list[str] = []
    fd = files.create(path)
    try:
        files.write(fd, b"\0" * mmap.PAGESIZE)
        with _noting(failed, "fsync"):
            files.fsync(fd)
            files.fsync_dir(folder)
        with _noting(failed, "flock"):
            _check_lock(files, path, fd)
        with _noting(failed, "shared mmap"):
            mmap.mmap(fd, mmap.PAGESIZE).close()
        with _noting(failed, "rename"):
            files.rename(path, path.with_name(path.name + "2"))
            path = path.with_name(path.name + "2")
    finally:
        files.close(fd)
        with contextlib.suppress(OSError):
            files.unlink(path)
    return failed


def _check_lock(files: Files, path: Path, fd: int) -> None:
    """Two descriptors must not both get the exclusive lock."""
    if not files.try_lock(fd):
        raise OSError("the first lock was refused")
    other = files.open_read(path)
    try:
        if files.try_lock(other):
            raise OSError("a second lock was given")
    finally:
        files.close(other)
        files.unlock(fd)


class _noting:
    """Adds a name to a list when the block raises `OSError`."""

    def __init__(self, failed: list[str], name: str) -> None:
        self._failed = failed
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, (OSError, ValueError)):
            self._failed.append(self._name)
            return True
        return False
