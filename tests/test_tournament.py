"""The shadows that show which rule serves best: small, within their limit, shared, and right."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator

import pytest

from cachestore.policy.hazard import GDSF, HEAT, MIXED, RULES, WORTH, Hazard, Seen
from cachestore.policy.tournament import Tournament, name_of


class Biased(Hazard):
    """Keeps what was asked for often by one rule, and the opposite by all others."""

    def __init__(self, good: int | None) -> None:
        super().__init__("object")
        self.good = good

    def values(self, files: Iterable[Seen], tick: int, rule: int = MIXED) -> list[float]:
        sign = 1 if self.good in (rule, None) else -1
        return [sign * (seen.uses + seen.tick / 1e9) for seen in files]


def skewed(count: int, seed: int = 1, shape: float = 0.5) -> Iterator[int]:
    rng = random.Random(seed)
    for _ in range(count):
        yield name_of(str(int(rng.paretovariate(shape)) % 100_000))


def play(contest: Tournament, names: Iterator[int], size: int = 10, start: int = 0) -> None:
    for tick, name in enumerate(names, start):
        if contest.takes(name):
            contest.request(name, size, tick)


@pytest.mark.parametrize("good", [MIXED, WORTH, HEAT, GDSF])
def test_the_rule_whose_misses_cost_least_is_followed(good: int) -> None:
    contest = Tournament(Biased(good), 500, seed=1)
    play(contest, skewed(3_000))
    assert contest.rule == good
    assert min(contest._shadows, key=lambda shadow: shadow.cost).rule == good


def test_equal_ones_do_not_replace_each_other() -> None:
    contest = Tournament(Biased(None), 200, seed=1)  # so few that all of them are looked at
    contest.rule = HEAT
    followed = set()
    for tick, name in enumerate(skewed(6_000)):
        contest.request(name, 10, tick)
        followed.add(contest.rule)
    assert followed == {HEAT}


def test_a_rule_is_left_only_for_one_that_is_better_by_a_margin() -> None:
    contest = Tournament(Hazard(), 500, seed=1)
    play(contest, skewed(150))
    for cost, rule in ((99.0, MIXED), (97.0, WORTH)):
        for shadow in contest._shadows:
            shadow.cost = cost if shadow.rule == WORTH else 100.0
        contest._judge()
        assert contest.rule == rule


def test_a_change_of_what_serves_best_is_followed() -> None:
    model = Biased(WORTH)
    contest = Tournament(model, 500, seed=1)
    play(contest, skewed(5_000))
    assert contest.rule == WORTH
    model.good = HEAT
    play(contest, skewed(40_000, seed=2), start=5_000)
    assert contest.rule == HEAT


def test_nothing_is_decided_before_enough_was_seen() -> None:
    contest = Tournament(Biased(HEAT), 50, seed=1)
    play(contest, skewed(90))
    assert contest.rule == MIXED


def test_what_all_miss_tells_nothing() -> None:
    contest = Tournament(Hazard(), 500, seed=1)
    play(contest, (name_of(f"once {n}") for n in range(3_000)))
    assert [shadow.cost for shadow in contest._shadows] == [0.0] * len(RULES)


def held(contest: Tournament) -> list[int]:
    return [sum(contest._known[name].size for name in shadow.here) for shadow in contest._shadows]


def test_limits_are_kept_whatever_sizes_do() -> None:
    contest, rng = Tournament(Hazard(), 20_000, seed=1), random.Random(1)
    for tick, name in enumerate(skewed(4_000)):
        contest.request(name, rng.choice([10, 700, 5_000, 30_000]), tick)
        assert all(shadow.used <= 20_000 for shadow in contest._shadows)
    assert [shadow.used for shadow in contest._shadows] == held(contest)


def test_a_large_cache_is_sampled() -> None:
    """Shadows stay small, keep the scaled limit, and know the same as full ones would."""
    contest = Tournament(Biased(WORTH), 80_000, seed=1)
    play(contest, skewed(120_000, shape=0.3))
    assert contest.shift >= 2
    assert contest.rule == WORTH
    assert len(contest._known) < 16_000
    for shadow in contest._shadows:
        assert len(shadow.here) <= 2_150
        assert shadow.used <= 80_000 >> contest.shift
        assert all(contest.takes(name) for name in shadow.here)
    assert [shadow.used for shadow in contest._shadows] == held(contest)
    assert not contest.takes(0b11)
    assert contest.takes(0b100 << contest.shift)


def test_a_few_huge_files_do_not_decide_for_a_large_cache() -> None:
    """In a sample they would fill a shadow, and their misses outweigh all others."""
    contest = Tournament(Hazard(), 80_000, seed=1)
    play(contest, skewed(60_000, shape=0.3))
    assert contest.shift >= 2
    huge = [name for n in range(500) if contest.takes(name := name_of(f"huge {n}"))]
    before = [shadow.cost / contest._weight for shadow in contest._shadows]
    for tick in range(60_000, 60_300):
        contest.request(huge[tick % len(huge)], 9_000, tick)
    assert [shadow.cost / contest._weight for shadow in contest._shadows] == before
    assert not contest._known.keys() & set(huge)
    small = Tournament(Hazard(), 80_000, seed=1)
    small.request(1, 9_000, 1)
    assert small._shadows[0].used == 9_000


def test_a_crawl_of_names_is_forgotten() -> None:
    contest = Tournament(Hazard(), 500, seed=1)
    play(contest, (name_of(f"once {n}") for n in range(25_000)))
    assert len(contest._known) < 12_000
    assert all(name in contest._known for shadow in contest._shadows for name in shadow.here)


def test_dump_and_adopt() -> None:
    contest = Tournament(Biased(WORTH), 500, seed=1)
    play(contest, skewed(3_000))
    other = Tournament(Biased(WORTH), 500, seed=1)
    stored = contest.dump()
    assert other.adopt(stored)
    assert (other.rule, other.shift, other.floor) == (WORTH, contest.shift, contest.floor)
    assert other.dump() == stored
    play(other, skewed(500), start=3_000)
    assert other.rule == WORTH
    assert [shadow.used for shadow in other._shadows] == held(other)


def test_junk_and_other_limits_are_not_adopted() -> None:
    contest = Tournament(Hazard(), 500, seed=1)
    play(contest, skewed(1_500))
    stored, other = contest.dump(), Tournament(Hazard(), 600)
    assert not other.adopt(stored)
    same = Tournament(Hazard(), 500)
    for junk in (None, b"", b"x" * 20, stored[:-1], b"\xff" * len(stored), "text"):
        assert not same.adopt(junk)
    assert same.dump() == Tournament(Hazard(), 500).dump()


def test_playing_lets_others_run() -> None:
    """Also where one large file puts a thousand small ones out."""
    contest, gaps = Tournament(Hazard(), 10_000, seed=1), []
    play(contest, skewed(3_000))
    last = time.thread_time()

    def breathe() -> None:
        nonlocal last
        gaps.append(time.thread_time() - last)
        last = time.thread_time()

    for tick in range(20):
        contest.request(7, 9_000, 3_000 + tick, breathe)
    contest.dump(breathe)
    contest.adopt(contest.dump(), breathe)
    assert len(gaps) > 100
    assert sorted(gaps)[len(gaps) * 99 // 100] < 0.001
