"""One reader of a partial copy."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from cachestore.model import RemoteObject
from cachestore.policy.blocks import ReadAhead
from cachestore.progressive.past import PastTheCache

if TYPE_CHECKING:
    from cachestore.progressive.file import PartialFile

_numbers = count(1)


class Reading:
    """One reader of a partial copy: where it reads, and how far ahead of it to fetch.

    `begun`: nothing of it was here before. `read`: bytes that it read; `fetched`: bytes that had
    come from the remote when it began. `past`: for what the cache does not take.
    """

    def __init__(
        self, file: PartialFile, most: int, past: PastTheCache, *, begun: bool
    ) -> None:  # fmt: skip
        self.id = next(_numbers)
        self.file = file
        self.begun = begun
        self.ahead = ReadAhead(most)
        self.past = past
        self.read = 0
        self.fetched = 0
        self._closed = False

    @property
    def info(self) -> RemoteObject:
        return self.file.row.info

    def read_at(self, at: int, count: int) -> bytes:
        """At least one byte from `at` on unless the file ends there, at most `count`; waits."""
        if self._closed:
            raise ValueError("read of a closed file")
        data = self.file.read_at(self, at, count)
        self.read += len(data)
        return data

    def close(self) -> None:
        """Its read-ahead ends, unless others want it."""
        if not self._closed:
            self._closed = True
            self.file.leave(self)
