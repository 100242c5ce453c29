"""The crash campaign: children under load are killed at random and at chosen calls.

Two lanes at a time share the folders, each with keys and kills of its own, so that one goes on,
takes over the uploads and evicts while the other dies. The parent keeps what was acknowledged
and judges what each next child finds.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from campaign_rig import GONE, Plan, child, content, processes
from figures import record
from process_rig import save_options
from store_rig import on_server, store_of

from cachestore.clock import SystemClock
from cachestore.errors import NotFound
from cachestore.options import Options

LANES = 2
KEYS = 12
POINTS = [
    *[("put", nth) for nth in range(1, 26)],
    *[("delete", nth) for nth in range(1, 16)],
    *[("acknowledgement", nth) for nth in range(1, 26)],
    *[("eviction", nth) for nth in range(1, 7)],
    *[("admission", nth) for nth in range(1, 19)],
]


class Lane:
    """One child after the other on the lane's keys."""

    def __init__(self, number: int, saved: Path, points: list[tuple[str, int]], seed: int) -> None:
        self.number = number
        self.keys = tuple(f"lane{number}/{n}.bin" for n in range(KEYS))
        self.allowed: dict[str, set[str]] = {key: {GONE} for key in self.keys}
        self.counts: Counter[str] = Counter()
        self.dead: Counter[str] = Counter()
        self._saved = saved
        self._points = points
        self._rng = random.Random(seed)
        self._version = 0

    def run(self) -> None:
        """All kills of this lane."""
        for phase, nth in self._points:
            plan = Plan(str(self._saved), self.number, self.keys, self._version,
                        self._rng.randrange(1 << 30), phase, nth)  # fmt: skip
            self._one(plan)

    def _one(self, plan: Plan) -> None:
        context = processes()
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(plan, writer))
        process.start()
        writer.close()
        # A child that does not come to its point is killed too.
        lines = self._rng.randint(1, 50) if not plan.phase else 250
        last = ""
        try:
            with open(reader.fileno(), encoding="ascii", closefd=False) as said:
                for line in said:
                    last = line
                    self._hear(line.split())
                    lines -= 1
                    if lines == 0:
                        process.kill()
        finally:
            process.kill()
            reader.close()
        process.join(60)
        # 255: the server did not learn how it ended. One that ended by itself has said so.
        assert process.exitcode in (-9, 255), (process.exitcode, last)
        self.counts["kills"] += 1
        self.dead[last.split()[1] if last.startswith("dies") else "random"] += 1

    def _hear(self, words: list[str]) -> None:
        what, key, *rest = words
        if what == "is":
            assert rest[0] in self.allowed[key], f"{key} is {rest[0]}, not of {self.allowed[key]}"
            self.allowed[key] = {rest[0]}
            self.counts["checks"] += 1
        elif what == "try":
            self.allowed[key].add(rest[0])
            self._version = max(self._version, int(rest[0]) if rest[0] != GONE else 0)
        elif what == "did":
            self.allowed[key] = {rest[0]}
            self.counts["deletes" if rest[0] == GONE else "puts"] += 1
        elif what == "got":
            self.counts["gets"] += 1
        else:
            assert what in ("checked", "dies"), " ".join(words)


def campaign(options: Options, root: Path, kills: int, seed: int) -> dict[str, Any]:
    """So many kills, half of them at chosen points; then everything is checked once more."""
    rng = random.Random(seed)
    often = kills // 2 // len(POINTS)
    chosen = POINTS * often + rng.sample(POINTS, kills // 2 - often * len(POINTS))
    points = chosen + [("", 0)] * (kills - len(chosen))
    rng.shuffle(points)
    saved = save_options(options, root / "options")
    lanes = [Lane(n, saved, points[n::LANES], seed + n) for n in range(LANES)]
    with ThreadPoolExecutor(LANES) as pool:
        for done in [pool.submit(lane.run) for lane in lanes]:
            done.result()
    counts, dead = Counter[str](), Counter[str]()
    for lane in lanes:
        counts.update(lane.counts)
        dead.update(lane.dead)
    counts["objects"] = check_end(
        options, {k: v for lane in lanes for k, v in lane.allowed.items()}
    )
    counts["strays"] = check_rest(options)
    return {**counts, "died_in": dict(sorted(dead.items())), "lost": 0, "wrong": 0}


def check_end(options: Options, allowed: dict[str, set[str]]) -> int:
    """What was promised is served, and after a flush it is what the bucket has."""
    with store_of(options) as store:
        now: dict[str, bytes] = {}
        for key, versions in allowed.items():
            wanted = [content(key, int(v)) for v in versions if v != GONE]
            try:
                now[key] = store.read(key)
                assert now[key] in wanted, key
            except NotFound:
                assert GONE in versions, key
        report = store.flush(240)
        assert report.done, report
        assert not store.pending()
        remote = store.core.remote
        assert remote is not None
        assert {obj.key for page in remote.list() for obj in page.objects} == set(now)
        for key, data in now.items():
            assert remote.head(key).sha256 == hashlib.sha256(data).hexdigest(), key
            assert store.read(key) == data, key
    return len(now)


class Later(SystemClock):
    """Two hours on: what the dead left may be cleaned away."""

    def now(self) -> float:
        return super().now() + 7200


def check_rest(options: Options) -> int:
    """The janitor leaves nothing that the dead left; how many bodies it put aside."""
    with store_of(options, clock=Later()) as store:
        store.clean()
        core, root = store.core, store.core.cache.root
        assert [path.name for path in options.spool_dir.glob("??/*")] == []
        assert {name for name, _ in core.cache.copies()} == {r.file for r in core.catalog.rows()}
        assert [*root.glob("parts/*"), *root.glob("transit/*")] == []
        assert core.catalog.totals()[0] <= options.cache_max_bytes
    return len(list(options.spool_dir.glob("quarantine/*")))


def small_cache(root: Path, server: Any) -> Options:
    """Room for a few copies only, which go as soon as they are evicted."""
    return on_server(
        root, server, server.new_bucket(), cache_max_bytes=300_000, handout_grace=0.0, workers=2,
        miss_deadline=200.0,
    )  # fmt: skip


def test_thirty_kills(moto_server: Any, tmp_path: Path) -> None:
    figures = campaign(small_cache(tmp_path, moto_server), tmp_path, 30, seed=3)
    assert figures["kills"] == 30
    record("campaign", run="short", **figures)


@pytest.mark.torture
@pytest.mark.parametrize("seed", [100, 200, 300, 400])
def test_many_kills(moto_server: Any, tmp_path: Path, seed: int) -> None:
    figures = campaign(small_cache(tmp_path, moto_server), tmp_path, 300, seed=seed)
    assert figures["kills"] == 300
    record("campaign", run="full", **figures)
