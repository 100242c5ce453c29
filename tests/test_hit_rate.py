"""The hit-rate benchmark measures what it says, on a trace that it makes itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest

from benchmarks import hit_rate
from benchmarks.replay import POLICIES, Gdsf, Hz, Lru, replay
from benchmarks.traces import Trace, load, synthetic


@pytest.fixture(scope="module")
def trace() -> Trace:
    return synthetic(requests=12_000, files=3_000)


def test_lru_does_what_a_list_on_paper_does() -> None:
    keys = [1, 2, 3, 1, 4, 2, 1, 9, 3]
    sizes = [10, 10, 10, 10, 10, 10, 10, 99, 10]
    outcome = replay(Lru(30), keys, sizes)
    # 1, 2, 3 come in; 1 hits; 4 puts 2 out; 2 puts 3 out; 1 hits; 9 is too large; 3 puts 4 out.
    assert outcome.object_hit_ratio == pytest.approx(2 / 9)
    assert outcome.byte_hit_ratio == pytest.approx(20 / sum(sizes))
    assert outcome.peak_ratio == 1.0


def test_a_cache_of_everything_misses_each_file_once(trace: Trace) -> None:
    once = len(set(trace.keys)) / len(trace.keys)
    for cache in (Lru(trace.footprint), Hz(trace.footprint), Gdsf(trace.footprint)):
        outcome = replay(cache, trace.keys, trace.sizes)
        assert outcome.object_hit_ratio == pytest.approx(1 - once)
        assert outcome.peak_ratio == 1.0


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("policy", ["hz", "gdsf"])
def test_the_limit_is_kept_and_lru_is_beaten(trace: Trace, policy: str, fraction: float) -> None:
    limit = int(trace.footprint * fraction)
    ours = replay(POLICIES[policy](limit, "time"), trace.keys, trace.sizes)
    theirs = replay(Lru(limit), trace.keys, trace.sizes)
    assert ours.peak_ratio <= 1.0
    assert ours.object_hit_ratio > theirs.object_hit_ratio + 0.02
    assert ours.byte_hit_ratio > theirs.byte_hit_ratio - 0.01


def test_gdsf_does_what_a_list_on_paper_does() -> None:
    keys = [1, 1, 1, 2, 3, 4, 1, 2, 9]
    sizes = [10, 10, 10, 10, 10, 10, 10, 10, 99]
    outcome = replay(Gdsf(30, "object"), keys, sizes)
    # 1 hits twice; 4 puts 2 out, of those asked for once the first; 1 hits; 2 was remembered,
    # ranks twice as high as 3 above what was given up, and puts it out; 9 is too large.
    assert outcome.object_hit_ratio == pytest.approx(3 / 9)
    assert outcome.peak_ratio == 1.0


def test_rows_json_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = synthetic(requests=1_000, files=200)
    path = tmp_path / "tiny.npz"
    numpy.savez(path, k=numpy.array(small.keys), s=numpy.array(small.sizes))
    assert load(path).footprint == small.footprint
    hit_rate.main([str(path), "--sizes", "0.1,0.5", "--json", str(tmp_path / "out.json"),
                   "--picture", str(tmp_path / "out.png")])  # fmt: skip
    rows = json.loads((tmp_path / "out.json").read_text())
    assert len(rows) == 2 * len(POLICIES)
    assert set(rows[0]) == {
        "trace", "size_fraction", "policy", "objective", "object_hit_ratio", "byte_hit_ratio",
        "peak_ratio", "us_per_request",
    }  # fmt: skip
    assert {row["trace"] for row in rows} == {"tiny"}
    assert (tmp_path / "out.png").stat().st_size > 5_000
    assert "tiny" in capsys.readouterr().out


def test_an_unknown_policy_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        hit_rate.main(["--policies", "magic"])
    assert "no policy magic" in capsys.readouterr().err
