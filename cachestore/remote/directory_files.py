"""The files of a directory remote: records that name bodies, and bodies being read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

from cachestore.errors import Corrupt, NotFound, RemoteUnavailable
from cachestore.files import Files, read_file, replace_file
from cachestore.keys import extension_of
from cachestore.model import RemoteObject
from cachestore.remote.semantics import CHUNK

_BODY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}\.[0-9a-f]{16}(\.[A-Za-z0-9]{1,16})?")


class Digest(Protocol):
    """A hash that is being fed."""

    def update(self, data: bytes, /) -> None: ...


@contextmanager
def translated(what: str) -> Iterator[None]:
    """The disk is the remote here: its errors are the remote's."""
    try:
        yield
    except NotFound:
        raise
    except OSError as error:
        raise RemoteUnavailable(f"{what}: {error}") from error


def hashed(chunks: Iterator[bytes], digest: Digest) -> Iterator[bytes]:
    """The chunks, fed to `digest` as they pass."""
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


class FileBody:
    """An answer from an open file; whoever replaces the object meanwhile does not matter."""

    def __init__(self, info: RemoteObject, fd: int, start: int, end: int) -> None:
        self.info = info
        self.length = end - start
        self._fd = fd
        self._start = start
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        at = self._start
        while at < self._end:
            with translated(f"get {self.info.key!r}"):
                chunk = os.pread(self._fd, min(CHUNK, self._end - at), at)
            if not chunk:
                raise Corrupt(f"get {self.info.key!r}: the file ends {self._end - at} bytes early")
            at += len(chunk)
            yield chunk

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _inside(body: str) -> str:
    """A planted record must not name a file elsewhere."""
    if not _BODY.fullmatch(body):
        raise ValueError("its body is none of ours")
    return body


class Records:
    """One small JSON file for each object, replaced atomically."""

    def __init__(self, root: Path, files: Files, durable: bool) -> None:
        self._root = root
        self._hidden = root / ".records"
        self._files = files
        self._durable = durable

    def _digest(self, key: str) -> str:
        return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()

    def folder(self, key: str) -> Path:
        """The folder of a key's record, which is its lock too; made if it is not there."""
        folder = self._hidden / self._digest(key)[:2]
        self._files.make_folder(folder)
        return folder

    def _path(self, key: str) -> Path:
        digest = self._digest(key)
        return self._hidden / digest[:2] / f"{digest}.json"

    def new_body(self, key: str) -> Path:
        """A name for a body that nobody used before."""
        digest = self._digest(key)
        folder = self._root / digest[:2]
        self._files.make_folder(folder)
        return folder / f"{digest}.{secrets.token_hex(8)}{extension_of(key)}"

    def find(self, key: str) -> tuple[RemoteObject, Path] | None:
        """The object and where its body is; None if there is none."""
        try:
            return self._parse(read_file(self._files, self._path(key)))
        except FileNotFoundError:
            return None

    def read(self, key: str) -> tuple[RemoteObject, Path]:
        """The same, or `NotFound`."""
        found = self.find(key)
        if found is None:
            raise NotFound(f"{key!r} is not in {self._root}")
        return found

    def write(self, info: RemoteObject, body: Path) -> None:
        """Publish `body` as the object; its name is durable before the record that needs it."""
        if self._durable:
            self._files.fsync_dir(body.parent)
        plain = {
            "format": 1, "key": info.key, "size": info.size, "etag": info.etag,
            "content_type": info.content_type, "metadata": dict(info.metadata),
            "cache_control": info.cache_control, "modified": info.modified,
            "sha256": info.sha256, "body": f"{body.parent.name}/{body.name}",
        }  # fmt: skip
        replace_file(
            self._files,
            self._path(info.key),
            json.dumps(plain).encode(),
            unique=secrets.token_hex(8),
            durable=self._durable,
        )

    def remove(self, key: str) -> None:
        """Unpublish a key, then remove its body."""
        found = self.find(key)
        if found is None:
            return
        path = self._path(key)
        self._files.unlink(path)
        if self._durable:
            self._files.fsync_dir(path.parent)
        self._files.unlink(found[1])

    def all(self) -> Iterator[RemoteObject]:
        """Every object, in no order; what vanishes meanwhile is left out."""
        for shard in self._files.list(self._hidden):
            for name in self._files.list(self._hidden / shard):
                if not name.endswith(".json"):
                    continue
                try:
                    yield self._parse(read_file(self._files, self._hidden / shard / name))[0]
                except FileNotFoundError:
                    continue

    def _parse(self, data: bytes) -> tuple[RemoteObject, Path]:
        try:
            plain: dict[str, Any] = json.loads(data)
            if plain.pop("format") != 1:
                raise ValueError("its format is unknown")
            body = self._root / _inside(plain.pop("body"))
            return RemoteObject(**plain), body
        except (ValueError, TypeError, KeyError) as error:
            raise Corrupt(f"a record in {self._hidden} cannot be read: {error}") from error
