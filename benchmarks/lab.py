"""Real stores to measure: a bucket in memory, copies on a real disk, and a watch on what they take.

Traces are shortened and their files made small, so that a replay takes seconds. Sizes stay whole
blocks of the file system, so that what the catalog counts is what a replay of metadata counts.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.screen import Tell
from benchmarks.traces import Trace
from cachestore import CacheStore
from cachestore.clock import Clock
from cachestore.model import Attributes
from cachestore.open import assemble
from cachestore.options import Options
from cachestore.policy.costs import STARTING
from cachestore.remote.base import RemoteStore
from cachestore.remote.memory import MemoryRemote
from cachestore.testing.clock import FakeClock
from cachestore.testing.remotes import CountingRemote

BLOCK = 4096
USUAL = 4 * BLOCK
FLUSHED = 10
"""Requests between two flushes of counted hits: at an app's pace the janitor flushes as often."""

_BOOKKEEPING = ("catalog", "facts")


def name_of(key: int) -> str:
    """The name under which the bucket has a trace's key."""
    return f"files/{key}.bin"


def small(trace: Trace, requests: int) -> Trace:
    """The first `requests`; sizes scaled to a mean of `USUAL` bytes, up to whole blocks."""
    keys, times = trace.keys[:requests], trace.times[:requests]
    files = dict(zip(keys, trace.sizes, strict=False))
    scale = USUAL * len(files) / sum(files.values())
    sizes = [max(1, -int(-files[key] * scale // BLOCK)) * BLOCK for key in keys]
    return Trace(trace.name, keys, sizes, times)


def fill(remote: RemoteStore, trace: Trace) -> None:
    """Put the trace's files, of bytes that no file system squeezes, into a bucket."""
    for key, size in trace.files.items():
        body = random.Random(key).randbytes(size)
        remote.put(
            name_of(key),
            io.BytesIO(body),
            size=size,
            sha256=hashlib.sha256(body).hexdigest(),
            attributes=Attributes("application/octet-stream", {}, None),
        )


def bucket(trace: Trace) -> MemoryRemote:
    """A bucket in memory with the trace's files."""
    remote = MemoryRemote()
    fill(remote, trace)
    return remote


class Paced(CountingRemote):
    """A remote whose downloads take as long as the starting costs say, by a clock of the test."""

    def __init__(self, inner: Any, clock: FakeClock) -> None:
        super().__init__(inner)
        self._clock = clock

    def get(self, key: str, **options: Any) -> Any:
        answer = super().get(key, **options)
        if answer is not None:
            self._clock.advance(STARTING.of(answer.length))
        return answer


def options_for(root: Path, limit: int, **fields: Any) -> Options:
    """Folders below `root`; nothing waits for a hand-out's end, since a replay reads no bytes."""
    values: dict[str, Any] = {
        "cache_dir": root / "cache",
        "spool_dir": root / "spool",
        "local_dir": root / "output",
        "mode": "remote",
        "cache_min_free": 0.0,
        "cache_max_bytes": limit,
        "handout_grace": 0.0,
        "ttl": None,
    }
    return Options(**(values | fields))


def store_of(options: Options, remote: Any, clock: Clock | None = None) -> CacheStore:
    """A store on a bucket of the benchmark's own."""
    return CacheStore(lambda: assemble(options, remote=remote, clock=clock))


@dataclass(slots=True)
class Answered:
    """Requests and bytes that a store was asked for, and those that it had here."""

    requests: int = 0
    hits: int = 0
    bytes: int = 0
    hit_bytes: int = 0

    @classmethod
    def by(cls, store: CacheStore) -> Answered:
        """Since the store was opened."""
        counts = store.stats()
        return cls(
            counts.hits + counts.misses,
            counts.hits,
            counts.hit_bytes + counts.miss_bytes,
            counts.hit_bytes,
        )

    def __add__(self, other: Answered) -> Answered:
        return Answered(
            self.requests + other.requests,
            self.hits + other.hits,
            self.bytes + other.bytes,
            self.hit_bytes + other.hit_bytes,
        )

    def __sub__(self, other: Answered) -> Answered:
        return Answered(
            self.requests - other.requests,
            self.hits - other.hits,
            self.bytes - other.bytes,
            self.hit_bytes - other.hit_bytes,
        )

    @property
    def object_hit_ratio(self) -> float:
        return self.hits / self.requests if self.requests else 0.0

    @property
    def byte_hit_ratio(self) -> float:
        return self.hit_bytes / self.bytes if self.bytes else 0.0


def ask(store: CacheStore, keys: Sequence[int], tell: Tell = lambda done: None) -> None:
    """Get each key in turn; `tell` is called after each flush of counted hits."""
    for start in range(0, len(keys), FLUSHED):
        for key in keys[start : start + FLUSHED]:
            store.get(name_of(key))
        store.stats()
        tell(FLUSHED)


class Disk:
    """What a cache folder takes, in bytes on disk, at most at any look.

    `copies`: what is kept, on its way in or on its way out. `passing`: what was handed out
    without being kept. The database that keeps the books is not counted.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._root = cache_dir
        self.looks = self.copies = self.passing = 0

    def look(self) -> None:
        """Between requests, so that nothing comes or goes meanwhile."""
        copies = passing = 0
        for folder, size in _sizes(self._root):
            if folder == "transit":
                passing += size
            else:
                copies += size
        self.copies, self.passing = max(self.copies, copies), max(self.passing, passing)
        self.looks += 1


def _sizes(root: Path) -> Iterator[tuple[str, int]]:
    """Each file's folder's name, and its bytes on disk."""
    try:
        entries = list(os.scandir(root))
    except OSError:
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _BOOKKEEPING:
                    yield from _sizes(Path(entry.path))
            elif entry.name != ".gitignore":
                yield root.name, entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue  # it left meanwhile
