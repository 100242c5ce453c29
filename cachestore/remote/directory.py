"""A folder as a remote: for mock mode, tests, and a disk that stands in for a bucket."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from cachestore.errors import RemoteUnavailable
from cachestore.files import Files, locked_folder
from cachestore.model import Attributes, ListPage, RemoteObject
from cachestore.policy.wire import encode_metadata
from cachestore.remote import semantics
from cachestore.remote.base import RemoteSource
from cachestore.remote.directory_files import FileBody, Records, hashed, translated
from cachestore.remote.directory_uploads import Uploads
from cachestore.remote.ids import id_of_text
from cachestore.remote.semantics import nfc

LOCK_TIMEOUT = 30.0


class DirectoryRemote:
    """Objects as hash-named files in `path`, used by any number of threads and processes.

    A body is written under a name of its own; replacing the small record that names it, in a
    hidden folder, is what publishes it. `durable`: fsync before answering. `page_size` objects
    make one page of a listing. The constructor touches nothing.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        files: Files | None = None,
        durable: bool = True,
        page_size: int = 1000,
    ) -> None:
        self._root = Path(os.path.abspath(path))
        self._files = files or Files()
        self._durable = durable
        self._page_size = page_size
        self._records = Records(self._root, self._files, durable)
        self._uploads = Uploads(self._root / ".uploads", self._files)
        self.remote_id = id_of_text(f"directory\0{os.path.realpath(self._root)}")
        self.name = f"folder {self._root}"
        self.conditional = True

    def __repr__(self) -> str:
        return f"DirectoryRemote({str(self._root)!r})"

    def head(self, key: str, *, timeout: float | None = None) -> RemoteObject:
        with translated(f"head {key!r}"):
            return self._records.read(nfc(key))[0]

    def get(
        self,
        key: str,
        *,
        start: int = 0,
        end: int | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        timeout: float | None = None,
    ) -> FileBody | None:
        semantics.check_range(start, end)
        with translated(f"get {key!r}"):
            info, fd = self._open(nfc(key))
        try:
            semantics.check_read(key, info.etag, if_match)
            if if_none_match is not None and if_none_match in ("*", info.etag):
                self._files.close(fd)
                return None
            first, last = semantics.resolve_range(key, info.size, start, end)
        except BaseException:
            self._files.close(fd)
            raise
        return FileBody(info, fd, first, last)

    def _open(self, key: str) -> tuple[RemoteObject, int]:
        """The object and its open body; a body that is replaced meanwhile is looked up again."""
        for _ in range(100):
            info, body = self._records.read(key)
            try:
                return info, self._files.open_read(body)
            except FileNotFoundError:
                continue
        raise RemoteUnavailable(f"get {key!r}: its body is missing in {self._root}")

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
        md5 = hashlib.md5(usedforsecurity=False)
        return self._store(
            key,
            hashed(semantics.read_exactly(body, size, key), md5),
            md5.hexdigest,
            (sha256, attributes, if_match, if_none_match),
        )

    def _store(
        self,
        key: str,
        chunks: Iterator[bytes],
        etag: Callable[[], str],
        rest: tuple[str, Attributes, str | None, str | None],
    ) -> RemoteObject:
        """Write the body under a new name, then publish it under the folder's lock."""
        sha256, attributes, if_match, if_none_match = rest
        key, what = nfc(key), f"put {key!r}"
        with translated(what):
            path = self._records.new_body(key)
            fd = self._files.create(path)
        published = False
        try:
            size = self._fill(what, fd, chunks)
            names = {name.lower(): value for name, value in attributes.metadata.items()}
            info = RemoteObject(
                key, size, etag(), attributes.content_type, names, attributes.cache_control,
                time.time(), sha256 or None,
            )  # fmt: skip
            with translated(what), self._locked(key, what):
                there = self._records.find(key)
                current = None if there is None else there[0].etag
                semantics.check_write(key, current, if_match, if_none_match)
                self._records.write(info, path)
                published = True
                if there is not None:
                    self._files.unlink(there[1])
            return info
        finally:
            self._files.close(fd)
            if not published:
                self._files.unlink(path)

    def _fill(self, what: str, fd: int, chunks: Iterator[bytes]) -> int:
        size = 0
        for chunk in chunks:
            with translated(what):
                self._files.write(fd, chunk)
            size += len(chunk)
        if self._durable:
            with translated(what):
                self._files.fsync(fd)
        return size

    def _locked(self, key: str, what: str) -> AbstractContextManager[int]:
        return locked_folder(
            self._files,
            self._records.folder(key),
            LOCK_TIMEOUT,
            lambda: RemoteUnavailable(f"{what}: {self._root} was locked for {LOCK_TIMEOUT:g} s"),
        )

    def delete(self, key: str) -> None:
        key, what = nfc(key), f"delete {key!r}"
        with translated(what):
            if self._records.find(key) is None:
                return
            with self._locked(key, what):
                self._records.remove(key)

    def delete_many(self, keys: Iterable[str]) -> dict[str, Exception]:
        for key in semantics.at_most_1000(keys):
            self.delete(key)
        return {}

    def list(
        self, prefix: str = "", *, delimiter: str | None = None, after: str | None = None
    ) -> Iterator[ListPage]:
        with translated(f"list {prefix!r}"):
            objects = [
                replace(obj, metadata={}, sha256=None, cache_control=None, content_type="")
                for obj in self._records.all()
            ]
        yield from semantics.pages(objects, nfc(prefix), delimiter, after, self._page_size)

    def close(self) -> None:
        """Nothing is held."""

    # -- multipart -----------------------------------------------------------------------------

    def create_upload(self, key: str, *, sha256: str, attributes: Attributes) -> str:
        encode_metadata(f"put {key!r}", attributes, sha256)
        with translated(f"begin upload of {key!r}"):
            return self._uploads.create(secrets.token_hex(16), nfc(key), sha256, attributes)

    def upload_part(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        with translated(f"send part {number} of {key!r}"):
            return self._uploads.add(nfc(key), upload_id, number, data)

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[str],
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> RemoteObject:
        with translated(f"finish upload of {key!r}"):
            sha256, attributes, paths = self._uploads.parts(nfc(key), upload_id, parts)
        joined = hashlib.md5(bytes.fromhex("".join(parts)), usedforsecurity=False)
        etag = f"{joined.hexdigest()}-{len(parts)}"
        try:
            return self._store(
                key,
                self._uploads.chunks(paths),
                lambda: etag,
                (sha256, attributes, if_match, if_none_match),
            )
        finally:
            # R2 destroys the upload when a condition fails on publishing.
            self.abort_upload(key, upload_id)

    def abort_upload(self, key: str, upload_id: str) -> None:
        with translated(f"give up upload of {key!r}"):
            self._uploads.remove(upload_id)
