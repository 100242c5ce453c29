"""An answer on its way to a client: a body in memory, or an open file that is read as it goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from cachestore.testing.r2.request import Refusal

PIECE = 256 * 1024


class Body:
    """Bytes, or a file of which this object owns a descriptor."""

    def __init__(self, data: bytes = b"", descriptor: int | None = None, size: int = 0) -> None:
        self._data = memoryview(data)
        self._descriptor = descriptor
        self._start = 0
        self.size = len(data) if descriptor is None else size

    def narrow(self, start: int, length: int) -> None:
        """Keep only this part."""
        self._start += start
        self.size = length

    def pieces(self, most: int = PIECE) -> Iterator[bytes]:
        """The body in pieces of at most `most` bytes."""
        for offset in range(0, self.size, most):
            start = self._start + offset
            length = min(most, self.size - offset)
            if self._descriptor is None:
                yield bytes(self._data[start : start + length])
            else:
                yield os.pread(self._descriptor, length, start)

    def close(self) -> None:
        """Give the descriptor back; may be called again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            self.size = 0


@dataclass
class Answer:
    """Status, headers and body; Content-Length is made from the body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Body = field(default_factory=Body)


def refused(refusal: Refusal) -> Answer:
    """The answer that says no."""
    headers = {"Content-Type": "application/xml", **refusal.headers}
    return Answer(refusal.status, headers, Body(refusal.body()))
