"""One run of blocks on its way from the remote into the file of a partial copy."""

from __future__ import annotations

import os
import threading
import zlib
from typing import TYPE_CHECKING, Protocol

from cachestore import events
from cachestore.errors import CacheFull
from cachestore.policy.blocks import Layout, joined
from cachestore.progressive.past import Replaced
from cachestore.progressive.tools import Tools
from cachestore.remote.base import RemoteBody
from cachestore.remote.fetching import Changed, Download, stream

if TYPE_CHECKING:
    from cachestore.local.partial_rows import PartialRow

_HELD = 1 << 20
_LOOK = 0.01


class NoRoom(CacheFull):
    """The cache cannot take more of this file: it is read past the cache."""


class _Stopped(Exception):
    """Nobody wants the rest."""


class Target(Protocol):
    """The partial copy that a job fills, as far as the job must know it."""

    row: PartialRow
    fd: int
    layout: Layout

    def mask(self, block: int) -> int: ...
    def mark(self, block: int, pages: int) -> None: ...
    def shorten(self, job: Job, end: int) -> None: ...
    def wanted(self, job: Job) -> bool: ...
    def ended(self, job: Job, block: int) -> None: ...
    def over(self, job: Job) -> None: ...


class Job:
    """Fetches the blocks from `first` up to `end`, of the first one only from byte `at` on.

    `urgent`: blocks before this one are finished even when all readers have gone. `readers`: who
    wants it; changed under the target's lock. `body`: an answer that begins at `at`. `began`:
    wall seconds.
    """

    def __init__(
        self, target: Target, tools: Tools, first: int, end: int, at: int, *, urgent: int,
        body: RemoteBody | None = None,
    ) -> None:  # fmt: skip
        self.first = first
        self.end = end
        self.at = at
        self.urgent = urgent
        self.readers: set[int] = set()
        self.moved = tools.clock.monotonic()
        self.began = tools.clock.now()
        self.error: BaseException | None = None
        self.done = False
        self.fetched = 0
        self._target = target
        self._tools = tools
        self._body = body
        self._locked: set[int] = set()
        self._pages: dict[int, dict[int, int]] = {}
        self._crc = 0
        self._download = Download(
            tools.remote, target.row.key, target.row.info, self._take, None
        )  # fmt: skip

    def stop(self, error: BaseException | None = None) -> None:
        """End soon; what came stays."""
        self._download.error = error or _Stopped()

    def run(self) -> None:
        """Do it all, on a thread of the pool; errors are kept for who waits."""
        if self.done:
            return  # it could not be begun in time
        self.began = self._tools.clock.now()
        start = self._tools.clock.monotonic()
        try:
            self._lock()
            spans = self._missing()
            if spans:
                self._fetch(spans)
        except _Stopped:
            pass
        except Changed:
            self.error = Replaced(self._target.row.key)
        except BaseException as error:
            self.error = error
        finally:
            self._end()
        if self.fetched:
            seconds = self._tools.clock.monotonic() - start
            key = self._target.row.key
            self._tools.events.emit(events.Fetched(key, self.fetched, seconds))
        self._target.over(self)

    def fail(self, error: BaseException) -> None:
        """It was never run, or did not come to its end."""
        self.error = self.error or error
        self._put_away()
        self._target.over(self)

    def _put_away(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def _end(self) -> None:
        self._put_away()
        row, partials = self._target.row, self._tools.partials
        for block, pages in self._pages.items():
            partials.note(row, block, pages, self._target.layout.pages(block))
        for block in self._locked:
            partials.unlock(row, block)

    # -- who fetches -------------------------------------------------------------------------------

    def _lock(self) -> None:
        """Be the one who fetches the blocks; wait for another process that does."""
        row, partials = self._target.row, self._tools.partials
        self._await(self.first)
        for block in range(self.first + 1, self.end):
            if not partials.try_lock(row, block):
                self._target.shorten(self, block)
                break
            self._locked.add(block)

    def _await(self, block: int) -> None:
        """Until the block's lock is ours, or the block is here, or nothing moves any more."""
        row, partials, clock = self._target.row, self._tools.partials, self._tools.clock
        never, seen, since = threading.Event(), 0, clock.monotonic()
        while not partials.try_lock(row, block):
            self._look(block, block + 1)
            mask = self._target.mask(block)
            if mask == self._target.layout.whole(block) or self._download.error is not None:
                return
            if mask != seen:
                seen, since = mask, clock.monotonic()
                self.moved = since
            if clock.monotonic() - since > self._tools.options.flight_patience:
                return  # its holder does not move: both write the same bytes
            clock.wait(never, _LOOK)
        self._locked.add(block)

    def _look(self, first: int, end: int) -> None:
        look(self._target, self._tools, first, end)

    def _missing(self) -> list[tuple[int, int]]:
        """What has to come, in runs of bytes, after a look at what others brought."""
        self._look(self.first, self.end)
        target, found = self._target, list[tuple[int, int]]()
        for block in range(self.first, self.end):
            first = target.layout.page_of(self.at) if block == self.first else 0
            found.extend(target.layout.missing(block, target.mask(block), first))
        return joined(found)

    # -- the bytes ---------------------------------------------------------------------------------

    def _fetch(self, spans: list[tuple[int, int]]) -> None:
        if not self._tools.partials.make_room(self._target.row, range(self.first, self.end)):
            raise NoRoom(f"no room for more of {self._target.row.key!r}")
        with self._tools.budget.holding(_HELD):
            for start, end in spans:
                body, self._body = self._body, None
                try:
                    given = body if start == self.at else None
                    self._crc = 0
                    stream(self._download, given, start, end, self._take)
                finally:
                    if body is not None:
                        body.close()
                if self._download.error is not None:
                    raise self._download.error

    def _take(self, offset: int, data: bytes) -> None:
        layout = self._target.layout
        self.moved = self._tools.clock.monotonic()
        self.fetched += len(data)
        view = memoryview(data)
        while view:
            block, page = layout.block_of(offset), layout.page_of(offset)
            end = layout.page_span(block, page)[1]
            piece = view[: end - offset]
            self._tools.files.pwrite(self._target.fd, piece, offset)
            self._crc = zlib.crc32(piece, self._crc)
            offset, view = offset + len(piece), view[len(piece) :]
            if offset == end:
                self._page_came(block, page)
        if not self._target.wanted(self):
            self.stop()

    def _page_came(self, block: int, page: int) -> None:
        pages = self._pages.setdefault(block, {})
        pages[page], self._crc = self._crc, 0
        self._target.mark(block, 1 << page)
        if self._target.mask(block) == self._target.layout.whole(block):
            row, partials = self._target.row, self._tools.partials
            partials.note(row, block, self._pages.pop(block), self._target.layout.pages(block))
            self._target.ended(self, block)
            if block in self._locked:
                self._locked.discard(block)
                partials.unlock(row, block)


def look(target: Target, tools: Tools, first: int, end: int) -> None:
    """Learn which pages others, or an earlier run, brought; each is compared with its CRC-32.

    A power cut may have lost what the catalog knows of; such pages come again.
    """
    for block, pages in tools.partials.load(target.row, first, end).items():
        known, good, bad = target.mask(block), 0, list[int]()
        for page, crc in pages.items():
            if known >> page & 1 or page >= target.layout.pages(block):
                continue
            start, stop = target.layout.page_span(block, page)
            if zlib.crc32(os.pread(target.fd, stop - start, start)) == crc:
                good |= 1 << page
            else:
                bad.append(page)
        if good:
            target.mark(block, good)
        if bad:
            tools.partials.damaged(target.row, block, bad)
