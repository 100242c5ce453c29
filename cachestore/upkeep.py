"""Looking after a store: cleaning, forgetting, pins, warm-up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from cachestore import events
from cachestore.core import Core
from cachestore.errors import CacheStoreError
from cachestore.keys import check_key
from cachestore.reading import Reader


@dataclass(frozen=True, slots=True)
class WarmReport:
    """What `warm` did: keys now here, and those that failed with why."""

    here: int
    bytes: int
    failed: dict[str, str]


class Keeper:
    """The room for upkeep."""

    def __init__(self, core: Core, reader: Reader) -> None:
        self._core = core
        self._reader = reader

    # -- asked for by the app --------------------------------------------------------------------

    def clean(self) -> dict[str, int]:
        """See `CacheStore.clean`."""
        self._core.check_open()
        return self._core.janitor.run_once()

    def invalidate(self, key: str) -> None:
        """See `CacheStore.invalidate`."""
        core = self._core
        core.check_open()
        key = check_key(key)
        place = core.spool.place(key)
        core.board.change(place.slot)
        core.hot.forget(key)
        row = core.catalog.remove(key)
        if row is not None:
            core.cache.discard([row])
            core.events.emit(events.Evicted(key, row.size, "invalid"))

    def pin(self, key: str) -> None:
        self._core.check_open()
        self._core.catalog.pin(check_key(key))

    def unpin(self, key: str) -> None:
        self._core.check_open()
        self._core.catalog.unpin(check_key(key))

    def warm(
        self, keys: Iterable[str], progress: Callable[[str], None] | None = None
    ) -> WarmReport:
        """See `CacheStore.warm`."""
        core = self._core
        core.check_open()
        wanted = [check_key(key) for key in keys]
        futures = [(key, core.workers.submit(partial(self._warm_one, key))) for key in wanted]
        here = size = 0
        failed: dict[str, str] = {}
        for key, future in futures:
            try:
                size += future.result()
                here += 1
            except CacheStoreError as error:
                failed[key] = str(error)
            if progress is not None:
                progress(key)
        return WarmReport(here, size, failed)

    def _warm_one(self, key: str) -> int:
        # Not by a path: its grace would keep what comes later out.
        with self._reader.open_whole(key) as file:
            return file.info.size
