"""Uploads: one request for small files, resumable parts for large ones; hashed as they are sent."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cachestore.errors import CacheStoreError, NotFound, UploadLost
from cachestore.model import Attributes, RemoteObject
from cachestore.remote.base import (
    MAX_PARTS,
    MAX_SINGLE_PUT,
    MIN_PART,
    RemoteStore,
    SupportsMultipart,
)
from cachestore.remote.budget import Budget
from cachestore.remote.sources import (
    CheckedReader,
    HashedParts,
    SendCancelled,
    open_source,
)

__all__ = ["SendCancelled", "part_size_for", "send"]

THREADS = 4
_MIB = 1 << 20
State = dict[str, Any]


def part_size_for(size: int, wanted: int) -> int:
    """The size of equal parts, in bytes, so that there are at most 10,000; whole MiB if grown."""
    least = -(-size // MAX_PARTS)
    grown = -(-least // _MIB) * _MIB
    return max(MIN_PART, wanted, grown if least > wanted else 0)


@dataclass
class _Job:
    """One upload. `etags` by part number; `saved` is what a later try resumes from."""

    remote: SupportsMultipart
    key: str
    fd: int
    size: int
    sha256: str
    attributes: Attributes
    part_size: int
    budget: Budget
    save: Callable[[State], None]
    cancelled: Callable[[], bool]
    upload_id: str
    etags: dict[int, str]
    lock: threading.Lock = field(default_factory=threading.Lock)
    error: BaseException | None = None

    @property
    def count(self) -> int:
        return -(-self.size // self.part_size)

    def state(self) -> State:
        return {
            "upload_id": self.upload_id,
            "part_size": self.part_size,
            "etags": {str(number): etag for number, etag in sorted(self.etags.items())},
        }

    def stopped(self) -> bool:
        return self.error is not None

    def fail(self, error: BaseException) -> None:
        with self.lock:
            self.error = self.error or error


def send(
    remote: RemoteStore,
    key: str,
    source: str | Path | int,
    *,
    size: int,
    sha256: str,
    attributes: Attributes,
    if_match: str | None = None,
    if_none_match: str | None = None,
    budget: Budget,
    threshold: int,
    part_size: int,
    state: State,
    save_state: Callable[[State], None],
    cancelled: Callable[[], bool] = lambda: False,
) -> RemoteObject:
    """Store a file of `size` bytes under `key`; returns what the remote has then.

    `source`: a path, or a descriptor that stays open and whose position is not used. Files of at
    least `threshold` bytes go in parts of at least `part_size` bytes, at most four at a time, each
    held in memory within `budget` while it is sent. After each part `save_state` is given a
    JSON-able state (from one thread at a time); given back as `state`, it lets a later call go on
    from there. An empty state means that nothing is under way.

    Raises what `remote` raises; `SourceError` when the file does not have `size` bytes with the
    digest `sha256` (nothing is stored then); `SendCancelled` once `cancelled()` is true.
    """
    with _opened(source, key) as fd:
        parts = remote if isinstance(remote, SupportsMultipart) else None
        if parts is None or (size < threshold and size <= MAX_SINGLE_PUT):
            body = CheckedReader(fd, size, sha256, key, cancelled)
            return remote.put(
                key, body, size=size, sha256=sha256, attributes=attributes,
                if_match=if_match, if_none_match=if_none_match,
            )  # fmt: skip

        def attempt(state: State) -> RemoteObject:
            job = _begin(
                parts, key, fd, size, sha256, attributes, part_size_for(size, part_size),
                budget, save_state, cancelled, state,
            )  # fmt: skip
            return _in_parts(job, if_match, if_none_match)

        try:
            return attempt(state)
        except UploadLost:
            there = _already_there(remote, key, size, sha256)
            save_state({})
        return there or _last(attempt, save_state)


def _last(attempt: Callable[[State], RemoteObject], save: Callable[[State], None]) -> RemoteObject:
    """Once more from the first part; an upload that is lost again is forgotten."""
    try:
        return attempt({})
    except UploadLost:
        save({})
        raise


@contextmanager
def _opened(source: str | Path | int, key: str) -> Iterator[int]:
    if isinstance(source, int):
        yield source
        return
    fd = open_source(source, key)
    try:
        yield fd
    finally:
        os.close(fd)


def _begin(
    remote: SupportsMultipart, key: str, fd: int, size: int, sha256: str, attributes: Attributes,
    part_size: int, budget: Budget, save: Callable[[State], None],
    cancelled: Callable[[], bool], state: State,
) -> _Job:  # fmt: skip
    """A job that goes on from `state` where it fits this file, else a new one."""
    known = _resumable(state, size)
    if known is None:
        upload_id = remote.create_upload(key, sha256=sha256, attributes=attributes)
        etags: dict[int, str] = {}
    else:
        upload_id, part_size, etags = known
    job = _Job(
        remote, key, fd, size, sha256, attributes, part_size, budget, save, cancelled,
        upload_id, etags,
    )  # fmt: skip
    if known is None:
        save(job.state())
    return job


def _resumable(state: State, size: int) -> tuple[str, int, dict[int, str]] | None:
    """Upload id, part size and ETags of an upload to go on with; None if there is none."""
    try:
        upload_id, part_size = state["upload_id"], state["part_size"]
        etags = {int(number): str(etag) for number, etag in state["etags"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    if not isinstance(upload_id, str) or not isinstance(part_size, int):
        return None
    if not upload_id or part_size < MIN_PART or -(-size // part_size) > MAX_PARTS:
        return None
    return upload_id, part_size, etags


def _in_parts(job: _Job, if_match: str | None, if_none_match: str | None) -> RemoteObject:
    reader = HashedParts(job.fd, job.size, job.part_size, job.key, job.cancelled)
    helpers = _start_helpers(job, reader, min(THREADS, job.count) - 1)
    _work(job, reader)
    for helper in helpers:
        helper.join()
    if job.error is not None:
        raise job.error
    try:
        reader.check(job.sha256)
    except CacheStoreError:
        _give_up(job)
        raise
    etags = [job.etags[number] for number in range(1, job.count + 1)]
    done = job.remote.complete_upload(
        job.key, job.upload_id, etags, if_match=if_match, if_none_match=if_none_match
    )
    return replace(
        done,
        size=job.size,
        content_type=job.attributes.content_type,
        metadata=dict(job.attributes.metadata),
        cache_control=job.attributes.cache_control,
        sha256=job.sha256,
    )


def _start_helpers(job: _Job, reader: HashedParts, count: int) -> list[threading.Thread]:
    """Plain threads; while the interpreter shuts down there may be none, and one is enough."""
    helpers: list[threading.Thread] = []
    for number in range(count):
        helper = threading.Thread(
            target=_work, args=(job, reader), name=f"cachestore-part-{number}", daemon=True
        )
        try:
            helper.start()
        except RuntimeError:
            break
        helpers.append(helper)
    return helpers


def _work(job: _Job, reader: HashedParts) -> None:
    """Send parts until there are none left or one failed."""
    try:
        while not job.stopped():
            with job.budget.holding(min(job.part_size, job.size)):
                part = reader.next_part(job.etags)
                if part is None or job.stopped():
                    return
                number, data = part
                etag = job.remote.upload_part(job.key, job.upload_id, number, data)
                del part, data
            with job.lock:
                job.etags[number] = etag
                job.save(job.state())
    except BaseException as error:
        job.fail(error)


def _give_up(job: _Job) -> None:
    with contextlib.suppress(CacheStoreError):
        job.remote.abort_upload(job.key, job.upload_id)
    job.save({})


def _already_there(remote: RemoteStore, key: str, size: int, sha256: str) -> RemoteObject | None:
    """A lost upload may be one that we finished without hearing so."""
    try:
        there = remote.head(key)
    except NotFound:
        return None
    return there if there.size == size and there.sha256 == sha256 else None
