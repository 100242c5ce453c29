"""Pending bytes at their limit: a put waits, goes through or is refused; nothing is lost."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from local_rig import content
from process_rig import finish, load_options, save_options, say, start
from store_rig import make_options, store_of, until

from cachestore.errors import SpoolFull, TimedOut
from cachestore.local.board import Board
from cachestore.options import Options
from cachestore.remote.directory import DirectoryRemote
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.remotes import FaultyRemote

LIMIT = 10_000
HALF = bytes(LIMIT // 2)


class Rig:
    """A store at a limit of pending bytes, on a bucket that is down at first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bucket = MemoryRemote()
        self.remote = FaultyRemote(self.bucket)
        self.remote.down()
        self.stores: list[CacheStore] = []

    def options(self, how: str, **fields: Any) -> Options:
        values = {"back_pressure_timeout": 60.0, "leader_interval": 0.02, "retry_cap": 0.1}
        return make_options(
            self.root, mode="remote", spool_max_bytes=LIMIT, back_pressure=how, **(values | fields)
        )

    def store(self, how: str, **fields: Any) -> CacheStore:
        self.stores.append(store_of(self.options(how, **fields), remote=self.remote))
        return self.stores[-1]

    def filled(self, how: str, **fields: Any) -> CacheStore:
        store = self.store(how, **fields)
        store.put("one.wav", HALF)
        store.put("two.wav", HALF)
        return store


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.remote.up()
    for store in rig.stores:
        store.close(drain=0)


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run something that may wait; what it returned or raised."""
    out: list[Any] = []

    def run() -> None:
        try:
            out.append(work())
        except BaseException as error:
            out.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, out


def waits_for_room() -> bool:
    """A put is in the loop that waits."""
    for frame in sys._current_frames().values():
        while frame is not None:
            if frame.f_code.co_name == "_make_room" and "writing" in frame.f_code.co_filename:
                return True
            frame = frame.f_back  # type: ignore[assignment]
    return False


def nothing_of(store: CacheStore, key: str) -> None:
    place = store.core.spool.place(key)
    assert list(store.core.spool.folder(place.shard).glob(f"{place.digest}*")) == []


# -- raise -----------------------------------------------------------------------------------------


def test_raise_refuses_at_the_limit_and_leaves_nothing(rig: Rig) -> None:
    store = rig.filled("raise")
    with pytest.raises(SpoolFull, match=f"limit of {LIMIT}"):
        store.put("three.wav", b"more")
    nothing_of(store, "three.wav")
    with pytest.raises(SpoolFull):
        store.put("one.wav", b"newer")
    assert store.read("one.wav") == HALF
    assert store.core.board.pending() == (2, LIMIT)


def test_a_delete_is_never_refused_and_makes_room(rig: Rig) -> None:
    store = rig.filled("raise")
    store.delete("one.wav")
    assert store.core.board.pending()[1] < LIMIT
    store.put("three.wav", HALF)
    assert store.read("three.wav") == HALF


def test_reads_go_on_at_the_limit(rig: Rig) -> None:
    store = rig.filled("raise")
    assert store.get("two.wav").read_bytes() == HALF
    assert store.head("two.wav").size == len(HALF)


def test_puts_are_taken_again_after_uploads(rig: Rig) -> None:
    store = rig.filled("raise")
    rig.remote.up()
    assert store.flush(60).done
    store.put("three.wav", b"more")
    assert store.flush(60).done
    assert set(content(rig.bucket)) == {"one.wav", "two.wav", "three.wav"}


def test_no_limit_is_no_limit(rig: Rig) -> None:
    store = rig.filled("raise")
    unlimited = store_of(
        make_options(rig.root, mode="remote", spool_max_bytes=0, back_pressure="raise"),
        remote=rig.remote,
    )
    rig.stores.append(unlimited)
    unlimited.put("three.wav", HALF)
    assert store.read("three.wav") == HALF


# -- block -----------------------------------------------------------------------------------------


def test_block_waits_until_there_is_room(rig: Rig) -> None:
    store = rig.filled("block")
    thread, out = in_thread(lambda: store.put("three.wav", b"more"))
    until(waits_for_room, "a put that waits")
    assert out == []
    rig.remote.up()
    store.flush(60)
    thread.join(60)
    assert out[0].key == "three.wav"
    assert store.read("three.wav") == b"more"


def test_block_gives_up_after_its_timeout_and_leaves_nothing(rig: Rig) -> None:
    store = rig.filled("block", back_pressure_timeout=0.05)
    with pytest.raises(SpoolFull, match="no room came up"):
        store.put("three.wav", b"more")
    nothing_of(store, "three.wav")
    with pytest.raises(SpoolFull):
        store.put("one.wav", b"newer")
    assert store.read("one.wav") == HALF


def test_block_is_ended_by_a_delete(rig: Rig) -> None:
    store = rig.filled("block")
    thread, out = in_thread(lambda: store.put("three.wav", b"more"))
    until(waits_for_room, "a put that waits")
    store.delete("one.wav")
    thread.join(60)
    assert out[0].key == "three.wav"


def child_uploads(options: str, bucket: str) -> None:
    with store_of(load_options(options), remote=DirectoryRemote(bucket)) as store:
        store.start()
        assert store.flush(60).done
        say("flushed")


def test_block_is_ended_by_another_process(rig: Rig, tmp_path: Path) -> None:
    """The one who waits need not be the one who uploads."""
    bucket = tmp_path / "bucket"
    options = rig.options("block")
    store = store_of(options, remote=DirectoryRemote(bucket))
    store.core.uploader.stop(5.0)
    store.put("one.wav", HALF)
    store.put("two.wav", HALF)
    thread, out = in_thread(lambda: store.put("three.wav", b"more"))
    until(waits_for_room, "a put that waits")
    assert out == []
    saved = save_options(options, tmp_path / "options")
    child = start("test_back_pressure:child_uploads", saved, bucket)
    thread.join(60)
    assert out[0].key == "three.wav"
    finish(child)
    store.close(drain=0)


# -- through ---------------------------------------------------------------------------------------


def test_through_returns_when_the_bucket_has_it(rig: Rig) -> None:
    store = rig.filled("through")
    thread, out = in_thread(lambda: store.put("three.wav", b"more"))
    until(lambda: store.core.board.pending()[0] == 3, "the put's ticket")
    assert out == []
    assert store.read("three.wav") == b"more"
    rig.remote.up()
    thread.join(60)
    assert out[0].key == "three.wav"
    assert content(rig.bucket)["three.wav"] == b"more"


def test_through_that_takes_too_long_stays_pending(rig: Rig) -> None:
    store = rig.filled("through", back_pressure_timeout=0.05)
    with pytest.raises(TimedOut, match="stays pending") as caught:
        store.put("three.wav", b"more")
    assert caught.value.receipt.state == "pending"  # type: ignore[attr-defined]
    assert store.read("three.wav") == b"more"
    rig.remote.up()
    assert store.flush(60).done
    assert content(rig.bucket)["three.wav"] == b"more"


def test_through_below_the_limit_does_not_wait(rig: Rig) -> None:
    store = rig.store("through")
    receipt = store.put("one.wav", b"small")
    assert receipt.state == "pending"


# -- the sum ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["raise", "block"])
def test_the_limit_holds_after_a_boot(rig: Rig, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """A new board knows of no pending bytes; the spool does."""
    rig.filled(how).close(drain=0)
    monkeypatch.setattr("cachestore.local.board.boot_id", lambda: "0" * 16)
    store = rig.store(how, back_pressure_timeout=0.05)
    with pytest.raises(SpoolFull):
        store.put("three.wav", b"more")
    assert store.health()["pending"].items() >= {"count": 2, "bytes": LIMIT}.items()


def test_health_counts_after_a_boot(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.filled("raise").close(drain=0)
    monkeypatch.setattr("cachestore.local.board.boot_id", lambda: "0" * 16)
    assert rig.store("raise").health()["pending"].items() >= {"count": 2, "bytes": LIMIT}.items()
    assert [p.name for p in (rig.root / "spool").glob("board.*")] == [f"board.{'0' * 16}"]


def test_the_janitor_counts_after_a_boot(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.filled("raise").close(drain=0)
    monkeypatch.setattr("cachestore.local.board.boot_id", lambda: "0" * 16)
    store = rig.store("raise")
    store.clean()
    assert store.core.board.pending() == (2, LIMIT)


def test_bytes_that_a_killed_process_left_counted_do_not_block_for_ever(rig: Rig) -> None:
    """Killed between its ticket's end and the sum."""
    board = Board(rig.root / "spool", rig.store("raise").core.files)
    for shard in range(256):
        board.add_pending(shard, 1, LIMIT)
    store = rig.store("raise")
    store.put("one.wav", b"fits")
    assert store.core.board.pending() == (1, 4)


def test_foreign_pending_bytes_count_too(rig: Rig, tmp_path: Path) -> None:
    """They fill the same disk."""
    rig.filled("raise").close(drain=0)
    other = store_of(rig.options("raise"), remote=FaultyRemote(MemoryRemote("other")))
    rig.stores.append(other)
    with pytest.raises(SpoolFull):
        other.put("three.wav", b"more")


def test_many_putters_do_not_pass_the_limit_by_more_than_a_file_each(rig: Rig) -> None:
    store = rig.store("raise")
    refused: list[BaseException] = []

    def put(number: int) -> None:
        for each in range(20):
            try:
                store.put(f"{number}/{each}.wav", bytes(1000))
            except SpoolFull as error:
                refused.append(error)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    items = store.pending()
    size = sum(item.size for item in items)
    assert store.core.board.pending() == (len(items), size)
    assert LIMIT <= size <= LIMIT + 3 * 1000
    assert len(items) + len(refused) == 80
