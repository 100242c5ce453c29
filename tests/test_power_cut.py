"""Power cuts at every moment of put, delete, acknowledgement and admission.

Every call is recorded; for each prefix of the calls states are built that a journaling file
system may leave, and a store is opened on each.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from figures import record
from power_rig import (
    Cut,
    Died,
    Scenario,
    Tape,
    TapedRemote,
    examine,
    neighbours,
    session,
    upload,
)  # fmt: skip

from cachestore.model import Attributes
from cachestore.remote.memory import MemoryRemote

ONE, TWO, THREE = neighbours(3)
FAR = "far/away.bin"
STYLES = [
    ("least", "oldest"), ("least", "newest"), ("names", "newest"), ("zeros", "oldest"),
    ("zeros", "newest"), ("all", "oldest"), ("all", "newest"), ("all", "gone"),
]  # fmt: skip

WORST = [("least", "oldest"), ("zeros", "newest"), ("all", "oldest")]


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: no real power is cut, so no real sync is needed."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="cachestore-test-") as folder:
        yield Path(folder)


def data(number: int) -> bytes:
    return random.Random(number).randbytes(900 + number)


def pending(root: Path, tape: Tape) -> None:
    """New keys, overwritten and deleted before they are sent, in one folder and in two."""
    remote = TapedRemote(tape)
    with session(root, tape, remote) as run:
        run.put(ONE, data(1))
        run.put(TWO, data(2))
        run.get(ONE, data(1))
        run.put(ONE, data(3))
        run.put(FAR, data(4))
        run.delete(TWO)
        run.put(TWO, data(5))
        run.get(TWO, data(5))
        run.delete(ONE)
    upload(root, tape, remote)


def clean(root: Path, tape: Tape) -> None:
    """What the bucket has: overwritten, sent, deleted, sent, and put once more."""
    remote = TapedRemote(tape)
    with session(root, tape, remote) as run:
        run.put(ONE, data(1))
        run.put(TWO, data(2))
    upload(root, tape, remote)
    with session(root, tape, remote) as run:
        run.put(ONE, data(3))
        run.get(ONE, data(3))
        run.get(TWO, data(2))
        run.delete(TWO)
        run.put(THREE, data(4))
    upload(root, tape, remote)
    with session(root, tape, remote) as run:
        run.get(ONE, data(3))
        run.put(TWO, data(5))
        run.delete_prefix("", [ONE, THREE, TWO])
    upload(root, tape, remote)


def foreign(tape: Tape) -> TapedRemote:
    """A bucket with objects of others: one sent whole, one in parts (its ETag is no digest)."""
    bucket = MemoryRemote()
    for key, number in ((ONE, 1), (TWO, 2), (THREE, 3)):
        attributes = Attributes("audio/wav")
        if key == TWO:
            upload_id = bucket.create_upload(key, sha256="", attributes=attributes)
            part = bucket.upload_part(key, upload_id, 1, data(number))
            bucket.complete_upload(key, upload_id, [part])
        else:
            body, size = io.BytesIO(data(number)), len(data(number))
            bucket.put(key, body, size=size, sha256="", attributes=attributes)
    return TapedRemote(tape, bucket._objects)


def downloads(root: Path, tape: Tape) -> None:
    """Admission of what was fetched, then changes of it that are sent."""
    remote = foreign(tape)
    with session(root, tape, remote) as run:
        run.get(ONE, data(1))
        run.get(TWO, data(2))
        run.get(THREE, data(3))
        run.put(ONE, data(4))
        run.delete(TWO)
        assert run.store.flush(60).done
    with session(root, tape, remote, sync_after=0.0) as run:
        run.get(THREE, data(3))
        run.store.clean()
        run.put(TWO, data(5))


def evictions(root: Path, tape: Tape) -> None:
    """A cache of one entry: what was evicted without a sync is overwritten and deleted."""
    remote = TapedRemote(tape)
    limit = {"cache_max_entries": 1}
    with session(root, tape, remote, **limit) as run:
        run.put(ONE, data(1))
        assert run.store.flush(60).done
        run.get(ONE, data(1))
        run.put(FAR, data(2))
        assert run.store.flush(60).done
        run.store.invalidate(FAR)
        run.delete(FAR)
        assert run.store.flush(60).done
        run.get(ONE, data(1))
        run.store.invalidate(ONE)
        run.delete(ONE)
        assert run.store.flush(60).done


def too_large(root: Path, tape: Tape) -> None:
    """An older copy left the cache without a sync; the new version is too large to be kept."""
    remote = TapedRemote(tape)
    with session(root, tape, remote, cache_max_bytes=8192) as run:
        run.put(ONE, data(1))
        assert run.store.flush(60).done
        run.get(ONE, data(1))
        run.store.invalidate(ONE)
        run.put(ONE, random.Random(9).randbytes(9000))
        assert run.store.flush(60).done


def switched(root: Path, tape: Tape) -> None:
    """The remote is switched off and on: local changes and tickets that make each other void."""
    remote = TapedRemote(tape)
    with session(root, tape, remote) as run:
        run.put(FAR, data(7))
    with session(root, tape, None) as run:
        run.put(ONE, data(1))
        run.put(TWO, data(2))
        run.put(THREE, data(3))
        run.put(FAR, data(8))
    with session(root, tape, remote) as run:
        run.put(ONE, data(4))
        run.delete(TWO)
    with session(root, tape, None) as run:
        run.put(ONE, data(5))
        run.delete(THREE)
    upload(root, tape, remote)
    with session(root, tape, remote) as run:
        run.get(ONE, data(5))
        run.put(ONE, data(6))
        run.delete(FAR)
    upload(root, tape, remote)


SCENARIOS = [pending, clean, downloads, evictions, too_large, switched]


def tape_of(scenario: Scenario, root: Path) -> Tape:
    tape = Tape(root)
    scenario(root, tape)
    tape.end()
    return tape


Choice = tuple[int, str, str]
"""A moment, what became of unsynced files, and which catalog is left."""


def choices(tape: Tape, rng: random.Random, *, mixed: int, start: int = 0) -> list[Choice]:
    """Every kind of state at every moment, and `mixed` ones of chance."""
    styles = STYLES + [("mixed", "any")] * mixed
    return [(at, *style) for at in range(start, len(tape.notes) + 1) for style in styles]


def some_choices(tape: Tape, rng: random.Random) -> list[Choice]:
    """The worst states when a promise was given and when uploads ended, and some others."""
    every = choices(tape, rng, mixed=2)
    ends = {at for at, note in enumerate(tape.notes, 1) if note[0] == "end"} | {len(tape.notes)}
    return [c for c in every if c[0] in ends and c[1:] in WORST] + rng.sample(every, 30)


def examine_all(tape: Tape, base: Path, rng: random.Random, wanted: list[Choice]) -> dict[str, int]:
    """Examine states, each only once; the figures."""
    seen: set[str] = set()
    for moment, style, catalog in wanted:
        target, seed = base / "state", rng.randrange(1 << 30)
        cut = Cut(tape.notes[:moment])
        name = cut.build(target, random.Random(seed), style, catalog)
        if name not in seen:
            seen.add(name)
            try:
                examine(target, cut)
            except BaseException as error:
                error.add_note(f"at {moment}: {style}, {catalog}, seed {seed}")
                error.add_note("\n".join(str(n)[:200] for n in tape.notes[:moment][-12:]))
                raise
        shutil.rmtree(target, ignore_errors=True)
    return {"calls": len(tape.notes), "states": len(seen), "lost": 0, "wrong": 0}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_some_states(scenario: Scenario, fast: Path) -> None:
    tape, rng = tape_of(scenario, fast / "a"), random.Random(4)
    figures = examine_all(tape, fast, rng, some_choices(tape, rng))
    record("power_cut", run="some", scenario=scenario.__name__, **figures)


@pytest.mark.torture
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_all_states(scenario: Scenario, fast: Path) -> None:
    tape, rng = tape_of(scenario, fast / "a"), random.Random(5)
    figures = examine_all(tape, fast, rng, choices(tape, rng, mixed=4))
    record("power_cut", run="all", scenario=scenario.__name__, **figures)


def killed_then(root: Path, nth: int, before: list[bytes]) -> tuple[Tape, int]:
    """A put, the first of its key or not, dies at its nth call; another process puts it again."""
    tape = Tape(root)
    remote = TapedRemote(tape)
    with session(root, tape, remote) as run:
        for old in before:
            run.put(ONE, old)
        start = len(tape.notes)
        tape.dies_at = start + 1 + nth
        try:
            run.put(ONE, data(2))
        except Died:
            pass
        else:
            return tape, -1
    with session(root, tape, remote) as run:
        run.put(ONE, data(3))
    upload(root, tape, remote)
    tape.end()
    return tape, start


@pytest.mark.torture
@pytest.mark.parametrize("before", [[], [data(1)]], ids=["first", "overwrite"])
def test_a_kill_and_then_a_power_cut(fast: Path, before: list[bytes]) -> None:
    total = {"kills": 0, "calls": 0, "states": 0, "lost": 0, "wrong": 0}
    for nth in range(100):
        tape, start = killed_then(fast / str(nth), nth, before)
        if start < 0:
            break
        rng = random.Random(nth)
        wanted = choices(tape, rng, mixed=4, start=start)
        figures = examine_all(tape, fast, rng, rng.sample(wanted, 80))
        for name, value in ({"kills": 1} | figures).items():
            total[name] += value
    assert total["kills"] > 8
    record("power_cut", run="all", scenario=f"a kill in {len(before)} overwriting", **total)


def test_a_folder_that_a_dead_process_made_is_durable_with_the_next_put(fast: Path) -> None:
    """It died between making the shard folder and syncing its name."""
    states = 0
    for nth in range(4):
        tape, _ = killed_then(fast / str(nth), nth, [])
        rng = random.Random(nth)
        ends = [at for at, note in enumerate(tape.notes, 1) if note[0] == "end"]
        wanted = [(at, *style) for at in ends for style in STYLES]
        states += examine_all(tape, fast, rng, wanted)["states"]
    assert states >= 4
