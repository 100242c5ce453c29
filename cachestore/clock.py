"""Time as an injected thing: wall clock for what is stored, monotonic for deadlines."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Seconds of three kinds; tests drive a fake one."""

    def now(self) -> float:
        """Wall-clock seconds since the epoch; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow, for deadlines inside this process."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set or `seconds` have passed; True if it is set."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(max(0.0, seconds))


class Deadline:
    """A point in monotonic time; `None` seconds means never."""

    def __init__(self, clock: Clock, seconds: float | None) -> None:
        self._clock = clock
        self._end = None if seconds is None else clock.monotonic() + seconds

    def left(self) -> float:
        """Seconds left, never below 0; infinity when there is no deadline."""
        if self._end is None:
            return float("inf")
        return max(0.0, self._end - self._clock.monotonic())

    def passed(self) -> bool:
        return self.left() <= 0.0
