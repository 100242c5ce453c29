"""Rows of the catalog: one clean copy each."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cachestore.local.board import boot_id

COPY_NAME = re.compile(r"[0-9a-f]{64}-[0-9a-f]{16}(\.[A-Za-z0-9]{1,16})?")
"""As `CacheFiles.new_name` makes it: its only dot begins the key's own extension."""

COLUMNS = (
    "key", "file", "size", "mtime_ns", "inode", "allocated", "etag", "sha256", "content_type",
    "metadata", "cache_control", "modified", "validated", "ttl", "pinned", "durable", "used",
    "uses", "boot",
)  # fmt: skip

_NUMBER = (int, float)
_MAYBE_TEXT = (str, type(None))
_TYPES: tuple[tuple[type, ...], ...] = (
    (str,), (str,), (int,), (int,), (int,), (int,), (str,), _MAYBE_TEXT, (str,), (str,),
    _MAYBE_TEXT, _NUMBER, _NUMBER, (int, float, type(None)), (int,), (int,), _NUMBER, (int,),
    (str,),
)  # fmt: skip


class JunkRow(sqlite3.DatabaseError):
    """The database holds something that this library never wrote."""


def is_copy_name(file: str) -> bool:
    """True for the name of a clean copy, with its shard folder: nothing else is ours."""
    return file[2:3] == "/" and file[:2] == file[3:5] and bool(COPY_NAME.fullmatch(file, 3))


@dataclass(frozen=True, slots=True)
class Row:
    """A clean copy. `file` is relative to the remote's cache folder.

    `allocated`: bytes on disk. `modified`: the remote's time. `validated`: when the remote last
    said that it is current. `ttl`: seconds, None for the store's.
    `durable`: synced to disk. `used`: wall seconds of the last read. `boot`: the machine's run in
    which it was written.
    """

    key: str
    file: str
    size: int
    mtime_ns: int
    inode: int
    allocated: int
    etag: str
    sha256: str | None
    content_type: str
    metadata: Mapping[str, str]
    cache_control: str | None
    modified: float
    validated: float
    ttl: float | None = None
    pinned: bool = False
    durable: bool = False
    used: float = 0.0
    uses: int = 0
    boot: str = field(default_factory=boot_id)

    def values(self) -> tuple[Any, ...]:
        """As stored, in the order of `COLUMNS`."""
        plain = {name: getattr(self, name) for name in COLUMNS}
        plain["metadata"] = json.dumps(dict(self.metadata))
        plain["inode"] = _signed(self.inode)
        return tuple(plain.values())

    @classmethod
    def load(cls, values: tuple[Any, ...]) -> Row:
        """From what is stored; raises `JunkRow` if it was not written by `values`."""
        if not all(map(isinstance, values, _TYPES)):
            raise JunkRow("a row has a value of a wrong type")
        (
            key, file, size, mtime_ns, inode, allocated, etag, sha256, content_type, text,
            cache_control, modified, validated, ttl, pinned, durable, used, uses, boot,
        ) = values  # fmt: skip
        try:
            metadata = json.loads(text) if text != "{}" else {}
        except (ValueError, RecursionError) as error:
            raise JunkRow("a row has broken metadata") from error
        # A planted name must not lead to a file outside the cache.
        if not isinstance(metadata, dict) or not is_copy_name(file):
            raise JunkRow("a row names no copy")
        metadata = {str(name): str(value) for name, value in metadata.items()}
        return cls(
            key, file, size, mtime_ns, inode % (1 << 64), allocated, etag, sha256, content_type,
            metadata, cache_control, modified, validated, ttl, bool(pinned), bool(durable), used,
            uses, boot,
        )  # fmt: skip


def _signed(inode: int) -> int:
    """SQLite has signed numbers; some file systems (overlay, FUSE) use all 64 bits."""
    return inode - (1 << 64) if inode >= 1 << 63 else inode


@dataclass(frozen=True, slots=True)
class Admission:
    """What admitting a row did; the files of `evicted` and `replaced` are to be discarded."""

    admitted: bool
    evicted: list[Row] = field(default_factory=list)
    replaced: Row | None = None
