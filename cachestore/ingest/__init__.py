"""Folders in and out: what files lie in a folder, how they get under their keys, and back."""

from __future__ import annotations

from cachestore.ingest.backups import BackupReport, backup
from cachestore.ingest.engine import sync
from cachestore.ingest.exporter import export
from cachestore.ingest.migrator import migrate, migrate_back
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

__all__ = [
    "BackupReport",
    "ExportReport",
    "Interrupted",
    "MigrateReport",
    "Progress",
    "SourceFile",
    "SyncError",
    "SyncInterrupted",
    "SyncReport",
    "TransferError",
    "backup",
    "export",
    "migrate",
    "migrate_back",
    "sync",
]
