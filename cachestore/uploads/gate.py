"""The leader's gate: while the remote does not work, one operation at a time tries it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from cachestore.policy.retry import Dice, pause
from cachestore.policy.upload import Kind

FAILURES = 5
LONGEST_PAUSE = 60.0


class Gate:
    """Open for all; after a refusal or five transport failures in a row, for one now and then.

    Times in monotonic seconds. Safe to share by threads.
    """

    def __init__(self, base: float, cap: float, dice: Dice, monotonic: Callable[[], float]) -> None:
        self._base = base
        self._cap = min(cap, LONGEST_PAUSE)
        self._dice = dice
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failures = 0
        self._pauses = 0
        self._next = 0.0
        self._prober: int | None = None
        self.reason: str | None = None

    @property
    def shut(self) -> bool:
        """True while only probes may go."""
        return self.reason is not None

    def admit(self) -> tuple[bool, float]:
        """Whether an operation may start now, and if not, after how many seconds to ask again.

        Whoever is admitted calls `ended` or `withdraw` afterwards, in the same thread.
        """
        with self._lock:
            if self.reason is None:
                return True, 0.0
            left = self._next - self._monotonic()
            if self._prober is not None or left > 0:
                return False, max(0.01, left)
            self._prober = threading.get_ident()
            return True, 0.0

    def ended(self, kind: Kind | None, error: str = "") -> bool:
        """An admitted operation ended (`kind` None: well). True if the remote works again."""
        with self._lock:
            probed = self._leave()
            if kind not in ("refused", "transport"):
                return self._works()
            self._failures += 1
            if self.reason is None and kind != "refused" and self._failures < FAILURES:
                return False
            if self.reason is not None and not probed:
                return False  # it was under way already when the gate was shut
            self._pauses += 1
            self.reason = error
            self._next = self._monotonic() + pause(self._pauses, self._base, self._cap, self._dice)
            return False

    def _leave(self) -> bool:
        """True if the caller was the one that probes."""
        probed = self._prober == threading.get_ident()
        if probed:
            self._prober = None
        return probed

    def _works(self) -> bool:
        before = self.reason
        self._failures = self._pauses = 0
        self.reason = None
        return before is not None

    def withdraw(self) -> None:
        """An admitted operation did not ask the remote after all."""
        with self._lock:
            self._leave()

    def hurry(self) -> None:
        """Somebody waits: the next probe may go at once."""
        with self._lock:
            self._next = 0.0
