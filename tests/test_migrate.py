"""`migrate`: everything arrives, nothing newer is lost, and both sides are compared."""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from concurrency_rig import Asked
from ingest_rig import fill, in_bucket, options_on, write
from process_rig import finish, save_options, start
from servers import client_of
from store_rig import make_options, on_server, store_of, until
from transfer_rig import bucket_of, files_in, fill_bucket, in_parts, objects, shown

from cachestore.errors import ConfigError, NotFound, RemoteUnavailable
from cachestore.ingest import Interrupted, MigrateReport, Progress, export, migrate, migrate_back
from cachestore.model import Attributes
from cachestore.remote.directory import DirectoryRemote
from cachestore.store import CacheStore
from cachestore.testing.r2 import R2Double

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture
def store(r2_double: R2Double, tmp_path: Path) -> Iterator[CacheStore]:
    with store_of(options_on(tmp_path / "store", r2_double)) as opened:
        yield opened


@pytest.fixture
def old() -> Iterator[R2Double]:
    """Another bucket, on another server."""
    with R2Double() as double:
        yield double


def no_orphans(report: MigrateReport) -> None:
    assert (report.only_source, report.only_target) == ((), ())


# -- another bucket ------------------------------------------------------------------------------


def test_a_bucket_moves_with_all_that_goes_with_its_files(
    store: CacheStore, r2_double: R2Double, old: R2Double
) -> None:
    made = objects(12) | {"cam/empty": b""}
    fill_bucket(old, made)
    in_parts(old, "cam/film.mp4", film := os.urandom(7 << 20))
    remote = bucket_of(old)
    dry = migrate(store, remote, dry_run=True)
    assert (shown(dry), dry.complete, r2_double.log.count("PUT")) == ((14, 0, 0), False, 0)
    assert len(dry.only_source) == 14
    steps: list[Progress] = []
    report = migrate(store, remote, verify=True, progress=steps.append)
    assert shown(report) == (14, 0, 0)
    assert (report.verified, report.unproven, report.complete) == (14, (), True)
    no_orphans(report)
    assert (steps[0].what, steps[0].total, steps[-1].done) == ("planned", 14, 14)
    for key, data in (made | {"cam/film.mp4": film}).items():
        assert in_bucket(r2_double, key) == data
    info = bucket_of(r2_double).head("cam/0/f0000.jpg")
    assert (info.content_type, info.metadata, info.cache_control) == (
        "image/jpeg", {"who": "Jürgen"}, "max-age=60",
    )  # fmt: skip
    # Nothing went through the spool or the cache, and nothing is copied twice.
    assert store.health()["cache"]["entries"] == 0
    for log in (r2_double.log, old.log):
        log.clear()
    assert shown(migrate(store, remote)) == (0, 14, 0)
    assert old.log.count("GET", "cam/*") == 0
    (store.core.cache.root / "synced.db").unlink()
    assert shown(migrate(store, remote)) == (0, 14, 0)
    assert r2_double.log.count("PUT") + r2_double.log.count("POST") == 0


def test_what_is_newer_in_the_target_is_never_replaced(
    store: CacheStore, r2_double: R2Double, old: R2Double
) -> None:
    made = {f"{name}.txt": b"old " + name.encode() for name in ("a", "b", "c", "d", "e")}
    fill_bucket(old, made)
    fill_bucket(r2_double, {"a.txt": b"new, of the app", "b.txt": b"old b"})
    r2_double.rules.add("status", method="PUT", key="c.txt")
    store.put("c.txt", b"pending, of the app")

    def overtake(step: Progress) -> None:
        if step.what == "planned":  # listed already
            fill_bucket(r2_double, {"d.txt": b"faster than we"})

    report = migrate(store, bucket_of(old), progress=overtake)
    assert shown(report) == (1, 1, 2)
    assert (report.conflicts, report.left, report.complete) == (("a.txt", "d.txt"), 1, False)
    r2_double.rules.clear()
    assert store.flush(60).done
    assert [in_bucket(r2_double, key) for key in made] == [
        b"new, of the app", b"old b", b"pending, of the app", b"faster than we", b"old e",
    ]  # fmt: skip
    # What an earlier run brought may follow its source.
    fill_bucket(old, {"e.txt": b"a newer e"})
    assert shown(migrate(store, bucket_of(old))) == (1, 1, 3)
    assert in_bucket(r2_double, "e.txt") == b"a newer e"
    report = migrate(store, bucket_of(old), overwrite=True, verify=True)
    assert (shown(report), report.verified) == ((3, 2, 0), 5)
    assert in_bucket(r2_double, "d.txt") == b"old d"


def test_equal_files_are_remembered_each_for_itself(
    store: CacheStore, r2_double: R2Double, old: R2Double
) -> None:
    fill_bucket(old, {"a.txt": b"equal", "b.txt": b"equal"})
    assert shown(migrate(store, bucket_of(old))) == (2, 0, 0)
    fill_bucket(old, {"a.txt": b"newer", "b.txt": b"newer"})
    assert shown(migrate(store, bucket_of(old))) == (2, 0, 0)
    assert in_bucket(r2_double, "a.txt") == in_bucket(r2_double, "b.txt") == b"newer"


def test_the_same_where_the_host_knows_no_conditions(
    r2_double: R2Double, old: R2Double, tmp_path: Path
) -> None:
    fill_bucket(old, {"a.txt": b"old", "b.txt": b"old"})

    def overtake(step: Progress) -> None:
        if step.what == "planned":
            fill_bucket(r2_double, {"a.txt": b"faster"})

    with store_of(options_on(tmp_path / "store", r2_double, conditional=False)) as store:
        report = migrate(store, bucket_of(old), progress=overtake)
    assert (shown(report), report.conflicts) == ((1, 0, 1), ("a.txt",))
    assert in_bucket(r2_double, "a.txt") == b"faster"


def test_orphans_markers_and_keys_that_are_none(r2_double: R2Double, tmp_path: Path) -> None:
    source = DirectoryRemote(tmp_path / "mock")
    for key in ("songs/a", "songs/", "songs//b", "samples/s", "other"):
        data = b"" if key.endswith("/") else b"data"
        source.put(
            key, io.BytesIO(data), size=len(data), sha256="", attributes=Attributes("text/plain")
        )
    fill_bucket(r2_double, {"songs/mine": b"only here", "elsewhere": b"not asked for"})
    options = options_on(tmp_path / "store", r2_double, local_only_prefixes=("samples/",))
    with store_of(options) as store:
        report = migrate(store, source, prefix="songs/")
        assert (shown(report), report.only_target) == ((1, 0, 1), ("songs/mine",))
        assert [error.path for error in report.errors] == ["songs//b"]
        assert [each.path for each in report.ignored] == ["songs/"]
        report = migrate(store, source)
        assert [each.path for each in report.ignored] == ["samples/s", "songs/"]
    assert in_bucket(r2_double, "samples/s") is None
    assert in_bucket(r2_double, "songs/mine") == b"only here"


def test_faults_of_both_servers_are_tried_again(
    store: CacheStore, r2_double: R2Double, old: R2Double
) -> None:
    made = objects(6, prefix="") | {"big.bin": os.urandom(2_000_000)}
    fill_bucket(old, made)
    old.rules.add("corrupt", method="GET", key="big.bin", at=1_000_000, count=1)
    old.rules.add("status", method="GET", key="*f0001*", count=2)
    r2_double.rules.add("drop_answer", method="PUT", key="*f0002*", count=1)
    r2_double.rules.add("status", method="PUT", key="*f0003*", count=2)
    report = migrate(store, bucket_of(old), verify=True)
    assert (shown(report), report.verified) == ((7, 0, 0), 7)
    r2_double.rules.add("status", method="PUT", status=403, code="AccessDenied")
    fill_bucket(old, objects(9, prefix="more/"))
    report = migrate(store, bucket_of(old))
    assert report.stopped
    assert (report.skipped, report.copied, report.complete) == (7, 0, False)
    assert report.failed + report.left == 9


# -- a folder ------------------------------------------------------------------------------------


def test_a_folder_and_what_verify_finds(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    files = fill(folder, 10)
    write(folder, "big.bin", os.urandom(2_000_000))
    report = migrate(store, folder, prefix="cam", verify=True)
    assert (shown(report), report.verified, report.complete) == ((11, 0, 0), 11, True)
    assert all(in_bucket(r2_double, f"cam/{path}") == data for path, data in files.items())
    r2_double.log.clear()
    assert shown(migrate(store, folder, prefix="cam")) == (0, 11, 0)
    assert r2_double.log.count() == 1  # one listing
    # Same length, other bytes, and a time that says that nothing happened: the inode's tells.
    path = next(iter(files))
    info = (folder / path).stat()
    with (folder / path).open("r+b") as file:
        file.write(bytes(len(files[path])))
    os.utime(folder / path, ns=(info.st_mtime_ns, info.st_mtime_ns))
    assert shown(migrate(store, folder, prefix="cam")) == (1, 10, 0)
    assert in_bucket(r2_double, f"cam/{path}") == bytes(len(files[path]))
    client_of(r2_double).put_object(
        Bucket=r2_double.bucket, Key=f"cam/{path}", Body=b"\1" * len(files[path])
    )
    report = migrate(store, folder, prefix="cam", verify=True)
    assert (report.verified, report.complete) == (10, False)
    assert f"cam/{path}" in str(report)
    with pytest.raises(ConfigError, match="not a folder"):
        migrate(store, tmp_path / "nowhere")


def test_a_file_that_changes_while_it_is_copied(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    write(folder, "a.bin", b"1" * 3_000_000)
    r2_double.rules.add("slow_headers", method="PUT", key="a.bin", count=1)

    report = Asked(lambda: migrate(store, folder))
    until(lambda: r2_double.log.bytes_received("a.bin", "PUT") >= 3_000_000, "the first version")
    write(folder, "a.bin", b"2" * 3_000_000, age=50)
    r2_double.rules.release()
    assert shown(report.answer()) == (1, 0, 0)
    assert in_bucket(r2_double, "a.bin") == b"2" * 3_000_000


def test_a_killed_migration_goes_on_where_it_stopped(r2_double: R2Double, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    files = fill(folder, 40)
    options = options_on(tmp_path / "store", r2_double)
    saved = save_options(options, tmp_path / "options")
    r2_double.rules.add("hang", method="PUT", key="2/f0038*")
    child = start("transfer_rig:migrate_child", saved, folder)
    try:
        r2_double.log.wait_for(12, "PUT", status=200)
        child.send_signal(signal.SIGKILL)
        child.wait(60)
    finally:
        child.kill()
        child.communicate()
    r2_double.rules.clear()
    there = {item.key for page in bucket_of(r2_double).list() for item in page.objects}
    r2_double.log.clear()
    children = [start("transfer_rig:migrate_child", saved, folder) for _ in range(2)]
    sums = [[int(word) for word in finish(child).split()] for child in children]
    assert all(copied + skipped == 40 and not failed for copied, skipped, failed in sums)
    for path, data in files.items():
        assert in_bucket(r2_double, path) == data
    # What had arrived was not sent again.
    assert not [entry for entry in r2_double.log.entries("PUT", status=200) if entry.key in there]


def test_a_request_of_the_dead_that_comes_late_does_not_stay(
    r2_double: R2Double, tmp_path: Path
) -> None:
    options = options_on(tmp_path / "store", r2_double, conditional=False, doubt_wait=6.0)
    saved, folder = save_options(options, tmp_path / "options"), tmp_path / "in"
    write(folder, "a.txt", b"first")
    r2_double.rules.add("late_commit", method="PUT", key="a.txt", count=1)
    child = start("transfer_rig:migrate_child", saved, folder)
    try:
        until(lambda: r2_double.log.bytes_received("a.txt", "PUT") == 5, "the whole request")
    finally:
        child.kill()
        child.communicate()
    write(folder, "a.txt", b"second", age=50)
    with store_of(options) as store:
        report = Asked(lambda: migrate(store, folder))
        r2_double.log.wait_for(1, "PUT", "a.txt", status=200)
        r2_double.rules.release()
        assert shown(report.answer()) == (1, 0, 0)
    r2_double.log.wait_for(3, "PUT", "a.txt", status=200)
    assert in_bucket(r2_double, "a.txt") == b"second"


def test_ctrl_c(store: CacheStore, tmp_path: Path) -> None:
    fill(tmp_path / "in", 20)

    def interrupt(step: Progress) -> None:
        if step.what == "copied" and step.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        migrate(store, tmp_path / "in", workers=2, progress=interrupt)
    report = caught.value.report
    assert isinstance(report, MigrateReport)
    assert (report.stopped, report.copied + report.left) == ("interrupted", 20)
    assert shown(migrate(store, tmp_path / "in")) == (report.left, report.copied, 0)


# -- LOCAL_DIR and back --------------------------------------------------------------------------


def test_local_dir_moves_and_comes_back(r2_double: R2Double, tmp_path: Path) -> None:
    """The whole way: local, R2, and local again, with nothing lost and nothing brought back."""
    remote = options_on(tmp_path, r2_double)
    local = make_options(tmp_path, mode="local", remote=remote.remote)
    with store_of(local) as store:
        store.put("put.txt", b"put in local mode")
        store.put("gone.txt", b"deleted in local mode")
        store.delete("gone.txt")
        for path, data in {"legacy.wav": b"of an older app", "both.wav": b"equal"}.items():
            write(store.options.local_dir, path, data)
        with pytest.raises(ConfigError, match="no bucket"):
            migrate(store)
    fill_bucket(r2_double, {"both.wav": b"equal"})
    with store_of(remote) as store:
        report = migrate(store, verify=True)
        assert (shown(report), report.verified) == ((1, 2, 0), 3)
        no_orphans(report)
        for key, data in {
            "put.txt": b"put in local mode",
            "legacy.wav": b"of an older app",
        }.items():
            assert in_bucket(r2_double, key) == data
        assert in_bucket(r2_double, "gone.txt") is None
        store.put("legacy.wav", b"a newer version, in R2")
        store.put("only-r2.txt", b"made while R2 was on")
        store.delete("put.txt")
        assert store.flush(60).done
        (tmp_path / "output" / "own.txt").write_bytes(b"somebody's own")
    with store_of(local) as store:
        store.invalidate("only-r2.txt")  # as if its copy had been evicted
        store.invalidate("legacy.wav")
        with pytest.raises(NotFound):
            store.read("only-r2.txt")
        with pytest.raises(RemoteUnavailable, match="older"):
            store.read("legacy.wav")
    with store_of(remote) as store:
        dry = migrate_back(store, dry_run=True)
        report = migrate_back(store, verify=True)
        assert shown(dry) == shown(report) == (2, 1, 0)
        assert (report.verified, report.complete, report.only_source) == (3, True, ())
        assert report.only_target == ("own.txt",)
        assert shown(migrate_back(store)) == (0, 3, 0)
        assert store.pending() == []
    expected = {
        "both.wav": b"equal", "legacy.wav": b"a newer version, in R2",
        "only-r2.txt": b"made while R2 was on", "own.txt": b"somebody's own",
    }  # fmt: skip
    with store_of(local) as store:
        assert {item.key: store.read(item.key) for item in store.list()} == expected
        store.put("both.wav", b"changed after rolling back")
    r2_double.log.clear()
    with store_of(remote) as store:
        assert store.flush(60).done
        assert store.read("both.wav") == b"changed after rolling back"
    # What came back was not sent again.
    assert {entry.key for entry in r2_double.log.entries("PUT")} == {"both.wav"}


def test_back_into_a_folder_and_never_over_somebody_elses_files(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    made = objects(8, prefix="")
    fill_bucket(r2_double, made)
    out = tmp_path / "out"
    write(out, "mine.txt", b"mine")
    first = next(iter(made))
    write(out, first, b"something else")
    report = migrate_back(store, out, verify=True)
    assert (shown(report), report.conflicts) == ((7, 0, 1), (first,))
    assert report.only_target == ("mine.txt",)
    report = migrate_back(store, out, overwrite=True, verify=True)
    assert (shown(report), report.verified) == ((1, 7, 0), 8)
    assert files_in(out) == made | {"mine.txt": b"mine"}
    # And into LOCAL_DIR: an edited file is somebody's.
    local = store.options.local_dir
    assert shown(migrate_back(store, local)) == (8, 0, 0)
    (local / first).write_bytes(b"edited by hand")
    report = migrate_back(store)
    assert (shown(report), report.conflicts) == ((0, 7, 1), (first,))
    assert (local / first).read_bytes() == b"edited by hand"
    assert shown(migrate_back(store, overwrite=True)) == (1, 7, 0)


@pytest.mark.parametrize("page", ["export.md", "migration.md"])
def test_what_the_pages_show_works(
    store: CacheStore, r2_double: R2Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    page: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    fill_bucket(r2_double, {"snapshots/2026/01/side.jpg": b"image"})
    write(tmp_path / "old-files", "a.wav", b"RIFF")
    write(tmp_path, "training.db", b"no database")
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {"store": store})
    if page == "export.md":
        assert (tmp_path / "january" / "side.jpg").read_bytes() == b"image"
        assert len(list(store.list("database-exports/training_"))) == 1
    else:
        assert in_bucket(r2_double, "media/a.wav") == b"RIFF"


def test_in_and_out_on_every_server(s3_server: Any, bucket: str, tmp_path: Path) -> None:
    files = fill(tmp_path / "in", 6) | {"big.bin": os.urandom(6 << 20), "tab%09/é x.bin": b"odd"}
    for path, data in files.items():
        write(tmp_path / "in", path, data)
    options = on_server(
        tmp_path / "store", s3_server, bucket, multipart_threshold=5 << 20, part_size=5 << 20
    )
    with store_of(options) as store:
        report = migrate(store, tmp_path / "in", prefix="in", verify=True)
        assert (shown(report), report.verified, report.unproven) == ((8, 0, 0), 8, ())
        no_orphans(report)
        assert shown(migrate(store, tmp_path / "in", prefix="in")) == (0, 8, 0)
        for past in (True, False):
            out = tmp_path / f"out{past}"
            assert export(store, "in/", out, past_cache=past).exported == 8
            assert files_in(out) == files
            assert export(store, "in/", out, verify=True).skipped == 8
        assert migrate_back(store, verify=True).verified == 8
