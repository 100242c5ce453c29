"""Copies that leave by what was learned: shared by processes, kept over restarts, within limits."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

from cache_rig import make_row as row_of
from cache_rig import open_catalog
from process_rig import finish, say, start
from store_rig import make_options

from cachestore.local.catalog import Catalog
from cachestore.local.evictors import Learned, Ordered, evictor_of
from cachestore.policy.hazard import Hazard

KB = 1000


def learning(folder: Path, **fields: Any) -> Catalog:
    return open_catalog(folder, evictor=Learned(make_options(folder, **fields)))


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


def test_the_limit_is_kept_and_pins_stay(tmp_path: Path) -> None:
    catalog = learning(tmp_path)
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


def test_a_newcomer_worth_less_than_all_others_does_not_come_in(tmp_path: Path) -> None:
    catalog = learning(tmp_path)
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
    with sqlite3.connect(catalog._files.held_path() or "") as db:
        [[uses]] = db.execute("SELECT uses FROM seen WHERE key = 'often'").fetchall()
    assert uses == 6


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
        db.execute("UPDATE learned SET version = 77, state = x'0123'")
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
    for name, evictor in {"hz": Learned(make_options(tmp_path)), "lru": Ordered()}.items():
        catalog = open_catalog(tmp_path / name, evictor=evictor)
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


def test_a_refit_is_read_outside_of_the_write_lock(tmp_path: Path) -> None:
    catalog, other = learning(tmp_path), open_catalog(tmp_path)
    read(catalog, "a", KB, 10 * KB)
    wrote = []

    def breathe() -> None:
        if not wrote:
            wrote.append(other.admit(row_of("b", KB), max_bytes=10 * KB).admitted)

    catalog.tend(breathe)
    assert wrote == [True]
    assert Hazard().refit_after(0) == 2000
