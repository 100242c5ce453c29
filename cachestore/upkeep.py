"""Looking after a store: cleaning, checking, pins, warm-up, health."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from cachestore import events
from cachestore.core import Core
from cachestore.errors import CacheStoreError
from cachestore.keys import check_key
from cachestore.local.spool_scan import recount
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

    # -- health ----------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """See `CacheStore.health`."""
        core, options = self._core, self._core.options
        recount(core.spool)
        count, size = core.board.pending()
        cached, entries, pinned = core.catalog.totals()
        uploader = core.uploader.health()
        report: dict[str, Any] = {
            "mode": options.mode,
            "reason": options.reason,
            "degraded": options.degraded,
            "remote": None,
            "folders": {
                "cache": str(options.cache_dir),
                "spool": str(options.spool_dir),
                "local": str(options.local_dir),
            },
            "pending": {"count": count, "bytes": size},
            "cache": {
                "bytes": cached, "max_bytes": options.cache_max_bytes, "entries": entries,
                "pinned": pinned, **core.room.report(),
            },
            "uploader": uploader,
        }  # fmt: skip
        if core.remote is not None:
            report["remote"] = {
                "name": core.remote.name,
                "id": core.remote_id,
                "state": core.remote.state,
                "last_error": core.remote.last_error,
            }
            report["degraded"] = options.degraded or core.remote.state != "closed"
        foreign = self._foreign()
        if foreign:
            report["foreign"] = foreign
        report["alerts"] = self._alerts(count, cached)
        report["status"] = "degraded" if report["degraded"] or report["alerts"] else "healthy"
        return report

    def _foreign(self) -> dict[str, int]:
        """Pending operations of other remotes: kept, and sent when theirs is configured again."""
        found: dict[str, int] = {}
        for item in self._core.uploader.pending():
            if item.state == "foreign":
                found[item.remote_id] = found.get(item.remote_id, 0) + 1
        return found

    def _alerts(self, queued: int, cached: int) -> list[str]:
        options = self._core.options
        counts = self._core.stats.snapshot()
        alerts = []
        if cached > options.alert_cache_bytes:
            alerts.append(f"the cache holds {cached} bytes, over {options.alert_cache_bytes}")
        if queued > options.alert_queue:
            alerts.append(
                f"{queued} operations wait, over {options.alert_queue}: is the uploader running?"
            )
        reads = counts.hits + counts.misses
        if reads >= 100 and 1 - counts.hit_rate > options.alert_miss_rate:
            alerts.append(f"the miss rate is {1 - counts.hit_rate:.0%}")
        return alerts
