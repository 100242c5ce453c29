"""Requests that shared facts save: the same questions of two stores, with and without them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.lab import bucket, name_of, options_for, store_of
from benchmarks.rig import alone, publish
from benchmarks.screen import Tell, progress
from benchmarks.traces import Trace
from cachestore import CacheStore
from cachestore.errors import NotFound
from cachestore.model import PresignedUpload
from cachestore.testing.remotes import CountingRemote

QUESTIONS, FILES = 2_000, 200
NEGATIVE_TTL = 60.0
TARGET = "most requests saved; URLs stay the same, so that clients can keep what they loaded"


class Signing(CountingRemote):
    """A counted bucket that makes URLs, each one another."""

    def presign_get(self, key: str, expires_in: int) -> str:
        self.calls["presign"] += 1
        return f"https://bucket.example/{key}?expires={expires_in}&n={self.calls['presign']}"

    def presign_put(
        self, key: str, *, content_type: str, expires_in: int, size: int | None, sha256: str | None
    ) -> PresignedUpload:
        raise NotImplementedError("nobody asks for it here")


def questions(seed: int = 5) -> Iterator[tuple[str, str]]:
    """What an app asks: mostly of few keys; every fifth key does not exist."""
    rng = random.Random(seed)
    kinds = ("head", "exists", "get", "url")
    for _ in range(QUESTIONS):
        key = min(FILES - 1, int(rng.paretovariate(0.7)) - 1)
        [kind] = rng.choices(kinds, (40, 30, 10, 20))
        if key % 5 == 4:
            kind = "exists" if kind == "head" else "get"
        yield kind, name_of(key)


def files() -> Trace:
    """The four fifths that exist."""
    keys = [key for key in range(FILES) if key % 5 != 4]
    return Trace("facts", keys, [4096] * len(keys))


def ask(store: CacheStore, kind: str, key: str) -> str | None:
    """One question; a URL if it was for one."""
    if kind == "url":
        return store.presign_get(key)
    if kind == "exists":
        store.exists(key)
        return None
    try:
        store.head(key) if kind == "head" else store.get(key)
    except NotFound:
        pass
    return None


def measure(root: Path, *, facts: bool, tell: Tell = lambda done: None) -> dict[str, Any]:
    """All questions, in turns to two stores on the same folders."""
    remote = Signing(bucket(files()))
    options = options_for(root, 20 * 4096, negative_ttl=NEGATIVE_TTL)
    if not facts:
        # A file where their folder should be: they cannot be kept, and nothing else is different.
        planted = options.cache_dir / remote.remote_id / "facts"
        planted.parent.mkdir(parents=True)
        planted.touch()
    urls: set[str | None] = set()
    with store_of(options, remote) as one, store_of(options, remote) as other:
        for number, (kind, key) in enumerate(questions()):
            urls.add(ask((one, other)[number % 2], kind, key))
            tell(1)
    calls = remote.calls
    return {
        "head": calls["head"],
        "get": calls["get"],
        "requests": calls["head"] + calls["get"],
        "different URLs": len(urls - {None}),
    }


def run(root: Path) -> None:
    """Print, and write, the requests that reached the bucket."""
    rows = []
    with progress("asking", 2 * QUESTIONS) as tell:
        for name in ("none", "shared"):
            found = measure(root / name, facts=name == "shared", tell=tell)
            rows.append({"facts": name, "questions": QUESTIONS, **found})
    saved = 1 - rows[1]["requests"] / rows[0]["requests"]
    rows = [{**row, "saved %": share} for row, share in zip(rows, (0.0, saved), strict=True)]
    publish("facts", "Requests that facts save, two stores on one cache", rows, TARGET)


if __name__ == "__main__":
    alone(run)
