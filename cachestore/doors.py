"""Doors to a store's rooms: calls are counted, so that a reload can close what nobody is in.

A reload makes new rooms while others read and write. Whoever is inside the old ones ends there,
on parts that still work; whoever comes later is led to the new ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from types import GeneratorType, TracebackType
from typing import Any, TypeVar, cast

from cachestore.core import Core
from cachestore.events import Events, Hook
from cachestore.locks import ForkLock
from cachestore.opened import OpenFile

T = TypeVar("T")
_BLOCKS = ("lease",)
"""Methods that give a `with` block, which is inside until its end."""


class Users:
    """How many calls are inside one set of rooms, which `core` is below. Safe to share by threads.

    Without a lock, since every slow read passes here: who comes in is counted first and looks
    then, who retires the rooms tells so first and looks then; so one of both sees the other.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self._inside: deque[None] = deque()
        self._late: deque[None] = deque()
        self._close: Callable[[], None] | None = None
        self._before: tuple[Users, ...] = ()
        self._lock = ForkLock()
        self._closed = False
        self.after: Mapping[str, Any] = {}

    def enter(self) -> bool:
        """Come in; False once the rooms are left for those in `after`."""
        if self._late or self._before:
            self.let_out()
        self._inside.append(None)
        if self._close is None:
            return True
        self.leave()
        return False

    def leave(self) -> None:
        """Go out. The last one closes what was retired."""
        self._inside.pop()
        if self._close is not None:
            self._end()

    def _end(self) -> None:
        with self._lock:
            if self._inside or self._closed or self._close is None:
                return
            self._closed = True
        self._close()

    def leave_later(self) -> None:
        """Go out when somebody else comes: for a collector, which may run anywhere."""
        self._late.append(None)

    def let_out(self) -> None:
        """Who left late is out now, here and in the rooms before these."""
        for each in self._before:
            each.let_out()
        if any(each._closed for each in self._before):
            self._before = tuple(each for each in self._before if not each._closed)
        while self._late:
            try:
                self._late.pop()
            except IndexError:  # somebody else was faster
                return
            self.leave()

    def retire(self, heirs: Users, after: Mapping[str, Any], close: Callable[[], None]) -> None:
        """Nobody comes in any more: `after` has the doors by name. `close` once all went out."""
        self.after = after
        self._close = close
        self._end()
        heirs._before = tuple(each for each in (*self._before, self) if not each._closed)


class Door:
    """Stands for a room: calls of its methods are counted, or led on to the room that followed."""

    def __init__(self, name: str, room: Any, users: Users) -> None:
        self._name = name
        self._room = room
        self._users = users

    def __getattr__(self, method: str) -> Callable[..., Any]:
        counted = partial(self._call, method, getattr(self._room, method))
        setattr(self, method, counted)  # the next time this is not asked
        return counted

    def _call(self, method: str, do: Callable[..., Any], *args: Any, **named: Any) -> Any:
        users = self._users
        if not users.enter():
            return getattr(users.after[self._name], method)(*args, **named)
        stays = False
        try:
            result = do(*args, **named)
            if isinstance(result, GeneratorType):
                stays, result = True, _Items(result, users)
            elif method in _BLOCKS:
                stays, result = True, _Block(result, users)
            elif isinstance(result, OpenFile):
                stays = result.when_closed(users.leave_later)
            return result
        finally:
            if not stays:
                users.leave()


def door_to(name: str, room: T, users: Users) -> T:
    """A door that looks like its room."""
    return cast("T", Door(name, room, users))


class _Leaving:
    """Goes out once, at the latest when nobody has it any more."""

    def __init__(self, users: Users) -> None:
        self._users: Users | None = users

    def _leave(self) -> None:
        users, self._users = self._users, None
        if users is not None:
            users.leave()

    def __del__(self) -> None:
        if self._users is not None:
            self._users.leave_later()


class _Items(_Leaving):
    """An iterator that is inside until it ends."""

    def __init__(self, items: Iterator[Any], users: Users) -> None:
        super().__init__(users)
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._items)
        except BaseException:
            self._leave()
            raise


class _Block(_Leaving):
    """A `with` block that is inside until its end."""

    def __init__(self, block: AbstractContextManager[Any], users: Users) -> None:
        super().__init__(users)
        self._block = block

    def __enter__(self) -> Any:
        try:
            return self._block.__enter__()
        except BaseException:
            self._leave()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        try:
            return self._block.__exit__(kind, error, trace)
        finally:
            self._leave()


class Hooks:
    """What the app subscribed, for as long as the store is open, whatever parts it is made of."""

    def __init__(self) -> None:
        self._lock = ForkLock()
        self._events: Events | None = None
        self._ends: dict[object, tuple[Hook, list[Callable[[], None]]]] = {}

    def attach(self, events: Events) -> None:
        """New parts have other events: hear those, too."""
        with self._lock:
            if events is not self._events:
                self._events = events
                for hook, ends in self._ends.values():
                    ends.append(events.subscribe(hook))

    def add(self, hook: Hook) -> Callable[[], None]:
        """Subscribe a hook; returns a function that ends it."""
        me = object()
        with self._lock:
            assert self._events is not None
            self._ends[me] = (hook, [self._events.subscribe(hook)])

        def end() -> None:
            with self._lock:
                _, ends = self._ends.pop(me, (hook, []))
            for each in ends:
                each()

        return end
