"""A clock that only moves when a test says so."""

from __future__ import annotations

import threading


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
