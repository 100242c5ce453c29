"""The values that callers and layers exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Required, TypedDict

Storage = Literal["remote", "cached", "pending", "local"]


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of a key.

    `size` in bytes; `etag` without quotes, or "" while the bucket has not given one; `storage`
    says where the newest version is: `remote`, `cached` (remote and here), `pending` (here,
    upload to come) or `local` (local mode).
    """

    key: str
    size: int
    etag: str
    content_type: str
    metadata: Mapping[str, str]
    last_modified: datetime
    storage: Storage
    sha256: str | None = None
    cache_control: str | None = None


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """What a remote says of an object. `modified` in seconds since the epoch.

    `sha256` (hex) is the one that we stored with it, None for objects of others. `etag` has no
    quotes. `announced`: the mark of the presigned URL that it was uploaded with.
    """

    key: str
    size: int
    etag: str
    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=dict)
    cache_control: str | None = None
    modified: float = 0.0
    sha256: str | None = None
    announced: str | None = None


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a caller attaches to a file, sent with it. Metadata keys are lower-case."""

    content_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    cache_control: str | None = None


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a listing, in key order: objects and, with a delimiter, common prefixes."""

    objects: tuple[RemoteObject, ...]
    prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PresignedUpload:
    """How a client uploads directly: send `method` to `url` with exactly `headers`.

    `fields` is empty but for a form (`presign_post`), where they come before the file, which is
    the last field. `expires_at` is UTC.
    """

    url: str
    method: str
    headers: Mapping[str, str]
    fields: Mapping[str, str]
    expires_at: datetime


class PutRequest(TypedDict, total=False):
    """One upload of `presign_puts`: what `presign_put` takes. `key` must be there."""

    key: Required[str]
    content_type: str | None
    size: int | None
    max_size: int | None
    sha256: str | None


PendingState = Literal["waiting", "uploading", "retrying", "parked", "foreign", "unreadable"]


@dataclass(frozen=True, slots=True)
class PendingItem:
    """One operation that the bucket does not have yet. `age` and `next_attempt` in seconds."""

    key: str
    id: str
    operation: Literal["put", "delete"]
    state: PendingState
    size: int
    age: float
    tries: int = 0
    last_error: str | None = None
    next_attempt: float | None = None
    remote_id: str = ""
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class FlushReport:
    """What `flush` left: `done` is True when nothing due is left. Foreign and parked are listed."""

    done: bool
    uploaded: int
    left: tuple[PendingItem, ...]
    parked: tuple[PendingItem, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Prefix:
    """A common prefix in a listing with a delimiter; `key` ends with it."""

    key: str


@dataclass(frozen=True, slots=True)
class Tally:
    """What happened on one day (UTC, as 2026-01-31) to keys whose first segment is `prefix`.

    `what`: where reads were answered from (cache, spool, local, remote), or why copies left
    (`evicted: space` and the like). `bytes`: of all `count` reads or copies together.
    """

    day: str
    prefix: str
    what: str
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Minute:
    """What happened in one minute that began at `minute` (wall seconds), in all processes.

    `what`: how reads were answered (hit, stale, pending, local, miss, absent, negative) or how
    tries to upload ended (uploaded, failed, parked). `bytes`: of all `count` together.
    """

    minute: int
    what: str
    count: int
    bytes: int
