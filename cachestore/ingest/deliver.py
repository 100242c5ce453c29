"""One file at a time: read it, see whether the storage has it, send it, look at it again."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cachestore.clock import Deadline
from cachestore.core import Core
from cachestore.errors import (
    NotFound,
    PreconditionFailed,
    SourceError,
    TimedOut,
)
from cachestore.ingest.bucket import Bucket, is_md5
from cachestore.ingest.memory import Seen
from cachestore.ingest.plan import Item, Naming, is_same
from cachestore.ingest.reading import (
    IN_MEMORY,
    Changing,
    Mark,
    Unfinished,
    Whole,
    mark_at,
    whole,
)
from cachestore.ingest.scan import Source
from cachestore.ingest.sidecars import SidecarWriter, SourceFile, sidecar_key
from cachestore.ingest.turns import Turns
from cachestore.local.media import guess_type
from cachestore.model import Attributes, RemoteObject
from cachestore.policy.upload import same_content
from cachestore.store import CacheStore
from cachestore.uploads.outside import Body, ComesFirst

ROUNDS = 8
"""So often a file that changes while it is sent is sent again."""

_YOUNG_NS = 50_000_000
_SLOWEST_NS = 10
"""Nanoseconds for a byte that one write may take: 100 MB a second."""

_SLICE = 0.5
Outcome = Literal["uploaded", "skipped", "left", "gone", "unfinished"]
SaveParts = Callable[[Item, str, str, Mapping[str, Any]], None]
Named = Mapping[str, tuple[str, str]]
Parts = Mapping[tuple[str, str], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a file. `sent` bytes; `look_at`: see `uploads.outside.Sent`."""

    outcome: Outcome
    seen: Seen | None = None
    sent: int = 0
    look_at: float | None = None


class Delivery:
    """Brings files under their keys, for one run. Safe to share by threads.

    `parts`: how far uploads of large files had come, by key and SHA-256; `save_parts` hears how
    far they are. `named`: path and SHA-256 of what is known to have a key. With `dry` nothing is
    sent. `check`: compare also what is remembered. `finished`: leave what is being written.
    """

    def __init__(
        self, store: CacheStore, core: Core, turns: Turns, naming: Naming, bucket: Bucket | None, *,
        writer: SidecarWriter | None, parts: Parts, save_parts: SaveParts, named: Named,
        dry: bool, check: bool, finished: bool,
    ) -> None:  # fmt: skip
        self._store = store
        self._core = core
        self._turns = turns
        self._naming = naming
        self._bucket = bucket
        self._writer = writer
        self._parts = parts
        self._save_parts = save_parts
        self._dry = dry
        self._check = check
        self._finished = finished
        self._lock = threading.Lock()
        self._named: dict[str, tuple[str, str]] = dict(named)

    def take(self, item: Item) -> Done:
        """See that the storage has a file as it is now; `item.key` is set when this returns.

        Raises `Stopped`, `InvalidKey`, and why it could not be had.
        """
        if item.error:
            raise SourceError(item.error)
        if item.kind == "sidecar" and item.main is not None and not item.key:
            item.key = sidecar_key(item.main.key, whole=item.whole)
        deadline, ask, rounds = self._turns.deadline(), item.asked, 0
        while True:
            self._turns.check()
            try:
                return self._once(item, deadline, ask)
            except FileNotFoundError as error:
                if isinstance(error, NotFound):
                    raise
                return Done("gone")
            except Unfinished:
                return Done("unfinished")
            except Changing:
                rounds += 1
                if rounds >= ROUNDS and self._finished:
                    return Done("unfinished")
                if rounds >= ROUNDS:
                    raise SourceError(
                        f"{item.source.path!r} changes faster than it can be sent; sync again"
                    ) from None
                # What was listed, or remembered, may be what we sent over a moment ago.
                item.source, item.seen, ask = self._again(item.source), None, True
                if item.kind == "file" and self._naming.varies:
                    item.key = ""
            except ComesFirst as error:
                self._let_go_first(item.key, error, deadline)
                ask = True

    def _again(self, source: Source) -> Source:
        """The file as it is now, as a scan would find it."""
        with contextlib.suppress(FileNotFoundError):
            return Source(source.path, source.full, *mark_at(source.full))
        return source

    # -- one look ----------------------------------------------------------------------------------

    def _once(self, item: Item, deadline: Deadline, ask: bool) -> Done:
        if item.kind == "made":
            return self._made(item, deadline, ask)
        self._let_settle(item.source)
        found: RemoteObject | None = None
        if item.key and not ask and self._is_left(item):
            return Done("left")
        md5 = False
        if item.key and self._is_compared(item):
            found = self._find(item.key, deadline, ask)
            md5 = found is not None and found.size == item.source.size and is_md5(found.etag)
            if found is not None and self._is_as_remembered(item, found):
                assert item.seen is not None
                look_at = self._look_at(item.key, item.seen.sha256)
                return Done("skipped", item.seen, look_at=look_at)
        stopped = self._turns.is_stopped
        with whole(item.source, md5=md5, cancelled=stopped, finished=self._finished) as data:
            if _state(item.source) != data.mark:
                raise Changing("it changed since it was found")
            if not item.key:
                item.key = self._naming.key(item.source, item.document, data.body.sha256)
                self._refuse_double(item, data.body.sha256)
                if self._is_compared(item):
                    found = self._find(item.key, deadline, ask)
            done = self._bring(item, data, found, deadline)
            with contextlib.suppress(FileNotFoundError):  # what was sent was whole
                if not self._dry and mark_at(item.source.full) != data.mark:
                    raise Changing("it changed while it was sent")
        return done

    def _refuse_double(self, item: Item, sha256: str) -> None:
        """Two files whose keys come from their bytes, and are the same though these differ."""
        with self._lock:
            first = self._named.setdefault(item.key, (item.path, sha256))
            if first[0] == item.path:
                self._named[item.key] = (item.path, sha256)
            elif first[1] != sha256:
                raise SourceError(f"{first[0]!r} has the same key {item.key!r}")

    def _is_compared(self, item: Item) -> bool:
        """False where it is remembered what the storage has under the key."""
        remembered = item.seen is not None and item.seen.key == item.key
        return self._is_remote(item.key) and (self._check or not remembered)

    def _is_as_remembered(self, item: Item, found: RemoteObject) -> bool:
        """True if neither the file nor the object changed since they were the same."""
        seen = item.seen
        if seen is None or seen.key != item.key or not is_same(item.source, seen):
            return False
        return seen.etag != "" and (found.etag, found.size) == (seen.etag, seen.size)

    def _let_settle(self, source: Source) -> None:
        """A write in the same tick of the disk's clock, or one that is still under way, would not
        show: the time is noted when a write begins. Let it pass."""
        now, left = self._core.clock.now() * 1e9, 0.0
        written = _YOUNG_NS + source.size * _SLOWEST_NS
        for time_ns, young in ((source.mtime_ns, written), (source.ctime_ns, _YOUNG_NS)):
            if 0 <= now - time_ns < young:
                left = max(left, young - (now - time_ns))
        self._turns.pause(left / 1e9)

    def _is_left(self, item: Item) -> bool:
        """True if the limit is reached and the file would have to be sent; it is not read then."""
        if item.kind != "file" or not self._turns.used_up or not self._is_compared(item):
            return False
        if self._bucket is None or not self._bucket.knows(item.key):
            return False
        found = self._bucket.find(item.key)
        return found is None or found.size != item.source.size

    def _bring(
        self, item: Item, data: Whole, found: RemoteObject | None, deadline: Deadline
    ) -> Done:
        """Skip what is there, send what is not."""
        body, seen = data.body, item.seen
        if not self._is_remote(item.key):
            return self._bring_home(item, data)
        if not self._is_compared(item) and seen is not None and seen.sha256 == body.sha256:
            return Done("skipped", self._seen(item, data.mark, body.sha256, seen.etag))
        if found is not None and self._has(item.key, found, data, deadline):
            look_at = self._look_at(item.key, body.sha256)
            if not self._dry:
                self._core.uploader.outside.adopt(item.key, found.etag)
            seen = self._seen(item, data.mark, body.sha256, found.etag)
            return Done("skipped", seen, look_at=look_at)
        if not self._may_send(item):
            return Done("left")
        if self._dry:
            return Done("uploaded", None, body.size)
        try:
            return self._upload(item, data.mark, body, deadline)
        except SourceError:
            if mark_at(item.source.full) != data.mark:
                raise Changing("it changed while it was sent") from None
            raise

    def _may_send(self, item: Item) -> bool:
        """False when the limit is reached. Sidecars go with their files."""
        if item.kind == "file" and not item.taken:
            item.taken = self._turns.take()
            return item.taken
        return True

    def _upload(self, item: Item, mark: Mark, body: Body, deadline: Deadline) -> Done:
        key, attributes = item.key, Attributes(guess_type(item.key))
        saved = self._parts.get((key, body.sha256), {}) if body.size > IN_MEMORY else {}

        def save(state: Mapping[str, Any]) -> None:
            nonlocal saved
            saved = dict(state)  # for the next try
            self._save_parts(item, key, body.sha256, state)

        def unchanged() -> None:
            if mark_at(item.source.full) != mark:
                raise Changing("it changed between two tries")

        sent = self._turns.ask(
            lambda tries: self._core.uploader.outside.put(
                key, body, attributes, state=saved, save_state=save,
                cancelled=self._turns.is_stopped, tries=tries,
            ),
            deadline,
            unchanged,
        )  # fmt: skip
        seen = self._seen(item, mark, body.sha256, sent.found.etag)
        return Done("uploaded", seen, body.size, sent.look_at)

    # -- the remote --------------------------------------------------------------------------------

    def _is_remote(self, key: str) -> bool:
        return not self._core.is_local(key)

    def _find(self, key: str, deadline: Deadline, ask: bool) -> RemoteObject | None:
        """What the bucket has under a key; None also where nothing has to be compared."""
        bucket = self._bucket
        if bucket is None:
            return None
        if not ask and bucket.knows(key):
            return bucket.find(key)
        return self._turns.ask(lambda tries: bucket.ask(key), deadline)

    def _look_at(self, key: str, sha256: str) -> float | None:
        """When to look whether the bucket still has what is there now; see `Done`.

        Raises `ComesFirst`: what is pending may be about to take it away.
        """
        return None if self._dry else self._core.uploader.outside.stays(key, sha256)

    def _has(self, key: str, found: RemoteObject, data: Whole, deadline: Deadline) -> bool:
        """True if the bucket has these bytes."""
        body = data.body
        if found.size != body.size:
            return False
        if data.md5 and is_md5(found.etag):
            return data.md5 == found.etag
        if isinstance(body.source, bytes) and is_md5(found.etag):
            return hashlib.md5(body.source, usedforsecurity=False).hexdigest() == found.etag
        if found.sha256 is None and self._bucket is not None:
            bucket = self._bucket
            looked = self._turns.ask(lambda tries: bucket.ask(key), deadline)
            return looked is not None and same_content(looked, body.size, body.sha256)
        return same_content(found, body.size, body.sha256)

    def _let_go_first(self, key: str, first: ComesFirst, deadline: Deadline) -> None:
        """What is pending was acknowledged earlier, so it goes earlier. Raises why it does not."""
        if self._dry:
            return
        if first.id is None:
            if deadline.passed():
                raise first
            self._turns.pause(0.02 + 0.1 * random.random())
            return
        while True:
            self._turns.check()
            try:
                state = self._core.uploader.wait(key, first.id, min(_SLICE, deadline.left()))
            except TimedOut as error:
                if deadline.passed():
                    raise ComesFirst(
                        f"{first}, and goes first; sync again later ({error})"
                    ) from None
                continue
            except PreconditionFailed:
                return  # its own condition did not hold: it was taken back
            if state == "parked":
                raise ComesFirst(f"{first}, and needs a person; see `cachestore queue`")
            return

    def _seen(self, item: Item, mark: Mark, sha256: str, etag: str) -> Seen:
        """What is remembered of a file, in the state in which it was read."""
        place = "bucket" if self._is_remote(item.key) else "folder"
        return Seen(item.path, place, item.key, *mark, sha256, etag)

    def confirm(self, seen: Seen) -> bool:
        """Look whether the bucket still has what was sent."""
        outside, deadline = self._core.uploader.outside, self._turns.deadline()
        return self._turns.ask(
            lambda tries: outside.confirm(seen.key, seen.size, seen.sha256), deadline
        )

    # -- LOCAL_DIR, and documents ------------------------------------------------------------------

    def _bring_home(self, item: Item, data: Whole) -> Done:
        """Into LOCAL_DIR, where `put` reads the file itself."""
        body = data.body
        seen = self._seen(item, data.mark, body.sha256, "")
        with contextlib.suppress(NotFound):
            there = self._store.head(item.key)
            if (there.size, there.sha256) == (body.size, body.sha256):
                return Done("skipped", seen)
        if not self._may_send(item):
            return Done("left")
        if self._dry:
            return Done("uploaded", None, body.size)
        in_memory = isinstance(body.source, bytes)
        try:
            self._store.put(item.key, body.source if in_memory else Path(item.source.full))
        except SourceError:
            if mark_at(item.source.full) != data.mark:
                raise Changing("it changed while it was copied") from None
            raise
        return Done("uploaded", seen, body.size)

    def _made(self, item: Item, deadline: Deadline, ask: bool) -> Done:
        """The document that a writer makes for a file which the storage has."""
        main, writer = item.main, self._writer
        assert main is not None
        assert writer is not None
        if main.seen is None and self._dry:
            return Done("uploaded")
        if main.seen is None:
            raise SourceError(f"its file {main.source.path!r} did not arrive")
        item.key = sidecar_key(main.key, whole=item.whole)
        document = writer.document(
            SourceFile(
                Path(main.source.full), main.source.path, main.key, main.source.size,
                main.seen.sha256, self._naming.time(main.source, None), guess_type(main.key),
            )
        )  # fmt: skip
        body = Body(document, len(document), hashlib.sha256(document).hexdigest())
        data = Whole(body, mark := _state(main.source), "")
        if not self._is_remote(item.key):
            return self._bring_home(item, data)
        found = self._find(item.key, deadline, ask)
        if found is not None and self._has(item.key, found, data, deadline):
            seen = self._seen(item, mark, body.sha256, found.etag)
            return Done("skipped", seen, look_at=self._look_at(item.key, body.sha256))
        if self._dry:
            return Done("uploaded", None, body.size)
        attributes, outside = Attributes(guess_type(item.key)), self._core.uploader.outside
        sent = self._turns.ask(
            lambda tries: outside.put(
                item.key, body, attributes, state={}, save_state=lambda state: None,
                cancelled=self._turns.is_stopped, tries=tries,
            ),
            deadline,
        )  # fmt: skip
        seen = self._seen(item, mark, body.sha256, sent.found.etag)
        return Done("uploaded", seen, body.size, sent.look_at)


def _state(source: Source) -> Mark:
    return source.size, source.mtime_ns, source.inode, source.ctime_ns
