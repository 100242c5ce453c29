"""`prune`: what is old leaves the storage, unless something keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import tzinfo

from cachestore.errors import ConfigError
from cachestore.ingest.prune_report import PruneInterrupted, PruneReport, PruneStep
from cachestore.ingest.prune_run import PruneRun, Rules, Spare
from cachestore.keys import check_prefix
from cachestore.policy.filetimes import NamePattern, zone_of
from cachestore.policy.retention import KEEP, Label
from cachestore.store import CacheStore

WORKERS = 16
"""Requests for labels at a time."""


def prune(
    store: CacheStore,
    prefix: str,
    *,
    older_than: float,
    keep: Iterable[str] = (),
    keep_prefixes: Iterable[str] = (),
    labels: bool = True,
    spare: Spare | None = None,
    time_pattern: str | None = None,
    time_field: str | None = None,
    timezone: str | tzinfo | None = None,
    everything: bool = False,
    dry_run: bool = False,
    workers: int = WORKERS,
    patience: float = 60.0,
    progress: Callable[[PruneStep], None] | None = None,
) -> PruneReport:
    """Delete what is under `prefix` and older than so many seconds; an empty one needs
    `everything`.

    Never what is pinned, pending, or labelled: by the metadata entry `keep`, or by one of `keep`
    (`NAME` or `NAME=VALUE`). A label costs a HEAD for each old object, and only for those;
    `labels=False` asks for none. `keep_prefixes` cost nothing. `spare` is given all objects and
    their times, and returns keys that stay, as `policy.retention.weekly_samples` chooses them.

    The time is in the key's last part, where `time_pattern` finds it; else in the sidecar's
    `time_field`, if that is given (a GET for each sidecar); else when the object was stored. A
    sidecar goes with its files and stays while one does.

    All that is deleted is so durably when this returns, and in the bucket soon. Raises
    `ConfigError`, what `list` raises, and `PruneInterrupted` on Ctrl-C; nothing is deleted before
    everything was looked at.
    """
    rules = Rules(
        prefix=check_prefix(prefix), older_than=older_than, labels=_labels(keep, labels),
        keep_prefixes=_prefixes(keep_prefixes), spare=spare,
        pattern=NamePattern(time_pattern) if time_pattern else None, time_field=time_field,
        zone=zone_of(timezone), dry_run=dry_run, workers=workers, patience=patience,
    )  # fmt: skip
    if not prefix and not everything:
        raise ConfigError("an empty prefix prunes all; say everything=True if you mean it")
    store.core.check_open()
    store.core.warn_if_in_loop("prune")
    with store.held() as core:
        return _run(PruneRun(store, core, rules, progress or (lambda step: None)))


def _run(run: PruneRun) -> PruneReport:
    try:
        run.work()
    except KeyboardInterrupt:
        run.turns.stop("interrupted")
        raise PruneInterrupted(run.report()) from None
    finally:
        run.close()
    return run.report()


def _labels(keep: Iterable[str], asked: bool) -> tuple[Label, ...]:
    if isinstance(keep, str):
        raise ConfigError("keep is a list of labels, not one text")
    return (KEEP, *map(Label.parse, keep)) if asked else ()


def _prefixes(keep: Iterable[str]) -> tuple[str, ...]:
    if isinstance(keep, str):
        raise ConfigError("keep_prefixes is a list of prefixes, not one text")
    return tuple(map(check_prefix, keep))
