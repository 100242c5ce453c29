"""Files that are read while they come, on disks that fail or hold other people's files."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest
from disk_rig import FOREVER, BrokenDisk, open_below
from fault_rig import each_call, opened, seed
from progressive_rig import BLOCK, KEY, SIZE, content

from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
DATA = content()


def store_on(root: Path, disk: BrokenDisk, remote: MemoryRemote, **fields: object) -> CacheStore:
    values = {"block_bytes": BLOCK, "read_ahead_bytes": 2 * BLOCK}
    return opened(root, disk, remote, **(values | fields))


@pytest.mark.parametrize(
    ("code", "times"),
    [
        (errno.ENOSPC, FOREVER),
        (errno.EIO, 1),
        *(
            pytest.param(code, times, marks=pytest.mark.torture)
            for code, times in ((errno.ENOSPC, 1), (errno.EIO, FOREVER), (errno.EROFS, 1))
        ),
    ],
)
def test_a_cache_that_fails_at_any_call_gives_right_bytes(
    tmp_path: Path, code: int, times: float
) -> None:
    disk, remote = BrokenDisk(), MemoryRemote()
    with store_on(tmp_path, disk, remote) as store:

        def attempt(nth: int) -> None:
            key = f"{nth}.mp4"
            seed(remote, key, DATA)
            disk.fail(store.options.cache_dir, code, nth=nth, times=times)
            with store.open(key, 3 * BLOCK) as file:
                assert file.read_at(3 * BLOCK, 100) == DATA[3 * BLOCK : 3 * BLOCK + 100]
                assert file.read() == DATA
            disk.mend()
            assert store.read(key, 5, SIZE - 5) == DATA[5:-5]

        assert each_call(disk, attempt) >= 6


def test_a_disk_that_is_full_half_way_is_read_past(tmp_path: Path) -> None:
    disk, remote = BrokenDisk(), MemoryRemote()
    seed(remote, KEY, DATA)
    with store_on(tmp_path, disk, remote) as store:
        with store.open(KEY) as file:
            assert file.read(3 * BLOCK) == DATA[: 3 * BLOCK]
            disk.fail(store.options.cache_dir, errno.ENOSPC, times=FOREVER, calls=("pwrite",))
            assert file.read() == DATA[3 * BLOCK :]
        disk.mend()
        assert store.get(KEY).read_bytes() == DATA
    assert not open_below(store.options.cache_dir)


def test_a_removed_cache_is_read_past(tmp_path: Path) -> None:
    disk, remote = BrokenDisk(), MemoryRemote()
    seed(remote, KEY, DATA)
    with store_on(tmp_path, disk, remote) as store:
        with store.open(KEY) as file:
            assert file.read(3 * BLOCK) == DATA[: 3 * BLOCK]
            shutil.rmtree(store.options.cache_dir, ignore_errors=True)  # while it is in use
            assert file.read() == DATA[3 * BLOCK :]
        assert store.read(KEY, 1, 9) == DATA[1:9]
        assert store.get(KEY).read_bytes() == DATA


def test_no_link_is_followed_in_the_place_of_a_partial_copy(tmp_path: Path) -> None:
    disk, remote = BrokenDisk(), MemoryRemote()
    seed(remote, KEY, DATA)
    theirs = tmp_path / "theirs"
    theirs.write_bytes(bytes(SIZE))
    with store_on(tmp_path, disk, remote) as store:
        store.read(KEY, 0, 10)
        [part] = store.options.cache_dir.glob("*/partial/*.part")
        part.unlink()
        part.symlink_to(theirs)
        assert store.read(KEY, 5, 2 * BLOCK) == DATA[5 : 2 * BLOCK]
        folder = part.parent
        shutil.rmtree(folder)
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
        assert store.read(KEY, 5, 2 * BLOCK) == DATA[5 : 2 * BLOCK]
    assert theirs.read_bytes() == bytes(SIZE)
    assert not os.listdir(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "change",
    [
        "part = '../../../theirs'",
        "part = 'partial/' || hex(zeroblob(32)) || '-0000000000000000.part'",
        "info = '{'",
        "info = replace(info, '\"size\": ', '\"size\": -')",
        "token = 'x'",
        "block = 0",
    ],
)
def test_rows_that_we_never_wrote_do_no_harm(tmp_path: Path, change: str) -> None:
    disk, remote = BrokenDisk(), MemoryRemote()
    seed(remote, KEY, DATA)
    with store_on(tmp_path, disk, remote) as store:
        store.read(KEY, 0, 10)
    [path] = store.options.cache_dir.glob("*/catalog/*.db")
    with sqlite3.connect(path) as db:
        assert db.execute(f"UPDATE partials SET {change}").rowcount == 1
        part = change.partition("part = ")[2]
        if part:
            db.execute(f"UPDATE reserved SET part = {part}")
    db.close()
    with store_on(tmp_path, disk, remote) as store:
        assert store.read(KEY, 5, 2 * BLOCK) == DATA[5 : 2 * BLOCK]
        store.clean()
        assert store.get(KEY).read_bytes() == DATA
