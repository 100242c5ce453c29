"""Files being sent: read at the last moment, hashed on the way, refused if they changed."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Container
from pathlib import Path

from cachestore.errors import CacheStoreError, SourceError

CHUNK = 1 << 20


class SendCancelled(CacheStoreError):
    """The sender was told to stop; what was sent so far can be resumed."""


def open_source(path: str | Path, key: str) -> int:
    """A descriptor for reading; `SourceError` if the file cannot be opened, or is a link."""
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(path, flags)
    except OSError as error:
        raise SourceError(f"put {key!r}: the file cannot be read: {error}") from error


def _read(fd: int, count: int, offset: int, key: str) -> bytes:
    """Exactly `count` bytes at `offset`."""
    try:
        data = os.pread(fd, count, offset)
        while len(data) < count:
            more = os.pread(fd, count - len(data), offset + len(data))
            if not more:
                raise SourceError(f"put {key!r}: the file ends at byte {offset + len(data)}")
            data += more
    except OSError as error:
        raise SourceError(f"put {key!r}: the file cannot be read: {error}") from error
    return data


def _changed(key: str, expected: str, found: str) -> SourceError:
    return SourceError(
        f"put {key!r}: the file changed since it was taken (SHA-256 {found[:16]}..., was"
        f" {expected[:16]}...); nothing was stored"
    )


class CheckedReader:
    """A file as the body of one request, that ends in `SourceError` if it is not as announced.

    The last bytes are given out only when the digest of all is known to be right, so a changed
    file never becomes an object. A `RemoteSource`.
    """

    def __init__(
        self, fd: int, size: int, sha256: str, key: str, cancelled: Callable[[], bool]
    ) -> None:
        self._fd = fd
        self._size = size
        self._sha256 = sha256
        self._key = key
        self._cancelled = cancelled
        self._at = 0
        self._digest = hashlib.sha256()
        self._hashed = 0
        if size == 0:
            self._check()

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = min(max(0, base + offset), self._size)
        if self._at == 0:
            self._digest, self._hashed = hashlib.sha256(), 0
        return self._at

    def read(self, count: int = -1) -> bytes:
        left = self._size - self._at
        wanted = left if count < 0 else min(count, left)
        if wanted == 0:
            return b""
        if self._cancelled():
            raise SendCancelled(f"put {self._key!r}: stopped")
        data = _read(self._fd, wanted, self._at, self._key)
        # A request that is sent twice, or read from the middle, is hashed from its start.
        while self._hashed < self._at:
            gap = min(CHUNK, self._at - self._hashed)
            self._digest.update(_read(self._fd, gap, self._hashed, self._key))
            self._hashed += gap
        fresh = data[self._hashed - self._at :]
        self._digest.update(fresh)
        self._hashed += len(fresh)
        self._at += len(data)
        if self._at == self._size:
            self._check()
        return data

    def _check(self) -> None:
        found = self._digest.hexdigest()
        if found != self._sha256:
            raise _changed(self._key, self._sha256, found)


class HashedParts:
    """Hands out a file's parts in order, each once, and hashes the whole on the way."""

    def __init__(
        self, fd: int, size: int, part_size: int, key: str, cancelled: Callable[[], bool]
    ) -> None:
        self._fd = fd
        self._size = size
        self._part_size = part_size
        self._key = key
        self._cancelled = cancelled
        self._lock = threading.Lock()
        self._at = 0
        self._digest = hashlib.sha256()

    def next_part(self, sent: Container[int]) -> tuple[int, bytes] | None:
        """Number and bytes of the next part that is not in `sent`; None when all are out.

        Parts in `sent` are read too, for the digest. Raises `SendCancelled`.
        """
        with self._lock:
            while self._at < self._size:
                if self._cancelled():
                    raise SendCancelled(f"put {self._key!r}: stopped")
                number = self._at // self._part_size + 1
                end = min(number * self._part_size, self._size)
                if number not in sent:
                    data = _read(self._fd, end - self._at, self._at, self._key)
                    self._digest.update(data)
                    self._at = end
                    return number, data
                while self._at < end:
                    data = _read(self._fd, min(CHUNK, end - self._at), self._at, self._key)
                    self._digest.update(data)
                    self._at += len(data)
            return None

    def check(self, sha256: str) -> None:
        """`SourceError` unless all parts together have this digest."""
        found = self._digest.hexdigest()
        if found != sha256 or self._at != self._size:
            raise _changed(self._key, sha256, found)
