"""Files read by blocks by several processes in a cache that is too small, and power cuts."""

from __future__ import annotations

import io
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from power_rig import Cut, Quick, Tape, TapedRemote, next_boot, session
from process_rig import finish, load_options, save_options, say, start
from room_rig import LIMIT, TRANSIT, Sampler, Slow, small
from store_rig import make_options, store_of

from cachestore.errors import CacheFull
from cachestore.model import Attributes
from cachestore.remote.directory import DirectoryRemote
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.contract_tools import put as upload

KIB = 1 << 10
BLOCK = 256 * KIB
COUNT = 10


def content(number: int) -> bytes:
    chance = random.Random(number)
    return chance.randbytes(chance.randrange(600 * KIB, 2500 * KIB))


def child_reads(options: str, bucket: str, seconds: str, seed: str) -> None:
    """Pieces of large files by six threads, and wholes, and changes; says what went wrong."""
    store = store_of(load_options(options), remote=Slow(DirectoryRemote(bucket, durable=False)))
    all_of = [content(number) for number in range(COUNT)]
    end, wrong, done = time.monotonic() + float(seconds), list[str](), [0]

    def work(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        while time.monotonic() < end:
            which = chance.randrange(COUNT)
            try:
                if not one_read(store, chance, f"{which}.mp4", all_of[which]):
                    wrong.append(f"{which} wrong")
                done[0] += 1
            except CacheFull:
                pass
            except Exception as error:  # whatever it is, the test is to know
                wrong.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close(drain=0)
    say(done[0], *wrong[:3])


def one_read(store: CacheStore, chance: random.Random, key: str, data: bytes) -> bool:
    at = chance.randrange(len(data))
    kind = chance.random()
    if kind < 0.05:
        with store.lease(key) as path:
            return path.read_bytes() == data
    if kind < 0.1:
        store.invalidate(key)
    if kind < 0.5:
        count = chance.randrange(1, BLOCK)
        return store.read(key, at, at + count) == data[at : at + count]
    with store.open(key, at) as file:
        file.seek(at)
        return file.read(3 * BLOCK) == data[at : at + 3 * BLOCK]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere two may fetch one block")
def test_the_disk_never_holds_more_than_the_limits(tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    remote = DirectoryRemote(bucket, durable=False)
    for number in range(COUNT):
        upload(remote, f"{number}.mp4", content(number))
    options = small(tmp_path, block_bytes=BLOCK, read_ahead_bytes=2 * BLOCK)
    saved = save_options(options, tmp_path / "options")
    with Sampler(tmp_path / "cache") as sampler:
        children = [
            start("test_progressive_room:child_reads", saved, bucket, 4, seed) for seed in range(3)
        ]
        said = [finish(child).split() for child in children]
    assert sampler.looks > 50
    assert sum(int(words[0]) for words in said) > 20, said
    assert [words[1:] for words in said] == [[], [], []]
    assert sampler.peak <= LIMIT + TRANSIT, (sampler.peak, sampler.sure)


# -- power cuts -----------------------------------------------------------------------------------

SMALL = 64 * KIB
LONG = random.Random(3).randbytes(3 * SMALL + 100)
WHOLE, IN_PARTS = "whole.mp4", "parts.mp4"


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: no real power is cut, so no real sync is needed."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="cachestore-test-") as folder:
        yield Path(folder)


def by_blocks(root: Path) -> Tape:
    """Two objects, one without a digest, of which parts are read, and then the rest."""
    bucket, tape = MemoryRemote(), Tape(root)
    attributes = Attributes("video/mp4")
    bucket.put(WHOLE, io.BytesIO(LONG), size=len(LONG), sha256="", attributes=attributes)
    upload_id = bucket.create_upload(IN_PARTS, sha256="", attributes=attributes)
    part = bucket.upload_part(IN_PARTS, upload_id, 1, LONG)
    bucket.complete_upload(IN_PARTS, upload_id, [part])
    remote = TapedRemote(tape, bucket._objects)
    for end in (SMALL + 5, len(LONG) - 1):
        with session(root, tape, remote, block_bytes=SMALL, read_ahead_bytes=SMALL) as run:
            for key in (WHOLE, IN_PARTS):
                assert run.store.read(key, 7, end) == LONG[7:end]
    tape.end()
    return tape


def as_if_tokens_stayed(store: CacheStore) -> int:
    """The next run of the machine has other tokens, which void all parts; how many there are."""

    def work(db: Any) -> int:
        for [key] in db.execute("SELECT key FROM partials").fetchall():
            token = store.core.board.token(store.core.spool.place(key).slot)
            db.execute("UPDATE partials SET token = ? WHERE key = ?", (f"{token:x}", key))
        return int(db.execute("SELECT count(*) FROM partials").fetchone()[0])

    return store.core.catalog.change(work, 0)


def test_no_wrong_byte_is_served_after_a_power_cut(fast: Path) -> None:
    tape, chance, parts = by_blocks(fast / "a"), random.Random(7), 0
    styles = [(s, c) for s in ("least", "zeros", "all", "mixed") for c in ("oldest", "newest")]
    moments = range(len(tape.notes) // 8, len(tape.notes) + 1)
    for number in range(40):
        cut = Cut(tape.notes[: chance.choice(moments)])
        style, target = styles[number % len(styles)], fast / "state"
        cut.build(target, random.Random(number), *style)
        options = make_options(
            target, mode="remote", local_dir=target / "o", block_bytes=SMALL, read_ahead_bytes=0
        )
        remote = TapedRemote(None, cut.objects)
        with next_boot(), store_of(options, files=Quick(), remote=remote) as store:
            parts += as_if_tokens_stayed(store)
            for key in (WHOLE, IN_PARTS):
                at = chance.randrange(1, len(LONG))
                assert store.read(key, at, at + SMALL) == LONG[at : at + SMALL], (number, style)
                assert store.read(key, 1) == LONG[1:], (number, style)
                assert store.get(key).read_bytes() == LONG, (number, style)
        shutil.rmtree(target)
    assert parts > 10, "some had parts to be looked at"
