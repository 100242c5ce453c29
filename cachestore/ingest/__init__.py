"""Folders in: what files lie in a folder, and how they get under their keys."""

from __future__ import annotations

from cachestore.ingest.engine import sync
from cachestore.ingest.report import Progress, SyncError, SyncInterrupted, SyncReport
from cachestore.ingest.sidecars import SourceFile

__all__ = ["Progress", "SourceFile", "SyncError", "SyncInterrupted", "SyncReport", "sync"]
