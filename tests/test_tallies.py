"""Sums by day and prefix: what is counted, where it is kept, and how it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from cache_rig import open_catalog
from store_rig import make_options, store_of

from cachestore.errors import NotFound
from cachestore.events import Evicted, Hit, Miss
from cachestore.local.tallies import DAYS, OTHERS, Tallies, prefix_of
from cachestore.model import Tally
from cachestore.remote.memory import MemoryRemote
from cachestore.testing.clock import FakeClock
from cachestore.testing.contract_tools import put as upload

NOON = 1_767_182_400.0  # 2025-12-31 12:00 UTC
DAY, NEXT = "2025-12-31", "2026-01-01"


@pytest.mark.parametrize(
    ("key", "prefix"),
    [("a/b/c.wav", "a/"), ("a.wav", ""), ("ä/x", "ä/"), ("a//b", "a/")],
)
def test_the_prefix_is_the_first_segment(key: str, prefix: str) -> None:
    assert prefix_of(key) == prefix


def test_what_is_counted() -> None:
    clock = FakeClock(NOON)
    tallies = Tallies(clock)
    for event in (
        Hit("a/x", 10, "fresh", 3), Hit("a/y", 5, "stale-if-error"), Hit("a/x", 1, "pending"),
        Hit("x", 2, "local"), Miss("a/x", 10, 0.1), Evicted("a/x", 10, "space"),
    ):  # fmt: skip
        tallies.take(event)
    clock.advance(86400.0)
    tallies.take(Miss("a/x", 10, 0.1))
    found = set(tallies.drain())
    assert found == {
        Tally(DAY, "a/", "cache", 4, 35), Tally(DAY, "a/", "spool", 1, 1),
        Tally(DAY, "", "local", 1, 2), Tally(DAY, "a/", "remote", 1, 10),
        Tally(DAY, "a/", "evicted: space", 1, 10), Tally(NEXT, "a/", "remote", 1, 10),
    }  # fmt: skip
    assert tallies.drain() == []
    tallies.take(Miss("a/x", 1, 0.1))
    tallies.put_back(found)
    assert Tally(NEXT, "a/", "remote", 2, 11) in tallies.drain()


def test_many_prefixes_are_counted_together() -> None:
    tallies = Tallies(FakeClock(NOON))
    for number in range(1000):
        tallies.take(Miss(f"{number}/x", 1, 0.1))
    found = tallies.drain()
    assert len(found) <= 201
    assert sum(each.count for each in found) == 1000
    assert max(found, key=lambda each: each.count).prefix == OTHERS


def test_the_catalog_adds_them_up_and_forgets_old_days(tmp_path: Path) -> None:
    catalog = open_catalog(tmp_path / "catalog")
    other = open_catalog(tmp_path / "catalog")
    for each in (catalog, other):
        assert each.tally([Tally(DAY, "a/", "cache", 2, 20), Tally(DAY, "", "remote", 1, 3)])
    both = [Tally(DAY, "", "remote", 2, 6), Tally(DAY, "a/", "cache", 4, 40)]
    assert catalog.tallies(1) == both
    later = [
        Tally(f"2026-{n // 28 + 1:02}-{n % 28 + 1:02}", "", "cache", 1, 1) for n in range(DAYS)
    ]
    catalog.tally(later[:-1])
    assert catalog.tallies(1000)[:2] == both
    catalog.tally(later[-1:])
    assert catalog.tallies(1000) == later
    assert [each.day for each in catalog.tallies(2)] == [each.day for each in later[-2:]]
    catalog.close()
    other.close()


def test_a_store_tells_of_all_that_came_before_it(tmp_path: Path) -> None:
    bucket = MemoryRemote()
    upload(bucket, "a/x", b"12345")
    clock = FakeClock(NOON)
    options = make_options(tmp_path, mode="remote")
    with store_of(options, remote=bucket, clock=clock) as store:
        for _ in range(3):
            store.get("a/x")
        with pytest.raises(NotFound):
            store.get("a/y")
    with store_of(options, remote=bucket, clock=clock) as store:
        store.get("a/x")
        assert store.history() == [
            Tally(DAY, "a/", "cache", 3, 15), Tally(DAY, "a/", "remote", 1, 5),
        ]  # fmt: skip


def test_what_could_not_be_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = MemoryRemote()
    upload(bucket, "x", b"12345")
    with store_of(make_options(tmp_path, mode="remote"), remote=bucket) as store:
        store.get("x")
        with monkeypatch.context() as patch:
            patch.setattr(store.core.catalog, "tally", lambda sums: False)
            assert store.history() == []
        [tally] = store.history()
        assert (tally.what, tally.count) == ("remote", 1)
