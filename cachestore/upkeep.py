"""Looking after a store: cleaning, checking, pins, warm-up, health."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from cachestore import events
from cachestore.core import Core
from cachestore.errors import CacheStoreError
from cachestore.keys import check_key
from cachestore.local.board import SHARDS
from cachestore.local.spool_scan import Unreadable, scan_shard, tidy_shard
from cachestore.reading import Reader

QUARANTINE_DAYS = 7


@dataclass(slots=True)
class Finding:
    """One thing that `fsck` saw. `repaired` says what was done, "" for nothing."""

    what: str
    where: str
    detail: str = ""
    repaired: str = ""


@dataclass(slots=True)
class FsckReport:
    """What `fsck` saw: findings, and how much it looked at."""

    tickets: int = 0
    copies: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """True when nothing was found."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


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
        futures = [
            (key, core.workers.submit(lambda key=key: self._warm_one(key)))  # type: ignore[misc]  # mypy cannot infer a lambda's default
            for key in wanted
        ]
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
        if self._core.hot.path(key) is None:
            self._reader.get(key)
        entry = self._core.hot.entry(key)
        return 0 if entry is None else entry.size

    # -- health ----------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """See `CacheStore.health`."""
        core, options = self._core, self._core.options
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
                "pinned": pinned,
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

    # -- fsck ------------------------------------------------------------------------------------

    def fsck(self, repair: bool = False) -> FsckReport:
        """See `CacheStore.fsck`."""
        self._core.check_open()
        report = FsckReport()
        for shard in range(SHARDS):
            self._check_shard(shard, report, repair)
        self._check_quarantine(report, repair)
        self._check_copies(report, repair)
        return report

    def _check_shard(self, shard: int, report: FsckReport, repair: bool) -> None:
        core = self._core
        for item in scan_shard(core.spool, shard):
            if isinstance(item, Unreadable):
                report.findings.append(Finding("unreadable ticket", str(item.path), item.reason))
                continue
            report.tickets += 1
            if item.remote_id != core.remote_id:
                report.findings.append(
                    Finding("foreign ticket", item.key, f"belongs to remote {item.remote_id}")
                )
            if item.operation == "put" and not core.spool.body(item).exists():
                report.findings.append(
                    Finding("ticket without body", item.key, f"body {item.body} is missing")
                )
        for moved in tidy_shard(core.spool, shard):
            report.findings.append(
                Finding("body without ticket", str(moved), "", "moved to quarantine")
            )

    def _check_quarantine(self, report: FsckReport, repair: bool) -> None:
        core = self._core
        folder = core.options.spool_dir / "quarantine"
        for name in sorted(core.files.list(folder)):
            path = folder / name
            try:
                age = core.clock.now() - core.files.stat(path).st_ctime
            except OSError:
                continue
            old = age > QUARANTINE_DAYS * 86400
            done = ""
            if repair and old and core.files.unlink(path):
                done = "removed"
            report.findings.append(
                Finding("quarantined", str(path), f"{age / 86400:.1f} days old", done)
            )

    def _check_copies(self, report: FsckReport, repair: bool) -> None:
        core = self._core
        for row in core.catalog.rows_below(""):
            report.copies += 1
            if core.cache.matches(row):
                continue
            done = ""
            if repair and core.catalog.remove(row.key, row.file) is not None:
                core.cache.discard([row])
                done = "forgotten; the next read fetches it"
            report.findings.append(Finding("altered or missing copy", row.key, row.file, done))
