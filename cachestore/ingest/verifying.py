"""Whether both sides of a migration have the same bytes under a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from cachestore.errors import NotFound, SourceError
from cachestore.ingest.bucket import is_md5
from cachestore.ingest.origins import Entry, Origin
from cachestore.ingest.turns import Turns
from cachestore.model import RemoteObject
from cachestore.remote.base import RemoteStore

Verdict = Literal["same", "unproven", "gone"]


class Verifying:
    """Compares files of an origin with the target's objects. Safe to share by threads."""

    def __init__(
        self, remote: RemoteStore, turns: Turns, origin: Origin, there: Mapping[str, RemoteObject]
    ) -> None:
        self._remote = remote
        self._turns = turns
        self._origin = origin
        self._there = there

    def compare(self, entry: Entry) -> Verdict:
        """Compare size, and SHA-256 or MD5. Raises `SourceError` where they differ.

        Bytes are read where no digest of them is known and the target's is: a file always, an
        object of another bucket if it has neither an MD5 as its ETag nor our SHA-256.
        """
        try:
            return self._compared(entry)
        except (FileNotFoundError, SourceError):
            now = self._origin.again(entry)
            if now is None:
                return "gone"
            if now.version == entry.version:
                raise
        return self._compared(now)  # it changed since it was found

    def _compared(self, now: Entry) -> Verdict:
        found = self._there[now.key]
        if found.size != now.size:
            raise _differs(now, f"{found.size} bytes, the source has {now.size}")
        sha256, md5 = self._origin.digests(now)
        if not md5 and is_md5(found.etag):
            return self._read(now, found.etag, "")
        if md5 and is_md5(found.etag):
            return _judged(now, md5 == found.etag)
        known = self._sha256(found)
        if known and sha256:
            return _judged(now, sha256 == known)
        return self._read(now, "", known) if known else "unproven"

    def _read(self, entry: Entry, md5: str, sha256: str) -> Verdict:
        with self._origin.opened(entry) as taken:
            same = taken.md5 == md5 if md5 else taken.body.sha256 == sha256
        return _judged(entry, same)

    def _sha256(self, found: RemoteObject) -> str:
        def ask(tries: int) -> str:
            try:
                return self._remote.head(found.key).sha256 or ""
            except NotFound:
                return ""

        return self._turns.ask(ask, self._turns.deadline())


def _judged(entry: Entry, same: bool) -> Verdict:
    if not same:
        raise _differs(entry, "other bytes of the same length")
    return "same"


def _differs(entry: Entry, what: str) -> SourceError:
    return SourceError(f"the bucket has something else under {entry.key!r}: {what}")
