"""`export`: what lies below a prefix, into a folder of the user's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cachestore.core import Core
from cachestore.errors import ConfigError
from cachestore.ingest.exporting import Exporting, Order
from cachestore.ingest.report import ExportReport, Interrupted, Progress
from cachestore.ingest.scan import own_folders
from cachestore.keys import check_prefix
from cachestore.store import CacheStore

WORKERS = 8
"""Files that are fetched at a time, at least."""


def export(
    store: CacheStore,
    prefix: str,
    folder: str | os.PathLike[str],
    *,
    past_cache: bool = False,
    verify: bool = False,
    overwrite: bool = False,
    encode: bool = False,
    dry_run: bool = False,
    workers: int | None = None,
    patience: float = 60.0,
    progress: Callable[[Progress], None] | None = None,
) -> ExportReport:
    """Bring every key that starts with `prefix` into `folder`; what the folder has is left alone.

    Paths are the keys without the folders of the prefix: `export("cam/2026/", "out")` makes
    `out/01/a.jpg` of `cam/2026/01/a.jpg`. What is pending is exported too. A file gets its name
    once it is whole, checked and durable, and the time at which the object was made; so the same
    call again goes on where one stopped. Nothing is deleted, and no file that an export did not
    write is replaced.

    `past_cache`: copies are not kept here. `verify`: also read the files that are there and
    compare their digests. `overwrite`: replace files that are not what the storage has, whoever
    wrote them. `encode`: keys that no file can have as a name are written with `%XX`; they fail
    otherwise. `dry_run`: write nothing. `workers`: files at a time. `patience`: seconds for which
    a file that fails is tried. `progress` is called from this thread.

    Raises `InvalidKey`, `ConfigError`, `StoreClosed`, `OSError` if the folder cannot be made, what
    `list` raises, and `Interrupted` (a KeyboardInterrupt with the report) on Ctrl-C. A file that
    fails is in the report.
    """
    store.core.check_open()
    store.core.warn_if_in_loop("export")
    with store.held() as core:
        run = exporting_into(
            store, core, prefix, folder, past_cache=past_cache, verify=verify,
            overwrite=overwrite, encode=encode, dry_run=dry_run, workers=workers,
            patience=patience, tell=progress or (lambda step: None),
        )  # fmt: skip
        return run_export(run)


def exporting_into(
    store: CacheStore, core: Core, prefix: str, folder: str | os.PathLike[str], *,
    tell: Callable[[Progress], None], workers: int | None, **asked: Any,
) -> Exporting:  # fmt: skip
    """A run that was not begun. Raises `InvalidKey`, `ConfigError`."""
    root = Path(os.path.realpath(folder))
    _refuse_own(store, root)
    many = workers or max(WORKERS, store.options.workers)
    order = Order(prefix=check_prefix(prefix), root=root, workers=many, **asked)
    return Exporting(store, core, order, tell)


def run_export(run: Exporting) -> ExportReport:
    """Begin, work, report; raises `Interrupted`."""
    try:
        run.begin()
        run.work()
    except KeyboardInterrupt:
        run.turns.stop("interrupted")
        raise Interrupted(run.report()) from None
    finally:
        run.close()
    return run.report()


def _refuse_own(store: CacheStore, root: Path) -> None:
    """A file in one of our folders would be taken for ours."""
    for each in own_folders(store.options):
        own = Path(os.path.realpath(each))
        if root == own or own in root.parents:
            raise ConfigError(f"{root} is in {own}, which is the store's own folder")
