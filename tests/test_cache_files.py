"""Files of the cache: hand-outs stay readable, and nothing that is not ours is ever removed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cache_rig import CacheRig, make_row
from process_rig import finish, say, start
from spool_rig import put
from store_rig import make_options, store_of

from cachestore.files import Files
from cachestore.local.catalog_rows import Row, is_copy_name
from cachestore.remote.memory import MemoryRemote
from cachestore.testing.contract_tools import put as upload
from cachestore.testing.remotes import CountingRemote

GRACE = 60.0
KEY = "segments/a.wav"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[CacheRig]:
    made = CacheRig(tmp_path)
    yield made
    made.close()


# -- names and copies -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "suffix"),
    [("a/b.wav", ".wav"), ("noext", ""), ("a.tar.gz", ".gz"), (".hidden", ""), ("a.w/v", ""),
     ("a.ü", ""), ("a." + "x" * 17, "")],
)  # fmt: skip
def test_a_copy_has_the_keys_suffix_and_a_name_that_the_catalog_knows(
    rig: CacheRig, key: str, suffix: str
) -> None:
    row = rig.add(key)
    assert rig.cache.path(row).suffix == suffix
    assert is_copy_name(row.file)
    assert rig.catalog.get(key) == row
    assert [name for name, _ in rig.cache.copies()] == [row.file]
    assert rig.cache.new_name(rig.place(key), key) != row.file


def test_names_outside_the_shards_are_no_copies() -> None:
    digest = "ab" + "0" * 62
    assert is_copy_name(f"ab/{digest}-{'1' * 16}.wav")
    for bad in (
        f"cd/{digest}-{'1' * 16}", f"../{digest}-{'1' * 16}", f"ab/../{digest}-{'1' * 16}",
        f"ab/{digest}.{'1' * 16}", f"ab/{digest}-{'1' * 16}/x", f"ab/{digest}-{'1' * 16}\n", "",
    ):  # fmt: skip
        assert not is_copy_name(bad), bad


def test_a_copy_is_read_only(rig: CacheRig) -> None:
    row = rig.add(KEY)
    assert rig.cache.path(row).stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize("change", ["longer", "touched", "renamed over", "gone", "linked"])
def test_a_changed_file_does_not_match_its_row(rig: CacheRig, change: str) -> None:
    row = rig.add(KEY)
    path = rig.cache.path(row)
    assert rig.cache.matches(row)
    twin = path.with_name("twin")
    shutil.copy2(path, twin)
    if change == "longer":
        path.chmod(0o644)
        path.write_bytes(b"longer bytes")
        os.utime(path, ns=(row.mtime_ns, row.mtime_ns))
    elif change == "touched":
        os.utime(path, ns=(1, 1))
    elif change == "renamed over":
        os.replace(twin, path)
    elif change == "gone":
        path.unlink()
    else:
        path.unlink()
        path.symlink_to(twin)
    assert not rig.cache.matches(row)


class OtherDisk(Files):
    """The spool is on another file system than the cache."""

    def link(self, source: str | Path, target: str | Path) -> None:
        raise OSError(18, "Invalid cross-device link")


def linked_in(rig: CacheRig, body: Path) -> str:
    fd, part = rig.cache.new_part(rig.place(KEY))
    name = rig.cache.new_name(rig.place(KEY), KEY)
    rig.cache.link_in(body, name, fd, part)
    rig.cache.end_part(fd, part)
    return name


@pytest.mark.parametrize("same_disk", [True, False])
def test_an_uploaded_body_becomes_a_copy(tmp_path: Path, same_disk: bool) -> None:
    rig = CacheRig(tmp_path, Files() if same_disk else OtherDisk())
    body = rig.spool.body(put(rig.spool, KEY, b"body"))
    name = linked_in(rig, body)
    copy = rig.root / name
    assert copy.read_bytes() == b"body"
    assert copy.stat().st_mode & 0o777 == 0o444
    assert os.path.samefile(copy, body) is same_disk
    assert list((rig.root / "parts").glob("*")) == []
    rig.close()


# -- hand-outs of pending bodies --------------------------------------------------------------


def handed_out(rig: CacheRig, ticket: Any, copy_max: int = 1 << 20) -> Path:
    return rig.hand_outs.hand_out(ticket, copy_max)


def test_a_pending_body_is_handed_out_as_a_copy_made_once(rig: CacheRig) -> None:
    ticket = put(rig.spool, KEY, b"body")
    path = handed_out(rig, ticket)
    assert path.read_bytes() == b"body"
    assert path.suffix == ".wav"
    assert not os.path.samefile(path, rig.spool.body(ticket))
    assert handed_out(rig, ticket) == path


def test_a_hand_out_that_was_edited_is_not_handed_out_again(rig: CacheRig) -> None:
    ticket = put(rig.spool, KEY, b"body")
    path = handed_out(rig, ticket)
    path.chmod(0o644)
    path.write_bytes(b"BODY")
    again = handed_out(rig, ticket)
    assert again != path
    assert again.read_bytes() == b"body"
    assert rig.spool.body(ticket).read_bytes() == b"body"


def test_a_large_body_is_handed_out_as_a_second_name(tmp_path: Path) -> None:
    for files, shared in ((Files(), True), (OtherDisk(), False)):
        rig = CacheRig(tmp_path / str(shared), files)
        ticket = put(rig.spool, KEY, b"body")
        path = handed_out(rig, ticket, copy_max=3)
        assert path.read_bytes() == b"body"
        assert os.path.samefile(path, rig.spool.body(ticket)) is shared
        assert handed_out(rig, ticket, copy_max=3) == path
        rig.close()


def test_everything_is_made_anew_when_the_folder_is_gone(rig: CacheRig) -> None:
    ticket = put(rig.spool, KEY, b"body")
    for _ in range(2):
        shutil.rmtree(rig.options.cache_dir, ignore_errors=True)
        assert handed_out(rig, ticket).read_bytes() == b"body"
        shutil.rmtree(rig.options.cache_dir)
        assert (rig.root / rig.file(KEY)).exists()
        shutil.rmtree(rig.options.cache_dir)
        assert (rig.root / linked_in(rig, rig.spool.body(ticket))).exists()


# -- removal ----------------------------------------------------------------------------------


def discard(rig: CacheRig, row: Row) -> None:
    assert rig.catalog.remove(row.key, row.file) == row
    rig.room.discard([row])


def test_what_nobody_was_handed_goes_at_once_with_a_new_token(rig: CacheRig) -> None:
    row = rig.add(KEY)
    token = rig.board.token(rig.place(KEY).slot)
    rig.cache.discard([row])
    assert not rig.cache.path(row).exists()
    assert rig.board.token(rig.place(KEY).slot) != token


def test_a_handed_out_file_stays_for_the_grace(rig: CacheRig) -> None:
    row = rig.add(KEY)
    rig.clock.advance(1000)
    rig.hand_out(KEY)
    discard(rig, row)
    assert rig.room.usage().cache == row.allocated
    rig.clock.advance(GRACE - 1)
    assert rig.room.tidy() == 0
    assert rig.cache.path(row).read_bytes() == b"bytes"
    rig.clock.advance(2)
    assert rig.room.tidy() == 1
    assert not rig.cache.path(row).exists()
    assert rig.room.usage().cache == 0
    assert rig.room.tidy() == 0


def test_after_the_clock_went_back_the_grace_begins_anew_and_ends(rig: CacheRig) -> None:
    row = rig.add(KEY)
    rig.hand_out(KEY)
    rig.clock.jump(-30 * 86400.0)
    discard(rig, row)
    assert rig.cache.path(row).exists()
    rig.clock.advance(GRACE - 2)
    assert rig.room.tidy() == 0
    rig.clock.advance(3)
    assert rig.room.tidy() == 1


def child_leases(path: str) -> None:
    """Another process reads the file under a shared lock, as `lease` and `open` do."""
    fd = Files().open_read(path)
    assert Files().try_lock(fd, shared=True)
    say("leased")
    input()
    assert os.read(fd, 100) == b"bytes"


def test_a_file_leased_by_another_process_stays(rig: CacheRig) -> None:
    row = rig.add(KEY)
    path = rig.cache.path(row)
    child = start("test_cache_files:child_leases", path)
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "leased\n"
    discard(rig, row)
    rig.clock.advance(1e6)
    assert rig.room.tidy() == 0
    assert not rig.cache.orphan(path)
    assert path.exists()
    child.stdin.write("\n")
    finish(child)
    rig.clock.advance(2)
    assert rig.room.tidy() == 1
    assert not path.exists()


def test_nothing_is_removed_through_a_link(rig: CacheRig, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    row = rig.add(KEY)
    path = rig.cache.path(row)
    target = outside / path.name
    os.rename(path, target)
    path.symlink_to(target)
    discard(rig, row)
    rig.clock.advance(1e6)
    rig.room.tidy()
    assert target.exists()
    # A whole shard folder that is a link.
    path.unlink()
    path.parent.rmdir()
    path.parent.symlink_to(outside)
    assert list(rig.cache.copies()) == []
    rig.janitor.run_once()
    assert target.exists()


def test_a_young_file_without_a_row_is_no_orphan_yet(rig: CacheRig) -> None:
    """Between file and row there is a moment; a crash there leaves the file."""
    path = rig.root / rig.file(KEY)
    rig.clock.advance(GRACE - 5)
    assert not rig.cache.orphan(path)
    rig.clock.advance(10)
    assert rig.cache.orphan(path)
    assert not path.exists()


def test_sweeping_removes_old_downloads_and_hand_outs_of_every_name(rig: CacheRig) -> None:
    place = rig.place(KEY)
    ticket = put(rig.spool, KEY, b"body")
    first = handed_out(rig, ticket)
    first.chmod(0o644)
    first.write_bytes(b"x")
    handed_out(rig, ticket)
    rig.cache.to_transit(rig.root / rig.file("other.wav"))
    rig.cache.to_transit(rig.root / rig.file("noext"))
    transit, parts = rig.root / "transit", rig.root / "parts"
    (parts / f"{place.digest}.{'b' * 16}.part").write_bytes(b"")
    (parts / f"{place.digest}.{'b' * 16}.{'c' * 16}.part").write_bytes(b"")
    under_way = rig.cache.part_path(place, (1 << 64) - 1)
    fd = rig.cache.open_part(under_way)
    assert rig.files.try_lock(fd)
    for folder in (transit, parts):
        (folder / "notes.txt").write_text("not ours")
    assert rig.cache.sweep(set()) == 0
    rig.clock.advance(GRACE + 5)
    assert rig.cache.sweep(set()) == 6
    assert [path.name for path in transit.iterdir()] == ["notes.txt"]
    assert sorted(path.name for path in parts.iterdir()) == sorted(["notes.txt", under_way.name])
    os.close(fd)
    assert rig.cache.sweep(set()) == 1


# -- after a crash ----------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [True, False])
def test_a_copy_that_was_not_synced_before_a_crash_is_verified_at_first_use(
    tmp_path: Path, damaged: bool
) -> None:
    remote = CountingRemote(MemoryRemote())
    upload(remote.inner, KEY, b"x" * 5000)
    options = make_options(tmp_path, mode="remote", ttl=None)
    with store_of(options, remote=remote) as store:
        path = store.get(KEY)
        row = store.core.catalog.get(KEY)
        assert row is not None
        assert not row.durable
    if damaged:  # what a power cut leaves: the right size and times, other bytes
        path.chmod(0o644)
        path.write_bytes(b"\0" * 5000)
        path.chmod(0o444)
        os.utime(path, ns=(row.mtime_ns, row.mtime_ns))
    for durable, boot in ((False, "before"), (True, "before")):
        with store_of(options, remote=remote) as store:
            catalog = store.core.catalog
            now = catalog.get(KEY)
            assert now is not None
            stamped = make_row(
                KEY, now.size, file=now.file, mtime_ns=now.mtime_ns, inode=now.inode,
                etag=now.etag, sha256=now.sha256, validated=now.validated, boot=boot,
                durable=durable,
            )  # fmt: skip
            assert catalog.admit(stamped, max_bytes=1 << 40).admitted
            calls = remote.calls["get"]
            for _ in range(2):
                store.core.hot.clear()
                assert store.get(KEY).read_bytes() == b"x" * 5000
            # A damaged copy is fetched again, once; a sound one never.
            assert remote.calls["get"] - calls == (1 if damaged and not durable else 0)
