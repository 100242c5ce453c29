"""Blocks and read-ahead: the pure part of reading a large file while it comes."""

from __future__ import annotations

import random

import pytest

from cachestore.policy.blocks import PAGES, Layout, ReadAhead, joined

BLOCK = PAGES * 4096


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 4096, 5 * BLOCK + 1])
def test_blocks_and_pages_cover_a_file_once(size: int) -> None:
    layout = Layout(size, BLOCK)
    at = 0
    for block in range(layout.count):
        assert layout.span(block)[0] == at
        for page in range(layout.pages(block)):
            start, end = layout.page_span(block, page)
            assert start == at < end
            assert layout.block_of(start) == layout.block_of(end - 1) == block
            assert layout.page_of(start) == layout.page_of(end - 1) == page
            at = end
        assert layout.span(block)[1] == at
    assert at == size


def test_what_is_here_and_what_is_missing_fit_together() -> None:
    chance = random.Random(3)
    for _ in range(300):
        layout = Layout(chance.randrange(1, 4 * BLOCK), BLOCK)
        masks = {n: chance.getrandbits(PAGES) & layout.whole(n) for n in range(layout.count)}
        here = bytearray(layout.size)
        for block, mask in masks.items():
            start, end = layout.span(block)
            here[start:end] = b"\1" * (end - start)
            for first, stop in layout.missing(block, mask):
                here[first:stop] = bytes(stop - first)
        at = chance.randrange(layout.size)
        end = chance.randrange(at, layout.size) + 1
        found = layout.here(masks, at, end)
        assert all(here[at : at + found])
        assert at + found == end or not here[at + found]


def test_runs_that_touch_are_one_request() -> None:
    assert joined([(0, 5), (5, 9), (10, 12), (12, 20)]) == [(0, 9), (10, 20)]
    assert joined([]) == []


def test_the_ends_of_a_file() -> None:
    layout = Layout(10 * BLOCK, BLOCK)
    assert layout.ends(0, 0) == (range(0), range(10, 10))
    assert layout.ends(1, 1) == (range(1), range(9, 10))
    assert layout.ends(BLOCK + 1, BLOCK + 1) == (range(2), range(8, 10))
    assert layout.ends(99 * BLOCK, 99 * BLOCK) == (range(10), range(10))


def test_read_ahead_grows_in_order_and_ends_with_a_jump() -> None:
    layout, ahead = Layout(100 * BLOCK, BLOCK), ReadAhead(4)
    page = layout.page
    assert not ahead.after(0, page, layout)  # one read says nothing yet
    assert ahead.after(page, 2 * page, layout) == range(1, 2)
    assert ahead.after(2 * page, 3 * page, layout) == range(1, 2)
    for at in range(3 * page, 4 * BLOCK, page):
        window = {0: 1, 1: 2}.get(layout.block_of(at), 4)
        after = layout.block_of(at) + 1
        assert ahead.after(at, at + page, layout) == range(after, after + window)
    assert not ahead.after(50 * BLOCK, 50 * BLOCK + page, layout)
    assert ahead.after(50 * BLOCK + page, 50 * BLOCK + 2 * page, layout) == range(51, 52)
    assert ahead.after(50 * BLOCK + 2 * page, 51 * BLOCK, layout) == range(51, 52)


def test_read_ahead_ends_at_the_end_and_where_it_is_off() -> None:
    layout = Layout(2 * BLOCK, BLOCK)
    none, some = ReadAhead(0), ReadAhead(4)
    for at in range(0, layout.size, layout.page):
        assert not none.after(at, at + layout.page, layout)
        found = some.after(at, at + layout.page, layout)
        assert all(block < layout.count for block in found)
