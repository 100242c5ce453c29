"""Files of a store that are open."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

from cachestore.model import ObjectInfo
from cachestore.progressive.past import Passing
from cachestore.progressive.reader import Reading

_BUFFER = 64 << 10


class OpenFile(io.BufferedReader):
    """A file of a store, open for reading. `info`: what is known of this very version.

    A large one may still be on its way: then what is read comes first, and there is no `fileno`.
    """

    def __init__(self, source: int | Reading | Passing, info: ObjectInfo) -> None:
        self._reading = None if isinstance(source, int) else source
        if isinstance(source, int):
            super().__init__(io.FileIO(source, "rb", closefd=True))
        else:
            super().__init__(RawReading(source), _BUFFER)
        self.info = info

    def read_at(self, start: int, count: int) -> bytes:
        """At most `count` bytes from `start` on; moves nothing, so threads may share the file.

        Fewer only when they are all that is here, none only at the end.
        """
        if self._reading is not None:
            return self._reading.read_at(start, count)
        return os.pread(self.fileno(), count, start)

    def when_closed(self, call: Callable[[], None]) -> bool:
        """Call this at the end; False, and never, if the store is not needed to read it."""
        if not isinstance(self.raw, RawReading):
            return False
        self.raw.at_end = call
        return True


class RawReading(io.RawIOBase):
    """A reader of a partial copy as Python's raw file."""

    def __init__(self, reading: Reading | Passing) -> None:
        super().__init__()
        self.reading = reading
        self.at_end: Callable[[], None] = lambda: None
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.reading.read_at(self._at, len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        size = self.reading.info.size
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: size}[whence]
        if at < 0:
            raise ValueError(f"seek to {at}")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        if not self.closed:
            self.reading.close()
            self.at_end()
        super().close()
