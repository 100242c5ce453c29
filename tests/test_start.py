"""A store opens on a spool full of tickets: nobody waits until they are read."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from concurrency_rig import Asked, on_double
from local_rig import content
from store_rig import make_options, store_of, until

from cachestore.errors import NotFound
from cachestore.keys import place_of
from cachestore.local.tickets import Ticket, encode
from cachestore.remote.memory import MemoryRemote
from cachestore.testing.r2 import R2Double
from cachestore.uploads import leader


def fill(root: Path, remote_id: str, count: int) -> None:
    """Tickets as an earlier run left them: one put among nine deletes."""
    for shard in range(256):
        (root / f"{shard:02x}").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        key, id_ = f"k/{number}", f"{number:032x}"
        place = place_of(remote_id, key)
        folder = root / place.folder
        ticket = Ticket(remote_id, key, id_, "delete", 1_700_000_000.0 + number)
        if number % 10 == 0:
            data = key.encode()
            name = f"{place.digest}.{id_}"
            (folder / name).write_bytes(data)
            ticket = Ticket(
                remote_id, key, id_, "put", 1_700_000_000.0 + number, name, len(data),
                hashlib.sha256(data).hexdigest(),
            )  # fmt: skip
        (folder / f"{place.digest}.ticket").write_bytes(encode(ticket))


def first_reads(tmp_path: Path, double: R2Double, count: int) -> float:
    """Seconds until the first reads are answered, while the uploader reads the spool."""
    options = on_double(tmp_path, double)
    with store_of(options) as store:
        remote_id = store.core.remote_id
        store.put("cached", b"cached", durability="remote")
    fill(options.spool_dir, remote_id, count)
    double.down()
    start = time.perf_counter()
    store = store_of(options)
    store.start()
    assert store.get("cached").read_bytes() == b"cached"
    assert store.get("k/10").read_bytes() == b"k/10"
    with pytest.raises(NotFound):
        store.get("k/11")
    took = time.perf_counter() - start
    puts = [Asked(lambda n=n: store.put(f"new/{n}", b"x")) for n in range(5)]
    for put in puts:
        assert put.answer().size == 1
    assert store.get(f"k/{count // 20 * 10}").read_bytes() == f"k/{count // 20 * 10}".encode()
    until(lambda: store.health()["uploader"]["queue"] >= count, seconds=600)
    store.close(drain=0)
    return took


def test_five_thousand_tickets_at_start(tmp_path: Path) -> None:
    with R2Double() as double:
        first_reads(tmp_path, double, 5_000)


def test_nobody_waits_until_the_tickets_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The uploader is held at the first ticket that it reads."""
    held, go, read_item = threading.Event(), threading.Event(), leader.read_item

    def wait(*arguments: Any) -> Any:
        held.set()
        assert go.wait(60)
        return read_item(*arguments)

    monkeypatch.setattr(leader, "read_item", wait)
    options, bucket = make_options(tmp_path, mode="remote"), MemoryRemote()
    fill(options.spool_dir, bucket.remote_id, 20)
    store = store_of(options, remote=bucket)
    store.start()
    assert held.wait(60)
    assert store.get("k/10").read_bytes() == b"k/10"
    with pytest.raises(NotFound):
        store.get("k/11")
    assert store.put("new", b"x").wait(60) == "uploaded"
    assert store.read("new") == b"x"
    go.set()
    assert store.flush(60).done
    assert content(bucket) == {"k/0": b"k/0", "k/10": b"k/10", "new": b"x"}
    store.close()


@pytest.mark.torture
def test_three_hundred_thousand_tickets_at_start(tmp_path: Path) -> None:
    with R2Double() as double:
        took = first_reads(tmp_path, double, 300_000)
    print(f"first reads after {took:.3f} s, load {os.getloadavg()[0]:.1f}")
    assert took < 1.0
