"""What comes from the remote: whole files, and large objects that are read while they come."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from typing import TypeVar

from cachestore.core import Core
from cachestore.downloader import Downloader
from cachestore.errors import CacheFull, NotFound, RemoteError, RemoteUnavailable
from cachestore.keys import Place
from cachestore.landed import Landed, Probe
from cachestore.local.catalog_rows import Row
from cachestore.local.partial_rows import PartialRow
from cachestore.model import RemoteObject
from cachestore.policy.freshness import Freshness, decide, may_serve_on_error, rules_for
from cachestore.progressive.file import PartialFile
from cachestore.progressive.past import Passing, Replaced
from cachestore.progressive.reader import Reading
from cachestore.progressive.registry import Progressive

T = TypeVar("T")


class Parts:
    """The way to the remote of all reads."""

    def __init__(self, core: Core, downloader: Downloader) -> None:
        self._core = core
        self._downloader = downloader

    @property
    def _progressive(self) -> Progressive:
        assert self._core.progressive is not None, "there is a remote"
        return self._core.progressive

    def fetch(
        self, key: str, place: Place, token: int, old: Row | None, at: int | None
    ) -> Landed | Reading | Passing | None:
        """The key's bytes as a file; with `at`, the first byte to be read, or a reader of them.

        None: look again. Raises the errors of the remote, and `CacheFull`.
        """
        core = self._core
        probe: Probe[PartialFile | Passing] | None = None
        if at is not None and self._progressive.on:
            probe = partial(self._progressive.probe, key, place, at)
        name = ("get", key, token, None if old is None else old.file)

        def work() -> Landed | PartialFile | Passing:
            return self._downloader.download(key, place, old, probe)

        future = core.downloads.join(name, work)
        landed = self._wait(key, future, has_copy=old is not None)
        if isinstance(landed, Landed):
            return landed
        if at is None:
            return None  # somebody else wanted a part of it: look again for the whole
        if isinstance(landed, Passing):
            return landed.reader()
        return self._progressive.reader(landed.row, place, begun=True)

    def _wait(self, key: str, future: Future[T], *, has_copy: bool) -> T:
        """Wait as long as bytes arrive; give up after a silence as long as the deadline."""
        core = self._core
        deadline = core.options.revalidate_deadline if has_copy else core.options.miss_deadline
        left, last = deadline, core.clock.monotonic()
        while True:
            try:
                return future.result(left)
            except FutureTimeout:
                silence, now = self._downloader.silence(key), core.clock.monotonic()
                if silence is not None:  # else it waits for its turn, or has just ended
                    last = now - silence
                left = last + deadline - now
                if left <= 0:
                    late = f"no bytes of {key!r} arrived for {deadline:g} s; try again later"
                    raise self._downloader.crowded(key) or RemoteUnavailable(late) from None

    # -- partial copies ------------------------------------------------------------------------

    def begun(
        self, key: str, place: Place, token: int, max_age: float | None
    ) -> PartialRow | None:  # fmt: skip
        """A partial copy of the key that may stand for the remote's version.

        `max_age`: asked about when that was not done for so many seconds.
        Raises `RemoteUnavailable` when the remote must be asked, and does not answer.
        """
        row = self._progressive.row(key, token)
        if row is None or self._is_fresh(row, max_age):
            return row
        rules = rules_for(key, None, self._core.options)
        name = ("head", key, row.part, token)
        future = self._core.asks.join(name, lambda: self._head(key))
        current = False
        try:
            obj = future.result(self._core.options.revalidate_deadline)
            current = obj.etag == row.info.etag
        except NotFound:
            pass
        except (FutureTimeout, RemoteError) as error:
            if may_serve_on_error(row, self._core.clock.now(), rules):
                return row
            raise RemoteUnavailable(f"the remote did not answer for {key!r}") from error
        if not current:
            self._progressive.drop(row)
            return None
        if self._core.board.token(place.slot) == token:
            self._progressive.validated(row)
        return row

    def fresh(self, key: str, token: int) -> PartialRow | None:
        """A partial copy that may stand for the remote's version without a question."""
        if self._core.progressive is None:
            return None
        row = self._progressive.row(key, token)
        return row if row is not None and self._is_fresh(row) else None

    def _is_fresh(self, row: PartialRow, max_age: float | None = None) -> bool:
        rules, now = rules_for(row.key, None, self._core.options), self._core.clock.now()
        return decide(row, now, rules, max_age=max_age) is Freshness.FRESH

    def _head(self, key: str) -> RemoteObject:
        assert self._core.remote is not None
        timeout = max(5.0, self._core.options.revalidate_deadline)
        return self._core.remote.head(key, timeout=timeout, patience=0.0)

    def reader(
        self, row: PartialRow, place: Place, *, whole: bool
    ) -> Landed | Reading | Passing | None:
        """A reader of a partial copy; or, where the whole is wanted, the rest of it first.

        None: it is something else by now.
        """
        if not whole:
            return self._progressive.reader(row, place)
        file = self._progressive.file(row, place)
        if file is None:
            return None
        work = partial(self._progressive.fill, file)
        future = self._core.downloads.join(("fill", row.part), work)
        try:
            return self._wait(row.key, future, has_copy=False)
        except CacheFull:
            self._progressive.drop(row)  # it comes as a whole, and passes through
            return None
        except Replaced:
            return None  # the newer version comes as a whole
