"""`sync` beside others: what is pending, what may come late, what is remembered of a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from concurrency_rig import Asked
from ingest_rig import counts, in_bucket, options_on, synced, write
from process_rig import save_options, start
from store_rig import Shifted, store_of, until

from cachestore.clock import Clock
from cachestore.files import Files
from cachestore.ingest import sync
from cachestore.ingest.reading import _is_at
from cachestore.local.claims import FOLDER, KEPT, Claims
from cachestore.store import CacheStore
from cachestore.testing.clock import FakeClock
from cachestore.testing.r2 import R2Double

DIGEST = "ab" * 32


@pytest.fixture
def store(r2_double: R2Double, tmp_path: Path) -> Iterator[CacheStore]:
    with store_of(options_on(tmp_path / "store", r2_double)) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    return made


# -- what the bucket has already -----------------------------------------------------------------


@pytest.mark.parametrize("pending", ["delete", "put"])
def test_what_the_bucket_has_still_is_no_news_while_a_change_of_it_is_pending(
    store: CacheStore, folder: Path, r2_double: R2Double, pending: str
) -> None:
    store.put("a.txt", b"from the folder", durability="remote")
    write(folder, "a.txt", b"from the folder")
    method = "DELETE" if pending == "delete" else "PUT"
    r2_double.rules.add("status", method=method, key="a.txt", status=503, code="SlowDown")
    if pending == "delete":
        store.delete("a.txt")
    else:
        store.put("a.txt", b"from put")
    r2_double.log.wait_for(1, method, "a.txt")
    listed = r2_double.log.count("GET")
    report = Asked(lambda: synced(store, folder))
    until(lambda: r2_double.log.count("GET") > listed, "the listing")
    r2_double.rules.clear()
    assert counts(report.answer()) == (1, 0, 0)
    assert store.flush(30).done
    assert in_bucket(r2_double, "a.txt") == b"from the folder"


def child_sync(options: str, folder: str) -> None:
    from process_rig import load_options

    with store_of(load_options(options)) as store:
        sync(store, folder, workers=4)


def test_a_late_request_of_the_dead_takes_nothing_away_that_was_there_already(
    folder: Path, r2_double: R2Double, tmp_path: Path
) -> None:
    options = options_on(tmp_path / "store", r2_double, conditional=False, doubt_wait=3.0)
    saved = save_options(options, tmp_path / "options")
    with store_of(options) as store:
        store.put("a.txt", b"second", durability="remote")
    write(folder, "a.txt", b"first")
    r2_double.rules.add("late_commit", method="PUT", key="a.txt", count=1)
    with start("test_sync_order:child_sync", saved, folder) as child:
        until(
            lambda: r2_double.log.bytes_received("a.txt", "PUT") == len(b"second") + len(b"first"),
            "the whole request",
        )
        child.kill()
    write(folder, "a.txt", b"second", age=50)
    with store_of(options) as store:
        listed = r2_double.log.count("GET")
        newer = Asked(lambda: synced(store, folder))
        until(lambda: r2_double.log.count("GET") > listed, "the listing")
        assert in_bucket(r2_double, "a.txt") == b"second"
        r2_double.rules.release()
        until(lambda: in_bucket(r2_double, "a.txt") == b"first", "the late request")
        report = newer.answer()
    assert counts(report) == (1, 0, 0)
    assert in_bucket(r2_double, "a.txt") == b"second"


# -- what is remembered --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["in place", "another file with its inode number"])
def test_a_file_with_its_size_and_time_put_back_is_read_again(
    store: CacheStore, folder: Path, r2_double: R2Double, how: str
) -> None:
    path = write(folder, "a.bin", b"1" * 1000)
    assert counts(synced(store, folder)) == (1, 0, 0)
    before = path.stat()
    if how == "in place":
        path.write_bytes(b"2" * 1000)
    else:
        path.unlink()
        spare: list[Path] = []
        while True:
            path.write_bytes(b"2" * 1000)
            if path.stat().st_ino == before.st_ino:
                break
            spare.append(path.rename(path.with_name(f".spare{len(spare)}")))
            if len(spare) > 50:
                pytest.skip("this file system does not use inode numbers again")
        for each in spare:
            each.unlink()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert counts(synced(store, folder)) == (1, 0, 0)
    assert in_bucket(r2_double, "a.bin") == b"2" * 1000


def test_a_file_that_was_touched_alone_is_read_and_not_sent(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    path = write(folder, "a.bin", b"1" * 1000)
    synced(store, folder)
    r2_double.log.clear()
    path.chmod(0o640)
    assert counts(synced(store, folder)) == (0, 1, 0)
    assert r2_double.log.count() == 0


def test_a_large_file_goes_on_within_a_run(
    store: CacheStore, folder: Path, r2_double: R2Double, tmp_path: Path
) -> None:
    data = os.urandom(21 << 20)
    write(folder, "big.bin", data)
    options = options_on(tmp_path / "other", r2_double, multipart_threshold=6 << 20, workers=1)
    r2_double.rules.add("status", operation="UploadPart", nth=3, status=500, count=1)
    with store_of(options) as other:
        assert counts(synced(other, folder)) == (1, 0, 0)
    assert r2_double.log.count(operation="CreateMultipartUpload") == 1
    assert in_bucket(r2_double, "big.bin") == data


def test_an_open_file_that_is_not_the_one_at_its_path_is_told(folder: Path) -> None:
    """As when a folder on the way was a link for a moment."""
    path, other = write(folder, "a.bin", b"a"), write(folder, "b.bin", b"b")
    with other.open("rb") as file:
        assert not _is_at(file.fileno(), os.path.realpath(path))
        assert _is_at(file.fileno(), os.path.realpath(other))


# -- claims --------------------------------------------------------------------------------------


class Failing(Files):
    """Writes into slots fail while it is told so."""

    def __init__(self) -> None:
        self.fails = False

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        if self.fails:
            raise OSError(28, "no space left on device")
        super().pwrite(fd, data, offset)


def claims_of(store: CacheStore, files: Files | None = None, clock: Clock | None = None) -> Claims:
    core = store.core
    return Claims(core.spool.root, files or core.files, clock or core.clock)


def test_a_claim_that_could_not_be_written_is_none(store: CacheStore) -> None:
    files = Failing()
    claims = claims_of(store, files)
    first = claims.enter("cd" * 32, "1" * 64)
    assert first is not None
    files.fails = True
    with pytest.raises(OSError, match="no space"):
        claims.enter(DIGEST, "1" * 64)
    files.fails = False
    assert not claims.look(DIGEST).busy
    again = claims.enter(DIGEST, "1" * 64)
    assert again is not None
    for claim in (first, again):
        claims.leave(claim)
    claims.close()


def test_a_claim_whose_end_could_not_be_written_holds_up_nobody(store: CacheStore) -> None:
    files = Failing()
    claims, other = claims_of(store, files), claims_of(store)
    claim = claims.enter(DIGEST, "1" * 64)
    assert claim is not None
    files.fails = True
    claims.leave(claim)
    files.fails = False
    assert not claims.look(DIGEST).busy
    again = claims.enter(DIGEST, "2" * 64)
    assert again is not None
    claims.leave(again)
    assert not other.look(DIGEST).busy
    claims.close()


def test_doubts_take_no_more_room_than_there_are_keys_and_are_forgotten(store: CacheStore) -> None:
    clock = FakeClock()
    claims = claims_of(store, clock=clock)

    def room() -> int:
        (file,) = (store.core.spool.root / FOLDER).glob("*.claims")
        return file.stat().st_size

    for _ in range(20):
        claim = claims.enter(DIGEST, "1" * 64)
        assert claim is not None
        claims.leave(claim, doubt=True)
    assert room() <= 2 * 160
    assert len(claims.look(DIGEST).doubts) == 1
    for round_ in range(3):
        clock.advance(KEPT + 1)
        for number in range(20):
            claim = claims.enter(f"{round_:02x}{number:062x}", "1" * 64)
            assert claim is not None
            claims.leave(claim, doubt=True)
    assert room() <= 22 * 160
    claims.close()


def test_a_doubt_by_a_clock_that_was_ahead_costs_no_more_than_another(store: CacheStore) -> None:
    ahead = claims_of(store, clock=Shifted(30 * 86400))
    claim = ahead.enter(store.core.spool.place("a.txt").digest, "1" * 64)
    assert claim is not None
    ahead.leave(claim, doubt=True)
    for _ in range(2):
        assert store.put("a.txt", b"ours").wait(20) == "uploaded"
    ahead.close()
