"""What happens in a store, as a closed set of values. Statistics, metrics and logs hook in here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from cachestore.locks import ForkLock

log = logging.getLogger("cachestore")


@dataclass(frozen=True, slots=True)
class Event:
    """The base; `key` is empty where an event concerns no single key."""

    key: str


@dataclass(frozen=True, slots=True)
class Hit(Event):
    """`count` reads answered from here. `kind`: fresh, stale, stale-if-error, pending or local;
    or partial, where `size` is what was read of it without the remote."""

    size: int
    kind: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Miss(Event):
    """A read that needed the remote. `seconds` until the bytes were here.

    `size` is 0 where the bytes are told of by `Fetched`.
    """

    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Fetched(Event):
    """Bytes of a large object that is read block by block came from the remote."""

    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Absent(Event):
    """A read of a key that does not exist. `negative`: answered without asking the remote."""

    negative: bool


@dataclass(frozen=True, slots=True)
class Revalidated(Event):
    """The remote was asked whether a copy is current. `outcome`: same, changed, gone, failed."""

    outcome: str


@dataclass(frozen=True, slots=True)
class Spooled(Event):
    """A put (or delete, with size 0) became durable here."""

    size: int
    operation: str
    id: str


@dataclass(frozen=True, slots=True)
class Uploaded(Event):
    """The remote has it. `tries` includes the one that succeeded."""

    size: int
    operation: str
    id: str
    seconds: float
    tries: int


@dataclass(frozen=True, slots=True)
class UploadFailed(Event):
    """One try failed; it will be tried again in `retry_in` seconds."""

    id: str
    error: str
    tries: int
    retry_in: float


@dataclass(frozen=True, slots=True)
class Parked(Event):
    """An operation needs a person: it waits until `retry`."""

    id: str
    error: str


@dataclass(frozen=True, slots=True)
class Superseded(Event):
    """An operation was replaced by a newer one before the remote had it."""

    id: str


@dataclass(frozen=True, slots=True)
class Evicted(Event):
    """A clean copy left the cache.

    `reason`: space, free (the disk's free share), age, invalid or asked.
    """

    size: int
    reason: str


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """A file was handed out and not kept.

    `reason`: pattern, size or uses (the settings), large (more than the limit), worth (less than
    what would have to leave), room (all that could leave was just handed out), free (the disk has
    less free than `CACHE_MIN_FREE`).
    """

    size: int
    reason: str


@dataclass(frozen=True, slots=True)
class RemoteCall(Event):
    """One request to the remote. `status`: ok, or the error's class name."""

    operation: str
    status: str
    seconds: float
    size: int


@dataclass(frozen=True, slots=True)
class Trouble(Event):
    """Something is wrong and was worked around. `where`: cache, spool, remote, local."""

    where: str
    error: str


Hook = Callable[[Event], None]


class Events:
    """Hands every event to every hook. A hook that raises is logged and harms nobody."""

    def __init__(self) -> None:
        self._hooks: tuple[Hook, ...] = ()
        self._lock = ForkLock()

    def subscribe(self, hook: Hook) -> Callable[[], None]:
        """Call `hook(event)` for every event, from the thread in which it happens.

        Returns a function that ends it.
        """
        with self._lock:
            self._hooks = (*self._hooks, hook)

        def unsubscribe() -> None:
            with self._lock:
                self._hooks = tuple(h for h in self._hooks if h is not hook)

        return unsubscribe

    def emit(self, event: Event) -> None:
        for hook in self._hooks:
            try:
                hook(event)
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException:  # a hook's SystemExit must not end a worker
                log.exception("a hook failed on %s", type(event).__name__)
