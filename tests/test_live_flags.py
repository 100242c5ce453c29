"""Flags changed while a store is used: nothing is lost, nothing is wrong, nobody restarts."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from figures import record
from ingest_rig import fill, in_bucket
from settings_rig import Place
from settings_rig import place as place
from store_rig import until
from test_flag_table import complete

from cachestore import open_store
from cachestore.errors import ConfigError, NotFound, StoreClosed
from cachestore.events import Event, Uploaded
from cachestore.ingest import sync
from cachestore.model import ObjectInfo
from cachestore.settings import Settings
from cachestore.settings.live import read_flags, set_flag, unset_flag
from cachestore.store import CacheStore
from cachestore.testing.r2 import R2Double

QUICK = {
    "UPLOAD_RETRY_BASE": "0.05", "UPLOAD_KEY_INTERVAL": "0", "CACHE_MIN_FREE": "0",
    "CACHE_MISS_DEADLINE": "60", "CACHE_REVALIDATE_DEADLINE": "60",
}  # fmt: skip


@pytest.fixture
def store(place: Place, r2_double: R2Double) -> Iterator[CacheStore]:
    place.set(complete(r2_double), QUICK)
    with open_store() as opened:
        yield opened


def flag(store: CacheStore, **values: Any) -> None:
    """Set flags (None: unset), and let the store take them in."""
    for name, value in values.items():
        if value is None:
            unset_flag(store.options.spool_dir, name)
        else:
            set_flag(store.options.spool_dir, name, value)
    store.reload()


# -- one switch after the other -------------------------------------------------------------------


def test_r2_off_keeps_the_spool_and_on_again_drains_it(
    store: CacheStore, r2_double: R2Double
) -> None:
    r2_double.rules.add("status", method="PUT", status=503)
    store.put("pending.txt", b"put before")
    flag(store, USE_R2_STORAGE=False)
    assert store.options.mode == "local"
    r2_double.rules.clear()
    r2_double.log.clear()
    store.put("local.txt", b"put while it is off")
    assert store.get("pending.txt").read_bytes() == b"put before"
    assert store.core.board.pending()[0] == 1
    assert r2_double.log.count() == 0
    flag(store, USE_R2_STORAGE=True)
    # Nobody puts or flushes: it begins by itself.
    until(lambda: in_bucket(r2_double, "pending.txt") == b"put before", "the spool drained")
    until(lambda: in_bucket(r2_double, "local.txt") is not None, "local changes sent")
    until(lambda: store.pending() == [], "nothing pending")


def test_a_pause_keeps_what_is_put_and_its_end_sends_it(
    store: CacheStore, r2_double: R2Double
) -> None:
    store.put("a.txt", b"a", durability="remote")
    flag(store, UPLOAD_PAUSE=True)
    r2_double.log.clear()
    receipt = store.put("b.txt", b"b")
    store.delete("a.txt")
    report = store.flush(0.3)
    assert not report.done
    assert "UPLOAD_PAUSE" in report.reason
    assert {item.key for item in store.pending()} == {"a.txt", "b.txt"}
    health = store.health()["uploader"]
    assert (health["state"], health["paused"]) == ("paused", report.reason)
    assert store.options.mode == "remote"
    assert store.get("b.txt").read_bytes() == b"b"
    assert not store.exists("a.txt")
    assert r2_double.log.count("PUT") + r2_double.log.count("DELETE") == 0
    called: list[str] = []
    receipt.add_done_callback(called.append)
    flag(store, UPLOAD_PAUSE=None)
    assert receipt.wait(60) == "uploaded", "a receipt from before the reload"
    until(lambda: called == ["uploaded"], "the callback from before the reload")
    until(lambda: store.pending() == [], "nothing pending")
    assert in_bucket(r2_double, "a.txt") is None


def test_settings_that_cannot_be_used_change_nothing(store: CacheStore) -> None:
    store.put("a.txt", b"a")
    set_flag(store.options.spool_dir, "FALLBACK_TO_LOCAL", False)
    with pytest.raises(ConfigError):
        flag(store, USE_R2_STORAGE=False)
    assert store.options.mode == "remote"
    assert store.get("a.txt").read_bytes() == b"a"
    assert store.flush(60).done
    flag(store, FALLBACK_TO_LOCAL=None)
    assert store.options.mode == "local"


def test_what_was_subscribed_and_counted_goes_on(store: CacheStore) -> None:
    heard: list[Event] = []
    end = store.subscribe(heard.append)
    for number in range(3):
        store.put(f"{number}.txt", b"x")
        assert store.flush(60).done
        flag(store, CACHE_TTL_HOURS=number + 1)
    assert [each.key for each in heard if isinstance(each, Uploaded)] == ["0.txt", "1.txt", "2.txt"]
    counts = store.stats()
    assert (counts.puts, counts.uploads) == (3, 3)
    end()
    count = len(heard)
    store.put("3.txt", b"x")
    assert store.flush(60).done
    assert len(heard) == count
    assert store.stats().puts == 4


def test_calls_that_are_under_way_end_on_what_they_began_with(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    keys = [f"k/{n}.txt" for n in range(30)]
    for key in keys:
        store.put(key, key.encode())
    assert store.flush(60).done
    items = store.list("k/")
    assert next(items).key == sorted(keys)[0]
    store.invalidate(keys[0])
    r2_double.rules.add("slow_headers", method="GET", key=keys[0], seconds=None)
    got: list[Any] = []

    def read() -> None:
        try:
            got.append(store.read(keys[0]))
        except BaseException as error:
            got.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: r2_double.log.count("GET", keys[0]), "the download began")
    with store.lease(keys[1]) as leased:
        flag(store, USE_R2_STORAGE=False)
        flag(store, USE_R2_STORAGE=True)
        assert leased.read_bytes() == keys[1].encode()
    assert len(list(items)) == 29, "a listing is whole"
    r2_double.rules.clear()
    r2_double.rules.release()
    reader.join(60)
    assert got == [keys[0].encode()]


def test_a_file_that_is_open_and_not_here_yet_is_read_to_its_end(
    place: Place, r2_double: R2Double
) -> None:
    place.set(complete(r2_double), QUICK)
    body = random.Random(1).randbytes(12 << 20)
    with open_store(block_bytes="1MiB") as store:
        store.put("big.bin", body)
        assert store.flush(60).done
        store.invalidate("big.bin")
        old = store.core
        file = store.open("big.bin")
        head = file.read(100)
        flag(store, USE_R2_STORAGE=False)
        assert old.catalog.known_pins() is not None, "still open"
        assert head + file.read() == body
        file.close()
        store.exists("other.bin")
        assert old.catalog.known_pins() is None, "closed"


def test_a_sync_goes_on_over_a_reload(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    files = fill(folder, 30)
    begun = threading.Event()

    def toggle() -> None:
        begun.wait(60)
        for number in range(4):
            flag(store, UPLOAD_WORKERS=number + 2)

    thread = threading.Thread(target=toggle)
    thread.start()
    report = sync(store, folder, prefix="in", progress=lambda step: begun.set())
    thread.join(60)
    assert report.complete, report
    assert {path: in_bucket(r2_double, f"in/{path}") for path in files} == files


def test_the_old_parts_are_closed_when_the_last_one_leaves(store: CacheStore) -> None:
    store.put("a.txt", b"a")
    old = store.core
    items = store.list("")
    store.reload()
    assert old.catalog.known_pins() == [], "still open"
    assert [item.key for item in items] == ["a.txt"]
    assert old.catalog.known_pins() is None, "closed"
    old, forgotten = store.core, store.list("")
    users = store._users
    store.reload()
    del items, forgotten
    users.enter()  # whoever comes or goes next, lets out what a collector found
    assert old.catalog.known_pins() is None, "closed"
    store.close()
    with pytest.raises(StoreClosed):
        store.put("b.txt", b"b")
    with pytest.raises(StoreClosed):
        store.reload()


def test_the_env_file_of_the_first_load_is_read_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place.write("CACHE_TTL_HOURS=2")
    with open_store() as store:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        place.write("CACHE_TTL_HOURS=3")
        store.reload()
        assert store.options.ttl == 3 * 3600


# -- watched files --------------------------------------------------------------------------------


def test_watched_files_are_taken_in(
    place: Place, r2_double: R2Double, caplog: pytest.LogCaptureFixture
) -> None:
    names = {name: str(value) for name, value in complete(r2_double).items()}
    place.write("\n".join(f"{name}={value}" for name, value in names.items()))
    place.set(QUICK, WATCH_SETTINGS="true")
    with open_store() as store:
        assert store.options.mode == "remote"
        store.put("a.txt", b"a")
        place.write("\n".join(f"{n}={v}" for n, v in (names | {"USE_R2_STORAGE": "no"}).items()))
        until(lambda: store.options.mode == "local", "the env file was read")
        set_flag(store.options.spool_dir, "CACHE_TTL_HOURS", 3)
        until(lambda: store.options.ttl == 3 * 3600, "the flag was read")
        # A mistake changes nothing, and is said; its end is seen.
        place.write("UPLOAD_WORKERS=many")
        until(lambda: "cannot be used" in caplog.text, "a warning")
        assert store.options.mode == "local"
        new = place.folder / ".env.new"
        new.write_text("\n".join(f"{name}={value}" for name, value in names.items()))
        os.replace(new, place.folder / ".env")
        until(lambda: store.options.mode == "remote", "a renamed file was read")
        until(lambda: in_bucket(r2_double, "a.txt") == b"a", "it was sent")
    alive = {thread.name for thread in threading.enumerate()}
    assert "cachestore-settings" not in alive


def test_without_the_setting_nothing_is_watched(place: Place) -> None:
    with open_store():
        assert "cachestore-settings" not in {t.name for t in threading.enumerate()}
    place.set(WATCH_SETTINGS="true")
    with open_store(Settings()) as store:
        set_flag(store.options.spool_dir, "CACHE_TTL_HOURS", 3)
        until(lambda: store.options.ttl == 3 * 3600, "settings at hand read flags, too")


def test_the_page_itself(store: CacheStore) -> None:
    """The Python of docs/live.md."""
    text = (Path(__file__).parent.parent / "docs" / "live.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(block, {"store": store})
    assert store.options.upload_pause


# -- under load -----------------------------------------------------------------------------------

STATES = [
    {"USE_R2_STORAGE": False}, {"USE_R2_STORAGE": True}, {"USE_R2_STORAGE": None},
    {"UPLOAD_PAUSE": True}, {"UPLOAD_PAUSE": None}, {"FALLBACK_TO_LOCAL": False},
    {"FALLBACK_TO_LOCAL": None}, {"CACHE_TTL_HOURS": 1}, {"CACHE_TTL_HOURS": 0},
]  # fmt: skip


class Owner:
    """Writes keys of its own, and knows what each must be. Bodies name key and number."""

    def __init__(self, store: CacheStore, name: str) -> None:
        self.store = store
        self.keys = [f"{name}/{n}.bin" for n in range(6)]
        self.model: dict[str, bytes] = {}
        self.acknowledged = dict.fromkeys(self.keys, 0)
        self._rng = random.Random(name)
        self._number = 0

    def step(self) -> None:
        rng, store = self._rng, self.store
        key = rng.choice(self.keys)
        if rng.random() < 0.5:
            self._number += 1
            body = f"{key} {self._number} ".encode() + rng.randbytes(rng.randint(0, 3000))
            store.put(key, body)
            self.model[key] = body
            self.acknowledged[key] = self._number
        elif rng.random() < 0.15:
            store.delete(key)
            self.model.pop(key, None)
        else:
            self.check(key)

    def check(self, key: str) -> None:
        if key in self.model:
            ways = (lambda: self.store.get(key).read_bytes(), lambda: self.store.read(key))
            assert self._rng.choice(ways)() == self.model[key], key
            assert self.store.head(key).size == len(self.model[key]), key
        else:
            assert not self.store.exists(key), key
            with pytest.raises(NotFound):
                self.store.get(key)


class Load:
    """Threads that go on until `end`; the first error of any is raised there."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []
        self.steps = 0

    def start(self, step: Any) -> None:
        thread = threading.Thread(target=self._run, args=(step,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, step: Any) -> None:
        try:
            while not self._stop.is_set():
                step()
                self.steps += 1
        except BaseException as error:
            self.errors.append(error)
            self._stop.set()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()
        if self.errors:
            raise self.errors[0]


@pytest.mark.parametrize(
    "seconds", [4.0, pytest.param(60.0, marks=pytest.mark.torture)], ids=["short", "minute"]
)
def test_flags_toggled_every_100_ms_under_load(
    store: CacheStore, r2_double: R2Double, seconds: float
) -> None:
    rng, load = random.Random(7), Load()
    owners = [Owner(store, name) for name in "abcd"]
    spool = store.options.spool_dir
    toggles = {"done": 0, "refused": 0}

    def toggle() -> None:
        next_one = time.monotonic() + 0.1
        for name, value in rng.choice(STATES).items():
            if value is None:
                unset_flag(spool, name)
            else:
                set_flag(spool, name, value)
        try:
            store.reload()
            toggles["done"] += 1
        except ConfigError:
            assert read_flags(spool).get("FALLBACK_TO_LOCAL") == "false"
            toggles["refused"] += 1
        time.sleep(max(0.0, next_one - time.monotonic()))  # the rate of the toggling

    def read() -> None:
        """What others wrote: whole, of that key, and not older than what was acknowledged."""
        owner = random.choice(owners)
        key = random.choice(owner.keys)
        least = owner.acknowledged[key]
        try:
            words = store.get(key).read_bytes().split(b" ", 2)
        except NotFound:
            return
        assert words[0].decode() == key
        assert int(words[1]) >= least

    for owner in owners:
        load.start(owner.step)
    load.start(read)
    load.start(toggle)
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end or load.errors, "the end", seconds + 60)
    load.end()
    for name in read_flags(spool):
        unset_flag(spool, name)
    store.reload()
    for owner in owners:
        for key in owner.keys:
            owner.check(key)
    assert store.flush(120).done
    assert store.pending() == []
    model = {key: body for owner in owners for key, body in owner.model.items()}
    listed = {item.key for item in store.list() if isinstance(item, ObjectInfo)}
    assert listed == set(model)
    assert {key: in_bucket(r2_double, key) for key in model} == model
    assert store.core.remote is not None
    there = {obj.key for page in store.core.remote.list() for obj in page.objects}
    assert there == set(model)
    assert toggles["done"] > seconds, "it was reloaded all the time"
    record("live-flags", seconds=seconds, steps=load.steps, **toggles)
