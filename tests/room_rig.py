"""What a folder takes on disk, looked at all the time while others work in it."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache_rig import CacheRig, make_row
from process_rig import load_options, say
from store_rig import make_options, store_of

from cachestore.errors import CacheFull
from cachestore.files import allocated
from cachestore.options import Options
from cachestore.remote.directory import DirectoryRemote
from cachestore.store import CacheStore
from cachestore.testing.contract_tools import put as upload

KB, MB = 1000, 1_000_000
LIMIT, TRANSIT = 8 * MB, 2 * MB


def on_disk(folder: Path) -> dict[int, int]:
    """Bytes on disk of everything in a folder, as `du` counts: by inode."""
    found: dict[int, int] = {}
    left = [str(folder)]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    try:
                        stat = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    found[stat.st_ino] = stat.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
        except FileNotFoundError:
            continue
    return found


class Sampler:
    """Looks every few milliseconds, from a thread of its own.

    `peak`: the largest sum of one look. A look takes a moment, in which one file may go and
    another come, so `sure` counts only what two looks in a row saw: so much was there between
    them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.looks = self.peak = self.sure = 0

    def _run(self) -> None:
        before: dict[int, int] = {}
        while not self._stop.wait(0.002):
            now = on_disk(self._folder)
            self.looks += 1
            self.peak = max(self.peak, sum(now.values()))
            both = before.keys() & now.keys()
            self.sure = max(self.sure, sum(min(before[each], now[each]) for each in both))
            before = now

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def small(root: Path, **fields: object) -> Options:
    """A cache with room for a fifth of what there is to read."""
    values: dict[str, object] = {
        "mode": "remote", "cache_max_bytes": LIMIT, "cache_transit_bytes": TRANSIT,
        "handout_grace": 2.0, "leader_interval": 0.02,
    }  # fmt: skip
    return make_options(root, **(values | fields))


def fill_bucket(path: Path, count: int, seed: int = 1) -> DirectoryRemote:
    """Files of 8 KB to 800 KB, most of them small."""
    remote = DirectoryRemote(path, durable=False)
    chance = random.Random(seed)
    for number in range(count):
        upload(remote, f"{number}.bin", os.urandom(int(8 * KB * 100 ** chance.random())))
    return remote


class Slow:
    """A network on which many downloads are under way at a time."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def get(self, key: str, **fields: Any) -> Any:
        @contextmanager
        def opened() -> Iterator[Any]:
            with self.inner.get(key, **fields) as body:
                yield _SlowBody(body)

        return opened()


class _SlowBody:
    def __init__(self, body: Any) -> None:
        self._body = body
        self.info, self.length = body.info, body.length

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._body:
            for start in range(0, len(chunk), 32 * KB):
                time.sleep(0.02)  # the network
                yield chunk[start : start + 32 * KB]

    def close(self) -> None:
        self._body.close()


def child_reads(options: str, bucket: str, count: str, seconds: str, seed: str) -> None:
    """Reads of all kinds by eight threads, and puts; says what could not be had."""
    store = store_of(load_options(options), remote=Slow(DirectoryRemote(bucket, durable=False)))
    end = time.monotonic() + float(seconds)
    failed: list[str] = []

    def work(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        while time.monotonic() < end:
            try:
                one_call(store, chance, int(count), f"{seed}/{number}")
            except CacheFull:
                failed.append("full")
            except Exception as error:  # whatever it is, the test is to know
                failed.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = store.stats()
    store.close(drain=0)
    say(counts.hits, counts.misses, counts.evictions, counts.refused, *failed[:3])


def one_call(store: CacheStore, chance: random.Random, count: int, name: str) -> None:
    key = f"{int(count * chance.random() ** 2)}.bin"
    kind = chance.random()
    if kind < 0.2:
        path = store.get(key)
        assert path.stat().st_size > 0
    elif kind < 0.6:
        assert store.read(key)
    elif kind < 0.75:
        with store.open(key) as file:
            assert file.read(10)
    elif kind < 0.95:
        with store.lease(key) as path:
            assert path.read_bytes()
    else:
        store.put(f"{name}/{chance.randrange(9)}.bin", os.urandom(chance.randrange(200 * KB)))


# -- one download, step by step -------------------------------------------------------------------


@dataclass
class Arriving:
    """A download under way in a rig's cache."""

    rig: CacheRig
    key: str
    size: int

    def __post_init__(self) -> None:
        place = self.rig.place(self.key)
        self.fd, self.part = self.rig.cache.new_part(place)
        self.grant = self.rig.room.grant(self.key, place, self.part)

    def reserve(self) -> Arriving:
        self.rig.room.fill(self.grant, self.size)
        return self

    def settle(self) -> Path:
        """All bytes are there, under the copy's name."""
        os.pwrite(self.fd, os.urandom(self.size), 0)
        return self.rig.cache.settle(self.part, self.fd, self.grant.goal)

    def end(self) -> Path:
        """A copy, or a file that passes through."""
        path = self.settle()
        stat = os.stat(path)
        row = make_row(
            self.key, self.size, file=self.grant.goal, allocated=allocated(stat),
            mtime_ns=stat.st_mtime_ns, inode=stat.st_ino,
        )  # fmt: skip
        if not self.rig.room.keep(self.grant, row):
            path = self.rig.room.passes(self.grant, self.rig.cache.to_transit(path))
        os.close(self.fd)
        return path


def arrive(rig: CacheRig, key: str, size: int) -> Path:
    return Arriving(rig, key, size).reserve().end()


def files(rig: CacheRig) -> int:
    """Bytes on disk of all files of the cache, without the catalog."""
    folders = [path for path in rig.root.iterdir() if path.name not in ("catalog", "facts")]
    return sum(allocated(file.stat()) for path in folders for file in path.iterdir())
