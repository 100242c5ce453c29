"""Uploads: parts, resuming, files that change, and the byte budget."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cachestore.errors import (
    NotFound,
    PreconditionFailed,
    RemoteUnavailable,
    SourceError,
    UploadLost,
)
from cachestore.model import Attributes, RemoteObject
from cachestore.remote.base import MAX_PARTS, MIN_PART, RemoteSource
from cachestore.remote.budget import Budget
from cachestore.remote.memory import MemoryRemote
from cachestore.remote.sending import SendCancelled, part_size_for, send
from cachestore.testing.contract import in_threads, put, read

ATTRIBUTES = Attributes("video/mp4", {"title": "Größe"}, "no-cache")
SIZE = 3 * MIN_PART + 777


class Faulty(MemoryRemote):
    """Counts what it is asked, and does `before` first."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[int] = []
        self.before: Callable[[str, int], None] = lambda operation, number: None
        self.after_complete: Callable[[], None] = lambda: None

    def create_upload(self, key: str, *, sha256: str, attributes: Attributes) -> str:
        self.before("create", 0)
        return super().create_upload(key, sha256=sha256, attributes=attributes)

    def upload_part(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        self.before("part", number)
        etag = super().upload_part(key, upload_id, number, data)
        self.parts.append(number)
        return etag

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[str], **conditions: Any
    ) -> RemoteObject:
        self.before("complete", 0)
        done = super().complete_upload(key, upload_id, parts, **conditions)
        self.after_complete()
        return done

    def put(self, key: str, body: RemoteSource, **options: Any) -> RemoteObject:
        self.before("put", 0)
        return super().put(key, body, **options)


class Rig:
    def __init__(self, folder: Path) -> None:
        self.remote = Faulty()
        self.path = folder / "file"
        self.state: dict[str, Any] = {}
        self.budget = Budget(48 << 20)
        self.stop = False
        self.write(SIZE)

    def write(self, size: int) -> None:
        self.data = secrets.token_bytes(size)
        self.path.write_bytes(self.data)
        self.sha256 = hashlib.sha256(self.data).hexdigest()

    def save(self, state: dict[str, Any]) -> None:
        self.state = json.loads(json.dumps(state))

    def send(self, **more: Any) -> RemoteObject:
        options: dict[str, Any] = {
            "size": len(self.data),
            "sha256": self.sha256,
            "attributes": ATTRIBUTES,
            "budget": self.budget,
            "threshold": MIN_PART,
            "part_size": MIN_PART,
            "state": self.state,
            "save_state": self.save,
            "cancelled": lambda: self.stop,
        }
        source = more.pop("source", self.path)
        return send(self.remote, "k", source, **options | more)

    def fail_at(self, operation: str, number: int, error: Exception) -> None:
        def before(what: str, which: int) -> None:
            if (what, which) == (operation, number):
                raise error

        self.remote.before = before

    def heal(self) -> None:
        self.remote.before = lambda operation, number: None


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.mark.parametrize("threshold", [MIN_PART, SIZE, SIZE + 1])
def test_a_file_arrives_with_what_belongs_to_it(rig: Rig, threshold: int) -> None:
    done = rig.send(threshold=threshold)
    there = rig.remote.head("k")
    assert read(rig.remote, "k") == rig.data
    assert rig.remote.parts == [] if threshold > SIZE else sorted(rig.remote.parts) == [1, 2, 3, 4]
    for said in (done, there):
        assert (said.key, said.size, said.sha256) == ("k", SIZE, rig.sha256)
        assert (said.content_type, said.metadata) == ("video/mp4", {"title": "Größe"})
        assert said.cache_control == "no-cache"
    assert done.etag == there.etag
    assert rig.budget.used == 0


@pytest.mark.parametrize("size", [0, 1, MIN_PART, 2 * MIN_PART])
def test_sizes(rig: Rig, size: int) -> None:
    rig.write(size)
    rig.send()
    assert read(rig.remote, "k") == rig.data


def test_a_descriptor_is_read_from_its_start_and_left_as_it_is(rig: Rig) -> None:
    fd = os.open(rig.path, os.O_RDONLY)
    try:
        os.lseek(fd, 5, os.SEEK_SET)
        rig.send(source=fd)
        rig.send(source=fd, threshold=SIZE + 1)
        assert os.lseek(fd, 0, os.SEEK_CUR) == 5
    finally:
        os.close(fd)
    assert read(rig.remote, "k") == rig.data


def test_part_sizes() -> None:
    assert part_size_for(100 << 20, 8 << 20) == 8 << 20
    assert part_size_for(100 << 20, 1) == MIN_PART
    for size in (MAX_PARTS * MIN_PART + 1, 5 << 40):
        part = part_size_for(size, 8 << 20)
        assert part % (1 << 20) == 0
        assert -(-size // part) <= MAX_PARTS


# -- resuming -----------------------------------------------------------------------------------


def test_a_broken_upload_goes_on_where_it_was(rig: Rig) -> None:
    rig.fail_at("part", 4, RemoteUnavailable("gone"))
    with pytest.raises(RemoteUnavailable, match="gone"):
        rig.send()
    sent = {int(number) for number in rig.state["etags"]}
    assert sent == set(rig.remote.parts)
    assert rig.budget.used == 0
    rig.heal()
    rig.remote.parts.clear()
    rig.send(part_size=9 << 20)
    assert set(rig.remote.parts) == {1, 2, 3, 4} - sent
    assert read(rig.remote, "k") == rig.data


def test_every_part_is_saved_and_a_saved_part_is_never_sent_again(rig: Rig) -> None:
    saved: list[int] = []

    def save(state: dict[str, Any]) -> None:
        saved.append(len(state["etags"]))
        rig.save(state)

    rig.fail_at("complete", 0, RemoteUnavailable("gone"))
    with pytest.raises(RemoteUnavailable):
        rig.send(save_state=save)
    assert saved == [0, 1, 2, 3, 4]
    rig.heal()
    rig.remote.parts.clear()
    rig.send()
    assert rig.remote.parts == []
    assert read(rig.remote, "k") == rig.data


def test_a_lost_upload_begins_again(rig: Rig) -> None:
    rig.fail_at("complete", 0, RemoteUnavailable("gone"))
    with pytest.raises(RemoteUnavailable):
        rig.send()
    rig.heal()
    rig.remote.abort_upload("k", rig.state["upload_id"])
    rig.remote.parts.clear()
    rig.send()
    assert sorted(rig.remote.parts) == [1, 2, 3, 4]
    assert read(rig.remote, "k") == rig.data


def test_a_lost_upload_begins_again_only_once(rig: Rig) -> None:
    rig.fail_at("complete", 0, UploadLost("gone"))
    with pytest.raises(UploadLost):
        rig.send()
    assert len(rig.remote.parts) == 8
    assert rig.state == {}


def test_an_upload_that_was_finished_unheard_is_not_sent_again(rig: Rig) -> None:
    def unheard() -> None:
        raise RemoteUnavailable("the answer got lost")

    rig.remote.after_complete = unheard
    with pytest.raises(RemoteUnavailable):
        rig.send()
    rig.remote.parts.clear()
    done = rig.send()
    assert rig.remote.parts == []
    assert done.sha256 == rig.sha256
    assert done.etag == rig.remote.head("k").etag


@pytest.mark.parametrize(
    "state",
    [
        {"upload_id": 5},
        {"upload_id": "x", "part_size": 1, "etags": {}},
        {"upload_id": "x", "part_size": MIN_PART, "etags": []},
        {"upload_id": "x", "part_size": MIN_PART, "etags": {"one": "e"}},
        {"upload_id": "unknown", "part_size": MIN_PART, "etags": {"1": "e"}},
    ],
)
def test_a_state_that_makes_no_sense_is_ignored(rig: Rig, state: dict[str, Any]) -> None:
    rig.send(state=state)
    assert read(rig.remote, "k") == rig.data


# -- files that change --------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [MIN_PART, SIZE + 1])
def test_a_file_that_changed_is_never_stored(rig: Rig, threshold: int) -> None:
    changed = bytearray(rig.data)
    changed[-1] ^= 1
    rig.path.write_bytes(changed)
    with pytest.raises(SourceError, match="changed"):
        rig.send(threshold=threshold)
    with pytest.raises(NotFound):
        rig.remote.head("k")
    assert rig.state == {}
    assert not rig.remote._uploads


def test_a_part_that_changed_after_it_was_sent_is_noticed(rig: Rig) -> None:
    rig.fail_at("part", 4, RemoteUnavailable("gone"))
    with pytest.raises(RemoteUnavailable):
        rig.send()
    assert "1" in rig.state["etags"]
    with rig.path.open("r+b") as file:
        file.write(bytes(10))
    rig.heal()
    with pytest.raises(SourceError, match="changed"):
        rig.send()
    with pytest.raises(NotFound):
        rig.remote.head("k")


@pytest.mark.parametrize("threshold", [MIN_PART, SIZE + 1])
def test_a_file_that_became_shorter(rig: Rig, threshold: int) -> None:
    os.truncate(rig.path, SIZE - 1)
    with pytest.raises(SourceError, match="ends at byte"):
        rig.send(threshold=threshold)
    with pytest.raises(NotFound):
        rig.remote.head("k")


def test_a_file_that_is_gone(rig: Rig) -> None:
    rig.path.unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        rig.send()


def test_a_link_is_not_followed(rig: Rig) -> None:
    """Not even when it leads to the very bytes."""
    kept = rig.path.with_name("elsewhere")
    rig.path.rename(kept)
    rig.path.symlink_to(kept)
    with pytest.raises(SourceError, match="cannot be read"):
        rig.send()


def test_what_is_empty_has_a_digest_too(rig: Rig) -> None:
    rig.write(0)
    rig.sha256 = "0" * 64
    with pytest.raises(SourceError):
        rig.send()
    with pytest.raises(NotFound):
        rig.remote.head("k")


# -- the rest -----------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [MIN_PART, SIZE + 1])
def test_a_cancelled_upload_stops(rig: Rig, threshold: int) -> None:
    rig.stop = True
    with pytest.raises(SendCancelled):
        rig.send(threshold=threshold)
    assert rig.remote.parts == []
    rig.stop = False
    rig.send(threshold=threshold)
    assert read(rig.remote, "k") == rig.data


@pytest.mark.parametrize("threshold", [MIN_PART, SIZE + 1])
def test_conditions_are_passed_on(rig: Rig, threshold: int) -> None:
    there = put(rig.remote, "k", b"somebody else")
    with pytest.raises(PreconditionFailed):
        rig.send(threshold=threshold, if_none_match="*")
    assert read(rig.remote, "k") == b"somebody else"
    rig.send(threshold=threshold, if_match=there.etag)
    assert read(rig.remote, "k") == rig.data


def test_at_most_four_parts_at_a_time_and_never_more_than_the_budget(rig: Rig) -> None:
    rig.write(9 * MIN_PART)
    lock, now, most, peak = threading.Lock(), [0], [0], [0]
    full = threading.Barrier(2)

    def before(operation: str, number: int) -> None:
        if operation != "part":
            return
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            peak[0] = max(peak[0], rig.budget.used)
        if number < 9:
            full.wait(60)  # parts go in pairs, so that two are always under way
        with lock:
            now[0] -= 1

    rig.remote.before = before
    rig.budget = Budget(2 * MIN_PART)
    rig.send()
    assert most == [2]
    assert peak == [2 * MIN_PART]
    assert rig.budget.used == 0
    assert read(rig.remote, "k") == rig.data


def test_parts_are_sent_without_helpers_when_no_thread_can_start(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    rig.send()
    assert rig.remote.parts == [1, 2, 3, 4]
    assert read(rig.remote, "k") == rig.data


def test_the_budget_is_fair_and_caps_what_is_too_large() -> None:
    budget = Budget(10)
    assert budget.acquire(99) == 10
    order: list[int] = []
    threads = []
    for number, count in enumerate((6, 10, 1)):

        def work(number: int = number, count: int = count) -> None:
            with budget.holding(count):
                order.append(number)

        thread = threading.Thread(target=work)
        thread.start()
        threads.append(thread)
        wait_for(lambda want=number + 1: budget.waiting == want)
    budget.release(10)
    for thread in threads:
        thread.join(30)
    assert order == [0, 1, 2]
    assert budget.used == 0


def test_many_users_of_a_budget() -> None:
    budget = Budget(7)

    def work(number: int) -> None:
        for turn in range(200):
            with budget.holding((number + turn) % 9):
                assert budget.used <= 7

    in_threads(6, work)
    assert (budget.used, budget.waiting) == (0, 0)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(30_000):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it did not happen")
