"""A forked child holds no lock of its parent: workers are forked while other threads work."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from process_rig import finish, say, start
from spool_rig import make_spool, put

from cachestore.files import _lockable
from cachestore.keys import place_of

KEY = "a.wav"


def child_forks_under_the_lock(root: str, killed: str) -> None:
    """A worker is forked while a thread holds a shard's lock; then the thread or process ends."""
    spool = make_spool(Path(root))
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with spool.lock(place_of(spool.remote_id, KEY)):
            held.set()
            release.wait()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    held.wait()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        if killed == "False":
            os.close(write)
        os.read(read, 1)  # lives until the test has looked
        os._exit(0)
    say(pid)
    if killed == "True":
        os.kill(os.getpid(), signal.SIGKILL)
    release.set()
    thread.join()
    say("released")
    input()
    os.close(write)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_lock_ends_although_its_descriptor_lives_on(tmp_path: Path) -> None:
    """As in a child that was forked before it could be known that there is something to close."""
    spool = make_spool(tmp_path / "spool", lock_timeout=0.2)
    for lock in (spool.lock, spool.lock_now):
        with lock(spool.place(KEY)):
            copies = [os.dup(fd) for fd in _lockable]
        with spool.lock(spool.place(KEY)):
            assert len(copies) == 1
        os.close(copies[0])


@pytest.mark.parametrize("killed", [True, False])
def test_a_forked_child_does_not_keep_a_shard_locked(tmp_path: Path, killed: bool) -> None:
    parent = start("test_forks:child_forks_under_the_lock", tmp_path / "spool", killed)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    if killed:
        # The worker has the other end of the pipe itself, so it outlives its parent.
        parent.wait(60)
    else:
        assert parent.stdout.readline() == "released\n"
    try:
        spool = make_spool(tmp_path / "spool", lock_timeout=5.0)
        put(spool, KEY, b"bytes")
        with spool.lock_now(place_of(spool.remote_id, KEY)) as got:
            assert got
    finally:
        if killed:
            os.kill(pid, signal.SIGKILL)
            parent.stdout.close()
            assert parent.stdin is not None
            parent.stdin.close()
        else:
            assert parent.stdin is not None
            parent.stdin.write("\n")
            finish(parent)
