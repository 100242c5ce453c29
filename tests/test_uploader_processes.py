"""One leader among real processes: killed, stopped, forked."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from process_rig import say, start
from upload_rig import Held, Rig, Scripted, until

from cachestore import uploader as uploader_module
from cachestore.remote.directory import DirectoryRemote
from cachestore.uploads.journal import leading_pid, read_leader

KEY = "a/b.wav"
REMOTE = "0123456789abcdef"


class Patient(Scripted):
    """Says when a request is there, and never answers."""

    asked = threading.Event()

    def _do(self, name: str, key: str, request: Any) -> Any:
        say("reached", name, key)
        self.asked.set()
        time.sleep(3600)  # until it is killed


def child_hang(root: str) -> None:
    """Lead, and hang in the first request."""
    rig = Rig(Path(root), Patient(conditional=False, remote_id=REMOTE))
    rig.uploader.start()
    time.sleep(3600)  # until it is killed


def child_lead(root: str, remote: str) -> None:
    """Lead with a folder as the remote."""
    rig = Rig(Path(root), DirectoryRemote(remote, durable=False))
    rig.uploader.start()
    until(lambda: rig.uploader.health()["leading"])
    say("leading")
    time.sleep(3600)  # until it is killed


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for child in started:
        child.kill()
        child.wait(30)
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()


def line(child: subprocess.Popen[str]) -> list[str]:
    assert child.stdout is not None
    return child.stdout.readline().split()


def test_a_killed_leader_is_replaced_and_its_request_is_in_doubt(
    tmp_path: Path, children: list[subprocess.Popen[str]]
) -> None:
    rig = Rig(tmp_path, Scripted(conditional=False, remote_id=REMOTE), doubt_wait=0.5)
    ticket = rig.put(KEY, b"x", wake=False)
    child = start("test_uploader_processes:child_hang", tmp_path)
    children.append(child)
    assert line(child) == ["reached", "put", KEY]
    other = rig.put("other", b"y")
    assert rig.uploader.health()["leader_pid"] == child.pid
    assert [item.state for item in rig.uploader.pending() if item.key == KEY] == ["uploading"]
    os.kill(child.pid, signal.SIGKILL)
    child.wait(30)
    try:
        assert rig.uploader.wait(KEY, ticket.id, 60) == "uploaded"
        assert rig.uploader.wait("other", other.id, 60) == "uploaded"
        assert ("head", KEY) in rig.remote.log
        assert rig.remote.bytes_of(KEY) == b"x"
    finally:
        rig.uploader.stop(5.0)


def test_the_doubt_reaches_a_put_that_came_after_the_kill(
    tmp_path: Path, children: list[subprocess.Popen[str]]
) -> None:
    """Its ticket replaced the one that was on the wire, and that one's notes with it."""
    rig = Rig(tmp_path, Scripted(conditional=False, remote_id=REMOTE), doubt_wait=0.5)
    rig.put(KEY, b"old", wake=False)
    child = start("test_uploader_processes:child_hang", tmp_path)
    children.append(child)
    assert line(child) == ["reached", "put", KEY]
    os.kill(child.pid, signal.SIGKILL)
    child.wait(30)
    info = read_leader(rig.files, rig.spool.root)
    assert info is not None
    assert not info.clean
    assert info.wire == {rig.spool.place(KEY).digest}
    ticket = rig.put(KEY, b"new")
    try:
        assert rig.uploader.wait(KEY, ticket.id, 60) == "uploaded"
        assert rig.remote.log[-1] == ("head", KEY)
    finally:
        rig.uploader.stop(5.0)


def test_a_stopped_leader_is_reported_and_not_taken_over(
    tmp_path: Path, children: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploader_module, "STALLED", 1.0)
    remote = DirectoryRemote(tmp_path / "remote", durable=False)
    child = start("test_uploader_processes:child_lead", tmp_path, tmp_path / "remote")
    children.append(child)
    assert line(child) == ["leading"]
    rig = Rig(tmp_path, remote)
    os.kill(child.pid, signal.SIGSTOP)
    try:
        ticket = rig.put(KEY, b"x")
        health = until(lambda: (h := rig.uploader.health())["stalled"] and h)
        assert health["leader_pid"] == child.pid
        assert health["state"] == "stalled"
        assert not health["leading"]
        report = rig.uploader.flush(0.5)
        assert not report.done
        assert f"process {child.pid} has not moved for" in report.reason
        assert [item.key for item in report.left] == [KEY]
        monkeypatch.setattr(uploader_module, "_GIVE_UP", 1.0)
        assert not rig.uploader.flush(None).done
        os.kill(child.pid, signal.SIGCONT)
        assert rig.uploader.wait(KEY, ticket.id, 60) == "uploaded"
        assert remote.head(KEY).sha256 == ticket.sha256
    finally:
        rig.uploader.stop(5.0)


def test_a_leader_for_another_remote_is_named(
    tmp_path: Path, children: list[subprocess.Popen[str]]
) -> None:
    child = start("test_uploader_processes:child_lead", tmp_path, tmp_path / "remote")
    children.append(child)
    assert line(child) == ["leading"]
    rig = Rig(tmp_path, Scripted())
    try:
        rig.put(KEY, b"x")
        report = rig.uploader.flush(0.2)
        assert "another remote" in report.reason
    finally:
        rig.uploader.stop(5.0)


def in_child(work: Any) -> int:
    """Fork, run `work` in the child, and return the child's exit code (0: it returned true)."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_uploads_by_itself_and_keeps_no_lock(tmp_path: Path) -> None:
    remote = DirectoryRemote(tmp_path / "remote", durable=False)
    rig = Rig(tmp_path, remote)
    try:
        assert rig.uploader.wait(KEY, rig.put(KEY, b"parent").id, 60) == "uploaded"
        assert rig.uploader.health()["leading"]
        reading, writing = os.pipe()

        def stand_by_then_take_over() -> bool:
            assert not rig.uploader.started
            ticket = rig.put(KEY, b"child")
            assert rig.uploader.wait(KEY, ticket.id, 60) == "uploaded"
            assert not rig.uploader.health()["leading"]
            os.write(writing, b"1")
            until(lambda: rig.uploader.health()["leading"])
            ticket = rig.put(KEY, b"grown")
            return rig.uploader.wait(KEY, ticket.id, 60) == "uploaded"

        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if stand_by_then_take_over() else 2
            finally:
                os._exit(code)
        assert os.read(reading, 1) == b"1"
        os.close(reading)
        os.close(writing)
        # The child must not hold the parent's lock, else nobody could lead while it lives.
        rig.uploader.stop(5.0)
        until(lambda: leading_pid(rig.files, rig.spool.root) == pid)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        body = remote.get(KEY)
        assert body is not None
        with body:
            assert b"".join(body) == b"grown"
    finally:
        rig.uploader.stop(5.0)


def test_a_child_forked_while_the_parent_uploads_leaves_the_parent_alone(tmp_path: Path) -> None:
    held = Held()
    rig = Rig(tmp_path, Scripted(held))
    try:
        ticket = rig.put(KEY, b"x")
        assert held.reached.wait(30)
        assert in_child(lambda: rig.uploader.pending()[0].key == KEY) == 0
        assert rig.uploader.health()["leading"]
        assert leading_pid(rig.files, rig.spool.root) == os.getpid()
        held.release.set()
        assert rig.uploader.wait(KEY, ticket.id, 60) == "uploaded"
    finally:
        held.release.set()
        rig.uploader.stop(5.0)


def test_uploads_pending_at_exit_stay_on_disk(tmp_path: Path) -> None:
    """No thread holds up the end of the interpreter, and nothing is lost by it."""
    rig = Rig(tmp_path, Scripted(conditional=False, remote_id=REMOTE), doubt_wait=0.2)
    ticket = rig.put(KEY, b"x", wake=False)
    child = start("test_uploader_processes:child_exit", tmp_path)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert "reached put" in out
    assert rig.spool.read(rig.spool.place(KEY)) == ticket
    try:
        rig.uploader.start()
        assert rig.uploader.wait(KEY, ticket.id, 60) == "uploaded"
    finally:
        rig.uploader.stop(5.0)


def child_exit(root: str) -> None:
    """End while an upload hangs, without closing anything."""
    rig = Rig(Path(root), Patient(conditional=False, remote_id=REMOTE))
    rig.uploader.start()
    assert Patient.asked.wait(60)
