"""Calls back when operations have ended, from a thread of its own: an app may take its time."""

from __future__ import annotations

import threading
from collections.abc import Callable

from cachestore import events
from cachestore.errors import CacheStoreError
from cachestore.events import log
from cachestore.keys import Place
from cachestore.uploads.outcomes import Failed, Outcome, Outcomes, State
from cachestore.uploads.parts import Parts

_POLL = 0.03


class Callbacks:
    """`look` says what the disk knows of an operation, for those that others upload."""

    def __init__(
        self,
        parts: Parts,
        outcomes: Outcomes,
        look: Callable[[Place, str, str], Outcome | None],
    ) -> None:
        self._parts = parts
        self._outcomes = outcomes
        self._look = look
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._seen: dict[str, int] = {}

    def add(self, key: str, id: str, call: Callable[[State], None]) -> None:
        """Call `call` once, when the operation has ended."""
        with self._lock:
            self._outcomes.call_when_done(key, id, call)
            if self._thread is None:
                thread = threading.Thread(
                    target=self._run, name="cachestore-callbacks", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:
                    log.debug("cachestore: too late for callbacks")
                    return
                self._thread = thread

    def _run(self) -> None:
        """Deliver until nothing is expected any more."""
        interval = max(_POLL, self._parts.options.leader_interval / 5)
        while True:
            for key, id_ in self._outcomes.expected():
                known = self._outcomes.get(id_) or self._on_disk(key, id_)
                if known is not None:
                    self._seen.pop(id_, None)
                    for call in self._outcomes.take_calls(id_):
                        self._call(call, known)
            with self._lock:
                if not self._outcomes.expected():
                    self._thread = None
                    return
            self._outcomes.wait_for_any(interval)

    def _on_disk(self, key: str, id: str) -> Outcome | None:
        place = self._parts.spool.place(key)
        sequence = self._parts.spool.board.sequence(place.shard)
        if self._seen.get(id) == sequence:
            return None
        self._seen[id] = sequence
        try:
            return self._look(place, key, id)
        except (CacheStoreError, OSError):
            return None

    def _call(self, call: Callable[[State], None], known: Outcome) -> None:
        if isinstance(known, Failed):
            return
        try:
            call(known)
        except BaseException as error:  # the app's fault must not end the thread
            log.exception("cachestore: a callback failed")
            text = f"{type(error).__name__}: {error}"
            self._parts.events.emit(events.Trouble("", "callback", text))
