"""From the bucket into LOCAL_DIR, so that local mode has what was stored while R2 was on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from cachestore.core import Core
from cachestore.errors import NotFound, SourceError
from cachestore.files import COPY_CHUNK
from cachestore.ingest.bringing import Brought, Conflict, Objects, pending_of
from cachestore.ingest.bucket import is_md5
from cachestore.ingest.memory import Seen
from cachestore.ingest.origins import BucketOrigin, Entry, Taken
from cachestore.ingest.turns import Turns
from cachestore.ingest.verifying import Verdict
from cachestore.local.folder_reader import LocalFile
from cachestore.local.records import Record
from cachestore.local.spool import new_id
from cachestore.model import RemoteObject


class HomeTarget:
    """LOCAL_DIR as a migration brings files to it: each with a record that it was sent."""

    def __init__(
        self, core: Core, turns: Turns, origin: BucketOrigin, prefix: str, *, overwrite: bool,
        dry: bool,
    ) -> None:  # fmt: skip
        self._core = core
        self._turns = turns
        self._origin = origin
        self._prefix = prefix
        self._overwrite = overwrite
        self._dry = dry
        self._pending = pending_of(core)
        self.name = str(core.options.local_dir)

    def listed(self) -> Objects:
        found: Objects = {}
        for key in self._core.folder.list(self._prefix):
            there = self._readable(key)
            if there is not None and not key.startswith(self._core.options.local_only_prefixes):
                found[key] = RemoteObject(key, there.size, "")
        return found

    def _readable(self, key: str) -> LocalFile | None:
        """The file that local mode would serve."""
        there, record = self._core.folder.locate(key), self._core.folder.record(key)
        return None if record is not None and record.state == "superseded" else there

    def bringing(self, there: Objects, rows: Iterable[Seen]) -> Callable[[Entry], Brought]:
        return self._bring

    def _bring(self, entry: Entry) -> Brought:
        self._turns.check()
        if entry.key in self._pending:
            return Brought("skipped")  # what is newer is here already
        there = self._readable(entry.key)
        record = None if there is None else there.record
        sent = record is not None and record.state == "sent" and record.etag == entry.version
        if there is not None and sent and there.as_recorded:
            return Brought("skipped")
        if there is not None and there.legacy and self._has(there, entry):
            return self._recognize(there, entry)
        edited = there is not None and not there.as_recorded  # or an older app's
        if edited and not self._overwrite:
            raise Conflict(
                f"{there.path if there else ''} is not what the bucket has, and no put of ours"
                " made it; compare them, or migrate with overwrite"
            )
        if self._dry:
            return Brought("copied", None, entry.size)
        try:
            with self._origin.opened(entry) as taken:
                return self._store(entry.key, taken)
        except FileNotFoundError as error:
            if isinstance(error, NotFound):
                raise
            return Brought("gone")

    def _has(self, there: LocalFile, entry: Entry) -> bool:
        if there.size != entry.size:
            return False
        sha256, md5 = self._origin.digests(entry)
        return bool(md5 or sha256) and (sha256, md5) == self._hashed(there, sha256, md5)

    def _hashed(self, there: LocalFile, sha256: str, md5: str) -> tuple[str, str]:
        """The digests of a file that are asked for, "" for others."""
        sums: list[Any] = [hashlib.sha256(), hashlib.md5(usedforsecurity=False)]
        fd = self._core.files.open_read(there.path)
        try:
            while chunk := os.read(fd, COPY_CHUNK):
                self._turns.check()
                for each in sums:
                    each.update(chunk)
        finally:
            os.close(fd)
        return (sums[0].hexdigest() if sha256 else "", sums[1].hexdigest() if md5 else "")

    def _recognize(self, there: LocalFile, entry: Entry) -> Brought:
        """An older app's file is the bucket's object: that it was sent is all there is to say."""
        core = self._core
        if self._dry:
            return Brought("skipped")
        attributes = core.folder.info(there)
        record = Record(
            key=entry.key, id=new_id(), operation="put", remote_id=core.remote_id,
            time=core.clock.now(), state="sent", etag=entry.version,
            sha256=self._hashed(there, "wanted", "")[0], content_type=attributes.content_type,
        )  # fmt: skip
        with core.spool.lock(core.spool.place(entry.key)):
            core.folder.recognize(there, record)
        return Brought("skipped")

    def _store(self, key: str, taken: Taken) -> Brought:
        core, body = self._core, taken.body
        source: Any = body.source
        if isinstance(source, int):
            source = os.fdopen(os.dup(source), "rb")
        staged = core.folder.stage(key, source, taken.attributes)
        try:
            etag = taken.entry.version
            staged.record = replace(staged.record, state="sent", etag=etag)
            place = core.spool.place(key)
            with core.spool.lock(place):
                if core.newest(key, place) is None:
                    core.folder.publish(staged, replaces=None)
                    core.board.change(place.slot)
        finally:
            core.folder.drop(staged)
            if source is not body.source:
                source.close()
        return Brought("copied", None, body.size)

    def verifying(self, there: Objects) -> Callable[[Entry], Verdict]:
        return self._compare

    def _compare(self, entry: Entry) -> Verdict:
        there = self._readable(entry.key)
        if there is None or entry.key in self._pending:
            return "gone"
        sha256, md5 = self._origin.digests(entry)
        if not sha256 and not md5 and there.record is not None:
            sha256 = there.record.sha256  # of the bytes as they came
        if there.size != entry.size or (sha256, md5) != self._hashed(there, sha256, md5):
            raise SourceError(f"{there.path} is not what the bucket has under {entry.key!r}")
        return "same" if is_md5(md5) or sha256 else "unproven"
