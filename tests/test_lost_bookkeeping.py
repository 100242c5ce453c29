"""Every index and note may be lost, junk, old or newer: nothing is lost, nothing wrong is read."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from local_rig import content
from loss_rig import TRUTH, Rig, check
from process_rig import finish, load_options, save_options, say, start
from store_rig import make_options, store_of, until

from cachestore.errors import CacheStoreError
from cachestore.remote.directory import DirectoryRemote
from cachestore.store import CacheStore


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


# -- the catalog and the facts ---------------------------------------------------------------------


def cache_removed(rig: Rig) -> None:
    shutil.rmtree(rig.cache)


def catalog_removed(rig: Rig) -> None:
    shutil.rmtree(rig.catalog)


def pointer_removed(rig: Rig) -> None:
    (rig.catalog / "current").unlink()


def pointer_junk(rig: Rig) -> None:
    (rig.catalog / "current").write_bytes(b"../../../etc/passwd\0\xff")


def database_junk(rig: Rig) -> None:
    rig.database.write_bytes(os.urandom(40_000))


def database_torn(rig: Rig) -> None:
    os.truncate(rig.database, rig.database.stat().st_size // 2)


def database_empty(rig: Rig) -> None:
    os.truncate(rig.database, 0)


def database_zeroed_inside(rig: Rig) -> None:
    with open(rig.database, "r+b") as file:
        file.seek(4096)
        file.write(bytes(8192))


def database_newer(rig: Rig) -> None:
    database = sqlite3.connect(rig.database)
    database.execute("PRAGMA user_version = 999")
    database.close()


def rolled_back(rig: Rig) -> None:
    """An old copy of the folder of the catalog is put back, as from a backup."""
    folder = rig.catalog
    shutil.rmtree(folder)
    [old] = rig.old.glob("*/catalog")
    shutil.copytree(old, folder)


def facts_rolled_back(rig: Rig) -> None:
    """Old facts are all that is left to ask."""
    catalog_removed(rig)
    for old in rig.old.glob("*/facts"):
        new = rig.cache / old.relative_to(rig.old)
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(old, new)


def facts_junk(rig: Rig) -> None:
    for path in rig.cache.glob("*/facts/cache.db*"):
        path.write_bytes(os.urandom(20_000))


def facts_removed(rig: Rig) -> None:
    for path in rig.cache.glob("*/facts"):
        shutil.rmtree(path)


def copies_removed(rig: Rig) -> None:
    for path in rig.cache.glob("*/??/*"):
        path.unlink()


def copies_torn(rig: Rig) -> None:
    for path in rig.cache.glob("*/??/*"):
        os.truncate(path, 3)


def states_junk(rig: Rig) -> None:
    for path in (rig.root / "spool").glob("??/*.state"):
        path.write_bytes(b"\xff{")
    (rig.root / "spool" / "leader.state").write_bytes(b"[]")


def leader_lock_removed(rig: Rig) -> None:
    (rig.root / "spool" / "leader.lock").unlink(missing_ok=True)


DAMAGES = [
    cache_removed, catalog_removed, pointer_removed, pointer_junk, database_junk, database_torn,
    database_empty, database_zeroed_inside, database_newer, rolled_back, facts_rolled_back,
    facts_junk, facts_removed, copies_removed, copies_torn, states_junk, leader_lock_removed,
]  # fmt: skip

ONLY_CLOSED = [database_torn, database_empty, database_zeroed_inside]
"""Truncating a database under a process that maps its log is for the file system to survive."""


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_while_nobody_looks(rig: Rig, damage: Callable[[Rig], None]) -> None:
    damage(rig)
    with rig.open(idle=True) as store:
        check(store)
        check(store)
        store.clean()
        store.fsck(repair=True)
        check(store)
        store.close(drain=0)
    with rig.open() as store:
        assert store.flush(60).done
        check(store)
        want = {key: data for key, data in TRUTH.items() if data is not None}
        assert content(rig.bucket.inner) == want
        until(lambda: cached(rig, store, "clean.wav"), "caching again")


def cached(rig: Rig, store: CacheStore, key: str) -> bool:
    store.get(key)
    asked = rig.bucket.calls["get"]
    store.core.hot.clear()
    store.get(key)
    return rig.bucket.calls["get"] == asked


@pytest.mark.parametrize(
    "damage", [d for d in DAMAGES if d not in ONLY_CLOSED], ids=lambda damage: damage.__name__
)
def test_damage_beside_an_open_store(rig: Rig, damage: Callable[[Rig], None]) -> None:
    """No process needs a restart."""
    with rig.open(idle=True) as store, rig.open(idle=True) as other:
        check(store)
        damage(rig)
        check(store)
        check(other)
        store.core.hot.clear()
        check(store)
        store.clean()
        store.fsck(repair=True)
        check(other)
        other.start()
        assert other.flush(60).done
        check(store)
        check(other)
        until(lambda: cached(rig, store, "clean.wav"), "caching again")


# -- rm -rf while four processes work --------------------------------------------------------------

KEYS, ROUNDS = 5, 5


def child_works(options: str, bucket: str, number: str) -> None:
    """Puts, reads and deletes keys of its own, and reads everybody's; says what it left."""
    left: dict[str, bytes | None] = {}
    with store_of(load_options(options), remote=DirectoryRemote(bucket)) as store:
        for round_ in range(ROUNDS):
            for each in range(KEYS):
                key, data = f"{number}/{each}.wav", f"{number} {each} {round_}".encode() * 50
                if (round_ + each) % 5 == 4:
                    store.delete(key)
                    left[key] = None
                    assert not store.exists(key)
                else:
                    store.put(key, data)
                    left[key] = data
                    assert store.read(key) == data
                    assert read_path(store, key) == data
                shared = f"shared/{each}.wav"
                assert store.read(shared) == shared.encode() * 100
        report = store.flush(60)
        assert report.done, report
        for key, data in left.items():
            assert store.exists(key) == (data is not None)
            assert data is None or store.read(key) == data
    say("left " + json.dumps({k: v.decode() for k, v in left.items() if v is not None}))


def read_path(store: CacheStore, key: str) -> bytes:
    """The user's own `rm -rf` may take a path away again."""
    while True:
        try:
            return store.get(key).read_bytes()
        except FileNotFoundError as error:
            if isinstance(error, CacheStoreError):
                raise


def test_the_cache_is_removed_again_and_again_while_four_processes_work(tmp_path: Path) -> None:
    options = make_options(tmp_path, mode="remote", leader_interval=0.02)
    bucket = tmp_path / "bucket"
    with store_of(options, remote=DirectoryRemote(bucket)) as store:
        for each in range(KEYS):
            store.put(f"shared/{each}.wav", f"shared/{each}.wav".encode() * 100)
        assert store.flush(60).done
    saved = save_options(options, tmp_path / "options")
    children = [
        start("test_lost_bookkeeping:child_works", saved, bucket, number) for number in range(4)
    ]
    removed = 0
    while any(child.poll() is None for child in children):
        if options.cache_dir.exists():
            shutil.rmtree(options.cache_dir, ignore_errors=True)
            removed += 1
        with contextlib.suppress(subprocess.TimeoutExpired):
            children[0].wait(0.02)
        for child in children[1:]:
            child.poll()
    want: dict[str, bytes] = {}
    for child in children:
        said = [line for line in finish(child).splitlines() if line.startswith("left ")]
        want |= {key: text.encode() for key, text in json.loads(said[0][5:]).items()}
    assert removed > 1
    with store_of(options, remote=DirectoryRemote(bucket)) as store:
        listed = {item.key for item in store.list() if not item.key.startswith("shared/")}
        assert listed == set(want)
        for key, data in want.items():
            assert store.read(key) == data
        assert store.pending() == []
