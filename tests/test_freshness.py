"""Freshness: when a copy is served, asked about, or refused; as rules and in a store."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from store_rig import make_options, store_of, until

from cachestore.errors import NotFound, RemoteUnavailable
from cachestore.events import Absent, Event, Hit, Revalidated
from cachestore.policy.freshness import (
    Freshness,
    Rules,
    age_of,
    decide,
    may_serve_on_error,
    rules_for,
)
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.clock import FakeClock
from cachestore.testing.contract_tools import put as upload
from cachestore.testing.remotes import CountingRemote, FaultyRemote

FRESH, STALE, EXPIRED = Freshness.FRESH, Freshness.STALE, Freshness.EXPIRED
NOW = 1_700_000_000.0
KEY = "a.wav"


@dataclass(frozen=True)
class Copy:
    validated: float


def copy(age: float) -> Copy:
    return Copy(NOW - age)


# -- the rules --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "ttl", "behind", "max_age", "what"),
    [
        (0.0, 100.0, 0.0, None, FRESH),
        (99.0, 100.0, 0.0, None, FRESH),
        (100.0, 100.0, 0.0, None, EXPIRED),
        (100.0, 100.0, 50.0, None, STALE),
        (149.0, 100.0, 50.0, None, STALE),
        (150.0, 100.0, 50.0, None, EXPIRED),
        (0.0, 0.0, 0.0, None, EXPIRED),
        (0.0, 0.0, 50.0, None, EXPIRED),
        (1e12, None, 0.0, None, FRESH),
        (1e12, None, 50.0, 10.0, EXPIRED),
        (0.0, None, 0.0, 0.0, EXPIRED),
        (9.0, 100.0, 0.0, 10.0, FRESH),
        (10.0, 100.0, 50.0, 10.0, EXPIRED),
        (100.0, 100.0, 50.0, 500.0, STALE),
        (160.0, 100.0, 50.0, 500.0, EXPIRED),
        # A little in the future: clocks of machines differ.
        (-59.0, 100.0, 0.0, None, FRESH),
        (-61.0, 100.0, 0.0, None, EXPIRED),
        (-61.0, 100.0, 50.0, None, EXPIRED),
        (-61.0, None, 0.0, None, FRESH),
        (-61.0, None, 0.0, 1e9, EXPIRED),
    ],
)
def test_every_boundary(
    age: float, ttl: float | None, behind: float, max_age: float | None, what: Freshness
) -> None:
    assert decide(copy(age), NOW, Rules(ttl, behind, 0.0), max_age=max_age) is what


@pytest.mark.parametrize("ttl", [None, 0.0, 100.0])
def test_no_copy_is_a_miss_whatever_the_rules(ttl: float | None) -> None:
    assert decide(None, NOW, Rules(ttl, 50.0, 50.0), max_age=1e9) is Freshness.MISS


def test_an_age_is_never_negative() -> None:
    assert age_of(copy(5.0), NOW) == 5.0
    assert age_of(copy(-30.0), NOW) == 0.0
    assert age_of(copy(-61.0), NOW) == float("inf")


@pytest.mark.parametrize(
    ("age", "ttl", "behind", "on_error", "served"),
    [
        (149.0, 100.0, 0.0, 50.0, True),
        (150.0, 100.0, 0.0, 50.0, False),
        (150.0, 100.0, 60.0, 50.0, True),
        (160.0, 100.0, 60.0, 50.0, False),
        (49.0, 0.0, 0.0, 50.0, True),
        (0.0, 0.0, 0.0, 0.0, False),
        (1e12, None, 0.0, 0.0, True),
        (-1e6, 100.0, 0.0, 50.0, True),
    ],
)
def test_what_is_served_while_the_remote_is_down(
    age: float, ttl: float | None, behind: float, on_error: float, served: bool
) -> None:
    assert may_serve_on_error(copy(age), NOW, Rules(ttl, behind, on_error)) is served


@pytest.mark.parametrize(
    ("key", "own", "ttl"),
    [
        ("other", None, 50.0),
        ("other", 7.0, 7.0),
        ("a/x", None, 10.0),
        ("a/x", 7.0, 7.0),
        ("a/b/x", None, 20.0),
        ("a", None, 50.0),
        ("never/x", None, None),
        ("never/x", 7.0, 7.0),
        ("other", float("inf"), None),
        ("a/fixed/x", None, None),
        ("a/fixed/x", 7.0, None),
    ],
)
def test_whose_ttl_counts(tmp_path: Path, key: str, own: float | None, ttl: float | None) -> None:
    options = make_options(
        tmp_path, ttl=50.0, immutable_prefixes=("a/fixed/",),
        ttl_by_prefix=(("a/", 10.0), ("a/b/", 20.0), ("never/", None)),
    )  # fmt: skip
    rules = rules_for(key, own, options)
    assert (rules.ttl, rules.immutable) == (ttl, key.startswith("a/fixed/"))
    everything = replace(options, immutable_prefixes=("",))
    assert rules_for(key, own, everything).immutable


def test_what_is_immutable_is_never_asked_about() -> None:
    rules = Rules(None, 0.0, 0.0, immutable=True)
    assert decide(copy(1e12), NOW, rules, max_age=0.0) is FRESH
    assert decide(copy(-1e12), NOW, rules) is FRESH


# -- in a store -------------------------------------------------------------------------------


class Shop:
    """A store with a clock that stands still, on a remote that counts and fails as told."""

    def __init__(self, root: Path, **fields: Any) -> None:
        self.clock = FakeClock(time.time())
        self.memory = MemoryRemote()
        self.faults = FaultyRemote(self.memory)
        self.remote = CountingRemote(self.faults)
        upload(self.memory, KEY, b"one")
        options = make_options(root, mode="remote", **fields)
        self.store: CacheStore = store_of(options, remote=self.remote, clock=self.clock)
        self.events: list[Event] = []
        self.store.subscribe(self.events.append)

    def get(self, **options: Any) -> bytes:
        return self.store.get(KEY, **options).read_bytes()

    def asked(self) -> int:
        """Requests since the last call."""
        count = sum(self.remote.calls.values())
        self.remote.calls.clear()
        return count

    def kinds(self) -> list[str]:
        """The kinds of hits since the last call."""
        self.store.core.janitor.flush_hits()
        kinds = [event.kind for event in self.events if isinstance(event, Hit)]
        self.events.clear()
        return kinds


@pytest.fixture
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    made = Shop(tmp_path, **getattr(request, "param", {}))
    with made.store:
        yield made


def with_options(**fields: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("shop", [fields], indirect=True)


@with_options(ttl=100.0)
def test_a_fresh_copy_is_served_until_its_ttl_and_then_asked_about(shop: Shop) -> None:
    assert shop.get() == b"one"
    assert shop.asked() == 1
    shop.clock.advance(99.0)
    assert shop.get() == b"one"
    assert shop.asked() == 0
    shop.clock.advance(1.0)
    assert shop.get() == b"one"
    assert shop.asked() == 1, "the hot map must not outlive the TTL"
    # The answer "same" makes it fresh again, for the whole TTL.
    shop.clock.advance(99.0)
    assert shop.get() == b"one"
    assert shop.asked() == 0


@with_options(ttl=100.0)
def test_an_expired_copy_that_changed_is_fetched(shop: Shop) -> None:
    shop.get()
    upload(shop.memory, KEY, b"two")
    assert shop.get() == b"one"
    shop.clock.advance(100.0)
    assert shop.get() == b"two"
    assert [event.outcome for event in shop.events if isinstance(event, Revalidated)] == ["changed"]


@with_options(ttl=100.0)
def test_an_expired_copy_that_was_deleted_is_gone(shop: Shop) -> None:
    shop.get()
    shop.memory.delete(KEY)
    shop.clock.advance(100.0)
    with pytest.raises(NotFound):
        shop.get()
    assert shop.store.core.catalog.get(KEY) is None
    shop.faults.down()
    with pytest.raises((NotFound, RemoteUnavailable)):
        shop.get()


@with_options(ttl=0.0)
def test_ttl_0_asks_every_time_and_downloads_once(shop: Shop) -> None:
    for _ in range(3):
        assert shop.get() == b"one"
        assert shop.asked() == 1
    assert shop.kinds() == ["fresh", "fresh"]
    upload(shop.memory, KEY, b"two")
    assert shop.get() == b"two"


@with_options(ttl=None)
def test_without_ttl_a_copy_never_expires(shop: Shop) -> None:
    shop.get()
    shop.asked()
    shop.clock.advance(1e9)
    assert shop.get() == b"one"
    shop.clock.jump(-2e9)
    shop.store.core.hot.clear()
    assert shop.get() == b"one"
    assert shop.asked() == 0
    assert shop.get(max_age=0) == b"one"
    assert shop.asked() == 1


@with_options(ttl=1e6)
def test_max_age_only_makes_it_stricter(shop: Shop) -> None:
    shop.get()
    upload(shop.memory, KEY, b"two")
    shop.clock.advance(10.0)
    assert shop.get(max_age=11) == b"one"
    assert shop.get(max_age=10) == b"two"
    assert shop.get() == b"two"
    with pytest.raises(ValueError):
        shop.get(max_age=-1)


@with_options(ttl=100.0, immutable_prefixes=(KEY,))
def test_a_copy_below_an_immutable_prefix_is_never_asked_about(shop: Shop) -> None:
    shop.get()
    upload(shop.memory, KEY, b"two")
    shop.asked()
    shop.clock.advance(1e9)
    assert shop.get() == shop.get(max_age=0) == b"one"
    assert shop.store.head(KEY).size == 3
    assert shop.asked() == 0


@with_options(ttl=1000.0, ttl_by_prefix=((KEY, 100.0),))
def test_a_prefix_has_a_ttl_of_its_own(shop: Shop) -> None:
    shop.get()
    shop.asked()
    shop.clock.advance(100.0)
    shop.get()
    assert shop.asked() == 1
    shop.store.core.options = replace(shop.store.core.options, ttl_by_prefix=())
    shop.store.core.hot.clear()
    shop.clock.advance(999.0)
    shop.get()
    assert shop.asked() == 0


# -- what is known of an expired copy ----------------------------------------------------------


@with_options(ttl=100.0)
def test_a_head_makes_an_expired_copy_fresh_again(shop: Shop) -> None:
    shop.get()
    shop.clock.advance(100.0)
    shop.asked()
    assert shop.store.head(KEY).storage == "cached"
    assert dict(shop.remote.calls) == {"head": 1}
    shop.clock.advance(99.0)
    assert shop.get() == b"one"
    assert shop.asked() == 1


@with_options(ttl=100.0)
def test_a_head_sees_what_became_of_an_expired_copy(shop: Shop) -> None:
    shop.get()
    upload(shop.memory, KEY, b"longer")
    shop.clock.advance(100.0)
    info = shop.store.head(KEY)
    assert (info.size, info.storage) == (6, "remote")
    assert shop.get() == b"longer"
    shop.memory.delete(KEY)
    shop.clock.advance(100.0)
    assert not shop.store.exists(KEY)
    assert shop.store.core.catalog.get(KEY) is None


@with_options(ttl=100.0, stale_if_error=50.0)
def test_a_head_is_answered_from_the_copy_while_the_remote_is_down(shop: Shop) -> None:
    shop.get()
    shop.faults.down()
    shop.clock.advance(149.0)
    assert shop.store.head(KEY).size == 3
    shop.clock.advance(1.0)
    with pytest.raises(RemoteUnavailable):
        shop.store.head(KEY)


@with_options(ttl=100.0, stale_while_revalidate=50.0)
def test_a_head_of_a_stale_copy_asks_behind(shop: Shop) -> None:
    shop.get()
    shop.clock.advance(120.0)
    shop.asked()
    assert shop.store.head(KEY).size == 3
    until(lambda: _fresh(shop))
    assert shop.remote.calls["head"] == 0


@with_options(ttl=100.0, revalidate_deadline=0.2)
def test_a_hanging_remote_delays_a_head_by_no_more_than_the_deadline(shop: Shop) -> None:
    shop.get()
    shop.clock.advance(100.0)
    hangs, inner = threading.Event(), shop.memory.head
    shop.memory.head = lambda key, **options: hangs.wait(60) and inner(key, **options)  # type: ignore[method-assign,assignment,return-value]
    try:
        start = time.monotonic()
        assert shop.store.exists(KEY)
        assert 0.2 <= time.monotonic() - start < 30
    finally:
        hangs.set()


@with_options(ttl=1e6, cache_max_bytes=4096)
def test_a_version_that_does_not_fit_is_not_followed_by_the_older_one(shop: Shop) -> None:
    assert shop.get() == b"one"
    upload(shop.memory, KEY, b"2" * 9000)
    assert shop.get(max_age=0) == b"2" * 9000
    assert shop.get() == b"2" * 9000


@with_options(ttl=100.0, stale_while_revalidate=50.0)
def test_a_stale_copy_is_served_and_asked_about_behind(shop: Shop) -> None:
    shop.get()
    shop.clock.advance(120.0)
    assert shop.get() == b"one"
    assert "stale" in shop.kinds()
    until(lambda: any(isinstance(event, Revalidated) for event in shop.events) or _fresh(shop))
    shop.clock.advance(60.0)  # fresh again, by the answer that came behind
    shop.asked()
    assert shop.get() == b"one"
    assert shop.asked() == 0


def _fresh(shop: Shop) -> bool:
    row = shop.store.core.catalog.get(KEY)
    return row is not None and row.validated == shop.clock.now()


@with_options(ttl=100.0, stale_if_error=50.0)
def test_while_the_remote_is_down_an_expired_copy_is_served_for_a_while(shop: Shop) -> None:
    shop.get()
    shop.faults.down()
    shop.clock.advance(149.0)
    assert shop.get() == b"one"
    assert shop.kinds() == ["stale-if-error"]
    shop.clock.advance(1.0)
    with pytest.raises(RemoteUnavailable):
        shop.get()
    shop.faults.up()
    shop.clock.advance(60.0)
    assert shop.get() == b"one"


@with_options(ttl=100.0)
def test_a_clock_that_went_back_makes_nothing_fresh_for_ever(shop: Shop) -> None:
    shop.get()
    upload(shop.memory, KEY, b"two")
    shop.clock.jump(-3600.0)
    assert shop.get() == b"two"
    assert shop.asked() >= 2


def test_a_key_that_is_absent_is_asked_for_once_in_the_negative_ttl(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    for _ in range(3):
        with pytest.raises(NotFound):
            shop.store.get("absent")
        assert not shop.store.exists("absent")
    assert shop.asked() == 1
    assert [event.negative for event in shop.events if isinstance(event, Absent)].count(False) == 1
    now += 5.1
    upload(shop.memory, "absent", b"there")
    assert shop.store.get("absent").read_bytes() == b"there"


def test_a_put_ends_a_negative_answer_at_once(shop: Shop) -> None:
    with pytest.raises(NotFound):
        shop.store.get("new")
    shop.store.put("new", b"bytes")
    assert shop.store.exists("new")
    assert shop.store.get("new").read_bytes() == b"bytes"
