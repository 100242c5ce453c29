"""Locks and forks."""

from __future__ import annotations

import os
import threading
import weakref


class ForkLock:
    """A lock that is free in a forked child: whoever held it at the fork does not live there.

    For what is whole after each step of those who hold it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _LIVE.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            pass  # its holder forked, and this is the child


_LIVE: weakref.WeakSet[ForkLock] = weakref.WeakSet()


def _renew() -> None:
    for lock in list(_LIVE):
        lock._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


class NoForks:
    """`with NO_FORKS:` a fork waits until the end, at most ten seconds.

    For imports: in a child that was forked in the middle of one, the module stays half-made.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child
            )

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _before(self) -> None:
        self._held = self._lock.acquire(timeout=10.0)

    def _in_parent(self) -> None:
        if self._held:
            self._lock.release()

    def _in_child(self) -> None:
        self._lock = threading.RLock()


NO_FORKS = NoForks()
