"""Reads that are written down at once, and entered in the tables later."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cache_rig import make_row as row_of
from cache_rig import open_catalog
from store_rig import make_options

from cachestore.local import noted
from cachestore.local.catalog import Catalog
from cachestore.local.evictors import evictor_of
from cachestore.local.learned import Learned
from cachestore.policy.hazard import HEAT, refit_after
from cachestore.policy.tournament import name_of

KB = 1000
HUGE = 1 << 50
DUE = refit_after(0, 0)


def learning(folder: Path, **fields: Any) -> Catalog:
    return open_catalog(folder, evictor=evictor_of(make_options(folder, **fields)))


def database(catalog: Catalog) -> sqlite3.Connection:
    return sqlite3.connect(catalog._files.held_path() or "")


def filled(folder: Path, *keys: str, **fields: Any) -> Catalog:
    catalog = learning(folder, **fields)
    for key in keys:
        assert catalog.admit(row_of(key, 10 * KB, used=100.0), max_bytes=HUGE).admitted
    return catalog


def uses(catalog: Catalog) -> dict[str, int]:
    with database(catalog) as db:
        return dict(db.execute("SELECT key, uses FROM seen"))


def waiting(catalog: Catalog) -> int:
    with database(catalog) as db:
        return noted.waiting(db)


def by_heat(catalog: Catalog) -> None:
    """By a rule that needs nothing but counts."""
    with database(catalog) as db:
        db.execute("UPDATE learned SET rule = ?", (HEAT,))


def test_a_batch_is_one_row_and_no_files_row_changes(tmp_path: Path) -> None:
    catalog = filled(tmp_path, "a", "b")
    catalog.touch({"a": (2, 200.0), "b": (1, 300.0)})
    catalog.tend(lambda: None)
    assert uses(catalog) == {"a": 1, "b": 1}
    assert waiting(catalog) == 2
    row = catalog.get("a")
    assert row is not None
    assert row.used == 100.0


def test_what_was_noted_counts_at_once_for_every_process(tmp_path: Path) -> None:
    catalog, other = filled(tmp_path, "a", "b", "c"), learning(tmp_path)
    by_heat(catalog)
    for key in ("a", "c"):
        catalog.touch({key: (3, 200.0)})
    assert [row.key for row in other.worst(1, 0)] == ["b"]
    other.touch({"b": (5, 200.0), "c": (5, 200.0)})
    assert [row.key for row in catalog.worst(1, 0)] == ["a"]
    assert uses(catalog) == {"a": 1, "b": 1, "c": 1}


def test_reads_are_entered_when_there_are_enough(tmp_path: Path) -> None:
    catalog = filled(tmp_path, "a", "b")
    for _ in range(noted.enter_after(2) // 2):
        catalog.touch({"a": (1, 200.0), "b": (1, 200.0)})
    catalog.tend(lambda: None)
    assert uses(catalog) == {"a": 129, "b": 129}
    assert waiting(catalog) == 0
    catalog.touch({"a": (1, 300.0)})
    catalog.tend(lambda: None)
    assert (uses(catalog)["a"], waiting(catalog)) == (129, 1)


def test_entering_is_shared_work_that_may_end_anywhere(tmp_path: Path) -> None:
    """A process dies after some of the files; another one begins anew."""
    keys = [f"k{number}" for number in range(250)]
    catalog, other = filled(tmp_path, *keys), learning(tmp_path)
    other.touch(dict.fromkeys(keys, (2, 200.0)))
    other.touch({"k7": (DUE, 200.0)})
    first = catalog.ask(lambda db: catalog.evictor.parts(db, lambda: None), [])
    assert [part.upto is None for part in first] == [True, True, False]
    assert catalog.change(partial(catalog.evictor.enter, part=first[0]), False)
    assert 0 < sum(count > 1 for count in uses(catalog).values()) < 250
    other.tend(lambda: None)
    expected = dict.fromkeys(keys, 3) | {"k7": 3 + DUE}
    assert uses(catalog) == expected
    for part in first:  # it was only slow
        assert catalog.change(partial(catalog.evictor.enter, part=part), False)
    assert uses(catalog) == expected
    assert (waiting(catalog), waiting(other)) == (0, 0)


def test_reads_before_an_admission_are_not_entered_after_it(tmp_path: Path) -> None:
    catalog = filled(tmp_path, "a")
    catalog.touch({"a": (4, 200.0)})
    catalog.admit(row_of("a", 10 * KB), max_bytes=HUGE)
    assert uses(catalog) == {"a": 6}
    catalog.touch({"a": (DUE, 200.0)})
    catalog.tend(lambda: None)
    assert uses(catalog) == {"a": 6 + DUE}


def test_what_left_is_not_brought_back_by_reads_from_before(tmp_path: Path) -> None:
    evictor = Learned(make_options(tmp_path))
    catalog = open_catalog(tmp_path, evictor=evictor)
    row = row_of("a", 10 * KB)
    catalog.admit(row, max_bytes=HUGE)
    catalog.touch({"a": (4, 200.0)})
    catalog.remove("a", row.file)
    catalog.admit(row_of("b", 15 * KB), max_bytes=HUGE)
    catalog.change(lambda db: evictor._left(db, [name_of("a")]), None)
    catalog.touch({"b": (DUE, 200.0)})
    catalog.tend(lambda: None)
    with database(catalog) as db:
        assert db.execute("SELECT uses FROM ghosts WHERE key = 'a'").fetchall() == [(5,)]
    assert uses(catalog) == {"b": 1 + DUE}


@pytest.mark.parametrize("enough", [False, True])
@pytest.mark.parametrize("eviction", ["hz", "gdsf"])
def test_a_copy_that_was_read_is_not_expired(tmp_path: Path, eviction: Any, enough: bool) -> None:
    """Whether its reads are entered or not."""
    keys = [f"k{number}" for number in range(20)]
    catalog = filled(tmp_path, *keys, eviction=eviction)
    catalog.touch({"k3": (DUE if enough else 1, 500.0)})
    catalog.tend(lambda: None)
    options = make_options(tmp_path, ttl=50.0)
    gone = {row.key for row in catalog.unused_before(400.0, options, 3)}
    assert len(gone) == 3
    everything = {row.key for row in catalog.unused_before(400.0, options)}
    assert everything == set(keys) - {"k3"}
    row = catalog.get("k3")
    assert row is not None
    assert row.used == 500.0
    assert len(catalog.unused_before(551.0, options)) == 20


def test_reads_of_copies_that_the_policy_never_met_are_kept_with_them(tmp_path: Path) -> None:
    filled(tmp_path, "a", "b", eviction="lru").close()
    catalog = learning(tmp_path)
    catalog.touch({"a": (DUE, 900.0)})
    catalog.tend(lambda: None)
    row = catalog.get("a")
    assert row is not None
    assert row.used == 900.0
    assert [row.key for row in catalog.worst(1, 0)] == ["b"]


def test_a_file_is_entered_in_short_parts(tmp_path: Path) -> None:
    evictor = Learned(make_options(tmp_path))
    catalog = open_catalog(tmp_path, evictor=evictor)
    catalog.touch({f"k{number}": (1, 1.0) for number in range(1000)})
    rests = []
    catalog.tend(lambda: rests.append(waiting(catalog)))
    assert len(rests) >= 10
    assert rests[0] == 1000
    assert waiting(catalog) == 0


@pytest.mark.parametrize("junk", ["", "{", "[1]", '{"a": "b"}', "[" * 100_000, None])
def test_a_broken_row_is_passed_over(tmp_path: Path, junk: Any) -> None:
    catalog = filled(tmp_path, "a", "b")
    with database(catalog) as db:
        db.execute("INSERT INTO noted VALUES (5, 2, 1.0, ?)", (junk,))
        db.execute("UPDATE learned SET tick = 5")
    catalog.touch({"a": (DUE, 200.0)})
    assert catalog.admit(row_of("c", 10 * KB), max_bytes=HUGE).admitted
    catalog.tend(lambda: None)
    assert uses(catalog) == {"a": 1 + DUE, "b": 1, "c": 1}
    assert waiting(catalog) == 0
