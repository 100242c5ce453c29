"""`migrate`: a folder, LOCAL_DIR or another bucket into the bucket; `migrate_back`: out of it."""

from __future__ import annotations

import os
from collections.abc import Callable

from cachestore.core import Core
from cachestore.errors import ConfigError
from cachestore.ingest.bringing import BucketTarget
from cachestore.ingest.exporter import WORKERS, exporting_into, run_export
from cachestore.ingest.exporting import Exporting
from cachestore.ingest.homing import HomeTarget
from cachestore.ingest.migrating import Migrating, Order
from cachestore.ingest.origins import BucketOrigin, FolderOrigin, LocalOrigin, Origin
from cachestore.ingest.placing import HIDDEN
from cachestore.ingest.plan import prefix_of
from cachestore.ingest.report import ExportReport, Interrupted, MigrateReport, Progress
from cachestore.ingest.scan import Patterns, Scanner
from cachestore.ingest.turns import Turns
from cachestore.keys import check_prefix
from cachestore.remote.base import RemoteStore
from cachestore.store import CacheStore


def migrate(
    store: CacheStore,
    source: str | os.PathLike[str] | RemoteStore | None = None,
    *,
    prefix: str = "",
    overwrite: bool = False,
    verify: bool = False,
    dry_run: bool = False,
    workers: int | None = None,
    patience: float = 60.0,
    progress: Callable[[Progress], None] | None = None,
) -> MigrateReport:
    """Copy into the bucket what it does not have, compare both sides, and delete nothing.

    `source`: a folder, another bucket (any `RemoteStore`, with content types and metadata), or
    None for LOCAL_DIR. `prefix`: of a folder, what its keys begin with; else only keys that start
    so. What the bucket has under a key and no earlier run brought is not replaced, unless
    `overwrite`: it may be newer. `verify`: compare all files at the end by size and digest, which
    reads files again. `dry_run`: copy nothing. `workers`: files at a time. `patience`: seconds for
    which a file that fails is tried. `progress` is called from this thread.

    Nothing goes through the cache or the spool, and the same call again goes on where one stopped.
    Raises `ConfigError` (no bucket, no folder), `InvalidKey`, `StoreClosed`, what listing raises,
    and `Interrupted` (a KeyboardInterrupt with the report) on Ctrl-C. A file that fails is in the
    report.
    """
    store.core.check_open()
    store.core.warn_if_in_loop("migrate")
    folder = isinstance(source, (str, os.PathLike)) and not _is_local_dir(store, source)
    prefix = prefix_of(prefix) if folder else check_prefix(prefix)

    with store.held() as core:
        remote = _remote_of(core, shadow=True)
        turns = Turns(core.options, core.clock, patience, None)
        origin: Origin
        if not isinstance(source, (str, os.PathLike, type(None))):
            origin = BucketOrigin(core, source, prefix, turns)
        elif folder:
            origin = FolderOrigin(core, os.fspath(source or ""), prefix, turns)
        else:
            origin = LocalOrigin(core, prefix, turns)
        target = BucketTarget(core, remote, turns, origin, prefix, overwrite=overwrite, dry=dry_run)
        order = Order(verify, dry_run, patience, workers or max(WORKERS, core.options.workers))
        tell = progress or (lambda step: None)
        return _run(Migrating(store, core, turns, origin, target, order, tell))


def _remote_of(core: Core, *, shadow: bool = False) -> RemoteStore:
    """The bucket; with `shadow`, also the one that local mode only sends to."""
    remote = core.remote or (core.shadow if shadow else None)
    if remote is None:
        raise ConfigError(
            "there is no bucket to migrate with: set the R2_* variables and USE_R2_STORAGE=true"
        )
    return remote


def _is_local_dir(store: CacheStore, folder: str | os.PathLike[str]) -> bool:
    return os.path.realpath(folder) == os.path.realpath(store.options.local_dir)


def migrate_back(
    store: CacheStore,
    folder: str | os.PathLike[str] | None = None,
    *,
    prefix: str = "",
    overwrite: bool = False,
    verify: bool = False,
    encode: bool = False,
    dry_run: bool = False,
    workers: int | None = None,
    patience: float = 60.0,
    progress: Callable[[Progress], None] | None = None,
) -> MigrateReport:
    """Copy from the bucket into a folder, or into LOCAL_DIR (None), and compare both sides.

    Into a folder this is `export` past the cache. In LOCAL_DIR the files count as sent, so that
    local mode serves them, and the bucket is not written when it is switched on again; files of an
    older app that the bucket has nothing of are left alone, others replaced only with `overwrite`.
    Arguments and errors are those of `migrate`; `encode` as in `export`.
    """
    store.core.check_open()
    store.core.warn_if_in_loop("migrate_back")
    tell = progress or (lambda step: None)
    prefix = check_prefix(prefix)
    with store.held() as core:
        remote = _remote_of(core)
        if folder is None or _is_local_dir(store, folder):
            turns = Turns(core.options, core.clock, patience, None)
            origin = BucketOrigin(core, remote, prefix, turns)
            home = HomeTarget(core, turns, origin, prefix, overwrite=overwrite, dry=dry_run)
            order = Order(verify, dry_run, patience, workers or max(WORKERS, core.options.workers))
            return _run(Migrating(store, core, turns, origin, home, order, tell))
        run = exporting_into(
            store, core, prefix, folder, past_cache=True, verify=verify, overwrite=overwrite,
            encode=encode, dry_run=dry_run, workers=workers, patience=patience, tell=tell,
        )  # fmt: skip
        try:
            done = run_export(run)
        except Interrupted as error:
            raise Interrupted(_compared(run, error.report, verify=verify)) from None
        return _compared(run, done, verify=verify)


def _compared(run: Exporting, done: ExportReport | MigrateReport, *, verify: bool) -> MigrateReport:
    """An export's report with what only one side has."""
    assert isinstance(done, ExportReport)
    scanner = Scanner(run.root, Patterns((), (f"/{HIDDEN}/",)), (), lambda path, error: None)
    files = {source.path for source in scanner.files()} if run.root.is_dir() else set()
    paths = run.paths
    missing = {key for path, key in paths.items() if path not in files}
    missing |= {error.key for error in done.errors if not error.path}
    return MigrateReport(
        copied=done.exported, skipped=done.skipped, failed=done.failed, left=done.left,
        bytes=done.bytes, seconds=done.seconds, errors=done.errors,
        conflicts=run.conflicts, only_source=tuple(sorted(missing)),
        only_target=tuple(sorted(files - paths.keys())),
        verified=done.exported + done.skipped if verify else None, dry_run=done.dry_run,
        stopped=done.stopped,
    )  # fmt: skip


def _run(run: Migrating) -> MigrateReport:
    try:
        run.begin()
        run.work()
    except KeyboardInterrupt:
        run.turns.stop("interrupted")
        raise Interrupted(run.report()) from None
    finally:
        run.close()
    return run.report()
