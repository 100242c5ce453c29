"""What became of operations, for those who wait for it in this process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from cachestore.errors import PreconditionFailed

State = Literal["uploaded", "superseded", "parked"]
_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Failed:
    """A caller's condition did not hold; the operation was withdrawn."""

    message: str
    expected: str | None
    found: str | None

    def error(self) -> PreconditionFailed:
        return PreconditionFailed(self.message, expected=self.expected, found=self.found)


Outcome = State | Failed


class Outcomes:
    """Ends of operations by id, the last ten thousand of them, and who waits for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Outcome] = OrderedDict()
        self._waiting: dict[str, list[threading.Event]] = {}
        self._calls: dict[str, tuple[str, list[Callable[[State], None]]]] = {}
        self._owned: set[str] = set()
        self._leaving: set[str] = set()
        self._changed = threading.Condition()
        self.uploaded = 0

    # -- what became of it -----------------------------------------------------------------------

    def get(self, id: str) -> Outcome | None:
        """The end of an operation; None if it is not known here."""
        return self._known.get(id)

    def set(self, id: str, outcome: Outcome) -> None:
        """An operation ended. A parked one may end again."""
        with self._lock:
            self._known[id] = outcome
            self._known.move_to_end(id)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
            if outcome == "uploaded":
                self.uploaded += 1
            for event in self._waiting.get(id, ()):
                event.set()
        self.tell()

    @contextmanager
    def withdrawing(self, id: str) -> Iterator[None]:
        """While a ticket is taken back: that it is gone does not mean that it was uploaded."""
        self._leaving.add(id)
        try:
            yield
        finally:
            self._leaving.discard(id)

    def is_leaving(self, id: str) -> bool:
        """True while a ticket is taken back; asked after looking at the disk."""
        return id in self._leaving

    def revive(self, id: str) -> None:
        """A parked operation is tried again."""
        with self._lock:
            if self._known.get(id) == "parked":
                del self._known[id]

    def tell(self) -> None:
        """Something changed for those who wait for anything."""
        with self._changed:
            self._changed.notify_all()

    def wait_for_any(self, seconds: float) -> None:
        """Return after a change, or after `seconds`."""
        with self._changed:
            self._changed.wait(max(0.0, seconds))

    # -- who waits -------------------------------------------------------------------------------

    @contextmanager
    def waiting(self, id: str) -> Iterator[threading.Event]:
        """An event that is set when the operation ends."""
        event = threading.Event()
        with self._lock:
            self._waiting.setdefault(id, []).append(event)
        try:
            yield event
        finally:
            with self._lock:
                left = [e for e in self._waiting.pop(id, []) if e is not event]
                if left:
                    self._waiting[id] = left
                else:
                    self._owned.discard(id)

    def own(self, id: str) -> None:
        """The caller of this conditional operation is here, and waits for its end next.

        It is forgotten when nobody waits any more.
        """
        with self._lock:
            self._owned.add(id)

    def is_owned(self, id: str) -> bool:
        return id in self._owned

    # -- callbacks -------------------------------------------------------------------------------

    def call_when_done(self, key: str, id: str, call: Callable[[State], None]) -> None:
        """Remember a callback; `take_calls` gives it back."""
        with self._lock:
            self._calls.setdefault(id, (key, []))[1].append(call)

    def expected(self) -> list[tuple[str, str]]:
        """Key and id of every operation that somebody wants to be called for."""
        with self._lock:
            return [(key, id_) for id_, (key, _) in self._calls.items()]

    def take_calls(self, id: str) -> list[Callable[[State], None]]:
        """The callbacks of an operation, each given out once."""
        with self._lock:
            return self._calls.pop(id, ("", []))[1]
