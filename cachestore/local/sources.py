"""Sources of a put: paths, bytes, binary files, objects with `.file`; copied whole or refused."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachestore.errors import SourceError
from cachestore.files import COPY_CHUNK, Files


@dataclass(frozen=True, slots=True)
class Copied:
    """What was read: bytes and their SHA-256 (hex)."""

    size: int
    sha256: str


class _Sink:
    """Writes to a descriptor and hashes on the way."""

    def __init__(self, files: Files, fd: int) -> None:
        self._files = files
        self._fd = fd
        self._digest = hashlib.sha256()
        self.size = 0

    def take(self, data: bytes | memoryview) -> None:
        self._files.write(self._fd, data)
        self._digest.update(data)
        self.size += len(data)

    def done(self) -> Copied:
        return Copied(self.size, self._digest.hexdigest())


def copy_source(files: Files, source: Any, fd: int) -> Copied:
    """Copy a source into the empty file `fd`, and tell its size and digest.

    `source`: a path, bytes, a binary file, or an object with a binary `.file`. A file object is
    read from its start if it can seek, and left where it was; it is never closed. Raises
    `SourceError` if it cannot be read or changes meanwhile; `OSError` comes from `fd` only.
    """
    sink = _Sink(files, fd)
    if isinstance(source, (bytes, bytearray, memoryview)):
        view = memoryview(source).cast("B") if not isinstance(source, bytes) else memoryview(source)
        for start in range(0, len(view), COPY_CHUNK):
            sink.take(view[start : start + COPY_CHUNK])
    elif isinstance(source, (str, os.PathLike)):
        _copy_path(sink, Path(source))
    elif hasattr(source, "read"):
        _copy_file(sink, source)
    elif hasattr(source, "file") and hasattr(source.file, "read"):
        _copy_file(sink, source.file)
    else:
        raise SourceError(
            f"cannot store a {type(source).__name__}: a source is a path, bytes, a binary file,"
            " or an object with a binary `.file` (arguments swapped?)"
        )
    return sink.done()


def _copy_path(sink: _Sink, path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise SourceError(f"cannot read the source {path}: {error.strerror}") from error
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise SourceError(f"the source {path} is not a regular file")
        buffer = memoryview(bytearray(min(COPY_CHUNK, max(1, before.st_size))))
        with os.fdopen(fd, "rb", buffering=0, closefd=False) as raw:
            while count := _read_into(raw, buffer, path):
                sink.take(buffer[:count])
                if sink.size > before.st_size:
                    break  # it grows; it may do so for ever
        _check_unchanged(path, before, os.fstat(fd), sink.size)
    finally:
        os.close(fd)


def _read_into(raw: Any, buffer: memoryview, path: Path) -> int:
    try:
        return raw.readinto(buffer) or 0
    except OSError as error:
        raise SourceError(f"cannot read the source {path}: {error.strerror}") from error


def _check_unchanged(
    path: Path, before: os.stat_result, after: os.stat_result, copied: int
) -> None:
    try:
        there = os.stat(path)
    except OSError as error:
        raise SourceError(f"the source {path} went away while it was read") from error
    first = (before.st_size, before.st_mtime_ns, before.st_ino)
    if (
        first != (after.st_size, after.st_mtime_ns, after.st_ino)
        or first != (there.st_size, there.st_mtime_ns, there.st_ino)
        or copied != before.st_size
    ):
        raise SourceError(f"the source {path} changed while it was read; put it again when whole")


def _copy_file(sink: _Sink, file: Any) -> None:
    start = _rewind(file)
    try:
        while True:
            try:
                chunk = file.read(COPY_CHUNK)
            except (OSError, ValueError) as error:
                raise SourceError(f"cannot read the source: {error}") from error
            if isinstance(chunk, str):
                raise SourceError("the source is open as text; open it in binary mode ('rb')")
            if not isinstance(chunk, (bytes, bytearray, memoryview)):
                raise SourceError(f"the source's read() gave a {type(chunk).__name__}, not bytes")
            if not chunk:
                return
            sink.take(memoryview(chunk))
    finally:
        if start is not None:
            file.seek(start)


def _rewind(file: Any) -> int | None:
    """Go to the start and return where the file stood; None if it cannot seek."""
    try:
        if not file.seekable():
            return None
        start = int(file.tell())
        file.seek(0)
        return start
    except (AttributeError, OSError):
        return None
    except ValueError as error:
        raise SourceError(f"cannot read the source: {error}") from error
