"""What a replay of metadata says is what a real store does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import hit_rate, through_store
from benchmarks.lab import BLOCK, Disk, small
from benchmarks.traces import Trace, synthetic


@pytest.fixture(scope="module")
def trace() -> Trace:
    return small(synthetic(requests=6_000, files=1_500), 1_500)


@pytest.mark.parametrize(
    ("policy", "apart"),
    [("hz", 0.05), ("gdsf", through_store.AGREED), ("lru", through_store.AGREED)],
)
def test_a_store_answers_as_many_as_the_replay(
    tmp_path: Path, trace: Trace, policy: str, apart: float
) -> None:
    """`hz` looks at random samples: with so few requests a few points are luck."""
    told: list[int] = []
    one = through_store.both(tmp_path, trace, 0.2, policy, "time", told.append)
    assert one.store.requests == len(trace.keys)
    assert one.store.bytes == sum(trace.sizes)
    assert one.metadata.object_hit_ratio > 0.3
    assert one.apart <= apart
    assert 0.5 < one.peak_ratio <= 1.0  # of all that is on disk, the catalog included
    assert sum(told) >= len(trace.keys)


def test_small_traces_keep_their_requests_and_their_proportions(trace: Trace) -> None:
    big = synthetic(requests=6_000, files=1_500)
    assert trace.keys == big.keys[:1_500]
    assert all(size % BLOCK == 0 for size in trace.sizes)
    assert 4 * BLOCK < trace.footprint / len(trace.files) < 6 * BLOCK
    largest = max(range(1_500), key=lambda at: big.sizes[at])
    assert trace.sizes[largest] == max(trace.sizes)


def test_a_look_at_the_disk_tells_copies_from_what_passes(tmp_path: Path) -> None:
    for name, size in {
        "ab/copy": 3,
        "parts/some.part": 1,
        "transit/other": 7,
        "facts/f": 9,
    }.items():
        path = tmp_path / "remote" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size * BLOCK))
    disk = Disk(tmp_path)
    disk.look()
    assert (disk.copies, disk.passing) == (4 * BLOCK, 7 * BLOCK)
    (tmp_path / "remote" / "ab" / "copy").unlink()
    disk.look()
    assert (disk.copies, disk.looks) == (4 * BLOCK, 2)  # the most at any look


def test_replays_that_differ_are_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(through_store, "AGREED", -1.0)
    monkeypatch.setattr(hit_rate, "synthetic", lambda: synthetic(requests=500, files=400))
    with pytest.raises(SystemExit, match="1 of 1 replays differ"):
        hit_rate.main(["--sizes", "0.01,0.5", "--policies", "lru,sieve", "--through-store"])
    shown = capsys.readouterr().out
    assert "lru 50.0%" in shown
    assert "1.0%: left out" in shown
