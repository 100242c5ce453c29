"""Clocks that a test moves."""

from __future__ import annotations

import threading
import time


class FakeClock:
    """`Clock` for tests: `advance` moves both times, `jump` only the wall clock."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0
        self._moved = threading.Condition()

    def now(self) -> float:
        with self._moved:
            return self._now

    def monotonic(self) -> float:
        with self._moved:
            return self._monotonic

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set, or a test advanced the clock by `seconds`."""
        end = self.monotonic() + seconds
        while not event.is_set():
            with self._moved:
                if self._monotonic >= end:
                    return False
                self._moved.wait(0.02)
        return True

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._moved:
            self._now += seconds
            self._monotonic += seconds
            self._moved.notify_all()

    def jump(self, seconds: float) -> None:
        """Set the wall clock forwards or backwards, as an operator or NTP does."""
        with self._moved:
            self._now += seconds
            self._moved.notify_all()


class ShiftedClock:
    """The machine's own clock, moved on by `advance`: time passes by itself too."""

    def __init__(self) -> None:
        self._shift = 0.0

    def now(self) -> float:
        return time.time() + self._shift

    def monotonic(self) -> float:
        return time.monotonic() + self._shift

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set, or `seconds` have passed or were added by `advance`."""
        end = self.monotonic() + seconds
        while not event.is_set():
            left = end - self.monotonic()
            if left <= 0:
                return False
            event.wait(min(left, 0.02))
        return True

    def advance(self, seconds: float) -> None:
        """Let this much time pass at once."""
        self._shift += seconds
