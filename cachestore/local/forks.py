"""Forks: who holds what a forked child must not inherit is told before and after."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """Something with locks or handles. Nothing here may raise or wait for long."""

    def before_fork(self) -> None:
        """In the parent: give up what can be given up, and hold still."""
        ...

    def after_fork(self, *, child: bool) -> None:
        """In the parent: go on. In the child: begin anew, inherited handles untouched."""
        ...


_watched: weakref.WeakSet[ForkAware] = weakref.WeakSet()
inherited: list[object] = []
"""Handles of the parent in a forked child: kept, since even closing them would touch them."""


def watch_forks(who: ForkAware) -> None:
    """Tell `who` of forks as long as it lives."""
    _watched.add(who)


def _before() -> None:
    for who in list(_watched):
        who.before_fork()


def _after(*, child: bool) -> None:
    for who in list(_watched):
        who.after_fork(child=child)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before,
        after_in_parent=lambda: _after(child=False),
        after_in_child=lambda: _after(child=True),
    )
