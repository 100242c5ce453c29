"""Receipts: what `put` returns, and the way to learn what became of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

State = Literal["local", "pending", "uploaded", "superseded", "parked"]


class Follower(Protocol):
    """Who knows what became of an operation."""

    def path(self, key: str) -> Path: ...
    def url(self, key: str) -> str: ...
    def state(self, key: str, id: str) -> State: ...
    def wait(self, key: str, id: str, timeout: float | None) -> State: ...
    def when_done(self, key: str, id: str, call: Callable[[State], None]) -> None: ...


class Receipt:
    """A file that is durable here. `size` in bytes, `sha256` in hex, `id` names this operation."""

    __slots__ = ("_follower", "id", "key", "sha256", "size")

    def __init__(self, key: str, id: str, size: int, sha256: str, follower: Follower) -> None:
        self.key = key
        self.id = id
        self.size = size
        self.sha256 = sha256
        self._follower = follower

    def __repr__(self) -> str:
        return f"Receipt(key={self.key!r}, id={self.id!r}, size={self.size})"

    @property
    def path(self) -> Path:
        """The file's newest version, as `store.get(key)` gives it."""
        return self._follower.path(self.key)

    @property
    def state(self) -> State:
        """`local` (local mode), `pending`, `uploaded`, `superseded` or `parked`."""
        return self._follower.state(self.key, self.id)

    def url(self) -> str:
        """A URL for the key, as `store.url(key)` gives it."""
        return self._follower.url(self.key)

    def wait(self, timeout: float | None = None) -> State:
        """Wait until the remote has it, or it was superseded or parked; that is returned.

        Raises `TimedOut` after `timeout` seconds; the operation stays pending.
        """
        return self._follower.wait(self.key, self.id, timeout)

    def add_done_callback(self, call: Callable[[State], None]) -> None:
        """Call `call(outcome)` once, when the operation has ended, from a background thread."""
        self._follower.when_done(self.key, self.id, call)
