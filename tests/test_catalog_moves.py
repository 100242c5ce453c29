"""Others follow when a catalog is begun anew; where none can be had, nothing is guessed."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest
from cache_rig import Box, open_catalog
from cache_rig import box as box

from cachestore.local import catalog_files


def test_others_follow_to_the_new_database(box: Box) -> None:
    other = open_catalog(box.folder)
    assert other.get("a") is not None
    box.edit("UPDATE entries SET metadata = '[not json'")
    assert box.catalog.get("a") is None
    assert other.get("a") is None
    box.fill(other, "b")
    assert box.catalog.get("b") is not None
    assert len(list(box.folder.glob("*.db"))) == 2, "only one of them may begin a new one"
    other.close()


def test_others_follow_although_the_old_database_works_for_them(box: Box) -> None:
    other = open_catalog(box.folder)
    assert other.get("a") is not None
    left = box.database
    box.catalog._files.give_up(sqlite3.DatabaseError("of one process alone"), left)
    assert other.get("a") is None
    box.fill(other, "b")
    assert box.catalog.get("b") is not None
    other._files.give_up(sqlite3.DatabaseError("noticed too late"), left)
    assert box.catalog.get("b") is not None
    assert other.get("b") is not None
    assert len(list(box.folder.glob("*.db"))) == 2
    other.close()


def test_what_cannot_be_made_is_not_tried_at_every_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[object] = []

    def fail(*_: object) -> None:
        tries.append(None)
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(catalog_files.CatalogFiles, "_move_on", fail)
    monkeypatch.setattr(catalog_files, "_REST_SECONDS", 3600.0)
    catalog = open_catalog(tmp_path / "catalog")
    assert catalog.get("a") is None
    before = len(tries)
    assert before
    for _ in range(5):
        assert catalog.get("a") is None
    assert len(tries) == before


@pytest.mark.parametrize("disk", ["read-only", "writable", "read-only, with a log"])
def test_a_disk_that_became_read_only_is_asked_all_the_same(
    box: Box, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    """No row can be taken out of it: what is not in there now stays out."""
    box.catalog.close()
    if disk == "read-only, with a log":
        Path(f"{box.database}-wal").write_bytes(b"rows that cannot be seen")
    monkeypatch.setattr(catalog_files.CatalogFiles, "_open", no_more_files)
    if disk != "writable":
        monkeypatch.setattr(os, "access", lambda *_: False)
    catalog = open_catalog(box.folder)
    assert not catalog.lacks("a")
    assert catalog.lacks("b") is (disk == "read-only")


def no_more_files(*_: object) -> None:
    raise OSError(errno.EMFILE, "too many open files")
