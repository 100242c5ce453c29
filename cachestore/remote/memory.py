"""A remote in memory, for tests: every promise of the contract, nothing on disk."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from cachestore.errors import NotFound, UploadLost
from cachestore.model import Attributes, ListPage, RemoteObject
from cachestore.policy.wire import encode_metadata
from cachestore.remote import semantics
from cachestore.remote.base import RemoteSource
from cachestore.remote.semantics import CHUNK, nfc


class MemoryBody:
    """An answer whose bytes are here already."""

    def __init__(self, info: RemoteObject, data: memoryview) -> None:
        self.info = info
        self.length = len(data)
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, self.length, CHUNK):
            yield bytes(self._data[start : start + CHUNK])

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class _Upload:
    key: str
    sha256: str
    attributes: Attributes
    parts: dict[int, bytes] = field(default_factory=dict)


class MemoryRemote:
    """Objects in a dictionary. `page_size` objects make one page of a listing."""

    def __init__(self, name: str = "memory", *, page_size: int = 1000) -> None:
        self.name = name
        self.remote_id = secrets.token_hex(8)
        self.conditional = True
        self._page_size = page_size
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[RemoteObject, bytes]] = {}
        self._uploads: dict[str, _Upload] = {}

    def _found(self, key: str) -> tuple[RemoteObject, bytes]:
        try:
            return self._objects[nfc(key)]
        except KeyError:
            raise NotFound(f"{key!r} is not in {self.name}") from None

    def head(self, key: str, *, timeout: float | None = None) -> RemoteObject:
        with self._lock:
            return self._found(key)[0]

    def get(
        self,
        key: str,
        *,
        start: int = 0,
        end: int | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        timeout: float | None = None,
    ) -> MemoryBody | None:
        semantics.check_range(start, end)
        with self._lock:
            info, data = self._found(key)
        semantics.check_read(key, info.etag, if_match)
        if if_none_match is not None and if_none_match in ("*", info.etag):
            return None
        first, last = semantics.resolve_range(key, info.size, start, end)
        return MemoryBody(info, memoryview(data)[first:last])

    def put(
        self,
        key: str,
        body: RemoteSource,
        *,
        size: int,
        sha256: str,
        attributes: Attributes,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> RemoteObject:
        encode_metadata(f"put {key!r}", attributes, sha256)
        data = b"".join(semantics.read_exactly(body, size, key))
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return self._store(key, data, etag, sha256, attributes, if_match, if_none_match)

    def _store(
        self, key: str, data: bytes, etag: str, sha256: str, attributes: Attributes,
        if_match: str | None, if_none_match: str | None,
    ) -> RemoteObject:  # fmt: skip
        key = nfc(key)
        names = {name.lower(): value for name, value in attributes.metadata.items()}
        info = RemoteObject(
            key, len(data), etag, attributes.content_type, names, attributes.cache_control,
            time.time(), sha256 or None,
        )  # fmt: skip
        with self._lock:
            there = self._objects.get(key)
            semantics.check_write(key, there and there[0].etag, if_match, if_none_match)
            self._objects[key] = (info, data)
        return info

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(nfc(key), None)

    def delete_many(self, keys: Iterable[str]) -> dict[str, Exception]:
        for key in semantics.at_most_1000(keys):
            self.delete(key)
        return {}

    def list(
        self, prefix: str = "", *, delimiter: str | None = None, after: str | None = None
    ) -> Iterator[ListPage]:
        with self._lock:
            infos = [info for info, _ in self._objects.values()]
        bare = [
            replace(info, metadata={}, sha256=None, cache_control=None, content_type="")
            for info in infos
        ]
        yield from semantics.pages(bare, nfc(prefix), delimiter, after, self._page_size)

    def close(self) -> None:
        """Nothing is held; the objects stay."""

    # -- multipart -----------------------------------------------------------------------------

    def create_upload(self, key: str, *, sha256: str, attributes: Attributes) -> str:
        encode_metadata(f"put {key!r}", attributes, sha256)
        upload_id = secrets.token_hex(16)
        with self._lock:
            self._uploads[upload_id] = _Upload(nfc(key), sha256, attributes)
        return upload_id

    def _upload(self, key: str, upload_id: str) -> _Upload:
        upload = self._uploads.get(upload_id)
        if upload is None or upload.key != nfc(key):
            raise UploadLost(f"put {key!r}: no such upload", status=404, code="NoSuchUpload")
        return upload

    def upload_part(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        kept = bytes(data)
        with self._lock:
            self._upload(key, upload_id).parts[number] = kept
        return hashlib.md5(kept, usedforsecurity=False).hexdigest()

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[str],
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> RemoteObject:
        with self._lock:
            upload = self._upload(key, upload_id)
            bodies = [upload.parts.get(number) for number in range(1, len(parts) + 1)]
        sent = [body for body in bodies if body is not None]
        digests = [hashlib.md5(body, usedforsecurity=False) for body in sent]
        if [digest.hexdigest() for digest in digests] != parts:
            raise UploadLost(f"put {key!r}: a part is missing", status=400, code="InvalidPart")
        semantics.check_parts(key, [len(body) for body in sent])
        joined = hashlib.md5(b"".join(d.digest() for d in digests), usedforsecurity=False)
        etag = f"{joined.hexdigest()}-{len(sent)}"
        try:
            return self._store(
                key, b"".join(sent), etag, upload.sha256, upload.attributes, if_match, if_none_match
            )
        finally:
            # R2 destroys the upload when a condition fails on publishing.
            self.abort_upload(key, upload_id)

    def abort_upload(self, key: str, upload_id: str) -> None:
        with self._lock:
            self._uploads.pop(upload_id, None)
