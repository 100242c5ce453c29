"""Blocks of a large file: which ones a read needs, and which to ask for ahead of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PAGES = 16
"""A block is fetched as a whole where it can be, and known by pages of a sixteenth of it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A file of `size` bytes in blocks of `block` bytes (a multiple of 64 KiB)."""

    size: int
    block: int

    @property
    def page(self) -> int:
        """Bytes of a page; the last one of a file may be shorter."""
        return self.block // PAGES

    @property
    def count(self) -> int:
        """Blocks."""
        return -(-self.size // self.block)

    def block_of(self, at: int) -> int:
        return at // self.block

    def page_of(self, at: int) -> int:
        """The page of a byte inside its block."""
        return at % self.block // self.page

    def span(self, block: int) -> tuple[int, int]:
        """First byte, and the one behind the last."""
        start = block * self.block
        return start, min(start + self.block, self.size)

    def page_span(self, block: int, page: int) -> tuple[int, int]:
        start = block * self.block + page * self.page
        return start, min(start + self.page, self.size)

    def pages(self, block: int) -> int:
        """Pages of a block: fewer in the last one."""
        start, end = self.span(block)
        return -(-(end - start) // self.page)

    def whole(self, block: int) -> int:
        """The mask of a block with all its pages."""
        return (1 << self.pages(block)) - 1

    def start_of_page(self, at: int) -> int:
        return at - at % self.page

    def here(self, masks: dict[int, int], at: int, end: int) -> int:
        """How many of the bytes from `at` on are in pages of `masks`, at most up to `end`."""
        start = at
        while at < end:
            block = self.block_of(at)
            page = self.page_of(at)
            if not masks.get(block, 0) >> page & 1:
                break
            at = self.page_span(block, page)[1]
        return min(at, end) - start

    def ends(self, head: int, tail: int) -> tuple[range, range]:
        """The blocks of the first `head` and the last `tail` bytes."""
        last = self.block_of(max(0, self.size - tail)) if tail else self.count
        return range(self.block_of(min(head, self.size) + self.block - 1)), range(last, self.count)

    def missing(self, block: int, mask: int, first: int = 0) -> Iterator[tuple[int, int]]:
        """Runs of bytes of a block, from page `first` on, that are not in `mask`."""
        begun: int | None = None
        pages = self.pages(block)
        for page in range(first, pages):
            if mask >> page & 1:
                if begun is not None:
                    yield begun, self.page_span(block, page)[0]
                begun = None
            elif begun is None:
                begun = self.page_span(block, page)[0]
        if begun is not None:
            yield begun, self.span(block)[1]


def joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs of bytes in order, those that touch made one: each is a request that is paid for."""
    made: list[tuple[int, int]] = []
    for start, end in spans:
        if made and made[-1][1] == start:
            made[-1] = (made[-1][0], end)
        else:
            made.append((start, end))
    return made


class ReadAhead:
    """How far beyond a read to fetch: nothing after a jump, twice as far with each block in order.

    One for each reader. `most`: blocks at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._next = 0
        self._window = 0
        self._block = -1

    def after(self, at: int, end: int, layout: Layout) -> range:
        """The blocks to have ready when the bytes from `at` to `end` are read."""
        last = layout.block_of(max(at, end - 1))
        near = self._next - layout.page <= at <= self._next + layout.page
        if not near or self._block < 0:
            self._window, self._block = 0, last
        elif last > self._block or not self._window:
            self._window, self._block = min(self._most, max(1, self._window * 2)), last
        self._next = end
        return range(last + 1, min(last + 1 + self._window, layout.count))
