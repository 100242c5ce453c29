"""Files of which something was heard, until they are whole and stored."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cachestore.clock import Clock
from cachestore.files import is_written_at

QUIET = 0.1
"""Seconds after a file was closed or renamed in which more may come: a burst is one upload."""

_LONGEST_BURST = 2.0
_REST = 1.0
_PATIENT = 30
"""So many settle times, for a file that was not heard to be closed, where nobody can tell."""


@dataclass(slots=True)
class _Entry:
    """Monotonic seconds: `since` it waits, `changed` it was last heard of, not taken `before`."""

    since: float
    changed: float
    closed: bool
    heard: bool
    serial: int = 0
    before: float = 0.0
    tries: int = 0
    state: tuple[int, int] | None = None


class Waiting:
    """Paths relative to `root`. Safe to share by threads.

    `settle`: seconds for which a file has to stay as it is that was not heard to be closed or
    renamed; `quiet`: for which nothing may be heard of one that was. `closes`: the system tells
    of the end of writing.
    """

    def __init__(self, root: str, clock: Clock, settle: float, quiet: float = QUIET) -> None:
        self._root = root
        self._clock = clock
        self._settle = settle
        self._quiet = quiet
        self.closes = True
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    # -- what is heard -----------------------------------------------------------------------------

    def written(self, path: str) -> None:
        """Somebody writes it."""
        self._note(path, closed=False)

    def closed(self, path: str) -> None:
        """A writer ended, or it was renamed into place."""
        self._note(path, closed=True)

    def found(self, path: str) -> None:
        """It was found, and is young. What was heard of it meanwhile says more."""
        now = self._clock.monotonic()
        with self._lock:
            self._entries.setdefault(path, _Entry(now, now, closed=False, heard=False))

    def gone(self, path: str) -> None:
        """It is no longer there."""
        with self._lock:
            self._entries.pop(path, None)

    def _note(self, path: str, *, closed: bool) -> None:
        now = self._clock.monotonic()
        with self._lock:
            entry = self._entries.get(path)
            if entry is None:
                self._entries[path] = _Entry(now, now, closed, heard=True)
                return
            entry.serial += 1
            entry.changed, entry.closed, entry.heard = now, closed, True
            entry.before, entry.tries = 0.0, 0

    # -- what may be taken -------------------------------------------------------------------------

    def whole(self) -> dict[str, int]:
        """The files that may be taken now, each with a number that changes when more is heard."""
        with self._lock:
            entries = [(path, entry, entry.serial) for path, entry in self._entries.items()]
        return {path: serial for path, entry, serial in entries if self._is_whole(path, entry)}

    def due(self, paths: Iterable[str]) -> set[str]:
        """Those of them that do not rest."""
        now = self._clock.monotonic()
        with self._lock:
            return {
                path
                for path in paths
                if path in self._entries and self._entries[path].before <= now
            }

    def holds(self, path: str) -> bool:
        """True for a file that waits."""
        with self._lock:
            return path in self._entries

    def is_being_written(self, path: str) -> bool:
        """True for a file whose writer was heard to begin, and not to end."""
        with self._lock:
            entry = self._entries.get(path)
            return entry is not None and entry.heard and not entry.closed

    def _is_whole(self, path: str, entry: _Entry) -> bool:
        now = self._clock.monotonic()
        if entry.closed:
            longest = max(_LONGEST_BURST, self._quiet)
            return now - entry.changed >= self._quiet or now - entry.since >= longest
        return now - entry.changed >= self._settle and self._has_settled(path, entry, now)

    def _has_settled(self, path: str, entry: _Entry, now: float) -> bool:
        """Looks at the file: is it as it was, and does nobody write it?"""
        full = os.path.join(self._root, path)
        try:
            info = os.lstat(full)
            written = is_written_at(full)
        except FileNotFoundError:
            self.gone(path)
            return False
        except OSError:
            written = None  # it is named by the run that cannot read it
        else:
            state = info.st_size, info.st_mtime_ns
            if written or (entry.state is not None and entry.state != state):
                entry.changed, entry.state = now, state
                return False
            entry.state = state
        if written is None and entry.heard and self.closes:
            return now - entry.changed >= _PATIENT * self._settle
        return True

    # -- what became of them -----------------------------------------------------------------------

    def done(self, taken: Mapping[str, int]) -> None:
        """They arrived; those of which more was heard meanwhile stay."""
        with self._lock:
            for path, serial in taken.items():
                entry = self._entries.get(path)
                if entry is not None and entry.serial == serial:
                    del self._entries[path]

    def rest(self, taken: Mapping[str, int]) -> None:
        """They wait for another file that goes with them, unless more was heard meanwhile."""
        until = self._clock.monotonic() + _REST
        with self._lock:
            for path, serial in taken.items():
                entry = self._entries.get(path)
                if entry is not None and entry.serial == serial:
                    entry.before = until

    def again(self, paths: Iterable[str], taken: Mapping[str, int], longest: float) -> None:
        """They did not arrive: later again, each time a longer pause, at most `longest` seconds.

        `taken`: what `whole` said before. Those of which more was heard meanwhile do not pause.
        """
        now = self._clock.monotonic()
        with self._lock:
            for path in paths:
                entry = self._entries.get(path)
                if entry is None:
                    entry = self._entries[path] = _Entry(now, now, closed=False, heard=False)
                elif taken.get(path) != entry.serial:
                    continue
                entry.before = now + min(longest, max(QUIET, self._settle) * 2.0**entry.tries)
                entry.tries = min(entry.tries + 1, 16)

    def due_in(self) -> float | None:
        """Seconds until something may be whole; None if nothing waits."""
        now = self._clock.monotonic()
        with self._lock:
            times = [
                max(entry.before, entry.changed + (self._quiet if entry.closed else self._settle))
                for entry in self._entries.values()
            ]
        return max(0.0, min(times) - now) if times else None

    @property
    def paths(self) -> list[str]:
        """What waits, by name."""
        with self._lock:
            return sorted(self._entries)
