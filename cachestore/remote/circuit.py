"""The breaker's state: counts failures, and decides who may try a remote that does not work."""

from __future__ import annotations

import os
import threading

from cachestore.clock import Clock, Deadline
from cachestore.errors import (
    CacheStoreError,
    Corrupt,
    NotFound,
    NotSent,
    RemoteError,
    RemoteRefused,
    RemoteUnavailable,
    Throttled,
)

FAILURES = 5
PROBE_INTERVAL = 1.0
_LONGEST_WAIT = 3600.0


def is_failure(error: CacheStoreError) -> bool:
    """True for an error that says the remote does not work, whatever the key."""
    if isinstance(error, (Throttled, Corrupt)):
        return False
    return isinstance(error, (RemoteRefused, RemoteUnavailable))


def is_answer(error: CacheStoreError) -> bool:
    """True for an error that came from a remote that works."""
    return isinstance(error, (RemoteError, NotFound)) and not is_failure(error)


class _State:
    """What a forked child must not take over: locks may have been held at the fork."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.failures = 0
        self.open = False
        self.opened_at: float | None = None
        self.last_error: str | None = None
        self.next_probe = 0.0
        self.outcomes = 0
        self.changed = threading.Event()

    def tell(self) -> None:
        """Wake whoever waits for an outcome."""
        self.outcomes += 1
        self.changed.set()
        self.changed = threading.Event()


class Circuit:
    """Open after a refusal or five failures in a row; the first success closes it."""

    def __init__(self, clock: Clock, name: str) -> None:
        self._clock = clock
        self._name = name
        self._state = _State()

    def _mine(self) -> _State:
        state = self._state
        if state.pid != os.getpid():
            state = self._state = _State()
        return state

    @property
    def open(self) -> bool:
        return self._mine().open

    @property
    def last_error(self) -> str | None:
        return self._mine().last_error

    @property
    def opened_at(self) -> float | None:
        return self._mine().opened_at

    def admit(self, what: str, patience: float | None) -> None:
        """Return when a request may be made; raise `RemoteUnavailable` when it may not.

        `patience` in seconds: how long to wait for a turn to probe, or for somebody's probe.
        """
        state = self._mine()
        if not state.open:
            return
        deadline = Deadline(self._clock, patience)
        seen: int | None = None
        while True:
            with state.lock:
                if not state.open:
                    return
                failed = seen is not None and state.outcomes != seen
                if failed or deadline.passed():
                    raise self._refusal(state, what)
                seen = state.outcomes
                now = self._clock.monotonic()
                if now >= state.next_probe:
                    state.next_probe = now + PROBE_INTERVAL
                    return
                pause = min(state.next_probe - now, deadline.left(), _LONGEST_WAIT)
                changed = state.changed
            self._clock.wait(changed, pause)

    def _refusal(self, state: _State, what: str) -> NotSent:
        return NotSent(f"{what}: not asked, because {self._name} does not work: {state.last_error}")

    def answered(self, error: CacheStoreError) -> None:
        """A request ended with `error`; errors of our own side say nothing of the remote."""
        if is_failure(error):
            self.failed(error)
        elif is_answer(error):
            self.succeeded()

    def succeeded(self) -> None:
        """A request was answered."""
        state = self._mine()
        if not state.open and state.failures == 0:
            return
        with state.lock:
            state.failures = 0
            state.last_error = None
            if state.open:
                state.open, state.opened_at = False, None
                state.tell()

    def failed(self, error: CacheStoreError) -> None:
        """A request failed, or an answer broke off."""
        if not is_failure(error):
            return
        state = self._mine()
        with state.lock:
            state.failures += 1
            state.last_error = str(error)
            if state.open:
                state.tell()
            elif isinstance(error, RemoteRefused) or state.failures >= FAILURES:
                state.open, state.opened_at = True, self._clock.now()
                state.next_probe = self._clock.monotonic() + PROBE_INTERVAL
