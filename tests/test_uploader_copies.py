"""Acknowledged bodies on the real cache: a clean copy without a download, and nothing older."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from upload_rig import Held, Rig, Scripted, until

from cachestore import events
from cachestore.clock import SystemClock
from cachestore.events import Events
from cachestore.files import Files
from cachestore.local.cache import CacheFiles
from cachestore.local.catalog import Catalog
from cachestore.local.room import Room
from cachestore.uploader import Uploader
from cachestore.uploads.copies import CacheCopies

KEY = "a/b.wav"


class Cached(Rig):
    """A rig whose uploader has a cache. `locked`: the catalog is busy and changes nothing."""

    def __init__(self, root: Path, remote: Scripted) -> None:
        super().__init__(root, remote)
        clock, files = SystemClock(), Files()
        folder = root / "cache" / remote.remote_id
        self.catalog = Busy(folder / "catalog", files, clock, lambda text: None)
        self.cache = CacheFiles(
            folder, remote.remote_id, files, self.spool.board, clock, self.options
        )
        self.room = Room(self.catalog, self.cache, files, clock, Events(), self.options)
        copies = CacheCopies(self.catalog, self.cache, self.room, files, clock)
        self.uploader: Uploader = self.another(copies=copies)


class Busy(Catalog):
    locked = 0

    def change(self, work: Any, otherwise: Any, *, full: bool = False) -> Any:
        if full and self.locked:
            self.locked -= 1
            return otherwise
        return super().change(work, otherwise, full=full)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Cached]:
    made = Cached(tmp_path, Scripted())
    yield made
    made.uploader.stop(5.0)
    made.catalog.close()


def copies_on_disk(rig: Cached) -> list[bytes]:
    return [path.read_bytes() for _, path in rig.cache.copies()]


def test_an_uploaded_body_is_a_clean_copy(rig: Cached) -> None:
    ticket = rig.put(KEY, b"sound", content_type="audio/wav", metadata={"a": "1"}, ttl=7.0)
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    row = rig.catalog.get(KEY)
    assert row is not None
    assert rig.cache.matches(row)
    assert rig.cache.path(row).read_bytes() == b"sound"
    assert (row.etag, row.sha256) == (rig.remote.head(KEY).etag, ticket.sha256)
    assert (row.content_type, row.metadata, row.ttl, row.durable) == (
        "audio/wav", {"a": "1"}, 7.0, True,
    )  # fmt: skip


def test_a_newer_version_replaces_the_copy(rig: Cached) -> None:
    for data in (b"one", b"two"):
        ticket = rig.put(KEY, data)
        assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    assert copies_on_disk(rig) == [b"two"]


def test_a_copy_that_lost_to_a_newer_put_is_taken_back(
    rig: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The put comes between the copy's row and the end of the ticket."""
    later = Held()
    rig.remote.steps = [lambda remote, name, request: request(), later]
    copies, tickets = rig.uploader._parts.copies, []
    admit = copies.admit

    def overtaken(*arguments: Any) -> Any:
        row = admit(*arguments)
        if not tickets:
            assert copies_on_disk(rig) == [b"one"]
            tickets.append(rig.put(KEY, b"two"))
        return row

    monkeypatch.setattr(copies, "admit", overtaken)
    rig.put(KEY, b"one")
    assert later.reached.wait(30)
    assert copies_on_disk(rig) == []
    assert rig.catalog.get(KEY) is None
    later.release.set()
    assert rig.uploader.wait(KEY, tickets[0].id, 30) == "uploaded"
    assert copies_on_disk(rig) == [b"two"]


def test_a_deleted_key_has_no_copy_once_its_ticket_is_gone(rig: Cached) -> None:
    ticket = rig.put(KEY, b"one")
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    gone = rig.delete(KEY)
    assert rig.uploader.wait(KEY, gone.id, 30) == "uploaded"
    assert rig.catalog.get(KEY) is None
    assert copies_on_disk(rig) == []


def test_while_the_catalog_is_busy_the_ticket_hides_what_is_older(rig: Cached) -> None:
    """The new copy cannot be noted, nor the old one forgotten: the ticket has to wait."""
    ticket = rig.put(KEY, b"old")
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    rig.catalog.locked = 2
    newer = rig.put(KEY, b"new")
    until(lambda: rig.of(events.UploadFailed))
    assert rig.uploader.wait(KEY, newer.id, 30) == "uploaded"
    row = rig.catalog.get(KEY)
    assert row is not None
    assert rig.cache.path(row).read_bytes() == b"new"
    assert rig.remote.count("put") == 2


def test_a_body_larger_than_the_cache_is_uploaded_and_not_kept(tmp_path: Path) -> None:
    rig = Cached(tmp_path, Scripted())
    options = replace(rig.options, cache_max_bytes=10)
    room = Room(rig.catalog, rig.cache, rig.files, SystemClock(), Events(), options)
    small = CacheCopies(rig.catalog, rig.cache, room, rig.files, SystemClock())
    uploader = rig.another(copies=small)
    try:
        rig.put(KEY, b"x" * 11, wake=False)
        assert uploader.flush(30).done
        assert rig.catalog.get(KEY) is None
        assert copies_on_disk(rig) == []
    finally:
        uploader.stop(5.0)
        rig.catalog.close()
