"""One file of a migration: see what the target has, and bring the bytes if nobody loses by it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cachestore.clock import Deadline
from cachestore.core import Core
from cachestore.errors import CacheStoreError, NotFound, PreconditionFailed, SourceError
from cachestore.ingest.bucket import is_md5
from cachestore.ingest.deliver import ROUNDS
from cachestore.ingest.memory import Seen
from cachestore.ingest.origins import Entry, Origin, Taken
from cachestore.ingest.placing import is_marker
from cachestore.ingest.reading import Changing
from cachestore.ingest.turns import Turns
from cachestore.ingest.verifying import Verdict, Verifying
from cachestore.model import RemoteObject
from cachestore.policy.upload import same_content
from cachestore.remote.base import RemoteStore
from cachestore.uploads.outside import ComesFirst, Sent

Objects = dict[str, RemoteObject]


class Conflict(CacheStoreError):
    """The target has something else under the key, which may be newer."""


@dataclass(frozen=True, slots=True)
class Brought:
    """What became of a file. `gone`: it left the origin meanwhile; `left`: it was not tried."""

    outcome: Literal["copied", "skipped", "gone", "left"]
    seen: Seen | None = None
    size: int = 0


def pending_of(core: Core) -> frozenset[str]:
    """Keys with a change that the bucket does not have yet."""
    return frozenset(item.key for item in core.uploader.pending() if item.state != "foreign")


def _state(entry: Entry) -> str:
    """Names one version of a file in what is remembered."""
    return f"{entry.key}\n{entry.version}"


class Bringing:
    """Brings files of an origin to the bucket, for one run. Safe to share by threads.

    `there`: the target's objects by key, as they were listed. `rows`: what earlier runs brought.
    """

    def __init__(
        self, core: Core, remote: RemoteStore, turns: Turns, origin: Origin,
        there: Objects, rows: Iterable[Seen], *, overwrite: bool, dry: bool,
    ) -> None:  # fmt: skip
        self._outside = core.uploader.outside
        self._clock = core.clock
        self._remote = remote
        self._turns = turns
        self._origin = origin
        self._there = there
        self._rows = {row.path: row for row in rows}
        self._brought = {(row.key, row.etag) for row in self._rows.values()}
        self._overwrite = overwrite
        self._dry = dry
        self._pending = pending_of(core)

    def bring(self, entry: Entry) -> Brought:
        """See that the target has a file. Raises `Stopped`, `Conflict`, and why it has not."""
        if entry.key in self._pending:
            return Brought("left")
        deadline = self._turns.deadline()
        for _ in range(ROUNDS):
            self._turns.check()
            try:
                return self._once(entry, deadline)
            except Changing:
                now = self._origin.again(entry)
            except FileNotFoundError as error:
                if isinstance(error, NotFound):
                    raise
                now = None
            if now is None:
                return Brought("gone")
            entry = now
        raise SourceError(f"{entry.shown!r} changes faster than it can be copied; migrate again")

    def _once(self, entry: Entry, deadline: Deadline) -> Brought:
        found = self._there.get(entry.key)
        row = self._rows.get(_state(entry))
        if found is not None:
            remembered = row is not None and row.etag == found.etag
            if remembered or (entry.etag and entry.etag == found.etag):
                return Brought("skipped")
            if self._is_equal(entry, found):
                return Brought("skipped", self._row(entry, "", found.etag))
            if found.size != entry.size:
                self._refuse_conflict(entry, found)
        elif self._dry:
            return Brought("copied", None, entry.size)
        with self._origin.opened(entry) as taken:
            if found is not None and self._has(found, taken):
                return Brought("skipped", self._row(taken.entry, taken.body.sha256, found.etag))
            if found is not None:
                self._refuse_conflict(entry, found)
            if self._dry:
                return Brought("copied", None, taken.body.size)
            brought = self._send(taken, "" if found is None else found.etag, deadline)
            if not taken.check():
                raise Changing("it changed while it was copied")
        return brought

    def _row(self, entry: Entry, sha256: str, etag: str) -> Seen:
        return Seen(_state(entry), "bucket", entry.key, entry.size, 0, 0, 0, sha256, etag)

    # -- comparing ---------------------------------------------------------------------------------

    def _is_equal(self, entry: Entry, found: RemoteObject) -> bool:
        """True if that is known without the bytes."""
        if found.size != entry.size:
            return False
        sha256, md5 = self._origin.digests(entry)
        if md5 and is_md5(found.etag):
            return md5 == found.etag
        return bool(sha256) and same_content(self._asked(found), entry.size, sha256)

    def _has(self, found: RemoteObject, taken: Taken) -> bool:
        if found.size != taken.body.size:
            return False
        if is_md5(found.etag):
            return found.etag == taken.md5
        return same_content(self._asked(found), taken.body.size, taken.body.sha256)

    def _asked(self, found: RemoteObject) -> RemoteObject:
        """With the SHA-256 that we stored beside it, if we did."""
        if found.sha256 is not None:
            return found
        return self._head(found.key) or found

    def _head(self, key: str) -> RemoteObject | None:
        def ask(tries: int) -> RemoteObject | None:
            try:
                return self._remote.head(key)
            except NotFound:
                return None

        return self._turns.ask(ask, self._turns.deadline())

    def _refuse_conflict(self, entry: Entry, found: RemoteObject) -> None:
        """Only what an earlier run brought is replaced, unless it was asked for."""
        if not self._overwrite and (entry.key, found.etag) not in self._brought:
            raise Conflict(
                f"the bucket has something else under {entry.key!r} ({found.size} bytes, the"
                f" source {entry.size}); compare them, or migrate with overwrite"
            )

    # -- sending -----------------------------------------------------------------------------------

    def _send(self, taken: Taken, expected: str, deadline: Deadline) -> Brought:
        """Send over `expected`, the target's ETag ("" for nothing), and over nothing else."""
        state: dict[str, Any] = {}

        def save(now: Mapping[str, Any]) -> None:
            state.clear()
            state.update(now)

        def unchanged() -> None:
            if not taken.check():
                raise Changing("it changed between two tries")

        while True:
            try:
                sent = self._turns.ask(
                    lambda tries: self._attempt(taken, expected, state, save, tries), deadline,
                    unchanged,
                )  # fmt: skip
            except ComesFirst as first:
                if first.id is not None:
                    raise Conflict(f"{first}, and comes first; flush, then migrate again") from None
                if deadline.passed():
                    raise
                self._turns.pause(0.02 + 0.1 * random.random())
                continue
            except PreconditionFailed:
                sent = self._had(taken)
            if sent is None:
                raise Conflict(f"{taken.entry.key!r} was changed in the bucket meanwhile")
            if sent.look_at is not None:
                self._look_again(taken, sent.look_at)
            key, body = taken.entry.key, taken.body
            self._there_now(key, sent.found)
            return Brought(
                "copied", self._row(taken.entry, body.sha256, sent.found.etag), body.size
            )

    def _look_again(self, taken: Taken, when: float) -> None:
        """An older request of a process that died may come late: look, and send again."""
        self._turns.pause(when - self._clock.now())
        key, body = taken.entry.key, taken.body
        if not self._turns.ask(
            lambda tries: self._outside.confirm(key, body.size, body.sha256), self._turns.deadline()
        ):
            found = self._head(key)
            if found is not None:
                self._there_now(key, found)
            raise Changing(f"an older upload of {key!r} came late")

    def _there_now(self, key: str, found: RemoteObject) -> None:
        """A file that changes while it is sent is compared with what we just sent."""
        self._there[key] = found
        self._brought.add((key, found.etag))

    def _attempt(
        self, taken: Taken, expected: str, state: dict[str, Any],
        save: Callable[[Mapping[str, Any]], None], tries: int,
    ) -> Sent | None:  # fmt: skip
        """One try; None if somebody else was faster."""
        remote, body = self._remote, taken.body
        if tries > 1 or not remote.conditional:
            sent = self._had(taken)
            if sent is not None:
                return sent
            found = self._head(taken.entry.key)
            if (found.etag if found else "") != expected:
                return None
        fenced: dict[str, Any] = {}
        if remote.conditional:
            fenced = {"if_match": expected} if expected else {"if_none_match": "*"}
        return self._outside.put(
            taken.entry.key, body, taken.attributes, state=state, save_state=save,
            cancelled=self._turns.is_stopped, tries=tries, **fenced,
        )  # fmt: skip

    def _had(self, taken: Taken) -> Sent | None:
        """An earlier try of ours may have arrived, though nobody heard so."""
        found, body = self._head(taken.entry.key), taken.body
        if found is None or not same_content(found, body.size, body.sha256):
            return None
        self._outside.adopt(taken.entry.key, found.etag)
        return Sent(found)


class BucketTarget:
    """The store's own bucket, as a migration brings files to it."""

    def __init__(
        self, core: Core, remote: RemoteStore, turns: Turns, origin: Origin, prefix: str, *,
        overwrite: bool, dry: bool,
    ) -> None:  # fmt: skip
        self._core = core
        self._remote = remote
        self._turns = turns
        self._origin = origin
        self._prefix = prefix
        self._overwrite = overwrite
        self._dry = dry
        self.name = remote.remote_id

    def listed(self) -> Objects:
        objects = (found for page in self._remote.list(self._prefix) for found in page.objects)
        return {found.key: found for found in objects if not is_marker(found.key, found.size)}

    def bringing(self, there: Objects, rows: Iterable[Seen]) -> Callable[[Entry], Brought]:
        return Bringing(
            self._core, self._remote, self._turns, self._origin, there, rows,
            overwrite=self._overwrite, dry=self._dry,
        ).bring  # fmt: skip

    def verifying(self, there: Objects) -> Callable[[Entry], Verdict]:
        return Verifying(self._remote, self._turns, self._origin, there).compare
