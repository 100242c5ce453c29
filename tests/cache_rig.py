"""A cache on a folder of the test: catalog, files and janitor with a clock that stands still."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from spool_rig import REMOTE, make_spool
from store_rig import make_options

from cachestore.events import Event, Events
from cachestore.files import Files, allocated
from cachestore.janitor import Janitor
from cachestore.keys import Place, place_of
from cachestore.local.cache import CacheFiles
from cachestore.local.catalog import Catalog
from cachestore.local.catalog_rows import Row
from cachestore.local.handing import HandOuts
from cachestore.local.hot import HotMap
from cachestore.local.partials import Partials
from cachestore.local.room import Room
from cachestore.local.tallies import Tallies
from cachestore.testing.clock import FakeClock

HUGE = 1 << 50


def make_row(key: str, size: int = 4096, *, file: str = "", **fields: Any) -> Row:
    """A row without a file, for tests of the catalog alone."""
    digest = place_of(REMOTE, key).digest
    values: dict[str, Any] = {
        "key": key, "file": file or f"{digest[:2]}/{digest}-{os.urandom(8).hex()}.wav",
        "size": size, "mtime_ns": 1, "inode": 2, "allocated": size, "etag": "e", "sha256": None,
        "content_type": "audio/wav", "metadata": {}, "cache_control": None, "modified": 3.0,
        "validated": 100.0, "used": 100.0,
    }  # fmt: skip
    return Row(**(values | fields))


def open_catalog(folder: Path, said: list[str] | None = None, **parts: Any) -> Catalog:
    clock = parts.pop("clock", None) or FakeClock(time.time())
    heard = [] if said is None else said
    return Catalog(folder, Files(), clock, heard.append, **parts)


class CacheRig:
    """The parts of a store that keep clean copies. The clock starts at the real time, because
    files have it too.
    """

    def __init__(self, root: Path, files: Files | None = None, **fields: Any) -> None:
        self.options = make_options(root, mode="remote", **fields)
        self.clock = FakeClock(time.time())
        self.files = files or Files()
        self.spool = make_spool(root / "spool")
        self.board = self.spool.board
        self.events = Events()
        self.seen: list[Event] = []
        self.events.subscribe(self.seen.append)
        self.root = self.options.cache_dir / REMOTE
        self.said: list[str] = []
        self.catalog = open_catalog(self.root / "catalog", self.said, clock=self.clock)
        self.cache = CacheFiles(self.root, REMOTE, self.files, self.board, self.clock, self.options)
        self.hot = HotMap(self.board, self.clock.now)
        self.room = Room(
            self.catalog, self.cache, self.files, self.clock, self.events, self.options
        )
        self.hand_outs = HandOuts(self.spool, self.cache, self.room, self.files)
        self.tallies = Tallies(self.clock)
        self.partials = Partials(self.catalog, self.cache, self.room, self.files, self.clock)
        self.events.subscribe(self.tallies.take)
        self.janitor = Janitor(
            spool=self.spool, catalog=self.catalog, cache=self.cache, room=self.room, hot=self.hot,
            files=self.files, clock=self.clock, events=self.events, options=self.options,
            tallies=self.tallies, partials=self.partials,
        )  # fmt: skip

    def place(self, key: str) -> Place:
        return place_of(REMOTE, key)

    def file(self, key: str, data: bytes = b"bytes") -> str:
        """A whole file with a copy's name and no row; its name relative to the root."""
        place = self.place(key)
        part = self.cache.part_path(place, 1)
        fd = self.cache.open_part(part)
        os.write(fd, data)
        name = self.cache.new_name(place, key)
        self.cache.settle(part, fd, name)
        os.close(fd)
        return name

    def add(self, key: str, data: bytes = b"bytes", **fields: Any) -> Row:
        """A clean copy with its row."""
        name = self.file(key, data)
        stat = os.stat(self.root / name)
        now = self.clock.now()
        values: dict[str, Any] = {
            "mtime_ns": stat.st_mtime_ns, "inode": stat.st_ino, "allocated": allocated(stat),
            "sha256": hashlib.sha256(data).hexdigest(), "validated": now, "used": now,
        }  # fmt: skip
        row = make_row(key, stat.st_size, file=name, **(values | fields))
        assert self.catalog.admit(row, max_bytes=HUGE).admitted
        return row

    def hand_out(self, key: str) -> None:
        self.board.hand_out(self.place(key).slot, self.clock.now())

    def of(self, kind: type) -> list[Any]:
        """The events of one kind."""
        return [event for event in list(self.seen) if isinstance(event, kind)]

    def close(self) -> None:
        self.janitor.close()
        self.catalog.close()


class Box:
    """A catalog with one row, its folder, and what it said."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "catalog"
        self.said: list[str] = []
        self.catalog = open_catalog(self.folder, self.said)
        self.fill(self.catalog)

    def fill(self, catalog: Catalog, key: str = "a") -> None:
        assert catalog.admit(make_row(key), max_bytes=HUGE).admitted

    @property
    def database(self) -> Path:
        return self.folder / (self.folder / "current").read_text()

    def edit(self, *statements: str) -> None:
        """Run SQL in the current database, as a stranger."""
        db = sqlite3.connect(self.database, isolation_level=None)
        for statement in statements:
            db.execute(statement)
        db.close()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.catalog.close()
