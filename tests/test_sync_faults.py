"""`sync` when something goes wrong: files that change, servers that fail, processes that die."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from concurrency_rig import Asked
from ingest_rig import counts, fill, in_bucket, options_on, synced, write
from process_rig import load_options, save_options, start
from store_rig import store_of, until

from cachestore.errors import SourceError
from cachestore.events import Event, Uploaded
from cachestore.ingest import SyncReport, sync
from cachestore.ingest.reading import Changing, whole
from cachestore.ingest.scan import source_at
from cachestore.ingest.turns import Turns
from cachestore.local.claims import FOLDER, Claims
from cachestore.model import Attributes
from cachestore.remote.sending import SendCancelled
from cachestore.store import CacheStore
from cachestore.testing.r2 import R2Double


@pytest.fixture
def store(r2_double: R2Double, tmp_path: Path) -> Iterator[CacheStore]:
    with store_of(options_on(tmp_path / "store", r2_double)) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    return made


# -- files that change ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1_000, 3_000_000])
def test_a_file_that_changes_while_it_is_sent_is_sent_again(
    store: CacheStore, folder: Path, r2_double: R2Double, size: int
) -> None:
    write(folder, "a.bin", b"1" * size)
    r2_double.rules.add("slow_headers", method="PUT", key="a.bin", count=1)
    report = Asked(lambda: synced(store, folder))
    r2_double.log.wait_for(1, "PUT", "a.bin")
    until(lambda: r2_double.log.bytes_received("a.bin", "PUT") >= size, "all of the first version")
    write(folder, "a.bin", b"2" * size, age=50)
    r2_double.rules.release()
    assert counts(report.answer()) == (1, 0, 0)
    assert in_bucket(r2_double, "a.bin") == b"2" * size
    assert r2_double.log.count("PUT", status=200) == 2
    r2_double.log.clear()
    assert counts(synced(store, folder)) == (0, 1, 0)
    assert r2_double.log.count() == 0


def test_a_key_that_comes_from_the_bytes_is_that_of_the_bytes_sent(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    write(folder, "a.bin", b"one")
    r2_double.rules.add("slow_headers", method="PUT", count=1)
    report = Asked(lambda: synced(store, folder, template="{hash}{suffix}"))
    r2_double.log.wait_for(1, "PUT")
    until(lambda: r2_double.log.bytes_received("*", "PUT") >= 3, "the first version")
    write(folder, "a.bin", b"two", age=50)
    r2_double.rules.release()
    assert counts(report.answer()) == (1, 0, 0)
    for data in (b"one", b"two"):
        assert in_bucket(r2_double, f"{hashlib.sha256(data).hexdigest()}.bin") == data


def test_no_mixture_of_two_versions_is_ever_stored(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    size = 2_500_000
    path = write(folder, "a.bin", b"0" * size)
    stop, kinds = threading.Event(), set[int]()

    def overwrite() -> None:
        number = 0
        while not stop.wait(0.15):
            number += 1
            # Renamed into place: on a busy machine a write of its own may be found half done.
            new = path.with_suffix(".new")
            new.write_bytes(bytes([number % 250]) * size)
            new.rename(path)

    def look(event: Event) -> None:
        if isinstance(event, Uploaded):
            kinds.add(len(set(in_bucket(r2_double, "a.bin") or b"")))

    store.subscribe(look)
    writer = threading.Thread(target=overwrite)
    writer.start()
    try:
        until(
            lambda: sync(store, folder, exclude=["*.new"]) and r2_double.log.count("PUT") > 4,
            "several versions",
        )
    finally:
        stop.set()
        writer.join()
    assert kinds == {1}
    synced(store, folder, exclude=["*.new"])
    assert in_bucket(r2_double, "a.bin") == path.read_bytes()


@pytest.mark.parametrize("size", [900_000, 2_500_000])
def test_a_file_that_is_written_while_it_is_read_is_not_taken(folder: Path, size: int) -> None:
    path = write(folder, "a.bin", b"1" * size)

    def between_two_reads() -> bool:
        path.write_bytes(b"2" * size)
        return False

    with (
        pytest.raises(Changing),
        whole(source_at(str(folder), "a.bin"), md5=False, cancelled=between_two_reads),
    ):
        pass


def test_a_folder_that_became_a_link_is_not_followed(
    store: CacheStore, folder: Path, tmp_path: Path
) -> None:
    write(folder, "a/secret.txt", b"mine")
    write(tmp_path, "outside/secret.txt", b"secret")

    def swap(step: Any) -> None:
        if not (folder / "a").is_symlink():
            (folder / "a").rename(folder / "b")
            (folder / "a").symlink_to(tmp_path / "outside")

    report = sync(store, folder, progress=swap)
    assert report.uploaded == 0
    assert "symbolic link" in report.errors[0].error


def test_what_is_sent_is_what_was_hashed(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    """In place, with its size and time put back: only the digest can tell."""
    size = 3_000_000
    path = write(folder, "a.bin", b"1" * size)
    source, outside = source_at(str(folder), "a.bin"), store.core.uploader.outside
    with whole(source, md5=False, cancelled=lambda: False) as data:
        before = path.stat()
        path.write_bytes(b"2" * size)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(SourceError, match="changed"):
            outside.put(
                "a.bin", data.body, Attributes("text/plain"), state={},
                save_state=lambda state: None, cancelled=lambda: False,
            )  # fmt: skip
    assert in_bucket(r2_double, "a.bin") is None


def test_a_file_that_goes_away_is_no_failure(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    write(folder, "a.bin", b"a")
    doomed = write(folder, "b.bin", b"b")

    def tell(step: Any) -> None:
        doomed.unlink(missing_ok=True)

    assert counts(synced(store, folder, progress=tell)) == (1, 0, 0)
    assert in_bucket(r2_double, "b.bin") is None


# -- servers that fail ---------------------------------------------------------------------------


def test_half_of_all_requests_fail_and_everything_arrives(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    files = fill(folder, 40)
    rng = random.Random(5)
    faults: list[dict[str, Any]] = [
        {"action": "status", "status": 500, "code": "InternalError"},
        {"action": "status", "status": 503, "code": "SlowDown", "retry_after": 0.01},
        {"action": "reset"},
        {"action": "drop_answer"},
    ]
    for key in files:
        fails = 0
        while rng.random() < 0.5:
            fails += 1
        if fails:
            r2_double.rules.add(**rng.choice(faults), method="PUT", key=key, count=fails)
    r2_double.rules.add("status", method="GET", status=500, code="InternalError", count=2)
    assert counts(synced(store, folder)) == (40, 0, 0)
    for key, data in files.items():
        assert in_bucket(r2_double, key) == data
    assert r2_double.log.count("PUT") > 60


def test_a_refusal_ends_the_run_and_the_next_goes_on(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    fill(folder, 30)
    r2_double.rules.add("status", method="PUT", nth=11, status=403, code="AccessDenied")
    report = sync(store, folder)
    assert report.stopped
    assert not report.complete
    assert report.uploaded == 10
    assert report.failed + report.left == 20
    assert r2_double.log.count("PUT") < 20
    r2_double.rules.clear()
    until(lambda: store.core.remote is not None and _works(store), "the breaker to close")
    again = synced(store, folder)
    assert counts(again) == (20, 10, 0)


def _works(store: CacheStore) -> bool:
    assert store.core.remote is not None
    return store.core.remote.state == "closed" or not list(store.list("nothing"))


def test_a_file_that_is_refused_fails_alone(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    fill(folder, 10)
    r2_double.rules.add(
        "status", method="PUT", key="0/f0003.jpg", status=400, code="EntityTooLarge"
    )
    report = sync(store, folder)
    assert counts(report) == (9, 0, 1)
    assert (report.errors[0].path, report.stopped) == ("0/f0003.jpg", "")


def test_a_file_that_is_being_read_when_the_run_ends_did_not_fail(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    write(folder, "a.bin", b"a" * 3_000_000)
    source = source_at(str(folder), "a.bin")
    turns = Turns(store.options, store.core.clock, 10.0, None)
    turns.stop("interrupted")
    with (
        pytest.raises(SendCancelled),
        whole(source, md5=False, cancelled=turns.is_stopped),
    ):
        pass
    refused = threading.Event()

    def tell(step: Any) -> None:
        if step.what == "failed":
            refused.set()

    fill(folder, 30)
    r2_double.rules.add("status", method="PUT", status=403, code="AccessDenied")
    report = sync(store, folder, progress=tell)
    assert refused.is_set()
    assert {"stopped" in each.error for each in report.errors} == {False}
    assert report.failed + report.left == 31


def test_nothing_listens(folder: Path, r2_double: R2Double, tmp_path: Path) -> None:
    fill(folder, 20)
    options = options_on(tmp_path / "store", r2_double)
    r2_double.close()
    with store_of(options) as store:
        report = sync(store, folder, patience=0.5)
    assert report.stopped
    assert report.uploaded == 0
    assert report.failed + report.left == 20


# -- other writers of the same key ---------------------------------------------------------------


def test_a_put_meanwhile_waits_for_the_request_and_is_the_newest(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    write(folder, "a.txt", b"from the folder")
    r2_double.rules.add("slow_headers", method="PUT", key="a.txt", count=1)
    report = Asked(lambda: sync(store, folder))
    r2_double.log.wait_for(1, "PUT", "a.txt")
    receipt = store.put("a.txt", b"from put")
    other = store.put("b.txt", b"another key is not held up")
    assert other.wait(30) == "uploaded"
    assert r2_double.log.count("PUT", "a.txt") == 1
    assert receipt.state == "pending"
    r2_double.rules.release()
    assert counts(report.answer()) == (1, 0, 0)
    assert receipt.wait(30) == "uploaded"
    assert in_bucket(r2_double, "a.txt") == b"from put"
    assert store.read("a.txt") == b"from put"
    # The file did not change since, so it is no news.
    assert counts(synced(store, folder)) == (0, 1, 0)


def test_a_delete_meanwhile_sticks(store: CacheStore, folder: Path, r2_double: R2Double) -> None:
    write(folder, "a.txt", b"from the folder")
    r2_double.rules.add("slow_headers", method="PUT", key="a.txt", count=1)
    report = Asked(lambda: sync(store, folder))
    r2_double.log.wait_for(1, "PUT", "a.txt")
    store.delete("a.txt")
    r2_double.rules.release()
    report.answer()
    assert store.flush(30).done
    assert in_bucket(r2_double, "a.txt") is None
    assert not store.exists("a.txt")


def test_two_syncs_of_one_folder(
    store: CacheStore, folder: Path, r2_double: R2Double, tmp_path: Path
) -> None:
    files = fill(folder, 40)
    with store_of(store.options) as other:
        both = [Asked(lambda each=each: sync(each, folder)) for each in (store, other)]
        reports: list[SyncReport] = [each.answer() for each in both]
    assert all(report.complete for report in reports), reports
    for key, data in files.items():
        assert in_bucket(r2_double, key) == data


# -- processes that die --------------------------------------------------------------------------


def child_sync(options: str, folder: str) -> None:
    with store_of(load_options(options)) as store:
        sync(store, folder, workers=4)


def _has_sent(double: R2Double, target: int, child: Any) -> bool:
    return double.log.count("PUT", status=200) >= target or child.poll() is not None


def test_killed_at_random_everything_arrives_once(
    folder: Path, r2_double: R2Double, tmp_path: Path
) -> None:
    files = fill(folder, 60)
    options = options_on(tmp_path / "store", r2_double)
    saved = save_options(options, tmp_path / "options")
    rng = random.Random(3)
    kills = 3
    for _ in range(kills):
        target = r2_double.log.count("PUT", status=200) + rng.randint(1, 12)
        with start("test_sync_faults:child_sync", saved, folder) as child:
            until(partial(_has_sent, r2_double, target, child), "some files")
            child.kill()
    with store_of(options) as store:
        report = synced(store, folder)
        assert sum(counts(report)) == 60
        assert report.skipped > 0
    for key, data in files.items():
        assert in_bucket(r2_double, key) == data
    sent = Counter(entry.key for entry in r2_double.log.entries("PUT", status=200))
    assert set(sent) == set(files)
    # Only what was on the wire when a process died may have been sent twice.
    assert sum(sent.values()) <= 60 + 4 * kills


@pytest.mark.parametrize("by", ["sync", "put"])
def test_a_request_of_the_dead_that_comes_late_does_not_stay(
    folder: Path, r2_double: R2Double, tmp_path: Path, by: str
) -> None:
    options = options_on(tmp_path / "store", r2_double, conditional=False, doubt_wait=3.0)
    saved = save_options(options, tmp_path / "options")
    write(folder, "a.txt", b"first")
    r2_double.rules.add("late_commit", method="PUT", key="a.txt", count=1)
    with start("test_sync_faults:child_sync", saved, folder) as child:
        r2_double.log.wait_for(1, "PUT", "a.txt")
        until(lambda: r2_double.log.bytes_received("a.txt", "PUT") == 5, "the whole request")
        child.kill()
    write(folder, "a.txt", b"second", age=50)
    with store_of(options) as store:
        if by == "sync":
            newer = Asked(lambda: synced(store, folder))
        else:
            receipt = store.put("a.txt", b"second")
            newer = Asked(lambda: receipt.wait(60))
        r2_double.log.wait_for(1, "PUT", "a.txt", status=200)
        assert in_bucket(r2_double, "a.txt") == b"second"
        r2_double.rules.release()
        until(lambda: in_bucket(r2_double, "a.txt") == b"first", "the late request")
        newer.answer()
    assert in_bucket(r2_double, "a.txt") == b"second"


def test_a_large_file_goes_on_from_its_last_part(
    folder: Path, r2_double: R2Double, tmp_path: Path
) -> None:
    data = os.urandom(26 << 20)
    write(folder, "big.bin", data)
    options = options_on(tmp_path / "store", r2_double, multipart_threshold=6 << 20, workers=1)
    r2_double.rules.add("status", operation="UploadPart", nth=3, status=403, code="AccessDenied")
    with store_of(options) as store:
        assert sync(store, folder).stopped
    done = r2_double.log.count(operation="UploadPart", status=200)
    assert done == 2
    r2_double.rules.clear()
    with store_of(options) as store:
        assert counts(synced(store, folder)) == (1, 0, 0)
    assert r2_double.log.count(operation="UploadPart", status=200) == 4
    assert r2_double.log.count(operation="CreateMultipartUpload") == 1
    assert in_bucket(r2_double, "big.bin") == data


# -- claims --------------------------------------------------------------------------------------


def test_claims_are_seen_by_all_and_gone_with_their_end(store: CacheStore) -> None:
    core, digest = store.core, "ab" * 32
    one, other = (
        Claims(core.spool.root, core.files, core.clock),
        Claims(core.spool.root, core.files, core.clock),
    )
    claim = one.enter(digest, "1" * 64)
    assert claim is not None
    assert other.look(digest).busy
    assert not other.look("cd" * 32).busy
    assert other.enter(digest, "2" * 64) is None
    assert one.enter(digest, "2" * 64) is None
    one.leave(claim, doubt=True)
    seen = other.look(digest)
    assert not seen.busy
    assert [sha for _, sha in seen.doubts] == ["1" * 64]
    one.settle(digest)
    assert other.look(digest).doubts == ()
    one.close()
    other.close()
    assert list((core.spool.root / FOLDER).iterdir()) == []


def child_claim(options: str, digest: str) -> None:
    core = store_of(load_options(options)).core
    assert Claims(core.spool.root, core.files, core.clock).enter(digest, "1" * 64)
    print("claimed", flush=True)
    time.sleep(600)  # until it is killed


def test_what_the_dead_had_on_the_wire_is_a_doubt(store: CacheStore, tmp_path: Path) -> None:
    core, digest = store.core, "ab" * 32
    saved = save_options(store.options, tmp_path / "options")
    claims = Claims(core.spool.root, core.files, core.clock)
    with start("test_sync_faults:child_claim", saved, digest) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "claimed\n"
        assert claims.look(digest).busy
        child.kill()
        child.wait()
    seen = claims.look(digest)
    assert (seen.busy, len(seen.doubts)) == (False, 1)
    again = claims.look(digest)
    assert again.doubts[0][0] == pytest.approx(seen.doubts[0][0], abs=0.1)
