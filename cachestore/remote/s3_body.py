"""Bodies on their way to and from S3."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Self

from cachestore.errors import RemoteUnavailable
from cachestore.model import RemoteObject
from cachestore.remote.base import RemoteSource
from cachestore.remote.s3_errors import translated_body

CHUNK = 1 << 18


class SentBody:
    """`size` bytes of a file from its position on, as botocore wants to read them.

    Never closes the file. Keeps what reading it raised, which botocore would hide.
    """

    def __init__(self, body: RemoteSource, size: int) -> None:
        self._body = body
        self._start = body.tell()
        self._size = size
        self._at = 0
        self.error: BaseException | None = None

    def read(self, amount: int | None = -1) -> bytes:
        left = self._size - self._at
        wanted = left if amount is None or amount < 0 else min(amount, left)
        try:
            # A reader may check what was read at the end, so it is asked even for no bytes.
            data = self._body.read(wanted)
        except BaseException as error:
            self.error = error
            raise
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = min(max(0, base + offset), self._size)
        self._body.seek(self._start + self._at)
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """The file belongs to the caller."""


class ReceivedBody:
    """A GET's answer; leaving it early gives up the connection."""

    def __init__(self, what: str, info: RemoteObject, length: int, stream: Any) -> None:
        self.info = info
        self.length = length
        self._what = what
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with translated_body(self._what):
                # At the end botocore compares what arrived with the length that was announced.
                chunk = self._stream.read(CHUNK)
            if not chunk:
                return
            yield chunk

    def close(self) -> None:
        try:
            with translated_body(self._what):
                self._stream.close()
        except RemoteUnavailable:
            pass  # what is wanted is here already

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
