"""How a store is: its state, and the rules it breaks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cachestore.core import Core
from cachestore.local.disks import refusal
from cachestore.local.minutes import HITS
from cachestore.local.names import HIDDEN
from cachestore.local.spool_scan import recount
from cachestore.locks import ForkLock
from cachestore.model import Minute, PendingItem
from cachestore.policy.alerts import Readings, judge

_TRY_AGAIN = 5.0


class Health:
    """The room for it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lock = ForkLock()
        self._tried: tuple[float, str | None] | None = None

    def minutes(self, seconds: float) -> list[Minute]:
        """How reads and uploads went in the last `seconds`, by minute, in all processes."""
        core = self._core
        core.janitor.gather()
        return core.minutes.since(core.clock.now() - seconds)

    def report(self) -> dict[str, Any]:
        """See `CacheStore.health`."""
        core, options = self._core, self._core.options
        recount(core.spool)
        count, size = core.board.pending()
        items = core.uploader.pending()
        uploader = core.uploader.health()
        cached, entries, pinned = core.catalog.totals()
        remote = core.remote or core.shadow
        degraded = options.degraded or (remote is not None and remote.state != "closed")
        enabled = "disabled" if remote is None else "enabled"
        report: dict[str, Any] = {
            "mode": options.mode,
            "reason": options.reason,
            "degraded": degraded,
            "services": {"r2_storage": "degraded" if degraded else enabled},
            "remote": self._remote(),
            "bucket": self._bucket(),
            "folders": {
                "cache": str(options.cache_dir),
                "spool": str(options.spool_dir),
                "local": str(options.local_dir),
            },
            "pending": {
                "count": count, "bytes": size, "parked": _count(items, "parked"),
                "oldest_seconds": max((item.age for item in items), default=0.0),
            },
            "cache": {
                "bytes": cached, "max_bytes": options.cache_max_bytes, "entries": entries,
                "pinned": pinned, **core.room.report(),
            },
            "uploader": uploader,
        }  # fmt: skip
        # Other remotes' operations are kept, and sent when theirs is configured again.
        if foreign := _foreign(items):
            report["foreign"] = foreign
        stalled = uploader["beat_age"] if uploader["stalled"] else None
        checks = judge(self._readings(report, count, size, stalled), options)
        report["checks"] = [
            {"name": each.name, "ok": each.ok, "detail": each.detail} for each in checks
        ]
        report["alerts"] = [each.detail for each in checks if not each.ok]
        failing = not next(each for each in checks if each.name == "puts").ok
        bad = degraded or report["alerts"]
        report["status"] = "failing" if failing else "degraded" if bad else "healthy"
        return report

    def _readings(
        self, report: dict[str, Any], queued: int, size: int, stalled: float | None
    ) -> Readings:
        core = self._core
        window = core.options.alert_window
        middle = core.clock.now() - window
        both = self.minutes(2 * window)
        recent = [each for each in both if each.minute >= middle]
        before = [each for each in both if each.minute < middle]
        remote = report["remote"] or {}
        return Readings(
            cache_bytes=report["cache"]["bytes"], spool_bytes=size, queued=queued,
            parked=report["pending"]["parked"], hits=_sum(recent, *HITS),
            misses=_sum(recent, "miss"), failures=(_sum(recent, "failed"), _sum(before, "failed")),
            remote=remote.get("state"), remote_error=remote.get("last_error"), stalled=stalled,
            refusal=self._refusal(),
        )  # fmt: skip

    def _refusal(self) -> str | None:
        """Why a put could not be made durable; tried again when the answer is some seconds old."""
        core = self._core
        local = core.options.mode == "local"
        folder = core.options.local_dir / HIDDEN if local else core.options.spool_dir
        with self._lock:
            now = core.clock.monotonic()
            if self._tried is None or now - self._tried[0] > _TRY_AGAIN or self._tried[1]:
                self._tried = now, refusal(folder, core.files)
            return self._tried[1]

    def _remote(self) -> dict[str, Any] | None:
        remote = self._core.remote or self._core.shadow
        if remote is None:
            return None
        return {
            "name": remote.name,
            "id": self._core.remote_id,
            "state": remote.state,
            "last_error": remote.last_error,
        }

    def _bucket(self) -> dict[str, Any] | None:
        """What was last counted in it; None where it was not, or is not to be."""
        counted = self._core.census.last()
        if counted is None or counted.when is None:
            return None
        age = max(0.0, self._core.clock.now() - counted.when)
        return {"bytes": counted.bytes, "objects": counted.objects, "age": age}


def _count(items: Iterable[PendingItem], state: str) -> int:
    return sum(1 for item in items if item.state == state)


def _foreign(items: Iterable[PendingItem]) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in items:
        if item.state == "foreign":
            found[item.remote_id] = found.get(item.remote_id, 0) + 1
    return found


def _sum(minutes: Iterable[Minute], *what: str) -> int:
    return sum(each.count for each in minutes if each.what in what)
