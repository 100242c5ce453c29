"""Reading an object past the cache, where the cache cannot take it."""

from __future__ import annotations

import threading

from cachestore.errors import Corrupt, NotFound, PreconditionFailed, RemoteUnavailable
from cachestore.model import RemoteObject
from cachestore.remote.base import RemoteStore

_LEAST = 1 << 20


class Replaced(RemoteUnavailable):
    """The version that is read is the bucket's no more."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key!r} was replaced or deleted while it was read; open it again")


class Passing:
    """A large object that the cache cannot take, read past it. Shared by its readers."""

    begun = True

    def __init__(self, remote: RemoteStore, info: RemoteObject, block: int) -> None:
        self.info = info
        self._remote = remote
        self._block = block
        self._past = PastTheCache(remote, info, block)

    def reader(self) -> Passing:
        """One for each reader, since each has its own window."""
        return Passing(self._remote, self.info, self._block)

    def read_at(self, at: int, count: int) -> bytes:
        end = min(at + count, self.info.size)
        return self._past.read(at, end) if at < end else b""

    def close(self) -> None:
        """Nothing: nothing is kept."""


class PastTheCache:
    """One version of an object, a window of at most `block` bytes at a time."""

    def __init__(self, remote: RemoteStore, info: RemoteObject, block: int) -> None:
        self._remote = remote
        self._info = info
        self._block = block
        self._lock = threading.Lock()
        self._start = 0
        self._data = b""
        self._step = _LEAST

    def read(self, at: int, end: int) -> bytes:
        """At least one byte from `at` on; the window grows while reads follow one another."""
        with self._lock:
            if not self._start <= at < self._start + len(self._data):
                follows = at == self._start + len(self._data)
                self._step = min(self._block, self._step * 2 if follows else _LEAST)
                stop = min(max(at + self._step, min(end, at + self._block)), self._info.size)
                self._start, self._data = at, self._fetched(at, stop)
            return self._data[at - self._start : end - self._start]

    def _fetched(self, start: int, end: int) -> bytes:
        key = self._info.key
        try:
            answer = self._remote.get(key, start=start, end=end, if_match=self._info.etag or None)
            assert answer is not None, "only if_none_match is answered with nothing"
            with answer as body:
                if body.info.etag != self._info.etag:
                    raise Replaced(key)  # a server that ignores conditions
                data = b"".join(body)
        except (NotFound, PreconditionFailed) as error:
            raise Replaced(key) from error
        if len(data) != end - start:
            raise Corrupt(f"get {key!r}: {len(data)} bytes came, {end - start} were asked for")
        return data
