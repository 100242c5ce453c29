"""The route that syncs the app's folder by hand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from cachestore.aio import done_by
from cachestore.ingest import SyncReport, sync
from cachestore.web.asgi import POOL, Source, store_of
from cachestore.web.bodies import SyncCounts, Synced
from cachestore.web.problems import STATE, answered

_MOST_HOURS = 24 * 366 * 10
_MOST_FILES = 100_000


def add_sync(
    router: APIRouter,
    store: Source,
    guards: Sequence[Any],
    folder: str | os.PathLike[str],
    prefix: str,
) -> None:
    """Sync `folder` to keys below `prefix` when asked to."""

    @router.post("/storage/r2-sync", dependencies=guards, responses=STATE)
    async def r2_sync(
        request: Request,
        hours: Annotated[float, Query(gt=0, le=_MOST_HOURS)] = 24,
        limit: Annotated[int, Query(ge=1, le=_MOST_FILES)] = 100,
    ) -> Synced:
        """Store the folder's files of the last `hours`, at most `limit`, and say what became of
        them. It may be asked again: what the storage has is skipped."""

        def work() -> SyncReport:
            found = store_of(store, request)
            return sync(found, folder, prefix=prefix, since=hours * 3600, limit=limit)

        with answered():
            report = await done_by(POOL, work)
        return _synced(report)


def _synced(report: SyncReport) -> Synced:
    success = not report.failed and not report.stopped
    message = f"Synced {report.uploaded} {'file' if report.uploaded == 1 else 'files'} to R2"
    if report.failed:
        message += f", {report.failed} failed"
        if report.errors:
            message += f": {report.errors[0].path}: {report.errors[0].error}"
    if report.stopped:
        message += f"; stopped: {report.stopped}"
    counts = SyncCounts(
        uploaded=report.uploaded, failed=report.failed, skipped=report.skipped
    )  # fmt: skip
    return Synced(success=success, message=message, results=counts)
