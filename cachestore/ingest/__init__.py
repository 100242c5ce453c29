"""Folders in and out, and what is old: how files get under their keys, back, and stay how long."""

from __future__ import annotations

from cachestore.ingest.backups import BackupReport, backup
from cachestore.ingest.engine import sync
from cachestore.ingest.exporter import export
from cachestore.ingest.labels import label
from cachestore.ingest.lifecycle import LifecycleChange, apply_lifecycle, lifecycle_rules
from cachestore.ingest.migrator import migrate, migrate_back
from cachestore.ingest.prune_report import PruneInterrupted, PruneReport, PruneStep
from cachestore.ingest.pruning import prune
from cachestore.ingest.report import (
    ExportReport,
    Interrupted,
    MigrateReport,
    Progress,
    SyncError,
    SyncInterrupted,
    SyncReport,
    TransferError,
)
from cachestore.ingest.sidecars import SourceFile
from cachestore.ingest.watcher import Watcher, watch
from cachestore.ingest.watching import WatchStatus
from cachestore.policy.lifecycle import LifecycleRule

__all__ = [
    "BackupReport",
    "ExportReport",
    "Interrupted",
    "LifecycleChange",
    "LifecycleRule",
    "MigrateReport",
    "Progress",
    "PruneInterrupted",
    "PruneReport",
    "PruneStep",
    "SourceFile",
    "SyncError",
    "SyncInterrupted",
    "SyncReport",
    "TransferError",
    "WatchStatus",
    "Watcher",
    "apply_lifecycle",
    "backup",
    "export",
    "label",
    "lifecycle_rules",
    "migrate",
    "migrate_back",
    "prune",
    "sync",
    "watch",
]
