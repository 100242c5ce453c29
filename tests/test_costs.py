"""What a miss costs is measured from downloads: a line that stalls do not bend."""

from __future__ import annotations

import random
import struct

import pytest

from cachestore.policy.costs import STARTING, Costs, MissCosts, Prices


def downloads(count: int, request: float, byte: float, seed: int = 1) -> list[tuple[int, float]]:
    rng = random.Random(seed)
    sizes = [int(rng.lognormvariate(13, 1.5)) for _ in range(count)]
    return [(size, (request + byte * size) * rng.uniform(0.8, 1.2)) for size in sizes]


def test_starting_costs() -> None:
    assert MissCosts().costs == Costs(0.05, 1 / 50e6)


@pytest.mark.parametrize(("request_", "byte"), [(0.012, 1 / 200e6), (0.4, 1 / 3e6), (0.05, 1e-9)])
def test_a_network_is_learned(request_: float, byte: float) -> None:
    learner = MissCosts()
    learner.learn(downloads(400, request_, byte))
    for size in (0, 300_000, 1_000_000):
        assert learner.costs.of(size) == pytest.approx(request_ + byte * size, rel=0.4)


def test_few_downloads_move_little() -> None:
    learner = MissCosts()
    learner.learn(downloads(1, 0.1, 1 / 25e6))
    assert 0.04 < learner.costs.request < 0.065


def test_a_stall_moves_the_line_little() -> None:
    learner = MissCosts()
    learner.learn(downloads(200, 0.05, 1 / 50e6))
    before = learner.costs.of(500_000)
    learner.learn([(500_000, 600.0)])
    assert learner.costs.of(500_000) < 1.2 * before


def test_a_new_network_is_followed() -> None:
    learner = MissCosts()
    learner.learn(downloads(500, 0.02, 1 / 100e6))
    learner.learn(downloads(500, 0.6, 1 / 2e6, seed=2))
    assert learner.costs.of(500_000) == pytest.approx(0.85, rel=0.3)


def test_one_size_alone_gives_a_line() -> None:
    learner = MissCosts()
    learner.learn([(1_000_000, 0.14)] * 300)
    assert learner.costs.of(1_000_000) == pytest.approx(0.14, rel=0.1)
    assert learner.costs.request > 0
    assert learner.costs.byte > 0


def test_nonsense_stays_within_limits() -> None:
    learner = MissCosts()
    learner.learn([(0, 0.0), (10**12, 0.0), (5, -3.0), (10**9, 1e9)] * 200)
    assert 1e-3 <= learner.costs.request <= 10
    assert 1e-10 <= learner.costs.byte <= 1e-5


def test_shared_by_what_is_stored() -> None:
    one, two = MissCosts(), MissCosts()
    one.learn(downloads(50, 0.2, 1 / 10e6))
    two.adopt(one.dump())
    assert two.costs == one.costs
    for junk in (None, b"", b"x", struct.pack("<5d", *[float("nan")] * 5), "text", b"\xff" * 40):
        two.adopt(junk)
        assert two.costs.request == pytest.approx(0.05)
        assert two.costs.byte == pytest.approx(1 / 50e6)


@pytest.mark.parametrize("objective", ["time", "object", "bytes"])
def test_the_price_is_the_cost_of_a_miss_over_its_bytes(objective: str) -> None:
    prices = Prices(objective, STARTING)  # type: ignore[arg-type]
    prices.usual(20.0)
    for size in (1, 1000, 10**9):
        assert prices.per_byte(size) * size == pytest.approx(prices.miss(size))
    assert prices.per_byte(0) == prices.per_byte(1)
