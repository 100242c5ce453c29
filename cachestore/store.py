"""`CacheStore`: the public face. Orchestration only; the rules live in the rooms below."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakMethod

from cachestore.announcing import Announcer
from cachestore.checking import Checker, FsckReport
from cachestore.clock import Deadline
from cachestore.events import Event
from cachestore.finding import Finder
from cachestore.following import Follow
from cachestore.health import Health
from cachestore.keys import check_key, check_prefix
from cachestore.links import Links
from cachestore.listing import Item, Lister
from cachestore.model import FlushReport, Minute, ObjectInfo, PendingItem, Tally
from cachestore.opened import OpenFile
from cachestore.presigning import Presigner
from cachestore.reading import Reader
from cachestore.receipts import Receipt
from cachestore.stats import Counts
from cachestore.store_life import StoreLife
from cachestore.store_urls import StoreUrls
from cachestore.upkeep import Keeper, WarmReport
from cachestore.writing import Durability, Writer


class CacheStore(StoreUrls, StoreLife):
    """Files under keys: local disk in front, a bucket behind. Made by `open_store`.

    Safe to share by threads; several stores may use the same folders. Every method may raise
    `InvalidKey`, `StoreClosed` and `SpoolError`; reads raise `NotFound` (a FileNotFoundError)
    and `RemoteUnavailable`.
    """

    def _assemble(self) -> None:
        core, downloader = self._build()
        follow = Follow(core)
        self._core = core
        self._downloader = downloader
        self._writer = Writer(core, follow)
        finder = Finder(core, downloader, self._writer.adopt)
        self._reader = Reader(core, finder)
        self._lister = Lister(core)
        self._links = Links(core)
        self._announcer = Announcer(core, self._writer)
        self._presigner = Presigner(
            core, finder, self._reader, self._writer, self._links, self._announcer
        )
        core.janitor.unconfirmed = WeakMethod(self._announcer.sweep)
        self._keeper = Keeper(core, self._reader)
        self._health = Health(core)
        self._put_doors()
        follow.reader, follow.presigner = self._reader, self._presigner
        self._hot = core.hot.path

    def __repr__(self) -> str:
        options = self._core.options
        return f"CacheStore(mode={options.mode!r}, spool={str(options.spool_dir)!r})"

    @property
    def links(self) -> Links:
        """Our own signed URLs, for the routes that answer them."""
        return self._links

    # -- writing -------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        source: str | PathLike[str] | bytes | BinaryIO | Any,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        cache_control: str | None = None,
        ttl: float | None = None,
        durability: Durability = "spooled",
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> Receipt:
        """Store a file. When this returns it is durable on this disk and is what `get` gives.

        `source`: a path, bytes, a binary file or an object with `.file`; a file object is read
        from its start and left where it was. `content_type` None: by the key's name. `metadata`:
        names are lower-cased, values any text; 8,064 bytes as sent, percent-encoded. `ttl`:
        seconds for which a clean copy is fresh, None for the store's. `durability="remote"`:
        return when the bucket has it; conditions imply that. `if_match`: an ETag;
        `if_none_match`: "*".

        Raises `SourceError` (unreadable or changing source), `SpoolFull`, `SpoolBusy`,
        `PreconditionFailed`, `Unsupported`, `TimedOut`; nothing is stored then, except that
        after `TimedOut` the file is durable here and its upload stays pending.
        """
        return self._writer.put(
            key,
            source,
            content_type=content_type,
            metadata=metadata,
            cache_control=cache_control,
            ttl=ttl,
            durability=durability,
            if_match=if_match,
            if_none_match=if_none_match,
        )

    def delete(self, key: str) -> None:
        """Delete a key: gone here at once and durably, in the bucket soon. Missing is no error."""
        self._writer.delete(key)

    def delete_prefix(self, prefix: str, *, everything: bool = False) -> int:
        """Delete all keys that start with `prefix`; returns how many were hidden.

        All are gone, durably, when this returns. If listing fails nothing is deleted. An empty
        prefix needs `everything=True`.
        """
        prefix = check_prefix(prefix)
        if not prefix and not everything:
            raise ValueError("an empty prefix deletes all; say everything=True if you mean it")
        keys = [item.key for item in self._lister.list(prefix)]
        return self._writer.delete_all(keys)

    def delete_unchanged(self, tokens: Mapping[str, int]) -> builtins.list[str]:
        """Delete those of the keys whose tokens of the board are these, with nothing pending.

        For tools that look before they delete. All that are returned are gone, durably.
        """
        return self._writer.delete_all_unchanged(tokens)

    def copy(self, source: str, target: str) -> Receipt:
        """Store the bytes and attributes of one key under another."""
        info = self._reader.head(source)
        with self._reader.open_whole(source) as file:
            return self.put(
                target,
                file,
                content_type=info.content_type,
                metadata=info.metadata,
                cache_control=info.cache_control,
            )

    # -- reading -------------------------------------------------------------------------------

    def get(self, key: str, *, max_age: float | None = None) -> Path:
        """The newest version as a file for reading, from here if it may be, else fetched.

        The path stays readable for the hand-out grace (60 s); use `lease` or `open` for longer.
        `max_age`: at most so many seconds since the copy was last known to be current.
        Raises `NotFound`, `RemoteUnavailable`, `CacheFull`.
        """
        if max_age is None:
            path = self._hot(key)
            if path is not None:
                return path
        return self._reader.get(key, max_age)

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes from `start` to `end` (exclusive; None: to the end)."""
        return self._reader.read(key, start, end)

    def open(self, key: str, at: int = 0) -> OpenFile:
        """A seekable binary file with its `info`; it stays readable until it is closed.

        Of a large one only the blocks that are read are fetched, in order ahead of the reader.
        `at`: the byte that is read first; the first request brings it.
        """
        return self._reader.open(key, at)

    def lease(self, key: str) -> AbstractContextManager[Path]:
        """`with store.lease(key) as path:` the file stays in place inside the block, no longer."""
        return self._reader.lease(key)

    def download(self, key: str, destination: str | PathLike[str]) -> Path:
        """Write a file of the caller's own; folders are made, an older file is replaced whole."""
        return self._reader.download(key, Path(destination))

    def head(self, key: str) -> ObjectInfo:
        """What is known of a key: pending first, then a fresh copy, then the remote."""
        return self._reader.head(key)

    def exists(self, key: str) -> bool:
        """Whether the key exists. Raises `RemoteUnavailable` when that cannot be known."""
        return self._reader.exists(key)

    def list(self, prefix: str = "", delimiter: str | None = None) -> Iterator[Item]:
        """All keys that start with `prefix`, in the order of their UTF-8 bytes.

        What was put is there at once, what was deleted is gone. With a `delimiter`, keys that go
        on behind it are given once as a `Prefix`. Content type and metadata of objects that
        are not here are not known. Raises `RemoteUnavailable` rather than give a part.
        """
        return self._lister.list(prefix, delimiter)

    # -- pending work --------------------------------------------------------------------------

    def pending(self) -> builtins.list[PendingItem]:
        """Every operation that a remote does not have yet, with tries, last error and age."""
        self._core.check_open()
        return self._core.uploader.pending()

    def retry(self, key: str | None = None) -> int:
        """Try parked and waiting operations (of one key, or all) now; returns how many."""
        self._core.check_open()
        return self._core.uploader.retry(None if key is None else check_key(key))

    def flush(self, timeout: float | None = None) -> FlushReport:
        """Upload what is due now and wait for it, at most `timeout` seconds.

        Parked and foreign operations are not waited for; the report names what is left and why.
        """
        self._core.check_open()
        self._core.warn_if_in_loop("flush")
        deadline, uploaded = Deadline(self._core.clock, timeout), 0
        while True:
            uploader = self._core.uploader
            report = uploader.flush(None if timeout is None else deadline.left())
            uploaded += report.uploaded
            if uploader is self._core.uploader:  # else a reload ended it
                return replace(report, uploaded=uploaded)

    def start(self) -> None:
        """Start uploading what earlier runs left, without waiting for the first put."""
        self._core.check_open()
        self._core.uploader.start()
        self._core.janitor.start()

    # -- upkeep --------------------------------------------------------------------------------

    def subscribe(self, hook: Callable[[Event], None]) -> Callable[[], None]:
        """Call `hook(event)` for everything that happens; returns a function that ends it."""
        return self._hooks.add(hook)

    def stats(self) -> Counts:
        """Sums since the store was opened."""
        self._core.janitor.flush_hits()
        return self._core.stats.snapshot()

    def minutes(self, seconds: float = 3600.0) -> builtins.list[Minute]:
        """How reads and uploads went in the last `seconds` (an hour is kept), by minute.

        Of all processes; what others counted within the last seconds may be missing.
        """
        self._core.check_open()
        return self._health.minutes(seconds)

    def history(self, days: int = 30) -> builtins.list[Tally]:
        """Where reads were answered from, and what left the cache, by day and first segment.

        Of all processes, for the last `days` days with any; kept for 90 days in the cache.
        """
        self._core.check_open()
        self._core.janitor.flush_hits()
        return self._core.catalog.tallies(days)

    def health(self) -> dict[str, Any]:
        """State for people and probes: mode, reason, folders, remote, queue, cache, alerts.

        Begins to count the bucket behind it, once in `BUCKET_COUNT_INTERVAL`.
        """
        self._core.check_open()
        return self._health.report()

    def clean(self) -> dict[str, int]:
        """Do now what the janitor does hourly; returns what was removed."""
        return self._keeper.clean()

    def fsck(self, repair: bool = False, *, deep: bool = False, bucket: bool = False) -> FsckReport:
        """Compare spool, catalog and files; safe beside live processes.

        `deep`: hash every body and copy. `bucket`: compare copies with its listing (a billed
        request for each 1,000 keys). `repair` forgets copies that are not what they should be,
        and removes what has been in quarantine for more than a week.
        """
        self._core.check_open()
        return Checker(self._core, repair=repair, deep=deep, bucket=bucket).run()

    def warm(
        self, keys: Iterable[str], progress: Callable[[str], None] | None = None
    ) -> WarmReport:
        """Fetch keys, several at once; `progress(key)` is called after each."""
        return self._keeper.warm(keys, progress)

    def pin(self, key: str) -> None:
        """Never evict this key's copy."""
        self._keeper.pin(key)

    def unpin(self, key: str) -> None:
        """Take a pin back."""
        self._keeper.unpin(key)

    def invalidate(self, key: str) -> None:
        """Forget the clean copy and what is known of it; never pending work."""
        self._keeper.invalidate(key)
