"""How many bytes of transfers may be in memory at a time, shared by all of them."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class _Process:
    """A forked child starts with nothing in flight, and without the parent's waiters."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.used = 0
        self.waiting: deque[tuple[int, threading.Event]] = deque()


class Budget:
    """`total` bytes, handed out in the order in which they are asked for."""

    def __init__(self, total: int) -> None:
        self.total = max(1, total)
        self._process = _Process()

    def _mine(self) -> _Process:
        process = self._process
        if process.pid != os.getpid():
            process = self._process = _Process()
        return process

    @property
    def used(self) -> int:
        """Bytes handed out now."""
        return self._mine().used

    @property
    def waiting(self) -> int:
        """Callers that wait for their turn."""
        return len(self._mine().waiting)

    def acquire(self, count: int) -> int:
        """Wait until `count` bytes are free; more than the total counts as the total.

        Returns what to give to `release`.
        """
        count = min(max(0, count), self.total)
        process = self._mine()
        with process.lock:
            if not process.waiting and process.used + count <= self.total:
                process.used += count
                return count
            turn = threading.Event()
            process.waiting.append((count, turn))
        try:
            turn.wait()
        except BaseException:
            self._leave(process, count, turn)
            raise
        return count

    def release(self, count: int) -> None:
        """Give back what `acquire` returned."""
        process = self._mine()
        with process.lock:
            process.used = max(0, process.used - count)
            self._hand_out(process)

    @contextmanager
    def holding(self, count: int) -> Iterator[None]:
        """`acquire`, and `release` at the end."""
        taken = self.acquire(count)
        try:
            yield
        finally:
            self.release(taken)

    def _leave(self, process: _Process, count: int, turn: threading.Event) -> None:
        """An interrupted waiter gives up its place, or what it was given meanwhile."""
        with process.lock:
            if turn.is_set():
                process.used -= count
            else:
                process.waiting.remove((count, turn))
            self._hand_out(process)

    def _hand_out(self, process: _Process) -> None:
        while process.waiting and process.used + process.waiting[0][0] <= self.total:
            count, turn = process.waiting.popleft()
            process.used += count
            turn.set()
