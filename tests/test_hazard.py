"""The eviction policy `hz` as a pure model: what it learns, keeps, and takes over from others."""

from __future__ import annotations

import random
import time
from math import log2

import pytest

from cachestore.policy.costs import Costs
from cachestore.policy.hazard import (
    BINS,
    CLASSES,
    GDSF,
    HEAT,
    MIXED,
    WORTH,
    Hazard,
    Seen,
    _worths,
    age_bin,
)


def learned(reuse: int = 200, lost: int = 2000) -> tuple[Hazard, int]:
    """A model that saw files which come back every 50 ticks, and files that never do."""
    model, known, tick = Hazard(), {}, 0
    for turn in range(reuse):
        for name in range(5):
            tick += 10
            known[name] = model.touch(known.get(name), 1000, tick)
        for number in range(lost // reuse):
            known[f"lost {turn} {number}"] = model.touch(None, 1000, tick)
    model.refit([(seen.kind, seen.tick) for seen in known.values()], tick)
    return model, tick


def test_what_comes_back_is_worth_more_than_what_never_did() -> None:
    model, tick = learned()
    seen = None
    for step in range(6):
        seen = model.touch(seen, 1000, tick - 300 + 50 * step)
    assert seen is not None
    once = model.touch(None, 1000, tick - 50)
    assert model.value(seen, tick) > 3 * model.value(once, tick)


def test_before_the_first_refit_often_and_lately_asked_for_wins() -> None:
    model = Hazard()
    model.memory = 50.0
    often = Seen(1000, 90, 9, 5, 0, 8.5)
    once = Seen(1000, 90, 1, -1, 0)
    old = Seen(1000, 10, 1, -1, 0)
    for rule in (MIXED, WORTH, HEAT):
        values = [model.value(seen, 100, rule) for seen in (often, once, old)]
        assert values == sorted(values, reverse=True)
        assert values[2] < values[1] < values[0]


def test_objectives() -> None:
    small, large = Seen(1_000, 0, 1, -1, 0), Seen(1_000_000, 0, 1, -1, 0)
    ratios = {}
    for objective in ("object", "time", "bytes"):
        model = Hazard(objective)  # type: ignore[arg-type]
        for size in (1_000, 1_000_000):
            model.touch(None, size, 1)
        ratios[objective] = model.value(small, 1) / model.value(large, 1)
    assert ratios["object"] == pytest.approx(1000)
    assert ratios["bytes"] == pytest.approx(1)
    assert 1 < ratios["time"] < 1000


def test_the_cost_of_a_miss_sets_the_break_even_size() -> None:
    model = Hazard("time", Costs(request=0.1, byte=1e-8))
    for _ in range(100):
        model.touch(None, 1 << 30, 1)
    assert model.prices.break_even() == pytest.approx(1e7)
    small = Hazard("time", Costs(request=0.1, byte=1e-8))
    for _ in range(100):
        small.touch(None, 1000, 1)
    assert small.prices.break_even() == pytest.approx(5000)


def test_dump_and_adopt() -> None:
    model, tick = learned()
    other = Hazard()
    assert other.adopt(model.dump())
    for uses in (1, 3, 20):
        seen = Seen(1000, tick - 40, uses, 50, 7)
        assert other.value(seen, tick) == pytest.approx(model.value(seen, tick), rel=1e-4)
    assert other.dump() == model.dump()


@pytest.mark.parametrize("junk", [b"", b"x" * 40, bytes(10), b"\xff" * 44845])
def test_junk_is_not_adopted(junk: bytes) -> None:
    model, _ = learned()
    before = model.dump()
    assert not model.adopt(junk)
    broken = b"\xff" * len(before)
    assert not model.adopt(broken)
    assert model.dump() == before


def test_two_processes_learn_together() -> None:
    """What one learned is kept when another one's state is adopted."""
    one, two = Hazard(), Hazard()
    seen = one.touch(None, 10, 1)
    one.touch(seen, 10, 5)
    assert one.fresh == 2
    two.touch(two.touch(None, 10, 1), 10, 5)
    two.absorb()
    assert one.adopt(two.dump())
    one.absorb()
    assert one.fresh == 0
    assert one._hits[seen.kind * BINS + age_bin(4)] == 2


def test_ages_never_leave_the_table() -> None:
    assert [age_bin(age) for age in (0, 1, 3, 2**60)] == [0, 2, 4, BINS - 1]
    model, tick = learned()
    for kind in range(CLASSES):
        for age in (0, 1, 10**3, 10**9, 10**15):
            assert model.value(Seen(1, 0, 1, -1, kind), age) >= 0
    assert model.value(Seen(0, tick + 100, 1, -1, 0), tick) >= 0  # a tick from the future


def test_refitting_lets_others_run() -> None:
    """Its own work between two breaths, while each class has files and all were asked for."""
    model, gaps = Hazard(), []
    known = [Seen(1000, tick, 1, -1, tick % CLASSES) for tick in range(5_000)]
    for seen in known:
        model.touch(seen, 1000, 10_000)
    last = time.thread_time()

    def breathe() -> None:
        nonlocal last
        gaps.append(time.thread_time() - last)
        last = time.thread_time()

    model.refit([(seen.kind, seen.tick) for seen in known], 10_000, breathe=breathe)
    assert len(gaps) >= 2 * CLASSES
    assert sorted(gaps)[len(gaps) * 99 // 100] < 0.001


def test_worth_is_the_chance_over_the_time_until_then() -> None:
    """Against a long sum over every tick."""
    hazard = [0.3 if 6 <= b <= 14 else 0.05 for b in range(BINS)]
    for horizon in (5.0, 60.0, 1e4):
        worths = _worths(hazard, horizon)
        for b in (0, 3, 8, 13, 17):
            start = (2 ** (b / 2) + 2 ** ((b + 1) / 2)) / 2 - 1
            steps, left, spent, at = 20_000, 1.0, 0.0, start
            for _ in range(steps):
                now = min(int(2 * log2(at + 1)), BINS - 1)
                width = 2 ** ((now + 1) / 2) - 2 ** (now / 2)
                left *= (1 - hazard[now]) ** (horizon / steps / width)
                spent += left * horizon / steps
                at += horizon / steps
            assert worths[b] == pytest.approx((1 - left) / spent, rel=0.08)


def test_heat_fades_and_what_is_new_starts_with_one() -> None:
    model = Hazard()
    model.memory = 100.0
    first = model.touch(None, 10, 0)
    assert first.heat == 1.0
    assert model.touch(first, 10, 100).heat == pytest.approx(1.5)
    assert model.value(first, 200, HEAT) == pytest.approx(model.value(first, 100, HEAT) / 2)


def test_a_mean_lies_between_worth_and_heat() -> None:
    model, tick = learned()
    seen = Seen(1000, tick - 60, 4, 50, 30, 3.0)
    price = model.prices.per_byte(1000)
    worth, heat, mixed = (model.value(seen, tick, rule) / price for rule in (WORTH, HEAT, MIXED))
    assert min(worth, heat) < mixed < max(worth, heat)
    assert mixed == pytest.approx((worth * heat) ** 0.5)


def test_gdsf_counts_uses_above_what_was_given_up_last() -> None:
    model = Hazard("object")
    seen = model.touch(model.touch(None, 100, 1, 3.0), 100, 2, 7.0)
    assert model.value(seen, 10**6, GDSF) == pytest.approx(7.0 + 2 / 100)


def test_a_hot_set_survives_a_crawl() -> None:
    """Hit ratio of a sampled cache under hz, with a scan of every file once in between."""
    rng = random.Random(1)
    hot = [f"hot {n}" for n in range(50)]
    requests: list[str] = [rng.choice(hot) for _ in range(4000)]
    crawl = [f"cold {n}" for n in range(2000)]
    after = [rng.choice(hot) for _ in range(1000)]
    model, known, here, hits = Hazard(), {}, set(), 0
    for tick, name in enumerate([*requests, *crawl, *after]):
        known[name] = model.touch(known.get(name), 100, tick)
        if name in here:
            hits += tick >= len(requests) + len(crawl)
        here.add(name)
        while len(here) > 60:
            sample = [*rng.sample(sorted(here), 32), name]
            worst = min(sample, key=lambda each: model.value(known[each], tick))
            here.discard(worst)
            if worst != name:
                model.evicted(known[worst].tick, tick)
        if tick % 1000 == 0:
            model.refit([(seen.kind, seen.tick) for seen in known.values()], tick)
    # Each may have to be fetched once more, and none twice.
    assert hits >= len(after) - len(hot)
