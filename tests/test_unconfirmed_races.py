"""Uploads by presigned URL beside others: nothing that somebody needs is ever deleted."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from ingest_rig import in_bucket
from store_rig import store_of
from test_unconfirmed import DAY, Site, another, notes, send

from cachestore.errors import ConfirmFailed, SpoolError
from cachestore.files import Files
from cachestore.testing.r2 import R2Double


@pytest.fixture
def site(tmp_path: Path, r2_double: R2Double) -> Iterator[Site]:
    made = Site(tmp_path, r2_double)
    with made.store:
        yield made


def test_confirmed_here_and_long_after_on_another_machine_too(site: Site, tmp_path: Path) -> None:
    """As by a client that asks again, and meets another machine."""
    assert send(site.announce()) == 200
    site.store.confirm_upload("in/a.txt")
    site.clock.advance(30 * DAY)
    with another(site, tmp_path) as other:
        with pytest.raises(ConfirmFailed):
            other.confirm_upload("in/a.txt")
        assert other.flush(60).done
        assert other.read("in/a.txt") == b"12345"
    assert site.there()


@pytest.mark.parametrize(("data", "status"), [(b"theirs", 500), (b"12345", 503)])
def test_a_delete_that_goes_late_leaves_what_is_there_by_then(
    site: Site, tmp_path: Path, data: bytes, status: int
) -> None:
    """The one who gave the upload up died before its delete was sent, or had no network."""
    keys = ["in/a.txt", "in/b.txt", "in/c.txt"]  # deletes of many keys may go in one request
    for key in keys:
        assert send(site.announce(key)) == 200
    site.double.rules.add("status", method="DELETE", status=status, code="Fault")
    site.double.rules.add("status", method="POST", status=status, code="Fault")
    assert site.sweep() == 3
    with another(site, tmp_path) as other:
        for key in keys[:2]:
            other.put(key, data, durability="remote")
    site.store.close()
    site.double.rules.clear()
    site.store = store_of(replace(site.options, workers=1), clock=site.clock)
    assert site.there()
    for key in keys[:2]:
        assert in_bucket(site.double, key) == data
        assert site.store.get(key).read_bytes() == data
    assert not site.there(keys[2])
    assert notes(site.store) == []
    site.store.close()


def test_a_put_while_an_upload_is_refused_stays(site: Site) -> None:
    assert send(site.announce()) == 200
    site.double.rules.add("slow_headers", method="HEAD", seconds=600, count=1)
    with ThreadPoolExecutor(1) as pool:
        confirmed = pool.submit(site.store.confirm_upload, "in/a.txt", size=4)
        site.double.log.wait_for(2, "HEAD")
        site.store.put("in/a.txt", b"ours")
        site.double.rules.release()
        assert confirmed.result(60).size == 4
    assert site.there()
    assert site.store.read("in/a.txt") == b"ours"


class Kept(Files):
    """Which folders of notes were made durable after a note of theirs was removed."""

    def __init__(self) -> None:
        self.lost: set[Path] = set()
        self.unlinked = 0
        self.fails = False

    def unlink(self, path: str | Path) -> bool:
        if "/announced/" in str(path):
            self.lost.add(Path(path).parent)
            self.unlinked += 1
        return super().unlink(path)

    def fsync_dir(self, path: str | Path) -> None:
        if self.fails and "/announced" in str(path):
            raise OSError(5, "a disk error")
        self.lost.discard(Path(path))
        super().fsync_dir(path)


def test_a_power_cut_does_not_bring_a_note_back_that_was_confirmed(site: Site) -> None:
    """With its note, the upload would be given up."""
    assert send(site.announce()) == 200
    files = Kept()
    with store_of(site.options, clock=site.clock, files=files) as store:
        files.fails = True
        with pytest.raises(SpoolError, match="disk error"):
            store.confirm_upload("in/a.txt")
        files.fails = False
        store.confirm_upload("in/a.txt")
    assert files.unlinked == 1
    assert files.lost == set()
