"""`export`: a prefix arrives whole in a folder, once, and nothing else is touched."""

from __future__ import annotations

import errno
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk_rig import FOREVER, BrokenDisk
from ingest_rig import options_on, write
from process_rig import finish, save_options, start
from store_rig import make_options, store_of, until
from transfer_rig import (
    bucket_of,
    files_in,
    fill_bucket,
    in_parts,
    objects,
    unfinished,
    without,
)

from cachestore.errors import ConfigError, InvalidKey, RemoteRefused
from cachestore.ingest import ExportReport, Interrupted, Progress, export
from cachestore.ingest.placing import HIDDEN, Placing, encoded
from cachestore.model import Attributes
from cachestore.remote.directory import DirectoryRemote
from cachestore.store import CacheStore
from cachestore.testing.r2 import R2Double


@pytest.fixture
def store(r2_double: R2Double, tmp_path: Path) -> Iterator[CacheStore]:
    with store_of(options_on(tmp_path / "store", r2_double)) as opened:
        yield opened


def sums(report: ExportReport) -> tuple[int, int, int]:
    assert report.errors == ()
    assert report.complete
    return report.exported, report.skipped, report.failed


@pytest.mark.parametrize("past", [False, True])
def test_everything_arrives_and_then_nothing_is_fetched(
    store: CacheStore, r2_double: R2Double, tmp_path: Path, past: bool
) -> None:
    made, out = objects(25), tmp_path / "out"
    fill_bucket(r2_double, made | {"other/x.jpg": b"not asked for"})
    steps: list[Progress] = []
    report = export(store, "cam/", out, past_cache=past, progress=steps.append)
    assert sums(report) == (25, 0, 0)
    assert report.bytes == sum(map(len, made.values()))
    assert files_in(out) == without("cam/", made)
    assert (steps[0].what, steps[0].total) == ("planned", 25)
    assert (steps[-1].done, steps[-1].bytes_done) == (25, steps[0].bytes_total)
    assert (store.health()["cache"]["entries"] == 0) is past
    r2_double.log.clear()
    # Known by what is remembered, and without that by the file's time.
    for _ in range(2):
        assert sums(export(store, "cam/", out, past_cache=past)) == (0, 25, 0)
        (store.core.cache.root / "synced.db").unlink(missing_ok=True)
    assert r2_double.log.count("GET", "cam/*") == 0
    # A prefix need not end with a folder.
    assert sums(export(store, "cam/1", tmp_path / "some", past_cache=past)) == (8, 0, 0)
    assert (tmp_path / "some" / "1" / "f0001.jpg").read_bytes() == made["cam/1/f0001.jpg"]


def test_pending_files_and_deletions_are_seen(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    fill_bucket(r2_double, {"cam/a.jpg": b"old", "cam/b.jpg": b"deleted", "cam/c.jpg": b"c"})
    r2_double.rules.add("status", method="PUT")
    r2_double.rules.add("status", method="DELETE")
    store.put("cam/a.jpg", b"newer, and only here")
    store.put("cam/new.jpg", b"only here")
    store.delete("cam/b.jpg")
    for past in (False, True):
        out = tmp_path / str(past)
        assert sums(export(store, "cam/", out, past_cache=past)) == (3, 0, 0)
        assert files_in(out) == {
            "a.jpg": b"newer, and only here", "new.jpg": b"only here", "c.jpg": b"c",
        }  # fmt: skip
    r2_double.rules.clear()
    assert store.flush(60).done
    # The same bytes, now in the bucket: its MD5 tells.
    assert sums(export(store, "cam/", tmp_path / "True")) == (0, 3, 0)


def test_what_changed_is_fetched_again_and_what_went_stays(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    made, out = objects(6, prefix=""), tmp_path / "out"
    fill_bucket(r2_double, made)
    assert sums(export(store, "", out, past_cache=True)) == (6, 0, 0)
    first, second, *_ = made
    fill_bucket(r2_double, {first: bytes(len(made[first]))})
    bucket_of(r2_double).delete(second)
    assert sums(export(store, "", out, past_cache=True)) == (1, 4, 0)
    assert files_in(out) == made | {first: bytes(len(made[first]))}


def test_a_file_of_somebody_else_is_never_replaced(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fill_bucket(r2_double, {"a.txt": b"from the bucket", "b.txt": b"equal", "c.txt": b"theirs"})
    out.mkdir()
    (out / "a.txt").write_bytes(b"another file")
    (out / "b.txt").write_bytes(b"equal")
    (out / "mine.txt").write_bytes(b"not in the bucket")
    report = export(store, "", out)
    assert (report.exported, report.skipped, report.failed) == (1, 1, 1)
    assert "no export wrote" in report.errors[0].error
    assert (out / "a.txt").read_bytes() == b"another file"
    # What an export wrote and somebody edited is somebody's, too.
    (out / "c.txt").write_bytes(b"edited by hand")
    assert export(store, "", out).failed == 2
    assert (out / "c.txt").read_bytes() == b"edited by hand"
    assert sums(export(store, "", out, overwrite=True)) == (2, 1, 0)
    assert files_in(out) == {
        "a.txt": b"from the bucket", "b.txt": b"equal", "c.txt": b"theirs",
        "mine.txt": b"not in the bucket",
    }  # fmt: skip


def test_verify_finds_bytes_that_rotted_under_the_same_time(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fill_bucket(r2_double, {"a.bin": b"abcdef"}, ours=True)
    in_parts(r2_double, "big.bin", big := os.urandom(6 << 20))
    assert sums(export(store, "", out)) == (2, 0, 0)
    for name in ("a.bin", "big.bin"):
        info = (out / name).stat()
        with (out / name).open("r+b") as file:
            file.write(b"\x00")
        os.utime(out / name, ns=(info.st_mtime_ns, info.st_mtime_ns))
    assert sums(export(store, "", out)) == (0, 2, 0)
    assert sums(export(store, "", out, verify=True)) == (2, 0, 0)
    assert files_in(out) == {"a.bin": b"abcdef", "big.bin": big}
    (out / "a.bin").unlink()
    assert export(store, "", out, dry_run=True).exported == 1
    assert not (out / "a.bin").exists()


@pytest.mark.parametrize("past", [False, True])
def test_damaged_answers_are_asked_for_again(
    store: CacheStore, r2_double: R2Double, tmp_path: Path, past: bool
) -> None:
    made = {"a.bin": os.urandom(40_000), "b.bin": os.urandom(40_000)}
    fill_bucket(r2_double, made)
    r2_double.rules.add("corrupt", method="GET", key="a.bin", at=20_000, count=1)
    r2_double.rules.add("cut", method="GET", key="b.bin", at=20_000, count=1)
    r2_double.rules.add("status", method="GET", key="b.bin", count=1)
    assert sums(export(store, "", tmp_path / "out", past_cache=past)) == (2, 0, 0)
    assert files_in(tmp_path / "out") == made


def test_a_key_that_never_comes_fails_alone_and_a_refusal_ends_the_run(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    made, out = objects(10, prefix=""), tmp_path / "out"
    fill_bucket(r2_double, made)
    bad = next(iter(made))
    r2_double.rules.add("corrupt", method="GET", key=bad, at=1)
    report = export(store, "", out, past_cache=True, patience=0.3)
    assert (report.exported, report.failed, report.complete) == (9, 1, False)
    assert "digest" in report.errors[0].error
    assert bad not in files_in(out)
    assert unfinished(out) == []
    r2_double.rules.clear()
    r2_double.rules.add("status", method="GET", key="*f*", status=403, code="AccessDenied")
    report = export(store, "", tmp_path / "none", past_cache=True, workers=1)
    assert report.stopped
    assert (report.exported, report.failed + report.left) == (0, 10)
    r2_double.rules.clear()
    r2_double.rules.add("status", method="GET", status=403, code="AccessDenied")
    with pytest.raises(RemoteRefused):
        export(store, "", tmp_path / "none")


# -- names ---------------------------------------------------------------------------------------


def test_no_key_leads_out_of_the_folder(tmp_path: Path) -> None:
    # A folder as the bucket: clients of servers resolve `..` themselves.
    odd = ["x/../../up.txt", "x//y.txt", "x/folder/", "x/./z.txt", "x/tab\tname", "x/" + "n" * 300]
    remote = DirectoryRemote(tmp_path / "remote")
    for key in [*odd, "x/good.txt"]:
        data = io.BytesIO(key.encode())
        remote.put(key, data, size=len(key), sha256="", attributes=Attributes("text/plain"))
    out = tmp_path / "deep" / "out"
    options = make_options(tmp_path / "store", mode="mock")
    with store_of(options, remote=remote) as store:
        report = export(store, "x/", out)
        assert (report.exported, report.failed, report.complete) == (1, 6, False)
        assert {error.key for error in report.errors} == set(odd)
        assert all("no file can be named" in error.error for error in report.errors)
        assert files_in(tmp_path / "deep") == {"out/good.txt": b"x/good.txt"}
        report = export(store, "x/", out, encode=True)
    assert (report.exported, report.skipped, report.failed) == (5, 1, 1)
    assert report.errors[0].key.endswith("nnn")
    assert files_in(tmp_path / "deep") == {
        "out/good.txt": b"x/good.txt",
        "out/%2E%2E/%2E%2E/up.txt": b"x/../../up.txt",
        "out/%2Fy.txt": b"x//y.txt",
        "out/folder%2F": b"x/folder/",
        "out/%2E/z.txt": b"x/./z.txt",
        "out/tab%09name": b"x/tab\tname",
    }


def test_folder_markers_are_left_out(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    fill_bucket(r2_double, {"x/": b"", "x/sub/": b"", "x//y": b"y", "x/good": b"good"})
    report = export(store, "x/", tmp_path / "out")
    assert (report.exported, [error.key for error in report.errors]) == (1, ["x//y"])
    assert sums(export(store, "x/", tmp_path / "out", encode=True)) == (1, 1, 0)
    assert files_in(tmp_path / "out") == {"%2Fy": b"y", "good": b"good"}


def test_links_in_the_folder_are_never_followed(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    fill_bucket(r2_double, {"a/x.txt": b"x", "b.txt": b"b", "c/d.txt": b"d"})
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "a").symlink_to(elsewhere)
    (elsewhere / "target").write_bytes(b"keep")
    (out / "b.txt").symlink_to(elsewhere / "target")
    (out / "c").write_bytes(b"a file where a folder has to be")
    report = export(store, "", out, overwrite=True)
    assert (report.exported, report.failed) == (0, 3)
    assert files_in(elsewhere) == {"target": b"keep"}


def test_keys_that_would_share_a_name_are_refused() -> None:
    placing = Placing("p/", encode=False, folded=False)
    assert placing.path("p/a") == "a"
    assert placing.path("p/A") == "A"
    with pytest.raises(InvalidKey, match="beside 'p/a'"):
        placing.path("p/a/b")
    with pytest.raises(InvalidKey, match="unfinished"):
        placing.path(f"p/{HIDDEN}/x")
    folded = Placing("", encode=False, folded=True)
    folded.path("dir/é")
    for key in ("DIR/É", "dir/e\u0301", "Dir"):
        with pytest.raises(InvalidKey, match="beside"):
            folded.path(key)
    assert encoded("a///b/") == "a/%2F%2Fb%2F"
    assert encoded("/a/..") == "%2Fa/%2E%2E"


def test_local_mode_and_our_own_folders(tmp_path: Path) -> None:
    with store_of(make_options(tmp_path / "store")) as store:
        store.put("songs/a.wav", b"RIFF")
        store.put("songs/b", b"b")
        store.put("songs/b/c", b"c")
        report = export(store, "songs/", tmp_path / "out")
        assert (report.exported, report.failed) == (2, 1)
        assert "'songs/b/c' cannot lie beside 'songs/b'" in report.errors[0].error
        assert files_in(tmp_path / "out") == {"a.wav": b"RIFF", "b": b"b"}
        assert export(store, "songs/", tmp_path / "out").skipped == 2
        write(store.options.local_dir, "old/legacy.wav", b"of an older app")
        assert sums(export(store, "old/", tmp_path / "old")) == (1, 0, 0)
        assert sums(export(store, "old/", tmp_path / "old")) == (0, 1, 0)
        for own in (store.options.local_dir, store.options.spool_dir / "x"):
            with pytest.raises(ConfigError, match="own folder"):
                export(store, "", own)
        with pytest.raises(InvalidKey):
            export(store, "../", tmp_path / "out")


# -- interruptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["through", "past"])
def test_a_killed_export_goes_on_where_it_stopped(
    r2_double: R2Double, tmp_path: Path, how: str
) -> None:
    made = objects(30, size=20_000)
    big = {"cam/big.bin": os.urandom(3_000_000)}
    fill_bucket(r2_double, made | big)
    options = options_on(tmp_path / "store", r2_double)
    saved, out = save_options(options, tmp_path / "options"), tmp_path / "out"
    r2_double.rules.add("stall", method="GET", key="cam/big.bin", at=1_000_000)
    child = start("transfer_rig:export_child", saved, "cam/", out, how)
    try:
        until(lambda: sum(1 for _ in out.glob("[0-9]/*.jpg")) >= 12, "some files")
        r2_double.log.wait_for(1, "GET", "cam/big.bin")
        child.send_signal(signal.SIGKILL)
        child.wait(60)
    finally:
        child.kill()
        child.communicate()
    before = {path: data for path, data in files_in(out).items() if not path.startswith(HIDDEN)}
    # Whatever has its name is whole.
    assert before.items() <= without("cam/", made).items()
    r2_double.rules.clear()
    r2_double.log.clear()
    with store_of(options) as store:
        report = export(store, "cam/", out, past_cache=how == "past")
        assert sums(report) == (31 - len(before), len(before), 0)
    assert files_in(out) == without("cam/", made | big)
    done = {f"cam/{path}" for path in before}
    assert not [entry for entry in r2_double.log.entries("GET") if entry.key in done]
    assert not (out / HIDDEN).exists()


def test_two_processes_into_one_folder(r2_double: R2Double, tmp_path: Path) -> None:
    made, out = objects(40), tmp_path / "out"
    fill_bucket(r2_double, made)
    saved = save_options(options_on(tmp_path / "store", r2_double), tmp_path / "options")
    children = [
        start("transfer_rig:export_child", saved, "cam/", out, how) for how in ("through", "past")
    ]
    for child in children:
        exported, skipped, failed = map(int, finish(child).split())
        assert (exported + skipped, failed) == (40, 0)
    assert files_in(out) == without("cam/", made)


def test_ctrl_c_leaves_a_state_to_go_on_from(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    made, out = objects(20), tmp_path / "out"
    fill_bucket(r2_double, made)

    def interrupt(step: Progress) -> None:
        if step.what == "exported" and step.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        export(store, "cam/", out, workers=2, progress=interrupt)
    report = caught.value.report
    assert isinstance(report, ExportReport)
    assert (report.stopped, report.complete) == ("interrupted", False)
    assert report.exported + report.left == 20
    there = files_in(out)
    assert len(there) == report.exported < 20
    assert sums(export(store, "cam/", out)) == (report.left, report.exported, 0)


def test_nothing_is_written_once_an_error_has_ended_the_call(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    fill_bucket(r2_double, objects(20))

    def fail(step: Progress) -> None:
        if step.what == "exported":
            raise RuntimeError("of the caller")

    with pytest.raises(RuntimeError, match="of the caller"):
        export(store, "cam/", tmp_path / "out", progress=fail)
    there = files_in(tmp_path / "out")
    assert 1 <= len(there) < 20
    assert not (tmp_path / "out" / HIDDEN).exists()
    assert sums(export(store, "cam/", tmp_path / "out")) == (20 - len(there), len(there), 0)


def test_a_folder_that_cannot_be_made(store: CacheStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        export(store, "cam/", tmp_path / "file" / "out")


@pytest.mark.parametrize("past", [False, True])
def test_a_full_disk_ends_the_run(r2_double: R2Double, tmp_path: Path, past: bool) -> None:
    made, out, disk = objects(10, size=200), tmp_path / "out", BrokenDisk()
    fill_bucket(r2_double, made)
    with store_of(options_on(tmp_path / "store", r2_double), files=disk) as store:
        disk.fail(out, errno.ENOSPC, nth=5, times=FOREVER, calls=("write", "pwrite"))
        report = export(store, "cam/", out, past_cache=past, workers=1)
        assert disk.mend()
        assert "is full" in report.stopped
        assert report.exported < 10
        assert files_in(out).items() <= without("cam/", made).items()
        assert sums(export(store, "cam/", out)) == (10 - report.exported, report.exported, 0)
