"""The file layer: every file-system call that a promise rests on goes through `Files`.

Tests inject a subclass that fails, stops or records; the library uses `Files()` itself. This is
the only module that knows `fcntl`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat as stat_module
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: development on one process only
    fcntl = None  # type: ignore[assignment]  # absent there; every use is guarded

COPY_CHUNK = 1 << 20
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FICLONE = 0x40049409
_POLL = 0.005


class Files:
    """The file-system calls of the store, as they are."""

    # -- bytes ---------------------------------------------------------------------------------

    def create(self, path: str | Path, mode: int = 0o600) -> int:
        """A new file, open for reading and writing; `FileExistsError` if the name is taken."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW, mode)

    def open_read(self, path: str | Path) -> int:
        """An existing file, never through a symbolic link in its last segment."""
        return os.open(path, os.O_RDONLY | _NOFOLLOW)

    def open_shared(self, path: str | Path, mode: int = 0o600) -> int:
        """A file open for reading and writing, made if it is not there."""
        return os.open(path, os.O_RDWR | os.O_CREAT | _NOFOLLOW, mode)

    def write(self, fd: int, data: bytes | memoryview) -> None:
        """Write all of `data` at the descriptor's position."""
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        """Write all of `data` at `offset` bytes."""
        view = memoryview(data)
        while view:
            count = os.pwrite(fd, view, offset)
            view, offset = view[count:], offset + count

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def close(self, fd: int) -> None:
        os.close(fd)

    def chmod(self, fd: int, mode: int) -> None:
        os.fchmod(fd, mode)

    # -- durability ----------------------------------------------------------------------------

    def start_writeback(self, fd: int) -> None:
        """Ask the kernel to begin writing, so that several fsyncs overlap."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def fsync(self, fd: int) -> None:
        """Make the file durable; a failure is final for this descriptor."""
        if sys.platform == "darwin" and fcntl is not None:
            fcntl.fcntl(fd, getattr(fcntl, "F_FULLFSYNC", 51))
        else:
            os.fsync(fd)

    def fsync_dir(self, path: str | Path) -> None:
        """Make a folder's names durable."""
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NOFOLLOW)
        try:
            self.fsync(fd)
        finally:
            os.close(fd)

    # -- names ---------------------------------------------------------------------------------

    def rename(self, source: str | Path, target: str | Path) -> None:
        """Atomically give `source` the name `target`, replacing what is there."""
        os.replace(source, target)

    def link(self, source: str | Path, target: str | Path) -> None:
        """A second name for the same file; `OSError` on another file system."""
        os.link(source, target, follow_symlinks=False)

    def unlink(self, path: str | Path) -> bool:
        """Remove a name; False if it was not there."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        return True

    def mkdir(self, path: str | Path, mode: int = 0o700) -> None:
        """A new folder; `FileExistsError` if the name is taken."""
        os.mkdir(path, mode)

    def make_folder(self, path: str | Path, mode: int = 0o700) -> None:
        """A folder and its parents, durable in their parents."""
        path = Path(path)
        if path.is_dir():
            return
        if path.parent != path:
            self.make_folder(path.parent, mode)
        try:
            self.mkdir(path, mode)
        except FileExistsError:
            if not path.is_dir():
                raise
            return
        self.fsync_dir(path.parent)

    def stat(self, path: str | Path) -> os.stat_result:
        """`lstat`: a symbolic link is never followed."""
        return os.lstat(path)

    def list(self, path: str | Path) -> list[str]:
        """The names in a folder; empty if there is none."""
        try:
            return os.listdir(path)
        except FileNotFoundError:
            return []

    # -- locks ---------------------------------------------------------------------------------

    def try_lock(self, fd: int, *, shared: bool = False) -> bool:
        """`flock` without waiting; False if somebody else holds it."""
        if fcntl is None:
            return True
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK):
                return False
            raise
        return True

    def lock(self, fd: int, seconds: float, *, shared: bool = False) -> bool:
        """`flock`, waiting at most `seconds`; False when the time is over."""
        end = time.monotonic() + seconds
        pause = 0.0005
        while not self.try_lock(fd, shared=shared):
            if time.monotonic() >= end:
                return False
            time.sleep(pause)
            pause = min(_POLL, pause * 2)
        return True

    def unlock(self, fd: int) -> None:
        if fcntl is not None:
            fcntl.flock(fd, fcntl.LOCK_UN)

    def try_lock_byte(self, fd: int, at: int) -> bool:
        """Lock one byte of a file for this open file, without waiting; False if another has it.

        Where the system has no such locks (they are Linux's) everybody gets it.
        """
        if fcntl is None or not hasattr(fcntl, "F_OFD_SETLK"):
            return True
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _byte_lock(fcntl.F_WRLCK, at))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def unlock_byte(self, fd: int, at: int) -> None:
        """Give back what `try_lock_byte` took."""
        if fcntl is not None and hasattr(fcntl, "F_OFD_SETLK"):
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _byte_lock(fcntl.F_UNLCK, at))

    # -- copies --------------------------------------------------------------------------------

    def reflink(self, source: int, target: int) -> bool:
        """Share the blocks of `source` with the empty `target`; False where that is not known."""
        if fcntl is None or sys.platform != "linux":
            return False
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError:
            return False
        return True

    def copy(self, source: int, target: int) -> None:
        """Copy all bytes from one descriptor to an empty other one."""
        if self.reflink(source, target):
            return
        offset = 0
        while chunk := os.pread(source, COPY_CHUNK, offset):
            self.pwrite(target, chunk, offset)
            offset += len(chunk)


def _byte_lock(kind: int, at: int) -> bytes:
    """Linux's `struct flock` with one byte."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, at, 1, 0)


# -- what is built on those calls ---------------------------------------------------------------


def read_file(files: Files, path: str | Path, limit: int = 1 << 20) -> bytes:
    """The bytes of a small file of at most `limit` bytes."""
    fd = files.open_read(path)
    try:
        parts: list[bytes] = []
        size = 0
        while chunk := os.read(fd, 65536):
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                raise OSError(errno.EFBIG, "larger than it can be", str(path))
        return b"".join(parts)
    finally:
        os.close(fd)


def replace_file(
    files: Files, path: Path, data: bytes, *, unique: str, durable: bool = True
) -> None:
    """Give `path` the content `data` by a temporary file and a rename.

    `unique` makes the temporary name one that nobody used before. With `durable` the file and
    its folder are fsynced before this returns.
    """
    temporary = path.with_name(f"{path.name}.{unique}.tmp")
    fd = files.create(temporary)
    try:
        try:
            files.write(fd, data)
            if durable:
                files.fsync(fd)
        finally:
            files.close(fd)
        files.rename(temporary, path)
    except BaseException:
        files.unlink(temporary)
        raise
    if durable:
        files.fsync_dir(path.parent)


def unlink_unlocked(files: Files, path: Path, patience: float = 0.0) -> bool:
    """Unlink a file that nobody holds locked for `patience` seconds; True when it is gone."""
    try:
        fd = files.open_read(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if not files.lock(fd, patience):
            return False
        files.unlink(path)
        return True
    except OSError:
        return False
    finally:
        files.close(fd)


def is_plain(path: str | Path) -> bool:
    """True for a regular file that is not a symbolic link."""
    try:
        return stat_module.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def is_real_folder(path: str | Path) -> bool:
    """True for a folder that is not a symbolic link."""
    try:
        return stat_module.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def allocated(info: os.stat_result) -> int:
    """Bytes that a file occupies on disk."""
    return getattr(info, "st_blocks", (info.st_size + 511) // 512) * 512


_lockable: set[int] = set()


@contextmanager
def lockable_folder(files: Files, path: Path) -> Iterator[int]:
    """A folder's descriptor, for its lock and its fsync; unlocked and closed at the end.

    A process forked meanwhile has the descriptor too, and a lock lasts until the last one is
    closed: so the lock is given back by name, and the child lets go of what it inherits.
    """
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NOFOLLOW)
    _lockable.add(fd)
    try:
        yield fd
    finally:
        if fd in _lockable:
            _lockable.discard(fd)
            try:
                files.unlock(fd)
            finally:
                os.close(fd)


def _let_go() -> None:
    """In a forked child: the thread that held these locks is the parent's."""
    for fd in _lockable:
        os.close(fd)
    _lockable.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked_folder(
    files: Files, path: Path, seconds: float, refused: Callable[[], BaseException]
) -> Iterator[int]:
    """Hold the exclusive lock on a folder's descriptor, which is handed over for its fsync.

    Waits at most `seconds`, then raises what `refused` makes.
    """
    with lockable_folder(files, path) as fd:
        if not files.lock(fd, seconds):
            raise refused()
        yield fd


def lock_holder(path: Path) -> int | None:
    """The process that holds the lock on `path`, where the system tells (Linux), else None."""
    try:
        info = os.stat(path)
        wanted = f":{info.st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if len(words) > 5 and words[1] == "FLOCK" and words[5].endswith(wanted):
                return int(words[4])
    except (OSError, ValueError):
        return None
    return None


def is_being_written(fd: int) -> bool | None:
    """True if an open file is open for writing, too, by anybody; None where nobody can tell.

    Linux tells the owner of a file (and root), on most file systems: it gives no lease on it then.
    """
    if fcntl is None or not hasattr(fcntl, "F_SETLEASE"):
        return None
    try:
        # A writer who comes now waits until the lease is given back. That sends a signal, by
        # default one that ends the process; this one is ignored.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def is_written_at(path: str) -> bool | None:
    """The same for what lies at a path. Raises `OSError` if it cannot be opened."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return is_being_written(fd)
    finally:
        os.close(fd)
