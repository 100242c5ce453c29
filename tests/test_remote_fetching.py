"""Downloads: streams and ranges, broken answers, objects that change, digests."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachestore.errors import (
    Corrupt,
    NotFound,
    PreconditionFailed,
    RemoteUnavailable,
    Throttled,
)
from cachestore.model import RemoteObject
from cachestore.remote.budget import Budget
from cachestore.remote.fetching import Fetched, fetch, verify_digest
from cachestore.remote.memory import MemoryBody, MemoryRemote
from cachestore.testing.contract import put

PART = 1 << 20
SMALL = 700_000
LARGE = 9 * PART + 123


class Breaking(MemoryBody):
    """Ends after `limit` bytes, with an error or without."""

    def __init__(self, body: MemoryBody, limit: int, error: Exception | None) -> None:
        super().__init__(body.info, body._data)
        self._limit = limit
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        left = self._limit
        for chunk in super().__iter__():
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                break
        if self._error is not None:
            raise self._error


class Faulty(MemoryRemote):
    """Records the ranges that it is asked for; `around` may change the answer to each."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int | None, str | None]] = []
        self.around: Callable[[int, MemoryBody], MemoryBody] = lambda number, body: body
        self._count = threading.Lock()

    def get(self, key: str, **options: Any) -> MemoryBody | None:
        with self._count:
            number = len(self.asked)
            asked = (options.get("start", 0), options.get("end"), options.get("if_match"))
            self.asked.append(asked)
        body = super().get(key, **options)
        assert body is not None
        return self.around(number, body)


class Rig:
    def __init__(self) -> None:
        self.remote = Faulty()
        self.got = bytearray()
        self.lock = threading.Lock()
        self.infos: list[RemoteObject] = []
        self.budget = Budget(16 << 20)

    def store(self, size: int) -> RemoteObject:
        self.data = secrets.token_bytes(size)
        self.info = put(self.remote, "k", self.data)
        return self.info

    def write_at(self, offset: int, data: bytes) -> None:
        with self.lock:
            if len(self.got) < offset:
                self.got.extend(bytes(offset - len(self.got)))
            self.got[offset : offset + len(data)] = data

    def fetch(self, **more: Any) -> Fetched:
        options: dict[str, Any] = {
            "part_size": PART, "budget": self.budget, "on_info": self.infos.append,
        }  # fmt: skip
        return fetch(self.remote, "k", self.write_at, **options | more)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize("size", [0, 1, SMALL])
def test_a_small_object_costs_one_request(rig: Rig, size: int) -> None:
    info = rig.store(size)
    assert rig.fetch() == Fetched(info, True)
    assert rig.got == rig.data
    assert rig.remote.asked == [(0, None, None)]
    assert rig.infos == [info]


def test_a_large_object_is_read_in_ranges_of_one_version(rig: Rig) -> None:
    info = rig.store(LARGE)
    assert rig.fetch() == Fetched(info, False)
    assert rig.got == rig.data
    assert rig.remote.asked[0] == (0, None, None)
    rest = sorted(rig.remote.asked[1:])
    assert [start for start, _, _ in rest] == [number * PART for number in range(1, 10)]
    assert {match for _, _, match in rest} == {info.etag}
    assert rig.budget.used == 0


def test_ranges_are_few_however_large_the_object(rig: Rig) -> None:
    rig.store(40 * PART)
    rig.fetch(part_size=PART // 4)
    assert len(rig.remote.asked) == 16
    assert rig.got == rig.data


@pytest.mark.parametrize("size", [0, 1, SMALL, LARGE])
@pytest.mark.parametrize("hint", [0, 1, SMALL, LARGE])
def test_a_wrong_hint_does_no_harm(rig: Rig, size: int, hint: int) -> None:
    rig.store(size)
    rig.fetch(size_hint=hint)
    assert rig.got == rig.data


def test_one_stream_if_asked(rig: Rig) -> None:
    rig.store(LARGE)
    assert rig.fetch(parts=1).verified
    assert rig.remote.asked == [(0, None, None)]
    assert rig.got == rig.data


@pytest.mark.parametrize("error", [RemoteUnavailable("reset"), Corrupt("short"), None])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_broken_answer_is_resumed_where_it_broke(
    rig: Rig, size: int, error: Exception | None
) -> None:
    info = rig.store(size)
    rig.remote.around = lambda number, body: Breaking(body, 300_000, error) if number < 3 else body
    rig.fetch()
    assert rig.got == rig.data
    assert (300_000, None if size == 0 else min(size, PART), info.etag) in rig.remote.asked


def test_an_answer_that_always_breaks_is_given_up(rig: Rig) -> None:
    rig.store(SMALL)
    rig.remote.around = lambda _, body: Breaking(body, 10, RemoteUnavailable("reset"))
    with pytest.raises(RemoteUnavailable, match="reset"):
        rig.fetch()
    assert len(rig.remote.asked) == 4


def test_an_answer_that_always_ends_early_is_corrupt(rig: Rig) -> None:
    rig.store(SMALL)
    rig.remote.around = lambda _, body: Breaking(body, 10, None)
    with pytest.raises(Corrupt, match="early"):
        rig.fetch()


def test_a_long_download_may_break_often(rig: Rig) -> None:
    rig.store(48 * PART)
    rig.remote.around = lambda _, body: Breaking(body, 9 * PART, RemoteUnavailable("reset"))
    rig.fetch(parts=1)
    assert rig.got == rig.data


def test_the_first_error_of_a_range_is_raised_and_all_stop(rig: Rig) -> None:
    rig.store(LARGE)

    def around(number: int, body: MemoryBody) -> MemoryBody:
        if number == 2:
            raise Throttled("slow down", status=429)
        return body

    rig.remote.around = around
    with pytest.raises(Throttled):
        rig.fetch()
    assert rig.budget.used == 0


def test_errors_of_the_first_request_come_out(rig: Rig) -> None:
    with pytest.raises(NotFound):
        rig.fetch()
    rig.store(SMALL)
    with pytest.raises(PreconditionFailed):
        rig.fetch(if_match="0" * 32)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_error_of_writing_comes_out(rig: Rig, size: int) -> None:
    rig.store(size)

    def full(offset: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fetch(rig.remote, "k", full, part_size=PART, budget=rig.budget)


# -- objects that change ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_object_that_is_replaced_is_read_anew(rig: Rig, size: int) -> None:
    rig.store(size)

    def around(number: int, body: MemoryBody) -> MemoryBody:
        if number == 0:
            rig.store(size + 5)
            return Breaking(body, 100_000, RemoteUnavailable("reset"))
        return body

    rig.remote.around = around
    fetched = rig.fetch()
    assert rig.got == rig.data
    assert fetched.info == rig.info
    assert [info.size for info in rig.infos] == [size, size + 5]


def test_a_shorter_one_cannot_take_its_place(rig: Rig) -> None:
    rig.store(SMALL)

    def around(number: int, body: MemoryBody) -> MemoryBody:
        if number == 0:
            rig.store(10)
            return Breaking(body, 100_000, RemoteUnavailable("reset"))
        return body

    rig.remote.around = around
    with pytest.raises(RemoteUnavailable, match="shorter"):
        rig.fetch()


def test_a_version_that_was_asked_for_is_never_exchanged(rig: Rig) -> None:
    info = rig.store(SMALL)

    def around(number: int, body: MemoryBody) -> MemoryBody:
        rig.store(SMALL)
        return Breaking(body, 100_000, RemoteUnavailable("reset"))

    rig.remote.around = around
    with pytest.raises(PreconditionFailed):
        rig.fetch(if_match=info.etag)


def test_an_object_that_changes_all_the_time(rig: Rig) -> None:
    rig.store(SMALL)

    def around(number: int, body: MemoryBody) -> MemoryBody:
        rig.store(SMALL)
        return Breaking(body, 100_000, RemoteUnavailable("reset"))

    rig.remote.around = around
    with pytest.raises(RemoteUnavailable, match="all the time"):
        rig.fetch()


# -- digests ------------------------------------------------------------------------------------


class Damaging(MemoryBody):
    def __iter__(self) -> Iterator[bytes]:
        for number, chunk in enumerate(super().__iter__()):
            yield chunk if number else bytes([chunk[0] ^ 1]) + chunk[1:]


def test_damaged_bytes_are_noticed(rig: Rig, tmp_path: Path) -> None:
    rig.remote.around = lambda _, body: Damaging(body.info, body._data)
    rig.store(SMALL)
    with pytest.raises(Corrupt, match="digest"):
        rig.fetch()
    rig.store(LARGE)
    fetched = rig.fetch()
    assert not fetched.verified
    (tmp_path / "f").write_bytes(rig.got)
    with pytest.raises(Corrupt, match="digest"):
        verify_digest(tmp_path / "f", fetched.info)


def test_what_a_file_is_checked_against(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"hello")
    md5 = hashlib.md5(b"hello", usedforsecurity=False).hexdigest()
    sha256 = hashlib.sha256(b"hello").hexdigest()
    for etag, digest in ((md5, None), ("other", sha256), ("0" * 32, sha256), ("x-2", None)):
        verify_digest(path, RemoteObject("k", 5, etag, sha256=digest))
    with path.open("rb") as file:
        file.seek(3)
        verify_digest(file.fileno(), RemoteObject("k", 5, md5))
        assert file.tell() == 3
    for wrong in (
        RemoteObject("k", 6, md5),
        RemoteObject("k", 5, "0" * 32),
        RemoteObject("k", 5, md5, sha256="0" * 64),
    ):
        with pytest.raises(Corrupt):
            verify_digest(path, wrong)


def test_an_object_of_unknown_size_is_taken_as_it_comes(rig: Rig) -> None:
    rig.store(SMALL)

    def around(_: int, body: MemoryBody) -> MemoryBody:
        unknown = MemoryBody(RemoteObject("k", -1, "0" * 32), body._data)
        pieces = list(unknown)
        unknown.length = -1
        unknown.__class__ = type("Unsized", (MemoryBody,), {"__iter__": lambda _: iter(pieces)})
        return unknown

    rig.remote.around = around
    fetched = rig.fetch()
    assert fetched.info.size == SMALL
    assert fetched.verified
    assert rig.got == rig.data
