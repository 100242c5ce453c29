"""The catalog's rows and limits: nothing passes a limit, pins stay, order is by last read."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest
from cache_rig import HUGE, make_row, open_catalog
from process_rig import finish, say, start
from store_rig import make_options

from cachestore.local.catalog import Catalog
from cachestore.local.catalog_rows import Row
from cachestore.local.evictors import Ordered
from cachestore.model import RemoteObject
from cachestore.policy.eviction import LeastRecentlyUsed, Need
from cachestore.policy.freshness import rules_for

LIMIT = 100_000


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    made = open_catalog(tmp_path / "catalog")
    yield made
    made.close()


def add(catalog: Catalog, *keys: str, **fields: Any) -> list[Row]:
    """Admit rows that were last read in the order in which they are named."""
    rows = [make_row(key, used=100.0 + number, **fields) for number, key in enumerate(keys)]
    assert all(catalog.admit(row, max_bytes=HUGE).admitted for row in rows)
    return rows


def keys(catalog: Catalog) -> list[str]:
    return [row.key for row in catalog.rows_below("")]


# -- rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [None, 0.0, 1.5, inf])
def test_a_row_comes_back_as_it_was(catalog: Catalog, ttl: float | None) -> None:
    row = make_row(
        "ü/a b.wav", ttl=ttl, inode=(1 << 64) - 5, mtime_ns=-1, metadata={"wer": "Jürgen\n"},
        sha256="0" * 64, cache_control="no-cache", durable=True, uses=3,
    )  # fmt: skip
    assert catalog.admit(row, max_bytes=HUGE).admitted
    assert catalog.get(row.key) == row


def test_removing_names_the_file_and_leaves_a_newer_one(catalog: Catalog) -> None:
    [old] = add(catalog, "a")
    [new] = add(catalog, "a")
    assert catalog.remove("a", old.file) is None
    assert catalog.get("a") == new
    assert catalog.remove("a", new.file, full=True) == new
    assert catalog.get("a") is None
    assert catalog.totals() == (0, 0, 0)


def test_a_validation_renews_the_attributes_of_its_own_file_only(catalog: Catalog) -> None:
    [row] = add(catalog, "a")
    obj = RemoteObject("a", 1, "e", "text/plain", {"x": "1"}, "no-store", 9.0)
    catalog.validated("a", "another file", 500.0, obj)
    assert catalog.get("a") == row
    catalog.validated("a", row.file, 500.0, obj)
    now = catalog.get("a")
    assert now is not None
    assert (now.validated, now.content_type, now.metadata) == (500.0, "text/plain", {"x": "1"})


def test_prefixes_are_ranges_of_whole_keys_in_batches(catalog: Catalog) -> None:
    wanted = ["p/", "p/a", "p/b", "p/\ud7ff", "p/\U0010ffff"]
    add(catalog, "p", "p0", "o/\U0010ffff", "q", "\U0010ffff", *wanted)
    assert catalog.keys_below("p/") == sorted(wanted)
    assert catalog.keys_below("p/", after="p/a", limit=2) == ["p/b", "p/\ud7ff"]
    assert catalog.keys_below("p/", after="a") == sorted(wanted)
    assert catalog.keys_below("p/\ud7ff") == ["p/\ud7ff"]
    assert catalog.keys_below("\U0010ffff") == ["\U0010ffff"]
    assert [row.key for row in catalog.rows("p/b", 1)] == ["p/\ud7ff"]
    assert len(keys(catalog)) == 10


def test_the_files_of_a_shard(catalog: Catalog) -> None:
    rows = add(catalog, *(f"k{number}" for number in range(300)))
    shard = rows[0].file[:2]
    assert catalog.files_in(shard) == {row.file for row in rows if row.file[:2] == shard}
    catalog.close()
    assert catalog.files_in(shard) is None, "an unknown answer must not look like an empty one"


# -- limits -----------------------------------------------------------------------------------


def test_the_byte_limit_is_kept_by_every_admission(catalog: Catalog) -> None:
    rng = random.Random(1)
    there: dict[str, Row] = {}
    for _ in range(400):
        row = make_row(f"k{rng.randrange(60)}", rng.choice([0, 4096, 9000, 40_000, 120_000]))
        done = catalog.admit(row, max_bytes=LIMIT)
        there.pop(row.key, None)
        for victim in done.evicted:
            assert there.pop(victim.key) == victim
        if done.admitted:
            there[row.key] = row
        else:
            assert row.allocated > LIMIT
            assert not done.evicted
        assert catalog.totals()[:2] == (sum(r.allocated for r in there.values()), len(there))
        assert catalog.totals()[0] <= LIMIT
    assert {row.key: row for row in catalog.rows_below("")} == there


def child_admits(folder: str, seed: str) -> None:
    catalog = open_catalog(Path(folder))
    rng = random.Random(seed)
    admitted = 0
    for number in range(150):
        row = make_row(f"{seed}/{number}", rng.choice([4096, 20_000, 60_000]))
        admitted += catalog.admit(row, max_bytes=LIMIT, max_entries=9).admitted
        used, count, _ = catalog.totals()
        assert used <= LIMIT
        assert count <= 9
    assert admitted == 150
    say("kept")


def test_processes_and_threads_together_keep_the_limits(tmp_path: Path) -> None:
    folder = tmp_path / "catalog"
    children = [start("test_catalog:child_admits", folder, seed) for seed in "ab"]
    threads = [threading.Thread(target=child_admits, args=(str(folder), s)) for s in "cd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for child in children:
        assert "kept" in finish(child)
    catalog = open_catalog(folder)
    rows = list(catalog.rows_below(""))
    assert catalog.totals()[:2] == (sum(row.allocated for row in rows), len(rows))
    assert 0 < catalog.totals()[0] <= LIMIT
    catalog.close()


def test_the_entries_limit_evicts_the_longest_unread(catalog: Catalog) -> None:
    add(catalog, "a", "b", "c")
    catalog.touch({"a": (2, 500.0)})
    done = catalog.admit(make_row("d"), max_bytes=HUGE, max_entries=3)
    assert [row.key for row in done.evicted] == ["b"]
    assert keys(catalog) == ["a", "c", "d"]
    replaced = catalog.admit(make_row("d"), max_bytes=HUGE, max_entries=3)
    assert (replaced.evicted, replaced.replaced is not None) == ([], True)


def test_what_is_too_large_evicts_nothing_and_still_replaces(catalog: Catalog) -> None:
    [_, old] = add(catalog, "a", "big")
    done = catalog.admit(make_row("big", LIMIT + 1), max_bytes=LIMIT)
    assert (done.admitted, done.evicted, done.replaced) == (False, [], old)
    assert keys(catalog) == ["a"]


def test_a_read_never_makes_a_copy_older(catalog: Catalog) -> None:
    add(catalog, "a")
    catalog.touch({"a": (1, 50.0), "gone": (1, 50.0)})
    row = catalog.get("a")
    assert row is not None
    assert (row.used, row.uses) == (100.0, 1)


class _Miser(LeastRecentlyUsed):
    """Gives one victim, whatever is needed."""

    def victims(self, candidates: Iterable[Any], need: Need) -> list[Any]:
        return super().victims(candidates, Need(1))


def test_a_policy_that_frees_too_little_evicts_nothing(tmp_path: Path) -> None:
    catalog = open_catalog(tmp_path / "catalog", evictor=Ordered(_Miser()))
    add(catalog, "a", "b")
    done = catalog.admit(make_row("c", 2 * 4096), max_bytes=2 * 4096)
    assert (done.admitted, done.evicted) == (False, [])
    assert keys(catalog) == ["a", "b"]
    catalog.close()


# -- pins -------------------------------------------------------------------------------------


def test_pinned_copies_stay(catalog: Catalog, tmp_path: Path) -> None:
    add(catalog, "a", "b", "c")
    catalog.pin("a")
    done = catalog.admit(make_row("d"), max_bytes=3 * 4096)
    assert [row.key for row in done.evicted] == ["b"]
    assert catalog.unused_before(HUGE, make_options(tmp_path, ttl=0.0))[0].key != "a"
    assert "a" not in {row.key for row in catalog.worst(HUGE, 100)}
    assert catalog.totals()[2] == 1


def test_a_pin_outlives_the_copy_and_holds_the_next_one(catalog: Catalog) -> None:
    catalog.pin("a")
    assert catalog.pins() == ["a"]
    add(catalog, "a")
    catalog.remove("a")
    [row] = add(catalog, "a")
    assert catalog.get(row.key) != row, "the row must say that it is pinned"
    assert not catalog.admit(make_row("b"), max_bytes=4096).admitted
    catalog.unpin("a")
    assert catalog.pins() == []
    assert catalog.admit(make_row("b"), max_bytes=4096).admitted
    assert keys(catalog) == ["b"]


def test_a_pin_that_came_meanwhile_is_respected(catalog: Catalog) -> None:
    rows = add(catalog, "a", "b", "c")
    catalog.pin("a")
    add(catalog, "b")
    assert catalog.remove_many(rows) == [rows[2]]
    assert keys(catalog) == ["a", "b"]


# -- what the janitor asks --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("store", "own", "when", "found"),
    [
        (50.0, None, 149.0, False),
        (50.0, None, 150.0, True),
        (50.0, 200.0, 299.0, False),
        (50.0, 200.0, 300.0, True),
        (50.0, 0.0, 100.0, True),
        (50.0, inf, 1e12, False),
        (None, None, 1e12, False),
        (None, 50.0, 150.0, True),
    ],
)
def test_unused_counts_from_the_last_read_or_validation(
    catalog: Catalog, tmp_path: Path, store: float | None, own: float | None, when: float,
    found: bool,
) -> None:  # fmt: skip
    read = make_row("read", used=100.0, validated=1.0, ttl=own)
    validated = make_row("validated", used=1.0, validated=100.0, ttl=own)
    for row in (read, validated):
        catalog.admit(row, max_bytes=HUGE)
    keys = {row.key for row in catalog.unused_before(when, make_options(tmp_path, ttl=store))}
    assert keys == ({"read", "validated"} if found else set())


def test_unused_knows_the_ttls_of_prefixes(catalog: Catalog, tmp_path: Path) -> None:
    options = make_options(
        tmp_path, ttl=50.0, immutable_prefixes=("a/fixed/",),
        ttl_by_prefix=(("a/", 10.0), ("a/b/", 20.0), ("n%/", None)),
    )  # fmt: skip
    own = {"a/own": 5.0, "a/fixed/own": 5.0}
    for key in ("a/x", "a/b/x", "a/own", "a/fixed/x", "a/fixed/own", "n%/x", "n/x"):
        catalog.admit(make_row(key, used=1.0, validated=1.0, ttl=own.get(key)), max_bytes=HUGE)
    gone: dict[str, float] = {}
    for when in (5.0, 6.0, 11.0, 21.0, 51.0, 1e12):
        for row in catalog.unused_before(when, options):
            gone.setdefault(row.key, when)
    assert gone == {"a/own": 6.0, "a/x": 11.0, "a/b/x": 21.0, "n/x": 51.0}
    for row in catalog.rows():
        rules = rules_for(row.key, row.ttl, options)
        assert (rules.ttl is None) == (row.key not in gone), "the same as when it is served"
        assert rules.ttl is None or gone[row.key] == 1.0 + rules.ttl


def test_only_unsynced_copies_of_another_boot_need_verification(catalog: Catalog) -> None:
    mine, synced, before = (
        make_row("a"), make_row("b", durable=True, boot="x"), make_row("c", boot="x"),
    )  # fmt: skip
    for row in (mine, synced, before):
        catalog.admit(row, max_bytes=HUGE)
    assert [catalog.needs_verification(row) for row in (mine, synced, before)] == [
        False, False, True,
    ]  # fmt: skip
    # Syncing a copy that a crash may have damaged would make it look sound.
    assert catalog.undurable(1e12) == [mine]
    assert catalog.undurable(99.0) == []
    assert catalog.mark_durable([mine]) == 1
    assert catalog.undurable(1e12) == []
