"""Rule L4: one writer to the remote, one operation of a key at a time, the newest in the end."""

from __future__ import annotations

import itertools
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from upload_rig import Held, Rig, Scripted, until

from cachestore import errors

KEY = "a/b.wav"
ENDS = ["broken off", "answered", "lost after it took effect", "lost before", "late"]


class InFlight(Held):
    """The older request, held while a newer change comes, and then ended in some way."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self._end = end

    def __call__(self, remote: Scripted, name: str, request: Any) -> Any:
        lost = errors.RemoteUnavailable("connection reset")
        if self._end in ("answered", "lost after it took effect", "late"):
            answer = request()
            late = remote._objects.get(KEY)
            if self._end == "late":
                # It takes effect only after the newer request; see `_Late`.
                remote._objects.pop(KEY, None)
                remote.steps.insert(0, _Late(late))
            self._hold()
            if self._end == "answered":
                return answer
            raise lost
        self._hold()
        if self._end == "lost before":
            raise lost
        return request()


class _Late:
    """The newer request, after which the older one arrives."""

    def __init__(self, older: Any) -> None:
        self._older = older

    def __call__(self, remote: Scripted, name: str, request: Any) -> Any:
        answer = request()
        if self._older is not None:
            remote._objects[KEY] = self._older
        return answer


@pytest.mark.parametrize(
    ("end", "change", "conditional"),
    list(itertools.product(ENDS, ["put", "delete"], [True, False])),
)
def test_an_upload_in_flight_never_ends_with_the_older_bytes(
    tmp_path: Path, end: str, change: str, conditional: bool
) -> None:
    held = InFlight(end)
    rig = Rig(tmp_path, Scripted(held, conditional=conditional), doubt_wait=0.2)
    try:
        older = rig.put(KEY, b"older", base_etag="")
        assert held.reached.wait(30)
        newer = rig.put(KEY, b"newest") if change == "put" else rig.delete(KEY)
        held.release.set()
        assert rig.uploader.wait(KEY, newer.id, 60) == "uploaded"
        assert rig.uploader.wait(KEY, older.id, 1) == "superseded"
        assert rig.remote.bytes_of(KEY) == (b"newest" if change == "put" else None)
        assert rig.remote.overlaps == []
        assert rig.uploader.pending() == []
    finally:
        held.release.set()
        rig.uploader.stop(5.0)


def test_the_next_operation_of_a_key_waits_for_the_end_of_the_request(tmp_path: Path) -> None:
    held = Held()
    rig = Rig(tmp_path, Scripted(held), workers=8)
    try:
        rig.put(KEY, b"0")
        assert held.reached.wait(30)
        for number in range(1, 30):
            rig.put(KEY, str(number).encode())
            rig.put(f"other{number}", b"x")
        # All the others go meanwhile, so the workers had every chance.
        until(lambda: rig.remote.count("put") >= 30)
        assert [key for _, key in rig.remote.log].count(KEY) == 1
        held.release.set()
        assert rig.uploader.flush(60).done
        assert rig.remote.bytes_of(KEY) == b"29"
        assert rig.remote.overlaps == []
    finally:
        held.release.set()
        rig.uploader.stop(5.0)


def test_of_many_stores_on_one_folder_only_one_writes(tmp_path: Path) -> None:
    rig = Rig(tmp_path, Scripted())
    stores = [rig.uploader, *(rig.another() for _ in range(4))]
    try:
        for store in stores:
            store.start()
        tickets = [rig.put(f"k{number}", b"x", wake=False) for number in range(40)]
        for store in stores:
            assert store.flush(60).done
        assert sum(store.health()["leading"] for store in stores) == 1
        assert sorted(key for _, key in rig.remote.log) == sorted(t.key for t in tickets)
    finally:
        for store in stores:
            store.stop(5.0)


@pytest.mark.parametrize("seed", range(4))
def test_with_a_remote_that_lies_and_fails_the_newest_is_there_in_the_end(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    guard = threading.Lock()

    def flaky(remote: Scripted, name: str, request: Any) -> Any:
        with guard:
            roll = rng.random()
        if roll < 0.15:
            request()
            raise errors.RemoteUnavailable("the answer was lost")
        if roll < 0.3:
            raise errors.RemoteUnavailable("reset")
        if roll < 0.4:
            raise errors.RemoteUnavailable("busy", status=503)
        return request()

    rig = Rig(
        tmp_path, Scripted(*[flaky] * 5000, conditional=bool(seed % 2)), workers=4,
        doubt_wait=0.05, retry_base=0.005, retry_cap=0.05,
    )  # fmt: skip
    newest: dict[str, bytes | None] = {}
    try:
        for number in range(120):
            key = f"k{rng.randrange(4)}"
            if rng.random() < 0.3:
                newest[key] = None
                rig.delete(key)
            else:
                newest[key] = str(number).encode()
                rig.put(key, str(number).encode())
        rig.remote.steps = [flaky] * 30
        report = rig.uploader.flush(120)
        assert report.done, report
        assert {key: rig.remote.bytes_of(key) for key in newest} == newest
        assert rig.remote.overlaps == []
        assert rig.uploader.pending() == []
    finally:
        rig.uploader.stop(5.0)
