"""Uploads by presigned URL that nobody confirms: found and deleted, and nothing else ever is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import process_rig
import pytest
import requests
from process_rig import finish, load_options, save_options, say
from store_rig import make_options, on_server, store_of, until

from cachestore.errors import ConfirmFailed
from cachestore.files import Files
from cachestore.links import Announced
from cachestore.local.lead import Lead
from cachestore.model import PresignedUpload
from cachestore.options import Options
from cachestore.store import CacheStore
from cachestore.testing.clock import ShiftedClock
from cachestore.testing.r2 import R2Double

DAY = 86400.0
BASE = "http://testserver"


class Site:
    """A store with a clock to move, on a double of R2."""

    def __init__(self, root: Path, double: R2Double) -> None:
        self.double = double
        self.clock = ShiftedClock()
        self.options = on_server(root, double, double.bucket)
        self.store = self.open()

    def open(self) -> CacheStore:
        store = store_of(self.options, clock=self.clock)
        # A test says when the janitor comes: its thread finds that another process leads.
        root = store.core.cache.root
        root.mkdir(parents=True, exist_ok=True)
        self.lead = Lead(Files(), root / "janitor.lock")
        assert self.lead.held()
        return store

    def announce(self, key: str = "in/a.txt", *, known: bool = True, **fields: Any) -> Any:
        """A presigned URL; with `known` after the bucket said that nothing is there."""
        up = self.store.presign_put(key, content_type="text/plain", **fields)
        if known:
            until(lambda: notes(self.store) and all('"free": true' in n for n in notes(self.store)))
        return up

    def there(self, key: str = "in/a.txt") -> bool:
        """Whether the bucket has it, once nothing is pending."""
        assert self.store.flush(60).done
        try:
            self.store.core.remote.inner.head(key)  # type: ignore[union-attr]  # there is one
        except FileNotFoundError:
            return False
        return True

    def sweep(self, seconds: float = 2 * DAY) -> int:
        """Let time pass, and the janitor come."""
        self.clock.advance(seconds)
        return self.store.clean()["unconfirmed"]


def notes(store: CacheStore) -> list[str]:
    return [path.read_text() for path in note_files(store)]


def note_files(store: CacheStore) -> list[Path]:
    return [path for path in (store.options.spool_dir / "announced").glob("*/*") if path.is_file()]


def send(up: PresignedUpload, data: bytes = b"12345") -> int:
    return requests.request(
        up.method, up.url, data=data, headers=dict(up.headers), timeout=20
    ).status_code


@pytest.fixture
def site(tmp_path: Path, r2_double: R2Double) -> Iterator[Site]:
    made = Site(tmp_path, r2_double)
    with made.store:
        yield made


def test_what_nobody_confirms_is_deleted_after_its_time(site: Site) -> None:
    assert send(site.announce()) == 200
    assert site.sweep(3600 + DAY - 100) == 0
    assert site.there()
    assert site.sweep(200) == 1
    assert not site.there()
    assert notes(site.store) == []
    with pytest.raises(ConfirmFailed):
        site.store.confirm_upload("in/a.txt")
    assert site.sweep() == 0


def test_what_was_confirmed_stays(site: Site) -> None:
    up = site.announce(size=5)
    assert send(up) == 200
    site.store.confirm_upload("in/a.txt", size=5)
    assert notes(site.store) == []
    assert send(up) == 200, "again by the same URL: its key was confirmed"
    assert site.sweep() == 0
    assert site.there()


def test_a_confirmed_key_stays_when_another_announcement_of_it_is_used(site: Site) -> None:
    first = site.announce()
    second = site.announce(known=False)
    assert send(second) == 200
    site.store.confirm_upload("in/a.txt")
    assert send(first, b"later") == 200
    assert site.sweep() == 0
    assert site.there()


def test_two_announcements_one_upload(site: Site) -> None:
    site.announce()
    assert send(site.announce()) == 200
    assert site.sweep() == 1
    assert not site.there()
    assert site.sweep(0) == 0
    assert notes(site.store) == []


def test_what_was_never_uploaded_is_forgotten(site: Site) -> None:
    site.announce()
    assert site.sweep() == 0
    assert notes(site.store) == []


@pytest.mark.parametrize("how", ["read here", "only in the bucket", "pending"])
def test_a_key_that_existed_before_stays(site: Site, how: str) -> None:
    site.store.put("in/a.txt", b"older", durability="spooled" if how == "pending" else "remote")
    if how == "only in the bucket":
        shutil.rmtree(site.options.cache_dir)
    up = site.announce(known=False)
    until(lambda: notes(site.store) == [], "the look into the bucket")
    assert site.store.flush(60).done
    assert send(up) == 200
    assert site.sweep() == 0
    assert site.there()


def test_not_known_to_be_new_is_never_deleted(site: Site) -> None:
    site.double.rules.add("status", status=503, method="HEAD", count=1)
    up = site.announce(known=False)
    site.double.log.wait_for(1, "HEAD")
    assert send(up) == 200
    assert site.sweep() == 0
    assert site.there()
    assert notes(site.store) == []


@pytest.mark.parametrize("settled", [True, False])
def test_a_put_since_then_stays(site: Site, settled: bool) -> None:
    assert send(site.announce()) == 200
    if not settled:
        site.double.rules.add("status", status=503, method="PUT")
    site.store.put("in/a.txt", b"ours")
    if settled:
        assert site.store.flush(60).done
    assert site.sweep() == 0
    site.double.rules.clear()
    site.store.retry()
    assert site.there()
    assert site.sweep(1) == 0
    assert site.store.read("in/a.txt") == b"ours"


def test_somebody_elses_object_stays(site: Site) -> None:
    site.announce()
    other = store_of(on_server(site.options.spool_dir / "..", site.double, site.double.bucket,
                               spool_dir=site.options.spool_dir / ".." / "other"))  # fmt: skip
    with other:
        other.put("in/a.txt", b"theirs", durability="remote")
    assert site.sweep() == 0
    assert site.there()


def test_a_bucket_that_is_down_costs_a_delay(site: Site) -> None:
    assert send(site.announce()) == 200
    site.double.rules.add("status", status=503, method="HEAD")
    assert site.sweep() == 0
    assert len(notes(site.store)) == 1
    site.double.rules.clear()
    until(lambda: site.sweep(0) == 1, "the remote to be asked again")
    assert not site.there()


def test_the_cache_and_a_restart_do_not_matter(site: Site) -> None:
    assert send(site.announce()) == 200
    site.store.close()
    shutil.rmtree(site.options.cache_dir)
    site.store = site.open()
    with site.store:
        assert site.sweep() == 1
        assert not site.there()


def test_a_clock_that_was_behind_deletes_nothing_new(site: Site) -> None:
    site.clock.advance(-5 * DAY)
    up = site.announce()
    site.clock.advance(5 * DAY)  # by the right clock the note's time is long over
    assert send(up) == 200
    assert site.sweep(0) == 0
    assert site.there()
    site.store.confirm_upload("in/a.txt")
    assert site.sweep() == 0
    assert site.there()


def test_a_clock_set_back_costs_a_delay(site: Site) -> None:
    assert send(site.announce()) == 200
    site.clock.advance(-5 * DAY)
    assert site.sweep(2 * DAY) == 0
    assert site.sweep(5 * DAY) == 1
    assert not site.there()


def test_switched_off(tmp_path: Path, r2_double: R2Double) -> None:
    options = on_server(tmp_path, r2_double, r2_double.bucket, upload_confirm_within=None)
    clock = ShiftedClock()
    with store_of(options, clock=clock) as store:
        up = store.presign_put("a.txt", size=5)
        assert send(up) == 200
        assert not any("announced" in name for name in up.headers)
        clock.advance(900 * DAY)
        assert store.clean()["unconfirmed"] == 0
        assert store.confirm_upload("a.txt").size == 5


# -- at the same time ----------------------------------------------------------------------------


def confirm_there(options: str, key: str) -> None:
    """A child process."""
    with store_of(load_options(options)) as store:
        say("size", store.confirm_upload(key).size)


def sweep_there(options: str, days: str) -> None:
    """A child process, whose clock is ahead."""
    clock = ShiftedClock()
    with store_of(load_options(options), clock=clock) as store:
        clock.advance(float(days) * DAY)
        say("ready")
        say("swept", store.clean()["unconfirmed"])


def test_confirmed_by_another_process_while_the_janitor_asks(site: Site, tmp_path: Path) -> None:
    assert send(site.announce()) == 200
    site.double.rules.add("slow_headers", method="HEAD", seconds=600, count=1)
    with ThreadPoolExecutor(1) as pool:
        swept = pool.submit(site.sweep)
        site.double.log.wait_for(2, "HEAD")  # the first one was the look after the announcement
        child = process_rig.start(
            "test_unconfirmed:confirm_there", save_options(site.options, tmp_path / "o"), "in/a.txt"
        )
        assert "size 5" in finish(child)
        site.double.rules.release()
        assert swept.result(60) == 0
    assert site.there()
    assert site.sweep() == 0
    assert site.there()


def test_given_up_by_another_process_while_it_is_confirmed(site: Site, tmp_path: Path) -> None:
    assert send(site.announce()) == 200
    site.double.rules.add("slow_headers", method="HEAD", seconds=600, count=1)
    with ThreadPoolExecutor(1) as pool:
        confirmed = pool.submit(site.store.confirm_upload, "in/a.txt")
        site.double.log.wait_for(2, "HEAD")
        options = save_options(site.options, tmp_path / "o")
        child = process_rig.start("test_unconfirmed:sweep_there", options, 2)
        assert "swept 1" in finish(child)
        site.double.rules.release()
        with pytest.raises(ConfirmFailed, match="not uploaded"):
            confirmed.result(60)
    assert not site.there()


class Meanwhile(Files):
    """Does something once, when a note was read."""

    def __init__(self) -> None:
        self.work: Callable[[], object] | None = None

    def open_read(self, path: str | Path) -> int:
        fd = super().open_read(path)
        if self.work is not None and "/announced/" in str(path):
            work, self.work = self.work, None
            work()
        return fd


def test_confirmed_just_after_its_note_was_read(site: Site) -> None:
    assert send(site.announce()) == 200
    files = Meanwhile()
    with store_of(site.options, clock=site.clock, files=files) as janitor:
        site.clock.advance(2 * DAY)
        files.work = lambda: site.store.confirm_upload("in/a.txt")
        assert janitor.clean()["unconfirmed"] == 0
        assert files.work is None
    assert site.there()


def test_killed_while_it_asks(site: Site, tmp_path: Path) -> None:
    assert send(site.announce()) == 200
    site.double.rules.add("slow_headers", method="HEAD", seconds=600, count=1)
    options = save_options(site.options, tmp_path / "o")
    child = process_rig.start("test_unconfirmed:sweep_there", options, 2)
    site.double.log.wait_for(2, "HEAD")
    child.kill()
    child.communicate()
    site.double.rules.release()
    assert site.there()
    assert len(notes(site.store)) == 1
    assert site.sweep() == 1
    assert not site.there()


def test_killed_between_the_delete_and_its_note(site: Site) -> None:
    assert send(site.announce()) == 200
    (note,) = note_files(site.store)
    text = note.read_text()
    assert site.sweep() == 1
    note.write_text(text)
    assert site.sweep(0) == 0
    assert not site.there()
    assert site.sweep(0) == 0
    assert notes(site.store) == []
    # The key is used again: the old note must not harm it.
    note.write_text(text)
    assert send(site.announce(known=False)) == 200
    site.store.confirm_upload("in/a.txt")
    assert site.sweep() == 0
    assert site.there()


def test_junk_among_the_notes_goes(site: Site) -> None:
    site.announce()
    (note,) = note_files(site.store)
    for text in ("", "{", '{"key": 1}', "[" * 5000, '"x"'):
        note.write_text(text)
        assert site.sweep(900 * DAY) == 0
        assert notes(site.store) == []
    temporary = note.with_name(f"{note.name}.{'a' * 16}.tmp")
    temporary.write_text("x")
    assert site.sweep() == 0
    assert not temporary.exists()


# -- other machines ------------------------------------------------------------------------------


def another(site: Site, root: Path) -> CacheStore:
    """A store of another machine on the same bucket."""
    options = on_server(root / "machine", site.double, site.double.bucket)
    return store_of(options, clock=site.clock)


def test_confirmed_on_another_machine(site: Site, tmp_path: Path) -> None:
    up = site.announce(sha256="5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5")
    assert send(up) == 200
    with another(site, tmp_path) as other:
        for _ in range(2):
            assert other.confirm_upload("in/a.txt", size=5, content_type="text/plain").size == 5
        assert site.sweep() == 0
        assert site.there()
        assert other.read("in/a.txt") == b"12345"
        assert site.double.log.count(operation="PutObject", status=200) == 2, "taken over once"


def test_confirmed_on_another_machine_too_late(site: Site, tmp_path: Path) -> None:
    assert send(site.announce()) == 200
    site.clock.advance(DAY + 1800)
    with another(site, tmp_path) as other:
        with pytest.raises(ConfirmFailed, match="not confirmed in time"):
            other.confirm_upload("in/a.txt")
        assert other.flush(60).done
    assert site.there()
    assert site.sweep(1800) == 1
    assert not site.there()


# -- without a bucket ----------------------------------------------------------------------------


def receive(store: CacheStore, up: PresignedUpload, data: bytes = b"12345") -> Announced:
    """What the route does with the bytes."""
    announced = store.links.announced(up.url.rsplit("/", 1)[-1])
    receipt = store.put(announced.key, data, content_type=announced.content_type)
    store.links.received(announced, receipt.id)
    return announced


@pytest.fixture
def local(tmp_path: Path) -> Options:
    return make_options(tmp_path, public_base_url=BASE)


@pytest.mark.parametrize("what", ["left", "confirmed", "put again", "edited", "not uploaded"])
def test_without_a_bucket(local: Options, what: str) -> None:
    clock = ShiftedClock()
    with store_of(local, clock=clock) as store:
        up = store.presign_put("in/a.txt")
        if what != "not uploaded":
            receive(store, up)
        if what == "confirmed":
            store.confirm_upload("in/a.txt", size=5)
            assert notes(store) == []
        elif what == "put again":
            store.put("in/a.txt", b"ours")
        elif what == "edited":
            (local.local_dir / "in" / "a.txt").write_bytes(b"by hand")
        clock.advance(DAY)
        assert store.clean()["unconfirmed"] == 0
        clock.advance(2 * DAY)
        assert store.clean()["unconfirmed"] == (1 if what == "left" else 0)
        assert store.exists("in/a.txt") is (what not in ("left", "not uploaded"))
        assert notes(store) == []
        if what == "left":
            with pytest.raises(ConfirmFailed):
                store.confirm_upload("in/a.txt")


def test_confirmed_just_after_its_note_was_read_without_a_bucket(local: Options) -> None:
    clock, files = ShiftedClock(), Meanwhile()
    with store_of(local, clock=clock) as store, store_of(local, clock=clock, files=files) as other:
        receive(store, store.presign_put("in/a.txt"))
        clock.advance(3 * DAY)
        files.work = lambda: store.confirm_upload("in/a.txt")
        assert other.clean()["unconfirmed"] == 0
        assert files.work is None
        assert store.read("in/a.txt") == b"12345"


def test_what_was_there_before_stays_without_a_bucket(local: Options) -> None:
    clock = ShiftedClock()
    with store_of(local, clock=clock) as store:
        store.put("in/a.txt", b"older")
        receive(store, store.presign_put("in/a.txt"))
        clock.advance(3 * DAY)
        assert store.clean()["unconfirmed"] == 0
        assert store.read("in/a.txt") == b"12345"


def test_switched_to_the_bucket_meanwhile(site: Site, local: Options) -> None:
    """What came through the app is on its way to the bucket: it is left alone."""
    off = replace(site.options, mode="local", public_base_url=BASE)
    with store_of(off, clock=site.clock) as store:
        receive(store, store.presign_put("in/a.txt"))
    site.store.reload()
    assert site.store.flush(60).done
    assert site.sweep() == 0
    assert site.there()
    assert notes(site.store) == []


def test_switched_off_meanwhile_a_note_waits_for_its_bucket(site: Site) -> None:
    assert send(site.announce()) == 200
    site.clock.advance(3 * DAY)
    off = replace(site.options, mode="local", public_base_url=BASE)
    with store_of(off, clock=site.clock) as store:
        assert store.clean()["unconfirmed"] == 0
        assert len(notes(store)) == 1
    assert site.sweep(0) == 1
    assert not site.there()
