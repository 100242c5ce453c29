"""One key at a time: see whether the folder has it, fetch it, check it, give it its name."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cachestore.core import Core, info_of_remote
from cachestore.errors import CacheStoreError, Corrupt, InvalidKey, NotFound
from cachestore.files import COPY_CHUNK
from cachestore.ingest.bucket import is_md5
from cachestore.ingest.landing import InTheWay, Landing, Staged
from cachestore.ingest.memory import Seen
from cachestore.ingest.turns import Turns
from cachestore.keys import check_key
from cachestore.model import ObjectInfo, RemoteObject
from cachestore.remote.budget import Budget
from cachestore.remote.fetching import fetch, verify_digest
from cachestore.store import CacheStore


@dataclass(frozen=True, slots=True)
class Job:
    """An object, and its path in the folder."""

    info: ObjectInfo
    path: str


@dataclass(frozen=True, slots=True)
class Arrived:
    """What became of a key: `gone` if it was deleted meanwhile. `size` in bytes."""

    outcome: Literal["exported", "skipped", "gone"]
    seen: Seen | None = None
    size: int = 0


class Fetching:
    """Brings objects to their paths, for one run. Safe to share by threads.

    `rows`: what earlier exports wrote, by path. `partial`: bytes that have come, by path, of files
    on their way.
    """

    def __init__(
        self, store: CacheStore, core: Core, turns: Turns, landing: Landing,
        rows: Mapping[str, Seen], *, past_cache: bool, verify: bool, overwrite: bool, dry: bool,
    ) -> None:  # fmt: skip
        self._store = store
        self._core = core
        self._turns = turns
        self._landing = landing
        self._rows = rows
        self._past_cache = past_cache
        self._verify = verify
        self._overwrite = overwrite
        self._dry = dry
        self._budget = Budget(core.options.in_flight_bytes)
        self.partial: dict[str, int] = {}

    def bring(self, job: Job) -> Arrived:
        """See that the folder has an object as it is now. Raises `Stopped`, and why it has not."""
        there = self._landing.look(job.path)
        ours = self._is_ours(job.path, there)
        equal = None if there is None else self._is_equal(job, there, ours)
        if equal and there is not None:
            return Arrived("skipped", self._settled(job, there))
        mine = there is None or ours or self._overwrite
        if not mine and equal is False:
            raise _conflict(self._landing.root / job.path)
        if self._dry:
            return Arrived("exported", None, job.info.size)
        staged = self._landing.stage()
        try:
            return self._fetch(job, staged, there if not mine else None)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._turns.stop(f"the disk of {self._landing.root} is full")
            raise
        finally:
            self._landing.drop(staged)

    # -- what is there -----------------------------------------------------------------------------

    def _is_ours(self, path: str, there: os.stat_result | None) -> bool:
        """True if nobody touched the file since an export wrote it."""
        seen = self._rows.get(path)
        return there is not None and seen is not None and _mark(there) == _mark_of(seen)

    def _is_equal(self, job: Job, there: os.stat_result, ours: bool) -> bool | None:
        """Whether a file has the object's bytes; None if only a download can tell."""
        info, seen = job.info, self._rows.get(job.path)
        if there.st_size != info.size:
            return False
        was = seen if ours else None
        if was is not None and not self._verify and _is_version(was, info):
            return True
        if info.sha256 is None and not is_md5(info.etag):
            # An object's time has whole seconds: two versions may share one.
            other = was is not None and was.etag and info.etag
            if not self._verify and not other and there.st_mtime_ns == modified_ns(info):
                return True
            info = self._asked(info)
        return _has_digest(self._landing.root / job.path, info, self._turns)

    def _asked(self, info: ObjectInfo) -> ObjectInfo:
        """The listing does not know its digest; perhaps we stored one with it."""
        remote = self._core.remote
        if remote is None:
            return info
        try:
            found = self._turns.ask(
                lambda tries: _or_none(remote.head, info.key), self._turns.deadline()
            )
        except (CacheStoreError, ValueError):
            return info
        return info if found is None else replace(info, etag=found.etag, sha256=found.sha256)

    def _settled(self, job: Job, there: os.stat_result) -> Seen:
        """Remember a file that is as it should be; its time tells so too."""
        wanted = modified_ns(job.info)
        if not self._dry and there.st_mtime_ns != wanted:
            target = self._landing.root / job.path
            with contextlib.suppress(OSError):
                os.utime(target, ns=(wanted, wanted), follow_symlinks=False)
                there = os.lstat(target)
        return _row(job, there, job.info)

    # -- fetching ----------------------------------------------------------------------------------

    def _fetch(self, job: Job, staged: Staged, compared: os.stat_result | None) -> Arrived:
        """`compared`: a file of somebody else's, which may have these very bytes."""
        got = self._turns.ask(lambda tries: self._fill(job, staged.fd), self._turns.deadline())
        if got is None:
            return Arrived("gone")
        if compared is not None:
            if _digest(self._landing.root / job.path, self._turns) != got.sha256:
                raise _conflict(self._landing.root / job.path)
            return Arrived("skipped", self._settled(job, compared))
        self._turns.check()
        info = self._landing.publish(staged, job.path, modified_ns(got))
        return Arrived("exported", _row(job, info, got), got.size)

    def _fill(self, job: Job, fd: int) -> ObjectInfo | None:
        """Write an object's bytes, and check them; None if it is gone."""
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        self.partial[job.path] = 0
        try:
            if self._goes_past(job.info):
                return self._past(job, fd)
            return self._through(job, fd)
        except NotFound:
            return None

    def _goes_past(self, info: ObjectInfo) -> bool:
        if self._core.remote is None or info.storage != "remote":
            return False
        try:
            check_key(info.key)
        except InvalidKey:  # the bucket's other users may have such keys
            return True
        return self._past_cache

    def _through(self, job: Job, fd: int) -> ObjectInfo:
        """By way of the cache, or from the spool or LOCAL_DIR."""
        with self._store.open(job.info.key) as file:
            info = file.info
            sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
            wants_md5 = info.sha256 is None and is_md5(info.etag)
            while chunk := file.read(COPY_CHUNK):
                self._turns.check()
                self._core.files.write(fd, chunk)
                sha256.update(chunk)
                if wants_md5:
                    md5.update(chunk)
                self.partial[job.path] += len(chunk)
        found = sha256.hexdigest()
        wrong = md5.hexdigest() != info.etag if wants_md5 else info.sha256 not in (None, found)
        if wrong or os.fstat(fd).st_size != info.size:
            raise Corrupt(f"get {info.key!r}: its copy here is not what the bucket has")
        return replace(info, sha256=found)

    def _past(self, job: Job, fd: int) -> ObjectInfo:
        """From the bucket, without a copy here."""
        remote, options = self._core.remote, self._core.options
        assert remote is not None

        def write_at(offset: int, data: bytes) -> None:
            self._turns.check()
            self._core.files.pwrite(fd, data, offset)
            self.partial[job.path] += len(data)

        fetched = fetch(
            remote, job.info.key, write_at, size_hint=job.info.size, parts=options.download_parts,
            part_size=options.part_size, budget=self._budget, timeout=options.miss_deadline,
        )  # fmt: skip
        if not fetched.verified:
            verify_digest(fd, fetched.info)
        digest = fetched.info.sha256 or _digest(fd, self._turns)
        return replace(info_of_remote(fetched.info, job.info.key), sha256=digest)


def _or_none(head: object, key: str) -> RemoteObject | None:
    assert callable(head)
    try:
        found: RemoteObject = head(key)
    except NotFound:
        return None
    return found


def modified_ns(info: ObjectInfo) -> int:
    """When an object was made, in nanoseconds since the epoch."""
    return round(info.last_modified.timestamp() * 1e6) * 1000


def _mark(info: os.stat_result) -> tuple[int, int, int]:
    return info.st_size, info.st_mtime_ns, info.st_ino


def _mark_of(seen: Seen) -> tuple[int, int, int]:
    return seen.size, seen.mtime_ns, seen.inode


def _is_version(seen: Seen, info: ObjectInfo) -> bool:
    """True if what was written then is the object's present version."""
    if info.etag and seen.etag:
        return info.etag == seen.etag
    return info.sha256 is not None and info.sha256 == seen.sha256


def _row(job: Job, info: os.stat_result, got: ObjectInfo) -> Seen:
    return Seen(
        job.path, "bucket", job.info.key, info.st_size, info.st_mtime_ns, info.st_ino,
        info.st_ctime_ns, got.sha256 or "", got.etag,
    )  # fmt: skip


def _has_digest(path: Path, info: ObjectInfo, turns: Turns) -> bool | None:
    """Whether a file has an object's digest; None where none is known."""
    if info.sha256 is not None:
        return _digest(path, turns) == info.sha256
    if is_md5(info.etag):
        return _digest(path, turns, "md5") == info.etag
    return None


def _digest(file: Path | int, turns: Turns, kind: Literal["sha256", "md5"] = "sha256") -> str:
    """The digest of a file, given by its path or a descriptor whose position is not used."""
    digest = hashlib.new(kind, usedforsecurity=False)
    fd = file if isinstance(file, int) else os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        at = 0
        while chunk := os.pread(fd, COPY_CHUNK, at):
            turns.check()
            digest.update(chunk)
            at += len(chunk)
    finally:
        if fd is not file:
            os.close(fd)
    return digest.hexdigest()


def _conflict(path: Path) -> InTheWay:
    return InTheWay(
        f"{path} is another file, which no export wrote; move it away, or export with overwrite"
    )
