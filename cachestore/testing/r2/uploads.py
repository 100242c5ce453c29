"""Request bodies: read from the connection into a file that spills to disk, and digested."""

from __future__ import annotations

import base64
import binascii
import hashlib
import tempfile
import zlib
from collections.abc import Callable, Mapping
from typing import IO, Protocol, cast

from cachestore.testing.r2.request import Refusal
from cachestore.testing.r2.signing import HEX_DIGEST

IN_MEMORY = 8 << 20
PIECE = 1 << 20


class Digest(Protocol):
    """What hashlib makes."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class Crc32:
    """CRC-32 in hashlib's clothes."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


CHECKSUMS: dict[str, Callable[[], Digest]] = {
    "x-amz-checksum-sha256": hashlib.sha256,
    "x-amz-checksum-sha1": hashlib.sha1,
    "x-amz-checksum-crc32": Crc32,
}


def new_file() -> IO[bytes]:
    """An empty file in memory, which moves to disk when it grows. The caller closes it."""
    return cast("IO[bytes]", tempfile.SpooledTemporaryFile(IN_MEMORY))


class Received:
    """A request's body, whole."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self.file = new_file()
        self._digests: dict[str, Digest] = {
            name: make() for name, make in CHECKSUMS.items() if name in headers
        }
        # Always: it becomes the ETag.
        self._digests["content-md5"] = hashlib.md5()
        self.size = 0
        self._given = False
        if HEX_DIGEST.fullmatch(headers.get("x-amz-content-sha256", "")):
            self._digests["x-amz-content-sha256"] = hashlib.sha256()

    def take(self, source: IO[bytes], length: int, note: Callable[[int], None]) -> None:
        """Read `length` bytes. Raises ConnectionError when the client ends before."""
        left = length
        while left:
            piece = source.read(min(PIECE, left))
            if not piece:
                raise ConnectionResetError(f"{left} of {length} bytes of a body are missing")
            left -= len(piece)
            self.size += len(piece)
            note(len(piece))
            self.file.write(piece)
            for digest in self._digests.values():
                digest.update(piece)
        self.file.seek(0)

    def check(self) -> None:
        """Raises Refusal where the body is not what its headers say."""
        if len([name for name in self._digests if name in CHECKSUMS]) > 1:
            message = "You can only specify one non-default checksum at a time."
            raise Refusal(400, "InvalidRequest", message)
        for name, digest in self._digests.items():
            if name == "x-amz-content-sha256":
                if digest.digest().hex() != self._headers[name]:
                    message = f"The provided '{name}' header does not match what was computed."
                    raise Refusal(400, "XAmzContentSHA256Mismatch", message)
            elif name in self._headers and digest.digest() != _decoded(self._headers[name]):
                message = f"The {name} you specified did not match what we received."
                raise Refusal(400, "BadDigest", message)

    @property
    def md5(self) -> str:
        """The body's MD5 in hexadecimal digits."""
        return self._digests["content-md5"].digest().hex()

    def give(self) -> IO[bytes]:
        """The file, which now belongs to the caller."""
        self._given = True
        return self.file

    def close(self) -> None:
        """Forget the body, unless it was given away."""
        if not self._given:
            self.file.close()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        message = "The checksum or Content-MD5 you specified is not valid."
        raise Refusal(400, "InvalidDigest", message) from None


def drain_chunked(source: IO[bytes]) -> None:
    """Read a body in chunks to its end, so that the answer reaches the client."""
    while True:
        line = source.readline(1024)
        if not line:
            raise ConnectionResetError("a chunked body is not whole")
        left = int(line.split(b";")[0], 16)
        if left == 0:
            break
        left += 2
        while left:
            piece = source.read(min(PIECE, left))
            if not piece:
                raise ConnectionResetError("a chunked body is not whole")
            left -= len(piece)
    while source.readline(1024).strip():
        pass
