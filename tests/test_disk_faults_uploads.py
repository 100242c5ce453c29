"""Uploads while the disk fails: late at most, never forgotten."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import pytest
from disk_rig import FOREVER, BrokenDisk
from fault_rig import (
    BYTES,
    delete_it,
    idle,
    looked_at,
    named,
    opened,
    put_bytes,
    seed,
    spooled,
    sums,
)
from local_rig import content
from store_rig import until

from cachestore.errors import SpoolError
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.remotes import FaultyRemote

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def flushed(store: CacheStore) -> bool:
    try:
        return store.flush(1).done
    except SpoolError:  # what is left could not be looked at
        return False


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=named)
@pytest.mark.parametrize("folder", ["spool", "cache"])
def test_a_fault_at_any_call_of_an_upload_delays_it_at_most(
    tmp_path: Path, folder: str, code: int
) -> None:
    disk, bucket = BrokenDisk(), MemoryRemote()
    store = opened(tmp_path, disk, bucket)
    store.start()
    for nth in range(1, 32):
        key = f"songs/{nth}.wav"
        seed(bucket, key, b"older")
        store.get(key)
        # Before the put, so that no call of the upload comes too early to be counted.
        disk.fail(tmp_path / folder, code, nth=nth, times=2, threads="cachestore-")
        store.put(key, BYTES)
        until(lambda: flushed(store), f"the upload after a fault at call {nth}")
        disk.mend()
        assert content(bucket)[key] == BYTES
        assert looked_at(store, key) == BYTES
        assert not any(name.endswith(".ticket") for name in spooled(store, key))
    assert sums(store) == (0, 0)
    store.close()


@pytest.mark.parametrize("when", ["before it starts", "while it runs"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("work", [put_bytes, delete_it])
def test_a_ticket_that_cannot_be_read_for_a_while_is_not_forgotten(
    tmp_path: Path, work: Any, count: int, when: str
) -> None:
    bucket, disk = MemoryRemote(), BrokenDisk()
    other = idle(tmp_path, BrokenDisk(), bucket)
    store = opened(tmp_path, disk, bucket)
    keys = [f"songs/{number}.wav" for number in range(count)]
    for key in keys:
        seed(bucket, key, b"older")
    if when == "while it runs":
        store.start()
        assert store.flush(60).done
    disk.fail(store.options.spool_dir, errno.EIO, calls=("open_read",), times=FOREVER)
    for key in keys:
        work(other, key)
    store.start()
    until(lambda: sum(".ticket" in call for call in disk.seen) > count + 2, "looks at the tickets")
    assert not store.flush(0.2).done
    disk.mend()
    want = {} if work is delete_it else dict.fromkeys(keys, BYTES)
    until(lambda: content(bucket) == want, "the uploads")
    store.close()
    other.close(drain=0)


def test_a_worker_that_cannot_read_a_ticket_comes_back_to_it(tmp_path: Path) -> None:
    bucket, disk = MemoryRemote(), BrokenDisk()
    remote = FaultyRemote(bucket)
    remote.down()
    store = opened(tmp_path, disk, remote)
    store.put("song.wav", BYTES)
    until(lambda: store.pending()[0].tries > 0, "a failed try")
    disk.fail(store.options.spool_dir, errno.EIO, calls=("open_read",), times=FOREVER)
    remote.up()
    until(lambda: any(".ticket" in call for call in disk.seen), "the worker's look")
    disk.mend()
    until(lambda: content(bucket) == {"song.wav": BYTES}, "the upload")
    store.close()
