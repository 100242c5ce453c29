"""A bucket and folders with something of every kind in them, whose truth is known."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from store_rig import Shifted, make_options, store_of

from cachestore.errors import NotFound
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.remotes import CountingRemote


class Later(Shifted):
    """The real time, and some more."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def advance(self, seconds: float) -> None:
        self._offset += seconds


class Rig:
    """A bucket, and folders with something of every kind in them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bucket = CountingRemote(MemoryRemote())
        self.options = make_options(
            root, mode="remote", handout_grace=0.0, negative_ttl=3600.0, leader_interval=0.02
        )
        self.clock = Later()
        with self.open() as store:
            for key in ("clean", "overwritten", "deleted", "both"):
                store.put(f"{key}.wav", f"{key} 1".encode())
            assert store.flush(60).done
            for key in ("clean", "overwritten", "deleted", "both"):
                store.get(f"{key}.wav")
            assert not store.exists("appears.wav")
            self.old = root / "old"
            shutil.copytree(self.cache, self.old)
            store.put("overwritten.wav", b"overwritten 2")
            store.put("appears.wav", b"appears")
            store.delete("deleted.wav")
            assert store.flush(60).done
        with self.open(idle=True) as store:
            store.put("pending.wav", b"pending")
            store.put("both.wav", b"both 2")
            store.delete("clean2.wav")
            store.close(drain=0)

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def catalog(self) -> Path:
        [folder] = self.cache.glob("*/catalog")
        return folder

    @property
    def database(self) -> Path:
        return self.catalog / (self.catalog / "current").read_text()

    def open(self, *, idle: bool = False) -> CacheStore:
        store = store_of(self.options, remote=self.bucket, clock=self.clock)
        if idle:
            store.core.uploader.stop(5.0)
        return store


TRUTH = {
    "clean.wav": b"clean 1",
    "overwritten.wav": b"overwritten 2",
    "deleted.wav": None,
    "appears.wav": b"appears",
    "pending.wav": b"pending",
    "both.wav": b"both 2",
    "clean2.wav": None,
}


def check(store: CacheStore) -> None:
    """All reads give the truth."""
    for key, data in TRUTH.items():
        assert store.exists(key) == (data is not None), key
        if data is None:
            with pytest.raises(NotFound):
                store.get(key)
        else:
            assert store.get(key).read_bytes() == store.read(key) == data, key
            assert store.head(key).size == len(data)
    assert [item.key for item in store.list()] == sorted(k for k, data in TRUTH.items() if data)
