"""`sync`: a folder's files into the storage, each once and whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import tzinfo
from typing import Any

from cachestore.ingest.plan import naming_of
from cachestore.ingest.report import Progress, SyncInterrupted, SyncReport
from cachestore.ingest.run import Run, Wish
from cachestore.ingest.scan import Patterns
from cachestore.ingest.sidecars import Maker, SidecarWriter
from cachestore.store import CacheStore

WORKERS = 8
"""Files that are sent at a time, at least."""


def sync(
    store: CacheStore,
    folder: str | os.PathLike[str],
    *,
    prefix: str = "",
    template: str | None = None,
    since: float | None = None,
    limit: int | None = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    sidecars: bool = True,
    write_sidecar: Maker | Mapping[str, Any] | str | None = None,
    sidecar_model: Any = None,
    time_pattern: str | None = None,
    time_field: str = "timestamp",
    timezone: str | tzinfo | None = None,
    check: bool = False,
    dry_run: bool = False,
    workers: int | None = None,
    patience: float = 60.0,
    progress: Callable[[Progress], None] | None = None,
) -> SyncReport:
    """Store every file of `folder` that is new or changed, and return when the storage has them.

    The files stay where they are; links are not followed, the store's own folders left out.

    `prefix`: what keys begin with (a `/` is added). `template`: how the rest is made, see
    docs/sync.md; the path in the folder if left out. `since`: only files modified in the last so
    many seconds. `limit`: send at most so many files, the oldest first. `include`, `exclude`:
    patterns as in `fnmatch`. `sidecars`: `x.json` goes with `x.jpg`, behind it; else it is a file
    like any other. `write_sidecar`: a callable, or a JSON object with templates, that makes the
    document of a file that has none; `sidecar_model`: a pydantic model that it has to fit.
    `time_pattern` (`%Y%m%d_%H%M%S`) finds a file's time in its name, `time_field` names it in its
    sidecar; `timezone`: an IANA name, UTC if left out. `check`: compare files that are remembered
    with the bucket, too. `dry_run`: send nothing. `workers`: files at a time. `patience`: seconds
    for which a file that fails is tried. `progress` is called from this thread.

    Raises `ConfigError` before anything is sent, `StoreClosed`, and `SyncInterrupted` (a
    KeyboardInterrupt with the report) on Ctrl-C. A file that fails is in the report.
    """
    wish = Wish(
        folder=folder,
        naming=naming_of(prefix, template, time_pattern, time_field, timezone),
        patterns=Patterns(include, exclude), since=since, limit=limit, sidecars=sidecars,
        writer=None if write_sidecar is None else SidecarWriter(write_sidecar, sidecar_model),
        check=check, dry_run=dry_run, patience=patience,
        workers=workers or max(WORKERS, store.options.workers),
    )  # fmt: skip
    with store.held() as core:
        return run_to_end(Run(store, core, wish, progress or (lambda step: None)))


def run_to_end(run: Run) -> SyncReport:
    """From the scan to the report; an interruption ends it in order."""
    try:
        run.begin()
        run.work()
    except KeyboardInterrupt:
        run.turns.stop("interrupted")
        run.finish()
        raise SyncInterrupted(run.report()) from None
    finally:
        run.close()
    return run.report()
