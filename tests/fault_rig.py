"""Stores on a disk that fails, and what to ask of them afterwards."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from disk_rig import BrokenDisk
from store_rig import make_options, store_of

from cachestore.errors import NotFound
from cachestore.local.board import SHARDS
from cachestore.local.spool_scan import recount_shard
from cachestore.model import Attributes
from cachestore.store import CacheStore

FULL = (errno.ENOSPC, errno.EDQUOT)
CODES = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
BYTES = bytes(range(256)) * 700
MORE_THAN_THERE_ARE = 400


def named(code: int) -> str:
    return errno.errorcode[code]


def opened(root: Path, disk: BrokenDisk, remote: Any, **fields: Any) -> CacheStore:
    options = make_options(root, mode="remote", **({"leader_interval": 0.02} | fields))
    return store_of(options, files=disk, remote=remote)


def idle(root: Path, disk: BrokenDisk, remote: Any, **fields: Any) -> CacheStore:
    """A store that never uploads, so that all calls are the test's own."""
    store = opened(root, disk, remote, **fields)
    store.core.uploader.stop(5.0)
    return store


def seed(remote: Any, key: str, data: bytes) -> None:
    import hashlib
    import io

    remote.put(
        key, io.BytesIO(data), size=len(data), sha256=hashlib.sha256(data).hexdigest(),
        attributes=Attributes("audio/wav"),
    )  # fmt: skip


def spooled(store: CacheStore, key: str) -> list[str]:
    """The key's files in the spool."""
    place = store.core.spool.place(key)
    return sorted(p.name for p in store.core.spool.folder(place.shard).glob(f"{place.digest}*"))


def looked_at(store: CacheStore, key: str) -> bytes | None:
    try:
        data = store.get(key).read_bytes()
    except NotFound:
        assert not store.exists(key)
        return None
    assert store.read(key) == data
    return data


def sums(store: CacheStore) -> tuple[int, int]:
    """What is pending, counted anew."""
    for shard in range(SHARDS):
        recount_shard(store.core.spool, shard)
    return store.core.board.pending()


def each_call(disk: BrokenDisk, attempt: Callable[[int], None]) -> int:
    """Let `attempt(nth)` meet a fault at each of its calls in turn; how many there were."""
    for nth in range(1, MORE_THAN_THERE_ARE):
        attempt(nth)
        if len(disk.seen) < nth:
            return nth - 1
    raise AssertionError("there is no end to the calls")


def put_bytes(store: CacheStore, key: str) -> bytes | None:
    store.put(key, BYTES)
    return BYTES


def delete_it(store: CacheStore, key: str) -> bytes | None:
    store.delete(key)
    return None
