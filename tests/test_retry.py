"""Backoff, and what an error means for an upload: pure decisions."""

from __future__ import annotations

import errno
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachestore import errors
from cachestore.model import RemoteObject
from cachestore.policy import retry
from cachestore.policy.upload import (
    condition_reason,
    conditions,
    is_ambiguous,
    kind_of,
    parse_condition,
    same_content,
    same_object,
)


@given(
    tries=st.integers(0, 10_000),
    base=st.floats(0, 100),
    cap=st.floats(0, 1000),
    roll=st.floats(0, 1),
)
def test_backoff_is_never_negative_and_never_over_the_cap(
    tries: int, base: float, cap: float, roll: float
) -> None:
    delay = retry.backoff(tries, base, cap, lambda: roll)
    assert 0 <= delay <= cap
    assert delay <= retry.ceiling(tries, base, cap)


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    ceilings = [retry.ceiling(tries, 1.0, 300.0) for tries in range(1, 12)]
    assert ceilings == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_full_jitter_spreads_over_the_whole_range() -> None:
    dice = random.Random(1).random
    delays = [retry.backoff(6, 1.0, 300.0, dice) for _ in range(500)]
    assert min(delays) < 2
    assert max(delays) > 30


def test_a_throttled_key_rests_a_second_at_least_and_as_long_as_asked() -> None:
    assert retry.throttled(5.0, 1, 1.0, 300.0, lambda: 0.0) == 5.0
    assert retry.throttled(0.0, 1, 1.0, 300.0, lambda: 0.0) == 1.0
    assert retry.throttled(None, 1, 0.01, 300.0, lambda: 1.0) == 1.0
    assert retry.throttled(None, 5, 1.0, 300.0, lambda: 1.0) == 16.0


def test_the_common_pause_is_never_shorter_than_half() -> None:
    assert retry.pause(3, 1.0, 300.0, lambda: 0.0) == 2.0
    assert retry.pause(3, 1.0, 300.0, lambda: 1.0) == 4.0


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.Throttled("x"), "throttled"),
        (errors.RemoteRefused("x"), "refused"),
        (errors.RemoteUnavailable("x"), "transport"),
        (errors.NotSent("x"), "transport"),
        (errors.Corrupt("x"), "passing"),
        (errors.UploadLost("x"), "passing"),
        (errors.NotFound("x"), "passing"),
        (errors.PreconditionFailed("x"), "condition"),
        (errors.Rejected("x"), "permanent"),
        (errors.Unsupported("x"), "permanent"),
        (errors.SourceError("x"), "permanent"),
        (ValueError("x"), "permanent"),
        (caused(errors.SourceError("x"), FileNotFoundError("x")), "permanent"),
        (caused(errors.SourceError("x"), OSError(errno.EMFILE, "x")), "passing"),
    ],
)
def test_what_an_error_means(error: Exception, kind: str) -> None:
    assert kind_of(error) == kind


@pytest.mark.parametrize(
    ("error", "ambiguous"),
    [
        (errors.RemoteUnavailable("reset"), True),
        (errors.RemoteUnavailable("x", status=500), True),
        (errors.RemoteUnavailable("x", status=504), True),
        (errors.RemoteUnavailable("x", status=522), True),
        (errors.RemoteUnavailable("x", status=503), False),
        (errors.RemoteUnavailable("x", status=408), False),
        (errors.NotSent("refused"), False),
        (errors.Throttled("x", status=429), False),
        (errors.Rejected("x", status=400), False),
        (errors.PreconditionFailed("x"), False),
        (errors.Corrupt("x", status=400), False),
    ],
)
def test_which_errors_leave_it_open_whether_it_happened(error: Exception, ambiguous: bool) -> None:
    assert is_ambiguous(error) is ambiguous


def test_the_fence_of_a_put() -> None:
    assert conditions(True, None, None, "e1") == ("e1", None)
    assert conditions(True, None, None, "") == (None, "*")
    assert conditions(True, None, None, None) == (None, None)
    assert conditions(False, None, None, "e1") == (None, None)
    assert conditions(True, "mine", None, "e1") == ("mine", None)
    assert conditions(True, None, "*", "e1") == (None, "*")


@pytest.mark.parametrize("etags", [("a", "b"), (None, "b"), ("a", None), ('x", found "', "y")])
def test_a_parked_condition_keeps_both_etags(etags: tuple[str | None, str | None]) -> None:
    assert parse_condition(condition_reason(*etags)) == etags


def test_other_reasons_are_not_conditions() -> None:
    assert parse_condition("Rejected: too large") is None
    assert parse_condition(None) is None
    assert parse_condition("condition failed: expected x, found y") is None


def test_what_counts_as_ours() -> None:
    found = RemoteObject("k", 3, "e", "text/plain", {"a": "1"}, None, 0.0, "aa")
    assert same_content(found, 3, "aa")
    assert not same_content(found, 4, "aa")
    assert not same_content(found, 3, "bb", "e")
    bare = RemoteObject("k", 3, "e")
    assert not same_content(bare, 3, "aa")
    assert same_content(bare, 3, "aa", "e")
    assert same_object(found, 3, "aa", "text/plain", {"a": "1"}, None)
    assert not same_object(found, 3, "aa", "audio/wav", {"a": "1"}, None)
    assert not same_object(found, 3, "aa", "text/plain", {}, None)
    assert not same_object(found, 3, "aa", "text/plain", {"a": "1"}, "no-store")
