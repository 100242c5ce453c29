"""How a store begins, takes in new settings while it is used, and ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from cachestore.core import Core
from cachestore.doors import Hooks, Users, door_to
from cachestore.downloader import Downloader
from cachestore.health import Health
from cachestore.listing import Lister
from cachestore.locks import ForkLock
from cachestore.options import Options
from cachestore.presigning import Presigner
from cachestore.reading import Reader
from cachestore.upkeep import Keeper
from cachestore.writing import Writer

Build = Callable[[], tuple[Core, Downloader]]
_STAYS = ("_build", "_reloading", "_hooks", "_at_close")


class StoreLife:
    """The part of `CacheStore` that holds the rooms and exchanges them."""

    _writer: Writer
    _reader: Reader
    _lister: Lister
    _presigner: Presigner
    _keeper: Keeper
    _health: Health
    _core: Core
    _downloader: Downloader
    _hot: Callable[[str], Path | None]

    def __init__(self, build: Build) -> None:
        self._build = build
        self._reloading = ForkLock()
        self._hooks = Hooks()
        self._at_close: list[Callable[[], None]] = []
        self._assemble()
        self._hooks.attach(self._core.events)

    def _assemble(self) -> None:
        """Build the parts and the rooms, put doors before them. Raises `ConfigError`."""
        raise NotImplementedError

    def _put_doors(self) -> None:
        self._users = users = Users(self._core)
        self._writer = door_to("_writer", self._writer, users)
        self._reader = door_to("_reader", self._reader, users)
        self._lister = door_to("_lister", self._lister, users)
        self._presigner = door_to("_presigner", self._presigner, users)
        self._keeper = door_to("_keeper", self._keeper, users)
        self._health = door_to("_health", self._health, users)

    @property
    def core(self) -> Core:
        """The parts, for tools and tests."""
        return self._core

    @property
    def options(self) -> Options:
        """What the store was built from."""
        return self._core.options

    @contextmanager
    def held(self) -> Iterator[Core]:
        """`with store.held() as core:` these parts work until the end of the block.

        For tools that use them for long; a reload in between is not seen by who has them.
        """
        users = self._users
        while not users.enter():
            users = self._users
        try:
            yield users.core
        finally:
            users.leave()

    def reload(self) -> None:
        """Read the settings and live flags again; calls, pending work and files go on.

        Calls that are under way end as they began. Uploading begins if there is a remote now,
        and what is on the wire has two seconds to end. Raises `ConfigError` for settings that
        cannot be used; the store then goes on as it was.
        """
        with self._reloading:
            self._core.check_open()
            fresh = type(self)(self._build)
            core, downloader, users = self._core, self._downloader, self._users
            fresh._core.stats.follow(core.stats)
            self._hooks.attach(fresh._core.events)
            after = {name: room for name, room in vars(fresh).items() if name not in _STAYS}
            vars(self).update(after)
            _rest(core)
            users.retire(self._users, after, lambda: self._left(core, downloader))
            self._core.uploader.start()

    def _left(self, core: Core, downloader: Downloader) -> None:
        """Nobody is in the parts from before a reload any more."""
        self._core.stats.fold(core.stats)
        self._core.bypass.take_over(core.bypass)
        _close(core, downloader)
        self._core.uploader.look_again()  # for what the last ones there put

    def on_close(self, call: Callable[[], None]) -> None:
        """Call this before the store closes."""
        self._at_close.append(call)

    def close(self, drain: float = 5.0) -> None:
        """Wait up to `drain` seconds for due uploads, then stop; what is left stays on disk."""
        while self._at_close:
            self._at_close.pop()()
        with self._reloading:
            if not self._core.closed:
                _shut(self._core, self._downloader, drain=drain)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _shut(core: Core, downloader: Downloader, *, drain: float) -> None:
    if drain > 0 and core.uploader.started:
        core.uploader.flush(drain)
    core.closed = True
    _rest(core)
    _close(core, downloader)


def _rest(core: Core) -> None:
    """End what runs by itself."""
    core.janitor.close()  # counts what the hot map counted
    core.hot.clear()
    core.census.close()
    core.uploader.stop(2.0)


def _close(core: Core, downloader: Downloader) -> None:
    """End what calls need."""
    core.downloads.close()
    if core.progressive is not None:
        core.progressive.close()
    core.asks.close()
    core.workers.close()
    downloader.close()
    core.catalog.close()
    core.facts.close()
    for remote in (core.remote, core.shadow):
        if remote is not None:
            remote.close()
