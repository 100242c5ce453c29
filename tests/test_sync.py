"""`sync`: what is new or changed arrives once, what is there is left alone."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ingest_rig import counts, fill, in_bucket, options_on, synced, write
from pydantic import BaseModel
from store_rig import make_options, on_server, store_of

from cachestore.errors import ConfigError
from cachestore.ingest import Progress, SourceFile, sync
from cachestore.model import Attributes
from cachestore.store import CacheStore
from cachestore.testing.r2 import R2Double

JPEG = Attributes("image/jpeg")
DIGEST = hashlib.sha256(b"beat").hexdigest()[:8]


@pytest.fixture
def store(r2_double: R2Double, tmp_path: Path) -> Iterator[CacheStore]:
    with store_of(options_on(tmp_path / "store", r2_double)) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    return made


def writes(double: R2Double) -> int:
    return double.log.count("PUT") + double.log.count("POST")


@contextmanager
def opened_in(folder: Path) -> Iterator[list[str]]:
    """Files of a folder that are opened meanwhile."""
    found: list[str] = []
    watching = True

    def hear(event: str, args: tuple[Any, ...]) -> None:
        if watching and event == "open" and str(args[0]).startswith(f"{folder}{os.sep}"):
            found.append(str(args[0]))

    sys.addaudithook(hear)
    try:
        yield found
    finally:
        watching = False


def test_everything_arrives_and_then_nothing_is_asked(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    files = fill(folder, 40)
    report = synced(store, folder, prefix="cam")
    assert counts(report) == (40, 0, 0)
    assert report.bytes == sum(map(len, files.values()))
    for path, data in files.items():
        assert in_bucket(r2_double, f"cam/{path}") == data
    assert list((store.options.spool_dir).glob("*/*.ticket")) == []
    store.clean()
    r2_double.log.clear()
    with opened_in(folder) as opened:
        assert counts(synced(store, folder, prefix="cam")) == (0, 40, 0)
    assert opened == [], "not even read"
    assert r2_double.log.count() == 0
    # Under another prefix they are other objects.
    assert counts(synced(store, folder, prefix="other/")) == (40, 0, 0)


def test_only_what_changed_is_sent(store: CacheStore, folder: Path, r2_double: R2Double) -> None:
    files = fill(folder, 6)
    synced(store, folder)
    first, second, third, *_ = files
    write(folder, first, b"new bytes")
    write(folder, second, files[second], age=5.0)  # touched: read, and known by its hash
    write(folder, "new.jpg", b"new file")
    (folder / third).unlink()
    r2_double.log.clear()
    assert counts(synced(store, folder)) == (2, 4, 0)
    assert writes(r2_double) == 2
    assert in_bucket(r2_double, first) == b"new bytes"
    assert in_bucket(r2_double, third) == files[third]
    r2_double.log.clear()
    assert counts(synced(store, folder)) == (0, 6, 0)
    assert r2_double.log.count() == 0


def test_without_a_memory_a_listing_is_compared(
    store: CacheStore, folder: Path, r2_double: R2Double, tmp_path: Path
) -> None:
    files = fill(folder, 30)
    big = os.urandom(12 << 20)
    write(folder, "big.bin", big)
    options = options_on(tmp_path / "other", r2_double, multipart_threshold=6 << 20)
    with store_of(options) as other:
        synced(other, folder)
        shutil.rmtree(options.cache_dir)
    changed = next(iter(files))
    write(folder, changed, bytes(len(files[changed])))
    r2_double.log.clear()
    with store_of(options) as other:
        assert counts(synced(other, folder)) == (1, 30, 0)
    assert r2_double.log.count("PUT") == 1
    # One listing, and one look at the large one, whose ETag is no MD5.
    assert r2_double.log.count("GET") == 1
    assert r2_double.log.count("HEAD") == 1


def test_check_compares_what_is_remembered_without_reading_it(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    files = fill(folder, 5)
    synced(store, folder)
    gone, wrong, *_ = files
    store.core.remote.delete(gone)  # type: ignore[union-attr]  # a remote is there
    data = io.BytesIO(files[gone])
    store.core.remote.put(wrong, data, size=len(files[gone]), sha256="", attributes=JPEG)  # type: ignore[union-attr]  # as above
    assert counts(synced(store, folder)) == (0, 5, 0)
    assert counts(synced(store, folder, check=True)) == (2, 3, 0)
    assert in_bucket(r2_double, gone) == files[gone]
    assert in_bucket(r2_double, wrong) == files[wrong]


def test_since_limit_patterns_and_dry_run(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    for number in range(10):
        write(folder, f"f{number}.jpg", bytes([number]), age=3600.0 * number + 60)
    write(folder, "notes.txt", b"x")
    write(folder, "drafts/d.jpg", b"d")
    dry = sync(store, folder, include=["*.jpg"], dry_run=True)
    assert (dry.uploaded, dry.dry_run, dry.complete) == (11, True, False)
    assert writes(r2_double) == 0
    asked: dict[str, Any] = {"include": ["*.jpg"], "exclude": ["drafts/"]}
    report = sync(store, folder, since=3.5 * 3600, limit=2, **asked)
    assert (report.uploaded, report.left, report.complete) == (2, 2, False)
    # The oldest first, so that repeated calls get through.
    assert sorted(item.key for item in store.list()) == ["f2.jpg", "f3.jpg"]
    report = sync(store, folder, since=3.5 * 3600, limit=2, **asked)
    assert (report.uploaded, report.skipped, report.left) == (2, 2, 0)
    assert report.complete
    assert counts(synced(store, folder, **asked)) == (6, 4, 0)
    assert counts(synced(store, folder)) == (2, 10, 0)


def test_links_and_the_stores_own_folders_are_never_taken(
    folder: Path, r2_double: R2Double, tmp_path: Path
) -> None:
    outside = write(tmp_path, "outside/secret.txt", b"secret")
    write(folder, "a.txt", b"a")
    (folder / "link.txt").symlink_to(outside)
    (folder / "linked").symlink_to(outside.parent)
    os.mkfifo(folder / "pipe")
    with store_of(options_on(folder / "store", r2_double)) as store:
        store.put("stored.txt", b"stored").wait(30)
        assert counts(synced(store, folder)) == (1, 0, 0)
        for own in (store.options.spool_dir, store.options.cache_dir / "deep"):
            own.mkdir(parents=True, exist_ok=True)
            with pytest.raises(ConfigError, match="own folder"):
                sync(store, own)
        with pytest.raises(ConfigError, match="not a folder"):
            sync(store, folder / "a.txt")
        assert sorted(item.key for item in store.list()) == ["a.txt", "stored.txt"]


def test_names_that_make_no_key_fail_alone(store: CacheStore, folder: Path) -> None:
    write(folder, "good.txt", b"good")
    write(folder, "bad\nname.txt", b"bad")
    write(folder, "a/x.txt", b"1")
    write(folder, "b/x.txt", b"2")
    report = sync(store, folder, template="{name}")
    assert counts(report) == (2, 0, 2)
    assert not report.complete
    words = " ".join(error.error for error in report.errors)
    assert "control character" in words
    assert "same key 'x.txt'" in words


# -- sidecars and templates ----------------------------------------------------------------------


def test_a_sidecar_goes_behind_its_file_and_tells_its_time(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    document = json.dumps({"timestamp": "2026-01-15T08:30:22"}).encode()
    write(folder, "event_side.jpg", b"image", age=50)
    write(folder, "event_side.json", document, age=100)
    write(folder, "alone.json", b"{}")
    report = synced(
        store, folder, template="snapshots/{mtime:%Y}/{mtime:%m}/{name}", include=["event*.jpg"]
    )
    assert counts(report) == (2, 0, 0)
    order = [entry.key for entry in r2_double.log.entries("PUT")]
    assert order == [f"snapshots/2026/01/event_side.{end}" for end in ("jpg", "json")]
    assert in_bucket(r2_double, order[1]) == document


def test_a_sidecar_that_changes_alone_keeps_its_key(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    asked: dict[str, Any] = {"template": "{mtime:%Y}/{name}", "time_field": "at"}
    write(folder, "x.jpg", b"image", age=500)
    write(folder, "x.json", b'{"at": "2001-01-01"}', age=500)
    synced(store, folder, **asked)
    write(folder, "x.json", b'{"at": "2001-01-01", "labels": []}', age=5)
    assert counts(synced(store, folder, since=100, **asked)) == (1, 0, 0)
    assert in_bucket(r2_double, "2001/x.json") == b'{"at": "2001-01-01", "labels": []}'
    assert [item.key for item in store.list()] == ["2001/x.jpg", "2001/x.json"]
    assert counts(synced(store, folder, **asked)) == (0, 2, 0)


def test_a_sidecar_waits_for_its_file(store: CacheStore, folder: Path, r2_double: R2Double) -> None:
    write(folder, "x.jpg", b"image")
    write(folder, "x.json", b"{}")
    r2_double.rules.add("status", method="PUT", key="x.jpg", status=400, code="InvalidRequest")
    report = sync(store, folder)
    assert counts(report) == (0, 0, 2)
    assert "behind its file" in report.errors[1].error
    assert in_bucket(r2_double, "x.json") is None
    r2_double.rules.clear()
    assert counts(synced(store, folder)) == (2, 0, 0)


def test_a_hash_in_the_key_is_read_once(store: CacheStore, folder: Path) -> None:
    write(folder, "a.mp3", b"beat")
    write(folder, "a.json", b"{}")
    report = synced(store, folder, template="projects/{stem}_{hash:.8}{suffix}")
    assert counts(report) == (2, 0, 0)
    listed = [item.key for item in store.list("projects/")]
    assert listed == [f"projects/a_{DIGEST}.json", f"projects/a_{DIGEST}.mp3"]
    assert counts(synced(store, folder, template="projects/{stem}_{hash:.8}{suffix}")) == (0, 2, 0)


def test_two_files_with_one_key_by_their_hash_fail_unless_they_are_equal(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    write(folder, "a.txt", b"same")
    write(folder, "b.txt", b"same")
    assert sum(counts(synced(store, folder, template="x/{hash:.0}all{suffix}"))) == 2
    write(folder, "c.txt", b"other")
    report = sync(store, folder, template="x/{hash:.0}all{suffix}")
    assert counts(report) == (0, 2, 1)
    assert "same key 'x/all.txt'" in report.errors[0].error
    assert in_bucket(r2_double, "x/all.txt") == b"same"


class Snapshot(BaseModel):
    id: str
    bytes: int
    taken: str
    labels: list[str]


def test_documents_are_made_from_a_template_and_checked(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    write(folder, "event_20260115_083022.jpg", b"image")
    write(folder, "told.jpg", b"image two")
    write(folder, "told.json", b'{"mine": true}')
    template = {
        "id": "{stem}", "bytes": "{size}", "taken": "{mtime:%Y-%m-%d}", "labels": ["{content_type}"]
    }  # fmt: skip
    asked: dict[str, Any] = {
        "write_sidecar": template, "sidecar_model": Snapshot, "time_pattern": "%Y%m%d_%H%M%S"
    }  # fmt: skip
    assert counts(synced(store, folder, **asked)) == (4, 0, 0)
    made = json.loads(in_bucket(r2_double, "event_20260115_083022.json") or b"")
    assert made == {
        "id": "event_20260115_083022", "bytes": 5, "taken": "2026-01-15", "labels": ["image/jpeg"]
    }  # fmt: skip
    assert json.loads(in_bucket(r2_double, "told.json") or b"") == {"mine": True}
    assert list(folder.glob("event*.json")) == []  # the folder stays as it was
    r2_double.log.clear()
    assert counts(synced(store, folder, **asked)) == (0, 4, 0)
    assert r2_double.log.count() == 0


def test_a_callable_makes_documents_and_its_faults_are_named(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    write(folder, "a.jpg", b"image")
    write(folder, "b.jpg", b"other")

    def made(source: SourceFile) -> Any:
        if source.relative == "b.jpg":
            raise RuntimeError("no model for this one")
        return Snapshot(id=source.sha256[:4], bytes=source.size, taken=source.key, labels=[])

    report = sync(store, folder, write_sidecar=made)
    assert counts(report) == (3, 0, 1)
    assert "no model for this one" in report.errors[0].error
    assert json.loads(in_bucket(r2_double, "a.json") or b"")["taken"] == "a.jpg"
    wrong = sync(store, folder, write_sidecar=lambda source: {"id": 1}, sidecar_model=Snapshot)
    assert "not valid" in wrong.errors[0].error
    with pytest.raises(ConfigError, match="unknown field"):
        sync(store, folder, write_sidecar={"id": "{nothing}"})


# -- what is here already ------------------------------------------------------------------------


def test_older_copies_here_are_void(store: CacheStore, folder: Path, r2_double: R2Double) -> None:
    store.put("a.txt", b"old").wait(30)
    assert store.get("a.txt").read_bytes() == b"old"
    assert store.exists("b.txt") is False
    write(folder, "a.txt", b"new")
    write(folder, "b.txt", b"b")
    synced(store, folder)
    assert store.get("a.txt").read_bytes() == b"new"
    assert store.head("a.txt").size == 3
    assert store.exists("b.txt")


def test_an_older_copy_is_void_too_where_the_bucket_had_the_file_already(
    store: CacheStore, folder: Path, r2_double: R2Double, tmp_path: Path
) -> None:
    """As after a sync that was killed between the upload and what follows."""
    store.put("a.txt", b"old").wait(30)
    assert store.read("a.txt") == b"old"
    write(folder, "a.txt", b"new")
    with store_of(options_on(tmp_path / "elsewhere", r2_double)) as other:
        synced(other, folder)
    assert store.read("a.txt") == b"old"  # fresh for a day, as nobody told us
    assert counts(synced(store, folder)) == (0, 1, 0)
    assert store.read("a.txt") == b"new"


def test_a_pending_put_goes_first(folder: Path, r2_double: R2Double, tmp_path: Path) -> None:
    options = options_on(tmp_path / "store", r2_double)
    write(folder, "a.txt", b"from the folder")
    with store_of(options) as store:
        r2_double.rules.add("stall", method="PUT", key="a.txt", at=0, count=1, seconds=0.5)
        store.put("a.txt", b"from put")
        assert counts(synced(store, folder)) == (1, 0, 0)
        assert not store.pending()
    sent = [entry.received for entry in r2_double.log.entries("PUT", "a.txt")]
    assert sent == [len(b"from put"), len(b"from the folder")]
    assert in_bucket(r2_double, "a.txt") == b"from the folder"


def test_a_put_that_needs_a_person_is_not_overtaken(
    store: CacheStore, folder: Path, r2_double: R2Double
) -> None:
    r2_double.rules.add("status", method="PUT", key="a.txt", status=400, code="InvalidRequest")
    assert store.put("a.txt", b"kept").wait(30) == "parked"
    r2_double.rules.clear()
    write(folder, "a.txt", b"from the folder")
    report = sync(store, folder)
    assert counts(report) == (0, 0, 1)
    assert "needs a person" in report.errors[0].error
    assert store.read("a.txt") == b"kept"
    store.retry()
    assert store.flush(30).done
    assert counts(synced(store, folder)) == (1, 0, 0)


# -- other modes ---------------------------------------------------------------------------------


def test_in_local_mode_files_are_put_into_local_dir(folder: Path, tmp_path: Path) -> None:
    files = fill(folder, 8)
    write(folder, "big.bin", bytes(3 << 20))
    with store_of(make_options(tmp_path / "store")) as store:
        assert counts(synced(store, folder, prefix="in")) == (9, 0, 0)
        for path, data in files.items():
            assert (store.options.local_dir / "in" / path).read_bytes() == data
        assert counts(synced(store, folder, prefix="in")) == (0, 9, 0)
        shutil.rmtree(store.options.cache_dir)
    with store_of(make_options(tmp_path / "store")) as store:
        assert counts(synced(store, folder, prefix="in")) == (0, 9, 0)
        write(folder, next(iter(files)), b"changed")
        assert counts(synced(store, folder, prefix="in")) == (1, 8, 0)


def test_what_local_mode_took_is_uploaded_once_when_r2_is_on(
    folder: Path, r2_double: R2Double, tmp_path: Path
) -> None:
    files = fill(folder, 6)
    options = options_on(tmp_path / "store", r2_double)
    with store_of(make_options(tmp_path / "store", remote=options.remote)) as store:
        synced(store, folder)
    with store_of(options) as store:
        report = synced(store, folder)
        assert report.uploaded + report.skipped == 6
        assert store.flush(30).done
    assert sorted(entry.key for entry in r2_double.log.entries("PUT")) == sorted(files)


def test_keys_that_stay_here_stay_here(folder: Path, r2_double: R2Double, tmp_path: Path) -> None:
    write(folder, "samples/a.wav", b"a")
    write(folder, "songs/b.wav", b"b")
    options = options_on(tmp_path / "store", r2_double, local_only_prefixes=("samples/",))
    with store_of(options) as store:
        assert counts(synced(store, folder)) == (2, 0, 0)
        assert counts(synced(store, folder)) == (0, 2, 0)
        assert store.read("samples/a.wav") == b"a"
    assert [entry.key for entry in r2_double.log.entries("PUT")] == ["songs/b.wav"]


@pytest.mark.servers
def test_on_every_server(s3_server: Any, bucket: str, folder: Path, tmp_path: Path) -> None:
    files = fill(folder, 12)
    write(folder, "ümläut/ß 1.txt", b"unicode")
    options = on_server(tmp_path / "store", s3_server, bucket)
    with store_of(options) as store:
        assert counts(synced(store, folder)) == (13, 0, 0)
    shutil.rmtree(options.cache_dir)
    with store_of(options) as store:
        assert counts(synced(store, folder)) == (0, 13, 0)
        for path, data in files.items():
            assert store.read(path) == data


def test_progress_adds_up(store: CacheStore, folder: Path) -> None:
    files = fill(folder, 10)
    steps: list[Progress] = []
    synced(store, folder, progress=steps.append)
    assert [step.what for step in steps] == ["planned", *["uploaded"] * 10]
    assert [step.done for step in steps] == list(range(11))
    assert {step.total for step in steps} == {10}
    assert steps[-1].bytes_done == steps[-1].bytes_total == sum(map(len, files.values()))
    assert {step.key for step in steps[1:]} == set(files)


def test_the_code_of_the_page_runs(store: CacheStore, tmp_path: Path) -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "sync.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 2
    write(tmp_path, "snapshots/event_side.jpg", b"image")
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        names: dict[str, Any] = {"store": store}
        for block in blocks:
            exec(compile(block, str(page), "exec"), names)
    finally:
        os.chdir(before)
    keys = [item.key for item in store.list()]
    assert keys == ["event_side.jpg", "event_side.json", "snapshots/event_side.jpg"]
