"""The measurements of the cache say what they claim, on little work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import bulk_sync, crawl, facts, load, policy_cost, restart, rig, serve, ttl
from benchmarks.__main__ import ALL, main
from benchmarks.lab import small
from benchmarks.traces import synthetic

ROOT = Path(__file__).resolve().parent.parent


def test_a_ttl_costs_no_hit_where_nothing_changes(tmp_path: Path) -> None:
    trace = small(synthetic(400, 120), 10_000)
    without = ttl.measure(tmp_path / "without", trace, 1.0, None)
    with_ttl = ttl.measure(tmp_path / "with", trace, 1.0, 86_400.0)
    once = 1 - len(trace.files) / len(trace.keys)
    assert without["objects %"] == with_ttl["objects %"] == pytest.approx(once)
    assert without["downloads"] == with_ttl["downloads"] == len(trace.files)
    assert without["conditional"] == 0
    assert with_ttl["conditional"] > 20
    assert with_ttl["kept %"] == with_ttl["conditional"] / len(trace.keys)


def test_facts_save_requests(tmp_path: Path) -> None:
    without = facts.measure(tmp_path / "without", facts=False)
    shared = facts.measure(tmp_path / "shared", facts=True)
    assert shared["requests"] < without["requests"] / 2
    assert shared["head"] < without["head"] / 2
    existing = {key for kind, key in facts.questions() if kind == "url"}
    # One for each key, and another one where its copy was evicted meanwhile.
    assert len(existing) <= shared["different URLs"] < 1.5 * len(existing)
    assert without["different URLs"] > 2 * len(existing)


def test_restarts_and_a_second_process_answer_every_request(tmp_path: Path) -> None:
    trace = small(synthetic(900, 250), 600)
    rows = restart.rows_for(tmp_path, trace)
    assert [row["run"] for row in rows] == ["one run", "3 restarts", "two processes"]
    assert {row["requests"] for row in rows} == {len(trace.keys)}
    assert all(0.2 < row["objects %"] < 0.9 for row in rows)
    # A trace this short has a few hundred hits: the benchmark itself looks at one point.
    assert all(row["objects lost %"] < 0.03 for row in rows)


def test_hot_files_survive_a_crawl_that_empties_an_lru(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crawl, "SIZES", (0.2,))
    monkeypatch.setattr(crawl, "WINDOW", 2_000)
    rows = {row["policy"]: row for row in crawl.rows_for(synthetic(16_000, 4_000))}
    assert rows["lru"]["first 1,000 %"] < rows["lru"]["before %"] - 0.1
    assert rows["lru"]["lost %"] > rows["hz"]["lost %"]
    assert rows["hz"]["after 1,000 %"] > rows["hz"]["before %"] - 0.02


def test_the_cost_of_the_policy_is_measured_on_work_that_happens(tmp_path: Path) -> None:
    rows = policy_cost.rows_for(tmp_path, 1_500, lambda done: None)
    found = {row["what"]: row["µs"] for row in rows}
    parts = sum(found[name] for name in ("hit", "its share of batches and refits"))
    assert found["a hit, amortised"] == pytest.approx(parts)
    assert all(0 < took < 1e6 for took in found.values())
    assert len(found) == 10


@pytest.mark.servers
def test_a_folder_is_synced_in_every_way_that_is_installed(tmp_path: Path) -> None:
    if bulk_sync.program("rclone") is None:
        pytest.skip("rclone is not installed")
    rows = {row["way"]: row for row in bulk_sync.measure(tmp_path, 30, 1_000, 1)}
    assert {"cachestore sync", "rclone copy"} <= rows.keys()
    assert all(row["first, files/s"] > 0 for row in rows.values())


def test_rows_are_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rig, "OUT", tmp_path / "out")
    rig.publish("name", "A title", [{"run": "one", "hits %": 0.5, "requests": 1_200}], "at least 1")
    shown = capsys.readouterr().out
    assert "50.00" in shown
    assert "1,200" in shown
    assert "target: at least 1" in shown
    kept = json.loads((tmp_path / "out" / "name.json").read_text())
    assert kept["rows"] == [{"run": "one", "hits %": 0.5, "requests": 1_200}]


@pytest.mark.parametrize(
    "name", ["ttl", "facts", "restart", "crawl", "policy_cost", "hit_rate", "bulk_sync"]
)
def test_each_is_run_by_make_bench_and_can_be_run_alone(name: str) -> None:
    assert name in ALL
    code = f"import benchmarks.{name}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_an_unknown_benchmark_is_named() -> None:
    with pytest.raises(SystemExit, match="no benchmark magic"):
        main(["magic"])


def test_servers_are_asked_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "APPS", ("constant", "cachestore"))
    monkeypatch.setattr(serve, "_rclone_program", lambda: None)
    found = serve.measure(tmp_path, 1, 0.2, load.rate)
    assert list(found) == ["constant", "cachestore"]
    assert all(turn.rate > 1 and turn.cost > 0 for turns in found.values() for turn in turns)
    assert 0 < serve.ratio_of(found, "cachestore", "constant") < 20
