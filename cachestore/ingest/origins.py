"""Where a migration takes files from: a folder, LOCAL_DIR, or another bucket."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from cachestore.core import Core
from cachestore.errors import InvalidKey, NotFound
from cachestore.files import COPY_CHUNK
from cachestore.ingest.bucket import is_md5
from cachestore.ingest.placing import is_marker
from cachestore.ingest.reading import IN_MEMORY, mark_at, whole
from cachestore.ingest.scan import Patterns, Scanner, Source, own_folders
from cachestore.ingest.turns import Turns
from cachestore.keys import check_key
from cachestore.local.folder_reader import LocalFile
from cachestore.local.media import guess_type
from cachestore.model import Attributes, RemoteObject
from cachestore.remote.base import RemoteStore
from cachestore.remote.budget import Budget
from cachestore.remote.fetching import fetch, verify_digest
from cachestore.uploads.outside import Body

_LARGE = 64 << 20
_LARGE_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an origin. `version` tells one state of it from the next; `shown` is for people.

    `etag`: what the bucket already called these bytes when it got them, "" if it did not. `fault`:
    why it cannot take part; then `passing` says whether that is nobody's mistake.
    """

    key: str
    shown: str
    size: int
    version: str
    source: Any
    attributes: Attributes | None = None
    etag: str = ""
    fault: str = ""
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """A file's bytes and what goes with them, whole. `md5` "" where it was not computed."""

    entry: Entry
    body: Body
    attributes: Attributes
    md5: str
    check: Callable[[], bool] = lambda: True


class Origin(Protocol):
    """What a migration takes from. `id`: tells it from others between runs."""

    id: str
    name: str

    def entries(self) -> Iterator[Entry]:
        """All files, in no order. Raises what listing raises."""
        ...

    def again(self, entry: Entry) -> Entry | None:
        """The file as it is now; None if it is gone."""
        ...

    def digests(self, entry: Entry) -> tuple[str, str]:
        """SHA-256 and MD5 as far as they are known without the bytes, else ""."""
        ...

    def opened(self, entry: Entry) -> AbstractContextManager[Taken]:
        """The bytes, for the length of the block. Raises `FileNotFoundError`, `Changing`, why not.

        `Taken.check()` is False once the file is another one than was read.
        """
        ...


class _OnDisk:
    """What all files of a folder have in common."""

    _turns: Turns

    def again(self, entry: Entry) -> Entry | None:
        return _again(entry)

    def digests(self, entry: Entry) -> tuple[str, str]:
        return "", ""

    @contextmanager
    def opened(self, entry: Entry) -> Iterator[Taken]:
        with _opened_file(entry, self._turns) as taken:
            yield taken


class FolderOrigin(_OnDisk):
    """The files of a folder, below a prefix."""

    def __init__(self, core: Core, folder: str, prefix: str, turns: Turns) -> None:
        """Raises `ConfigError` if it is no folder, or one of the store's own."""
        self._turns = turns
        self._prefix = prefix
        self._faults: list[Entry] = []
        self._scanner = Scanner(folder, Patterns(), own_folders(core.options), self._unreadable)
        self.id = self.name = self._scanner.root

    def _unreadable(self, path: str, error: OSError) -> None:
        words = f"cannot be looked at: {error.strerror or error}"
        self._faults.append(Entry("", path, 0, "", None, fault=words))

    def entries(self) -> Iterator[Entry]:
        for source in self._scanner.files():
            try:
                key = check_key(self._prefix + source.path)
            except InvalidKey as error:
                yield Entry("", source.path, source.size, "", source, fault=str(error))
            else:
                yield _entry_of(key, source)
        yield from self._faults


class LocalOrigin(_OnDisk):
    """LOCAL_DIR: what local mode put there, and what an older app left."""

    def __init__(self, core: Core, prefix: str, turns: Turns) -> None:
        self._core = core
        self._prefix = prefix
        self._turns = turns
        self.id = self.name = os.path.realpath(core.options.local_dir)

    def entries(self) -> Iterator[Entry]:
        for key in self._core.folder.list(self._prefix):
            there = self._core.folder.locate(key)
            if there is None:
                continue
            record = there.record
            source = _source_of(there)
            if source is None:
                continue
            if record is not None and record.state == "superseded":
                old = "the bucket has a newer version"
                yield Entry(key, key, there.size, "", source, fault=old, passing=True)
                continue
            sent = record is not None and record.state == "sent" and there.as_recorded
            attributes = None if record is None else record.attributes
            etag = record.etag if record is not None and sent else ""
            yield _entry_of(key, source, attributes, etag)


class BucketOrigin:
    """Another bucket. Large objects pass through the system's temporary folder."""

    def __init__(self, core: Core, remote: RemoteStore, prefix: str, turns: Turns) -> None:
        self._core = core
        self._remote = remote
        self._prefix = prefix
        self._turns = turns
        self._budget = Budget(core.options.in_flight_bytes)
        self._large = threading.Semaphore(_LARGE_AT_ONCE)
        self.id = f"bucket:{remote.remote_id}"
        self.name = remote.name

    def entries(self) -> Iterator[Entry]:
        for page in self._remote.list(self._prefix):
            for found in page.objects:
                yield self._entry(found)

    def _entry(self, found: RemoteObject) -> Entry:
        if is_marker(found.key, found.size):
            marker = "it only shows an empty folder"
            return Entry("", found.key, 0, "", found, fault=marker, passing=True)
        try:
            key = check_key(found.key)
        except InvalidKey as error:
            return Entry("", found.key, found.size, "", found, fault=str(error))
        return Entry(key, found.key, found.size, found.etag, found)

    def again(self, entry: Entry) -> Entry | None:
        found = self._head(entry.key)
        return None if found is None else self._entry(found)

    def _head(self, key: str) -> RemoteObject | None:
        def ask(tries: int) -> RemoteObject | None:
            try:
                return self._remote.head(key)
            except NotFound:
                return None

        return self._turns.ask(ask, self._turns.deadline())

    def digests(self, entry: Entry) -> tuple[str, str]:
        listed: RemoteObject = entry.source
        if is_md5(listed.etag):
            return listed.sha256 or "", listed.etag
        found = listed if listed.sha256 is not None else self._head(entry.key)
        if found is None or found.etag != entry.version:
            return "", ""
        return found.sha256 or "", ""

    @contextmanager
    def opened(self, entry: Entry) -> Iterator[Taken]:
        if entry.size <= IN_MEMORY:
            memory = io.BytesIO()
            info = self._fetched(
                entry, lambda at, data: _write_at(memory, at, data), lambda: memory.truncate(0)
            )
            data = memory.getvalue()
            sha256, md5 = _digests([data])
            yield self._taken(info, Body(data, len(data), sha256), md5)
            return
        with self._large, tempfile.TemporaryFile() as file:
            fd = file.fileno()
            info = self._fetched(
                entry, lambda at, data: self._core.files.pwrite(fd, data, at),
                lambda: os.ftruncate(fd, 0), fd,
            )  # fmt: skip
            sha256, md5 = _digests(_chunks(fd))
            yield self._taken(info, Body(fd, os.fstat(fd).st_size, sha256), md5)

    def _fetched(
        self, entry: Entry, write_at: Callable[[int, bytes], None], empty: Callable[[], object],
        fd: int | None = None,
    ) -> RemoteObject:  # fmt: skip
        options = self._core.options
        lock = threading.Lock()

        def write(at: int, data: bytes) -> None:
            self._turns.check()
            with lock:
                write_at(at, data)

        def once(tries: int) -> RemoteObject | None:
            empty()
            try:
                fetched = fetch(
                    self._remote, entry.key, write, size_hint=entry.size,
                    parts=options.download_parts, part_size=options.part_size,
                    budget=self._budget, timeout=options.miss_deadline,
                )  # fmt: skip
            except NotFound:
                return None
            if not fetched.verified and fd is not None:
                verify_digest(fd, fetched.info)
            return fetched.info

        found = self._turns.ask(once, self._turns.deadline())
        if found is None:
            raise FileNotFoundError(f"{entry.key!r} is no longer in {self.name}")
        return found

    def _taken(self, info: RemoteObject, body: Body, md5: str) -> Taken:
        attributes = Attributes(info.content_type, dict(info.metadata), info.cache_control)
        return Taken(self._entry(info), body, attributes, md5)


def _entry_of(
    key: str, source: Source, attributes: Attributes | None = None, etag: str = ""
) -> Entry:
    version = f"{source.size}.{source.mtime_ns}.{source.inode}.{source.ctime_ns}"
    return Entry(key, source.path, source.size, version, source, attributes, etag)


def _source_of(there: LocalFile) -> Source | None:
    """A file of LOCAL_DIR as a scan would find it; None if it has gone."""
    try:
        return Source(there.key, str(there.path), *mark_at(str(there.path)))
    except FileNotFoundError:
        return None


def _again(entry: Entry) -> Entry | None:
    """A file as a scan would find it now."""
    old: Source = entry.source
    try:
        mark = mark_at(old.full)
    except FileNotFoundError:
        return None
    return _entry_of(entry.key, Source(old.path, old.full, *mark), entry.attributes)


@contextmanager
def _opened_file(entry: Entry, turns: Turns) -> Iterator[Taken]:
    source: Source = entry.source
    with whole(source, md5=True, cancelled=turns.is_stopped) as data:

        def unchanged() -> bool:
            try:
                return mark_at(source.full) == data.mark
            except FileNotFoundError:
                return True  # what was read was whole

        attributes = entry.attributes or Attributes(guess_type(entry.key))
        read = Source(source.path, source.full, *data.mark)
        now = _entry_of(entry.key, read, entry.attributes, entry.etag)
        yield Taken(now, data.body, attributes, data.md5, unchanged)


def _write_at(file: Any, at: int, data: bytes) -> None:
    file.seek(at)
    file.write(data)


def _chunks(fd: int) -> Iterator[bytes]:
    at = 0
    while chunk := os.pread(fd, COPY_CHUNK, at):
        yield chunk
        at += len(chunk)


def _digests(chunks: Any) -> tuple[str, str]:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        sha256.update(chunk)
        md5.update(chunk)
    return sha256.hexdigest(), md5.hexdigest()
