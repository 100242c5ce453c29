"""What a double was asked, and how many bytes went which way."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase


@dataclass
class Entry:
    """One request. `status` is 0 while there is no answer; bytes are those of the bodies."""

    method: str
    operation: str
    bucket: str
    key: str
    status: int = 0
    received: int = 0
    sent: int = 0
    started: float = 0.0
    seconds: float = 0.0
    fault: str = ""
    done: bool = False


class RequestLog:
    """Every request so far, oldest first. Counts are made before a client can see the answer."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._entries: list[Entry] = []

    def begin(self, entry: Entry) -> Entry:
        """Note a request that has just arrived."""
        with self._changed:
            entry.started = time.time()
            self._entries.append(entry)
            self._changed.notify_all()
        return entry

    def note(self, entry: Entry, *, status: int = 0, received: int = 0, sent: int = 0) -> None:
        """Note the status, or more bytes of a body."""
        with self._changed:
            entry.status = status or entry.status
            entry.received += received
            entry.sent += sent
            entry.seconds = time.time() - entry.started
            if status:
                self._changed.notify_all()

    def end(self, entry: Entry) -> None:
        """Note that nothing more happens to a request."""
        with self._changed:
            entry.seconds = time.time() - entry.started
            entry.done = True
            self._changed.notify_all()

    def entries(
        self,
        method: str = "*",
        key: str = "*",
        *,
        operation: str = "*",
        status: int | None = None,
    ) -> list[Entry]:
        """Copies of the entries that match; `*`, `?` and `[...]` are wildcards."""
        with self._changed:
            return [
                replace(entry)
                for entry in self._entries
                if fnmatchcase(entry.method, method)
                and fnmatchcase(entry.key, key)
                and fnmatchcase(entry.operation, operation)
                and status in (None, entry.status)
            ]

    def count(
        self,
        method: str = "*",
        key: str = "*",
        *,
        operation: str = "*",
        status: int | None = None,
    ) -> int:
        """How many requests match."""
        return len(self.entries(method, key, operation=operation, status=status))

    def bytes_sent(self, key: str = "*", method: str = "*") -> int:
        """Bytes of answers' bodies that left for clients."""
        return sum(entry.sent for entry in self.entries(method, key))

    def bytes_received(self, key: str = "*", method: str = "*") -> int:
        """Bytes of requests' bodies that came from clients."""
        return sum(entry.received for entry in self.entries(method, key))

    def wait_for(
        self,
        count: int,
        method: str = "*",
        key: str = "*",
        *,
        operation: str = "*",
        status: int | None = None,
        timeout: float = 60.0,
    ) -> list[Entry]:
        """Wait until at least `count` requests match; TimeoutError after `timeout` seconds."""
        end = time.monotonic() + timeout
        while True:
            with self._changed:
                found = self.entries(method, key, operation=operation, status=status)
                if len(found) >= count:
                    return found
                if time.monotonic() > end:
                    raise TimeoutError(f"{len(found)} of {count} requests in {timeout:g} s")
                self._changed.wait(min(1.0, timeout))

    def clear(self) -> None:
        """Forget all entries."""
        with self._changed:
            self._entries.clear()
