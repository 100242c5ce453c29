"""Copies that leave by what was learned: shared by processes, kept over restarts, within limits."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from cache_rig import make_row as row_of
from cache_rig import open_catalog
from fault_rig import seed
from process_rig import finish, say, start
from store_rig import make_options, store_of

from cachestore.local import learned
from cachestore.local.catalog import Catalog
from cachestore.local.evictors import Ordered, evictor_of
from cachestore.local.known import state_of
from cachestore.local.learned import Learned
from cachestore.local.ranked import _BY_RANK, Ranked
from cachestore.policy.costs import MissCosts
from cachestore.policy.hazard import GDSF, HEAT, Hazard, refit_after
from cachestore.policy.tournament import Tournament
from cachestore.remote.memory import MemoryRemote
from cachestore.testing.clock import ShiftedClock

KB = 1000


def learning(folder: Path, **fields: Any) -> Catalog:
    return open_catalog(folder, evictor=evictor_of(make_options(folder, **fields)))


def database(catalog: Catalog) -> sqlite3.Connection:
    return sqlite3.connect(catalog._files.held_path() or "")


def read(catalog: Catalog, key: str, size: int, limit: int) -> bool:
    """Ask for a key as a store would; True for a hit."""
    if catalog.get(key) is not None:
        catalog.touch({key: (1, 0.0)})
        return True
    catalog.admit(row_of(key, size), max_bytes=limit)
    return False


def learn(catalog: Catalog) -> None:
    """As the janitor does."""
    catalog.tend(lambda: None)


def test_the_settings_choose() -> None:
    options = make_options(Path("x"))
    assert isinstance(evictor_of(options), Learned)
    assert isinstance(evictor_of(make_options(Path("x"), eviction="lru")), Ordered)
    assert isinstance(evictor_of(make_options(Path("x"), eviction="gdsf")), Ranked)


@pytest.mark.parametrize("eviction", ["hz", "gdsf"])
def test_the_limit_is_kept_and_pins_stay(tmp_path: Path, eviction: Any) -> None:
    catalog = learning(tmp_path, eviction=eviction)
    rng = random.Random(3)
    catalog.pin("pinned")
    read(catalog, "pinned", 20 * KB, 100 * KB)
    for number in range(400):
        read(catalog, f"k{rng.randrange(60)}", rng.choice([1, 5, 30]) * KB, 100 * KB)
        used, _, pinned = catalog.totals()
        assert used <= 100 * KB
        assert pinned == 1
        if number % 100 == 99:
            learn(catalog)
    assert catalog.get("pinned") is not None
    assert catalog.admit(row_of("huge", 101 * KB), max_bytes=100 * KB).admitted is False


@pytest.mark.parametrize("eviction", ["hz", "gdsf"])
def test_a_newcomer_worth_less_than_all_others_does_not_come_in(
    tmp_path: Path, eviction: Any
) -> None:
    catalog = learning(tmp_path, eviction=eviction)
    for _ in range(30):
        for number in range(10):
            read(catalog, f"hot{number}", 10 * KB, 100 * KB)
    done = catalog.admit(row_of("big and new", 90 * KB), max_bytes=100 * KB)
    assert not done.admitted
    assert done.evicted == []
    assert catalog.totals()[1] == 10


def test_what_left_is_remembered(tmp_path: Path) -> None:
    catalog = learning(tmp_path)
    for _ in range(5):
        read(catalog, "often", 10 * KB, 15 * KB)
    row = catalog.get("often")
    assert row is not None
    catalog.remove("often", row.file)
    read(catalog, "often", 10 * KB, 15 * KB)
    with database(catalog) as db:
        [[uses]] = db.execute("SELECT uses FROM seen WHERE key = 'often'").fetchall()
    assert uses == 6
    for number in range(3):
        read(catalog, f"often {number}", 10 * KB, 15 * KB)
        read(catalog, f"often {number}", 10 * KB, 15 * KB)
    with database(catalog) as db:
        known = db.execute("SELECT key, uses FROM seen UNION SELECT key, uses FROM ghosts")
        assert len(dict(known)) == 4


def test_what_was_learned_survives_a_restart(tmp_path: Path) -> None:
    catalog = learning(tmp_path)
    for turn in range(300):
        for number in range(10):
            read(catalog, f"hot{number}", KB, 50 * KB)
        read(catalog, f"once{turn}", KB, 50 * KB)
    learn(catalog)
    catalog.close()
    evictor = Learned(make_options(tmp_path))
    again = open_catalog(tmp_path, evictor=evictor)
    read(again, "new", KB, 50 * KB)
    assert evictor._model.fitted
    again.close()


def test_a_junk_model_is_as_good_as_none(tmp_path: Path) -> None:
    catalog = learning(tmp_path)
    read(catalog, "a", KB, 10 * KB)
    with sqlite3.connect(catalog._files.held_path() or "") as db:
        db.execute("UPDATE learned SET version = 77, costs = x'0123'")
        db.execute("INSERT OR REPLACE INTO kept VALUES ('hazard', x'0123'), ('contest', x'01')")
    for number in range(30):
        read(catalog, f"k{number}", KB, 10 * KB)
        assert catalog.totals()[0] <= 10 * KB
    assert catalog.totals()[1] > 5


def child_reads(folder: str, seed: str) -> None:
    catalog, rng = learning(Path(folder)), random.Random(int(seed))
    hits = sum(read(catalog, f"k{int(rng.paretovariate(0.7))}", KB, 60 * KB) for _ in range(800))
    learn(catalog)
    say(hits)


def test_processes_share_one_model_and_keep_the_limit(tmp_path: Path) -> None:
    learning(tmp_path).totals()
    children = [start("test_evictors:child_reads", tmp_path, seed) for seed in range(3)]
    hits = [int(finish(child)) for child in children]
    catalog = learning(tmp_path)
    used, entries, _ = catalog.totals()
    assert used <= 60 * KB
    assert entries > 30
    assert all(count > 200 for count in hits)


def test_more_hits_than_the_longest_unread_first(tmp_path: Path) -> None:
    """Skewed reads of many small and some large files, and a crawl in between."""
    rng = random.Random(1)
    sizes = {f"f{n}": rng.choice([2, 5, 10, 20, 200]) * KB for n in range(400)}
    names = sorted(sizes)
    asked = [names[min(399, int(rng.paretovariate(0.6)) - 1)] for _ in range(2500)]
    asked[1200:1200] = names
    scores = {}
    for name in ("hz", "gdsf", "lru"):
        catalog = learning(tmp_path / name, eviction=name, cache_max_bytes=600 * KB)
        hits = 0
        for number, key in enumerate(asked):
            hits += read(catalog, key, sizes[key], 600 * KB)
            if number % 500 == 499:
                learn(catalog)
        scores[name] = hits
        assert catalog.totals()[0] <= 600 * KB
        catalog.close()
    print(scores)
    assert scores["hz"] > 1.1 * scores["lru"]
    assert scores["gdsf"] > 1.1 * scores["lru"]


def test_a_refit_is_read_outside_of_the_write_lock(tmp_path: Path) -> None:
    catalog, other = learning(tmp_path), open_catalog(tmp_path)
    read(catalog, "a", KB, 10 * KB)
    catalog.touch({"a": (refit_after(0, 0), 0.0)})
    wrote = []

    def breathe() -> None:
        if not wrote:
            wrote.append(other.admit(row_of("b", KB), max_bytes=10 * KB).admitted)

    catalog.tend(breathe)
    assert wrote == [True]
    assert refit_after(0, 0) == 500


def test_a_new_catalog_learns_from_something_before_its_first_refit(tmp_path: Path) -> None:
    catalog = learning(tmp_path)
    read(catalog, "a", KB, 10 * KB)
    learn(catalog)
    with database(catalog) as db:
        assert db.execute("SELECT count(*) FROM kept WHERE name = 'hazard'").fetchone() == (0,)
    catalog.touch({"a": (refit_after(0, 0), 0.0)})
    learn(catalog)
    with database(catalog) as db:
        assert db.execute("SELECT count(*) FROM kept WHERE name = 'hazard'").fetchone() == (1,)


# -- gdsf ------------------------------------------------------------------------------------------


def ranks(catalog: Catalog) -> dict[str, float]:
    with database(catalog) as db:
        return dict(db.execute("SELECT key, rank FROM seen WHERE rank IS NOT NULL"))


def test_gdsf_gives_up_the_lowest_rank_and_starts_from_there(tmp_path: Path) -> None:
    catalog = learning(tmp_path, eviction="gdsf", objective="object")
    for key, size, times in (("often", 40, 5), ("small", 10, 1), ("large", 50, 1)):
        for _ in range(times):
            read(catalog, key, size * KB, 100 * KB)
    read(catalog, "new", 30 * KB, 100 * KB)
    assert {row.key for row in catalog.rows()} == {"often", "small", "new"}
    floor = 1 / (50 * KB)
    assert ranks(catalog)["new"] == pytest.approx(1 / (30 * KB))
    read(catalog, "small", 10 * KB, 100 * KB)
    assert ranks(catalog)["small"] == pytest.approx(floor + 2 / (10 * KB))
    read(catalog, "large", 50 * KB, 100 * KB)  # remembered: it counts twice, and ranks above "new"
    assert {row.key for row in catalog.rows()} == {"often", "small", "large"}


def test_gdsf_forgets_ranks_of_what_went_otherwise(tmp_path: Path) -> None:
    catalog = learning(tmp_path, eviction="gdsf")
    for number in range(5):
        read(catalog, f"k{number}", 20 * KB, 100 * KB)
    for number in range(4):
        row = catalog.get(f"k{number}")
        assert row is not None
        catalog.remove(row.key, row.file)
    for number in range(14):
        read(catalog, f"small {number}", 10 * KB, 100 * KB)
    assert ranks(catalog).keys() >= {row.key for row in catalog.rows()}
    assert not ranks(catalog).keys() & {f"k{number}" for number in range(4)}


@pytest.mark.parametrize("before", ["lru", "hz", "gdsf"])
@pytest.mark.parametrize("after", ["hz", "gdsf"])
def test_after_another_policy_what_nobody_read_since_leaves(
    tmp_path: Path, before: Any, after: Any
) -> None:
    """Except that `hz` knows as well what `gdsf` saw."""
    catalog = learning(tmp_path, eviction=before)
    for number in range(10):
        catalog.admit(row_of(f"old{number}", 10 * KB, used=float(number)), max_bytes=100 * KB)
    catalog.close()
    catalog = learning(tmp_path, eviction=after)
    for number in range(4):
        row = row_of(f"new{number}", 10 * KB, used=1000.0)
        assert catalog.admit(row, max_bytes=100 * KB).admitted
    here = {row.key for row in catalog.rows()}
    assert len(here) == 10
    if before == "lru" or (before, after) == ("hz", "gdsf"):
        assert here == {f"old{n}" for n in range(4, 10)} | {f"new{n}" for n in range(4)}


@pytest.mark.parametrize("eviction", ["hz", "gdsf"])
def test_room_is_made_though_most_that_is_known_went_otherwise(
    tmp_path: Path, eviction: Any
) -> None:
    catalog = learning(tmp_path, eviction=eviction)
    for number in range(400):
        read(catalog, f"k{number}", KB, 400 * KB)
    for number in range(395):
        row = catalog.get(f"k{number}")
        assert row is not None
        catalog.remove(row.key, row.file)
    assert len(catalog.worst(3 * KB, 0)) == 3
    for number in range(3):
        assert catalog.admit(row_of(f"new{number}", KB), max_bytes=5 * KB).admitted
        assert catalog.totals()[0] <= 5 * KB
    with database(catalog) as db:
        [[moved]] = db.execute("SELECT count(*) FROM ghosts WHERE tick < 395").fetchall()
    assert moved > 0


def test_room_is_made_though_no_sample_has_a_copy_that_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned, "_ROUNDS", 0)
    catalog = learning(tmp_path)
    for number in range(8):
        row = row_of(f"k{number}", KB, used=float(number))
        assert catalog.admit(row, max_bytes=5 * KB).admitted
    assert {row.key for row in catalog.rows()} == {f"k{number}" for number in range(3, 8)}


@pytest.mark.parametrize("eviction", ["hz", "gdsf"])
def test_what_made_room_is_remembered_elsewhere(tmp_path: Path, eviction: Any) -> None:
    catalog = learning(tmp_path, eviction=eviction)
    for number in range(4):
        read(catalog, f"k{number}", 10 * KB, 15 * KB)
    with database(catalog) as db:
        here, ghosts = (
            {key for [key] in db.execute(f"SELECT key FROM {table}")}
            for table in ("seen", "ghosts")
        )
    assert here | ghosts == {"k0", "k1", "k2", "k3"}
    assert not here & ghosts
    assert "k0" in ghosts
    assert "k3" in here
    read(catalog, "k0", 10 * KB, 15 * KB)
    with database(catalog) as db:
        assert db.execute("SELECT uses FROM seen WHERE key = 'k0'").fetchall() == [(2,)]
        assert db.execute("SELECT count(*) FROM ghosts WHERE key = 'k0'").fetchone() == (0,)


def test_a_read_brings_back_what_was_taken_for_gone(tmp_path: Path) -> None:
    catalog = learning(tmp_path)
    read(catalog, "a", KB, 10 * KB)
    with database(catalog) as db:
        db.execute("INSERT INTO ghosts SELECT name, key, size, tick, uses, gap, kind, heat, floor"
                   " FROM seen")  # fmt: skip
        db.execute("DELETE FROM seen")
    catalog.touch({"a": (refit_after(0, 0), 0.0)})
    learn(catalog)
    with database(catalog) as db:
        assert db.execute("SELECT key, uses FROM seen").fetchall() == [("a", 501)]
        assert db.execute("SELECT count(*) FROM ghosts").fetchone() == (0,)


def test_not_all_that_left_is_remembered(tmp_path: Path) -> None:
    catalog = learning(tmp_path)
    read(catalog, "a", KB, 10 * KB)
    with database(catalog) as db:
        rows = [(number, f"g{number}", 1, -number, 1, -1, 0, 1.0, 0.0) for number in range(12_000)]
        db.executemany("INSERT INTO ghosts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        db.execute("UPDATE learned SET tick = 600, refit_at = 500")
    learn(catalog)
    with database(catalog) as db:
        kept = [key for [key] in db.execute("SELECT key FROM ghosts ORDER BY name")]
    assert kept == [f"g{number}" for number in range(10_000)]


def test_gdsf_finds_victims_by_its_index(tmp_path: Path) -> None:
    catalog = learning(tmp_path, eviction="gdsf")
    read(catalog, "a", KB, 10 * KB)
    with database(catalog) as db:
        plan = " ".join(str(row) for row in db.execute(f"EXPLAIN QUERY PLAN {_BY_RANK}"))
    assert "USING COVERING INDEX ranked" in plan or "USING INDEX ranked" in plan
    assert "TEMP B-TREE" not in plan


# -- the tournament --------------------------------------------------------------------------------


def test_requests_are_played_in_the_background(tmp_path: Path) -> None:
    catalog = learning(tmp_path, cache_max_bytes=50 * KB)
    rng = random.Random(1)
    names = [f"k{int(rng.paretovariate(0.7))}" for _ in range(600)]
    for name in names:
        read(catalog, name, KB, 50 * KB)
    with database(catalog) as db:
        waiting = "SELECT (SELECT count(*) FROM requests) + (SELECT count(*) FROM noted)"
        assert db.execute(waiting).fetchone() == (600,)
        assert state_of(db, "contest") is None
    learn(catalog)
    with database(catalog) as db:
        assert db.execute(waiting).fetchone() == (0,)
        stored = state_of(db, "contest")
        assert isinstance(stored, bytes)
    contest = Tournament(Hazard(), 50 * KB)
    assert contest.adopt(stored)
    assert len(contest._known) == len(set(names))
    assert 40 <= len(contest._shadows[0].here) <= 50


def test_what_the_tournament_found_holds_for_all_processes(tmp_path: Path) -> None:
    evictors = [Learned(make_options(tmp_path)) for _ in range(2)]
    one, two = (open_catalog(tmp_path, evictor=evictor) for evictor in evictors)
    read(one, "a", KB, 10 * KB)
    with database(one) as db:
        db.execute("UPDATE learned SET rule = 2, shift = 32, floor = 1.5")
    read(two, "b", KB, 10 * KB)
    assert (evictors[1]._rule, evictors[1]._shift, evictors[1]._floor) == (2, 32, 1.5)
    with database(one) as db:
        assert db.execute("SELECT key FROM seen WHERE floor = 1.5").fetchall() == [("b",)]
        assert db.execute("SELECT count(*) FROM requests").fetchone() == (1,)  # of "a"


def test_the_rule_decides_what_leaves(tmp_path: Path) -> None:
    """One file that was hot long ago, and one that is new: heat and GDSF keep another one."""
    kept = {}
    for rule in (HEAT, GDSF):
        catalog = learning(tmp_path / str(rule), objective="object")
        for key, times in (("hot", 5), ("new", 1)):
            for _ in range(times):
                read(catalog, key, 10 * KB, 20 * KB)
        with database(catalog) as db:
            db.execute("UPDATE learned SET rule = ?", (rule,))
            db.execute("UPDATE seen SET floor = 1.0 WHERE key = 'new'")
        [victim] = catalog.worst(1, 0)
        kept[rule] = "hot" if victim.key == "new" else "new"
    assert kept == {HEAT: "hot", GDSF: "new"}


# -- what misses cost ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Learned, Ranked])
def test_costs_of_misses_are_shared_and_survive(tmp_path: Path, kind: Any) -> None:
    first, second = kind(make_options(tmp_path)), kind(make_options(tmp_path))
    one = open_catalog(tmp_path, evictor=first)
    for number in range(100):
        one.fetched(1000 * KB, 1.0)
        one.fetched(KB, 0.5)
        read(one, f"k{number}", KB, 50 * KB)
    assert first._model.prices.costs.request == pytest.approx(0.5, rel=0.2)
    one.close()
    two = open_catalog(tmp_path, evictor=second)
    read(two, "new", KB, 50 * KB)
    assert second._model.prices.costs == first._model.prices.costs


def test_downloads_are_measured(tmp_path: Path) -> None:
    remote = MemoryRemote()
    for key in ("k", "l"):
        seed(remote, key, b"x" * 1000)
    store = store_of(make_options(tmp_path, mode="remote"), remote=remote)
    with contextlib.closing(store):
        for key in ("k", "l"):  # the first is noted with the second
            store.get(key)
        catalog = store._core.catalog
        with database(catalog) as db:
            [costs] = db.execute("SELECT costs FROM learned").fetchone()
    learner = MissCosts()
    learner.adopt(costs)
    assert learner.costs.request < 0.05  # memory is faster than a network


def test_waiting_for_room_is_no_part_of_what_a_miss_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, clock = MemoryRemote(), ShiftedClock()
    seed(remote, "k", b"x" * 1000)
    with store_of(make_options(tmp_path, mode="remote"), remote=remote, clock=clock) as store:
        fill = store.core.room.fill

        def slow(*asked: Any) -> None:
            clock.advance(100.0)
            fill(*asked)

        told: list[float] = []
        monkeypatch.setattr(store.core.room, "fill", slow)
        monkeypatch.setattr(store.core.catalog, "fetched", lambda size, took: told.append(took))
        store.get("k")
    [seconds] = told
    assert 0 <= seconds < 50
