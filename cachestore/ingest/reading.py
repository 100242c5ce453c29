"""A file as it is sent: read whole or not at all, with its digests."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cachestore.errors import CacheStoreError, SourceError
from cachestore.files import COPY_CHUNK, is_being_written
from cachestore.ingest.scan import Source
from cachestore.remote.sources import SendCancelled, open_source
from cachestore.uploads.outside import Body

IN_MEMORY = 1 << 20
"""Files of at most so many bytes are read once; larger ones are hashed first, then sent."""

Mark = tuple[int, int, int, int]


class Changing(CacheStoreError):
    """The file is not the one that was looked at: look again."""


class Unfinished(CacheStoreError):
    """Somebody has the file open for writing."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A file that did not change while it was read. `md5` "" unless it was asked for."""

    body: Body
    mark: Mark
    md5: str


def mark_of(info: os.stat_result) -> Mark:
    """Tells one state of a file from the next."""
    return info.st_size, info.st_mtime_ns, info.st_ino, info.st_ctime_ns


def mark_at(path: str) -> Mark:
    """The mark of what lies at a path now. Raises `FileNotFoundError`, also for what is no file."""
    info = os.lstat(path)
    if not stat.S_ISREG(info.st_mode):
        raise FileNotFoundError(f"{path} is no longer a file")
    return mark_of(info)


@contextmanager
def whole(
    source: Source, *, md5: bool, cancelled: Callable[[], bool], finished: bool = False
) -> Iterator[Whole]:
    """The file's bytes, in memory or as an open descriptor, for the length of the block.

    `finished`: only while nobody has it open for writing. Raises `FileNotFoundError`,
    `Changing`, `Unfinished`, `SourceError`, `SendCancelled`.
    """
    mark_at(source.full)
    try:
        fd = open_source(source.full, source.path)
    except SourceError:
        mark_at(source.full)  # gone since we looked
        raise
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise SourceError(f"{source.path!r} is not a regular file")
        if not _is_at(fd, source.full):
            raise SourceError(f"{source.path!r} lies behind a symbolic link by now")
        hashes = [hashlib.sha256(), *([hashlib.md5(usedforsecurity=False)] if md5 else [])]
        if finished and is_being_written(fd):  # not read in vain
            raise Unfinished(f"{source.path!r} is being written")
        data = _read(fd, before.st_size, hashes, source.path, cancelled)
        if finished and is_being_written(fd):
            raise Unfinished(f"{source.path!r} is being written")
        if mark_of(os.fstat(fd)) != mark_of(before):
            raise Changing(f"{source.path!r} changed while it was read")
        body = Body(fd if data is None else data, before.st_size, hashes[0].hexdigest())
        yield Whole(body, mark_of(before), hashes[1].hexdigest() if md5 else "")
    finally:
        os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    """True unless a folder on the way to an open file is a link, as one put there since may be."""
    with contextlib.suppress(OSError):
        there = os.readlink(f"/proc/self/fd/{fd}")
        # One that lost its name since is found to be another than the one at its path.
        return there == path or there.endswith(" (deleted)")
    return os.path.realpath(path) == path


def _read(
    fd: int, size: int, hashes: list[Any], path: str, cancelled: Callable[[], bool]
) -> bytes | None:
    """Hash all; the bytes themselves if they are few."""
    kept: list[bytes] = []
    at = 0
    while at < size or size == 0:
        if cancelled():
            raise SendCancelled(f"{path!r}: stopped")
        try:
            data = os.pread(fd, min(COPY_CHUNK, size - at + 1), at)
        except OSError as error:
            raise SourceError(f"{path!r} cannot be read: {error.strerror}") from error
        at += len(data)
        for each in hashes:
            each.update(data)
        if size <= IN_MEMORY:
            kept.append(data)
        if not data or size == 0:
            break
    if at != size:
        raise Changing(f"{path!r} changed while it was read")
    return b"".join(kept) if size <= IN_MEMORY else None
