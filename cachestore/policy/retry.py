"""When to try again: pure arithmetic, the dice are handed in."""

from __future__ import annotations

from collections.abc import Callable

MIN_THROTTLE = 1.0
"""Seconds that a throttled key rests at least."""

Dice = Callable[[], float]


def ceiling(tries: int, base: float, cap: float) -> float:
    """The longest pause after `tries` failures: `base` doubled each time, at most `cap`."""
    if tries < 1 or base <= 0:
        return 0.0
    # 2.0**1100 would overflow; any cap is reached long before.
    return min(cap, base * 2.0 ** min(tries - 1, 62))


def backoff(tries: int, base: float, cap: float, dice: Dice) -> float:
    """Seconds until the next try after `tries` failures (full jitter).

    `dice` gives a number from 0 to 1, so that many clients do not come back together.
    """
    return ceiling(tries, base, cap) * dice()


def throttled(retry_after: float | None, tries: int, base: float, cap: float, dice: Dice) -> float:
    """The same for a throttled key: what the remote asked for, at least a second."""
    if retry_after is not None:
        return max(MIN_THROTTLE, retry_after)
    return max(MIN_THROTTLE, backoff(tries, base, cap, dice))


def pause(tries: int, base: float, cap: float, dice: Dice) -> float:
    """The pause of all uploads while the remote does not work: never shorter than half."""
    return ceiling(tries, base, cap) * (0.5 + 0.5 * dice())
