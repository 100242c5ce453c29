"""Real disks that are small: full, out of inodes, read-only. Each in a mount of its own."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from fault_rig import looked_at, seed, spooled, sums
from local_rig import content
from process_rig import TESTS
from store_rig import make_options, store_of, until

from cachestore.errors import CacheFull, SpoolError, SpoolFull
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.remotes import CountingRemote

MEGABYTE = os.urandom(1 << 20)


def _unshare() -> list[str]:
    """A command that runs another one with mounts of its own."""
    return ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]


@functools.cache
def why_not() -> str:
    """Why nothing can be mounted here, "" if it can."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return "no `unshare` on this system"
    with tempfile.TemporaryDirectory() as folder:
        command = [*_unshare(), "mount", "-t", "tmpfs", "-o", "size=1m", "none", folder]
        run = subprocess.run(command, capture_output=True, text=True)
    return "" if run.returncode == 0 else f"no mounts allowed: {run.stderr.strip()}"


def in_mounts(function: str, root: Path) -> None:
    """Run a function of this module in a process with mounts of its own."""
    if why_not():
        pytest.skip(f"no small disks: {why_not()}")
    code = (
        "import sys, pathlib, test_small_disks as scenes;"
        "getattr(scenes, sys.argv[1])(pathlib.Path(sys.argv[2]))"
    )
    run = subprocess.run(
        [*_unshare(), sys.executable, "-c", code, function, str(root)],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert run.returncode == 0, run.stderr[-4000:]


# -- in the child ----------------------------------------------------------------------------------


def mount(folder: Path, options: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    subprocess.run(command, check=True)


def read_only(folder: Path, on: bool) -> None:
    word = "ro" if on else "rw"
    subprocess.run(["mount", "-o", f"remount,{word}", str(folder)], check=True)


class Ballast:
    """Takes all bytes, or all inodes, of a disk; gives some back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ballast"
        self.folder.mkdir()
        self.file = self.folder / "bytes"

    def bytes(self) -> None:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError), open(self.file, "ab", buffering=0) as file:
                while True:
                    file.write(bytes(size))

    def give_back(self, count: int) -> None:
        os.truncate(self.file, max(0, self.file.stat().st_size - count))

    def inodes(self) -> None:
        with contextlib.suppress(OSError):
            for number in range(100_000):
                (self.folder / str(number)).touch()

    def give_back_inodes(self, count: int) -> None:
        for path in list(self.folder.iterdir())[:count]:
            path.unlink()

    def gone(self) -> None:
        shutil.rmtree(self.folder)


def opened(root: Path, bucket: Any, *, idle: bool = False, **fields: Any) -> CacheStore:
    options = make_options(root, mode="remote", **({"leader_interval": 0.02} | fields))
    store = store_of(options, remote=bucket)
    if idle:
        store.core.uploader.stop(5.0)
    return store


def refused_or_whole(store: CacheStore, key: str, data: bytes) -> bool:
    """One put on a disk that is nearly full; True if it was taken."""
    was, files = looked_at(store, key), spooled(store, key)
    try:
        store.put(key, data)
    except SpoolFull:
        assert looked_at(store, key) == was
        assert spooled(store, key) == files
        return False
    assert looked_at(store, key) == data
    return True


def full_spool(root: Path) -> None:
    mount(root / "spool", "size=5m")
    store = opened(root, MemoryRemote(), idle=True)
    store.put("before.wav", b"before")
    store.put("gone.wav", b"to be deleted")
    ballast = Ballast(root / "spool")
    for data in (b"", b"small", MEGABYTE[:9000], MEGABYTE):
        ballast.bytes()
        assert not refused_or_whole(store, "new.wav", data)
        assert not refused_or_whole(store, "before.wav", data)
        taken = [refused_or_whole(store, "new.wav", data)]
        while not taken[-1]:  # a little more room each time, so that it ends at another step
            ballast.give_back(4096 if len(data) < 10_000 else 150_000)
            taken.append(refused_or_whole(store, "new.wav", data))
        assert len(taken) >= 2
    ballast.bytes()
    with pytest.raises(SpoolFull):
        store.delete("gone.wav")
    assert looked_at(store, "gone.wav") == b"to be deleted"
    assert store.core.board.pending() == sums(store)
    ballast.gone()
    store.delete("gone.wav")
    assert looked_at(store, "gone.wav") is None
    assert refused_or_whole(store, "new.wav", MEGABYTE)
    store.start()
    assert store.flush(60).done, "a full disk must not stop what frees it"
    assert store.core.board.pending() == (0, 0)
    store.close()


def full_spool_drains(root: Path) -> None:
    """No byte is left: uploads go on, and free it."""
    mount(root / "spool", "size=4m")
    bucket = MemoryRemote()
    store = opened(root, bucket, idle=True)
    count = 0
    while refused_or_whole(store, f"{count}.bin", MEGABYTE[: 200_000 + count]):
        count += 1
    Ballast(root / "spool").bytes()
    store.start()
    assert store.flush(60).done
    assert len(content(bucket)) == count
    until(lambda: refused_or_whole(store, "again.bin", MEGABYTE), "room for one more")
    store.close()


def no_inodes_in_the_spool(root: Path) -> None:
    mount(root / "spool", "size=20m,nr_inodes=400")
    store = opened(root, MemoryRemote(), idle=True)
    store.put("before.wav", b"before")
    ballast = Ballast(root / "spool")
    ballast.inodes()
    assert not refused_or_whole(store, "before.wav", b"newer")
    tries = 0
    while not refused_or_whole(store, "new.wav", b"new"):
        ballast.give_back_inodes(1)
        tries += 1
    assert tries >= 2
    assert looked_at(store, "before.wav") == b"before"
    store.close()


def full_cache(root: Path) -> None:
    mount(root / "cache", "size=6m")
    bucket = CountingRemote(MemoryRemote())
    store = opened(root, bucket, handout_grace=0.0)
    for number in range(12):
        seed(bucket.inner, f"{number}.wav", MEGABYTE + bytes([number]))
    for number in (*range(12), *range(12)):
        assert looked_at(store, f"{number}.wav") == MEGABYTE + bytes([number])
    ballast = Ballast(root / "cache")
    ballast.bytes()
    for number in range(12):
        assert looked_at(store, f"{number}.wav") == MEGABYTE + bytes([number])
    receipt = store.put("near.wav", MEGABYTE)
    assert looked_at(store, "near.wav") == MEGABYTE
    assert receipt.wait(60) == "uploaded"
    assert looked_at(store, "near.wav") == MEGABYTE
    store.delete("near.wav")
    assert looked_at(store, "near.wav") is None
    store.clean()
    store.fsck()
    ballast.gone()
    assert store.flush(60).done
    seed(bucket.inner, "resumed.wav", b"resumed")
    until(lambda: is_cached(store, bucket, "resumed.wav"), "caching again")
    store.close()


def is_cached(store: CacheStore, bucket: CountingRemote, key: str) -> bool:
    store.get(key)
    asked = bucket.calls["get"]
    inside = store.get(key).is_relative_to(store.options.cache_dir)
    return inside and bucket.calls["get"] == asked


def no_inodes_in_the_cache(root: Path) -> None:
    mount(root / "cache", "size=20m,nr_inodes=200")
    bucket = CountingRemote(MemoryRemote())
    seed(bucket.inner, "far.wav", b"far")
    seed(bucket.inner, "known.wav", b"known")
    store = opened(root, bucket)
    store.get("known.wav")
    ballast = Ballast(root / "cache")
    ballast.inodes()
    store.put("near.wav", b"near")
    for key in ("far", "near", "known"):
        assert looked_at(store, f"{key}.wav") == key.encode()
    assert store.flush(60).done
    ballast.gone()
    until(lambda: is_cached(store, bucket, "far.wav"), "caching again")
    store.close()


def read_only_cache(root: Path) -> None:
    mount(root / "cache", "size=20m")
    bucket = CountingRemote(MemoryRemote())
    for key in ("far", "known"):
        seed(bucket.inner, f"{key}.wav", key.encode())
    with opened(root, bucket) as store:
        store.get("known.wav")
    read_only(root / "cache", True)
    with opened(root, bucket) as store:
        receipt = store.put("near.wav", b"near")
        for key in ("far", "near", "known"):
            assert looked_at(store, f"{key}.wav") == key.encode()
        assert receipt.wait(60) == "uploaded"
        assert looked_at(store, "near.wav") == b"near"
        store.clean()
        store.fsck()
        read_only(root / "cache", False)
        until(lambda: is_cached(store, bucket, "far.wav"), "caching again")
        assert looked_at(store, "known.wav") == b"known"


def read_only_spool(root: Path) -> None:
    mount(root / "spool", "size=20m")
    bucket = MemoryRemote()
    with opened(root, bucket, idle=True) as store:
        store.put("near.wav", b"near")
        store.core.board.close()
    read_only(root / "spool", True)
    with pytest.raises(SpoolError, match=r"(?i)read-only"):
        opened(root, bucket)
    read_only(root / "spool", False)
    with opened(root, bucket) as store:
        assert looked_at(store, "near.wav") == b"near"


def no_room_to_open(root: Path) -> None:
    mount(root / "spool", "size=256k")
    with pytest.raises(SpoolFull, match="full"):
        opened(root, MemoryRemote())
    assert [p.name for p in (root / "spool").iterdir() if "board" in p.name] == []


def one_disk_for_all(root: Path) -> None:
    mount(root, "size=8m")
    (root / "tmp").mkdir()
    tempfile.tempdir = str(root / "tmp")
    bucket = MemoryRemote()
    seed(bucket, "far.wav", MEGABYTE)
    store = opened(root, bucket, idle=True)
    store.put("near.wav", MEGABYTE)
    ballast = Ballast(root)
    ballast.bytes()
    for key in ("far.wav", "near.wav"):
        with pytest.raises(CacheFull, match=key):
            store.get(key)
    assert store.read("near.wav") == MEGABYTE
    with store.open("near.wav") as file:
        assert file.read() == MEGABYTE
    with pytest.raises(SpoolFull):
        store.put("new.wav", MEGABYTE)
    ballast.gone()
    assert looked_at(store, "far.wav") == looked_at(store, "near.wav") == MEGABYTE
    store.put("new.wav", MEGABYTE)
    store.close()


SCENES = (
    full_spool, full_spool_drains, no_inodes_in_the_spool, full_cache, no_inodes_in_the_cache,
    read_only_cache, read_only_spool, no_room_to_open, one_disk_for_all,
)  # fmt: skip


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_real_disk(scene: Any, tmp_path: Path) -> None:
    in_mounts(scene.__name__, tmp_path)
