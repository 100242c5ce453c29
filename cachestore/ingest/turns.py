"""Whose turn it is: many files that wait for one remote, which may not work, or be refused."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TypeVar

from cachestore.clock import Clock, Deadline
from cachestore.errors import CacheStoreError, SourceError
from cachestore.options import Options
from cachestore.policy import retry
from cachestore.policy.upload import kind_of
from cachestore.remote.sending import SendCancelled
from cachestore.uploads.gate import Gate
from cachestore.uploads.outside import ComesFirst

T = TypeVar("T")
LONGEST_PAUSE = 10.0
_LOOK = 0.2


class Stopped(Exception):
    """The run ends: this file was not sent."""


class Turns:
    """Retries for all files of a run. `patience`: seconds for which one file is tried.

    A file that fails for so long while nothing else works ends the run, as does a refusal. Safe
    to share by threads.
    """

    def __init__(self, options: Options, clock: Clock, patience: float, limit: int | None) -> None:
        self._base = options.retry_base
        self._cap = min(options.retry_cap, LONGEST_PAUSE)
        self._clock = clock
        self._patience = patience
        self._gate = Gate(self._base, self._cap, random.random, clock.monotonic)
        self._lock = threading.Lock()
        self._left = limit
        self._stop = threading.Event()
        self.reason = ""

    # -- the end -----------------------------------------------------------------------------------

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def is_stopped(self) -> bool:
        """True once the run ends."""
        return self._stop.is_set()

    def stop(self, reason: str) -> None:
        """Begin nothing more; what is in the middle of a large file leaves off."""
        with self._lock:
            self.reason = self.reason or reason
        self._stop.set()

    def check(self) -> None:
        """Raise `Stopped` once the run ends."""
        if self._stop.is_set():
            raise Stopped

    def pause(self, seconds: float) -> None:
        """Wait; raises `Stopped` as soon as the run ends."""
        if seconds > 0:
            self._clock.wait(self._stop, seconds)
        self.check()

    # -- the limit ---------------------------------------------------------------------------------

    def take(self) -> bool:
        """True if one more file may be sent, which is counted."""
        with self._lock:
            if self._left is None:
                return True
            self._left -= 1
            return self._left >= 0

    @property
    def room(self) -> int:
        """How many files may still be sent; 0 for any number, or for none (`used_up`)."""
        return max(0, self._left or 0)

    @property
    def used_up(self) -> bool:
        """True when the limit is reached."""
        return self._left is not None and self._left <= 0

    # -- requests ----------------------------------------------------------------------------------

    def deadline(self) -> Deadline:
        """Until when a file that was begun now is tried."""
        return Deadline(self._clock, self._patience)

    def ask(
        self, request: Callable[[int], T], deadline: Deadline,
        before: Callable[[], None] = lambda: None,
    ) -> T:  # fmt: skip
        """Make a request until it works; it is given the number of the try, from 1.

        `before` is called ahead of each further try, and may raise. Raises `Stopped`,
        `ComesFirst`, errors that another try would not change, and the last one after the
        deadline.
        """
        tries = 0
        while True:
            self._enter()
            tries += 1
            try:
                answer = request(tries)
            except SendCancelled:
                raise Stopped from None
            except ComesFirst:
                raise
            except (CacheStoreError, ValueError) as error:
                self.pause(self._after(error, tries, deadline))
                before()
            else:
                self._gate.ended(None)
                return answer
            finally:
                self._gate.withdraw()

    def _enter(self) -> None:
        """Wait for a turn: while the remote does not work, one at a time tries it."""
        while True:
            self.check()
            admitted, later = self._gate.admit()
            if admitted:
                return
            self.pause(min(later, _LOOK))

    def _after(self, error: CacheStoreError | ValueError, tries: int, deadline: Deadline) -> float:
        """The pause after a failed try; raises the error if there is no other."""
        kind = kind_of(error)
        if not isinstance(error, SourceError):
            self._gate.ended(kind, str(error))
        if kind in ("permanent", "condition"):
            raise error
        if kind == "refused":
            self.stop(str(error))
            raise error
        if deadline.passed():
            if self._gate.shut:
                self.stop(f"the remote does not work: {error}")
            raise error
        if kind == "throttled":
            asked = getattr(error, "retry_after", None)
            pause = retry.throttled(asked, tries, self._base, self._cap, random.random)
        else:
            pause = retry.backoff(tries, self._base, self._cap, random.random)
        return min(pause, max(deadline.left(), self._base))
