"""The recorder tells the truth: what it noted is what the kernel was asked, in order (strace)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from power_rig import TapedRemote
from process_rig import say
from store_rig import make_options, store_of

from cachestore.testing.power import Note, Recorder

TESTS = Path(__file__).parent
KEY = "music/song.wav"
OURS = re.compile(r"(spool|cache/[0-9a-f]{16}/([0-9a-f]{2}|parts|transit))(/|$)(?!\.gitignore)")
Call = list[str]


@cache
def why_not() -> str:
    """Why there can be no strace here; empty if there can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = subprocess.run(
        ["strace", "-f", "-o", os.devnull, "true"], capture_output=True, text=True, timeout=60
    )
    return f"strace is not allowed here: {probe.stderr.strip()}" if probe.returncode else ""


class Real(Recorder):
    """The recorder, with notes of the bucket between the calls."""

    def say(self, *note: Any) -> None:
        with self._lock:
            self.notes.append(note)


def child(root: str) -> None:
    """Put, overwrite, acknowledge, delete, acknowledge, download; then say what was recorded."""
    base = Path(root)
    tape = Real(base)
    remote = TapedRemote(tape)  # type: ignore[arg-type]  # it only says something to it
    options = make_options(base, mode="remote", workers=1, local_dir=base / "o")
    with store_of(options, files=tape, remote=remote) as store:
        wake = store.core.uploader.wake
        store.core.uploader.wake = lambda ticket: None  # type: ignore[method-assign]
        store.put(KEY, b"one" * 1000)
        store.put(KEY, b"two" * 1000)
        store.get(KEY)
        store.core.uploader.wake = wake  # type: ignore[method-assign]
        assert store.flush(60).done
        store.invalidate(KEY)
        assert store.get(KEY).read_bytes() == b"two" * 1000
        store.delete(KEY)
        assert store.flush(60).done
    say(json.dumps(list(of_notes(tape.notes))))


# -- both sides in one form: [what, name, new name] -----------------------------------------------


def of_notes(notes: Iterable[Note]) -> Iterator[Call]:
    """What was recorded. Folders are left out: they are noted after their parent's fsync."""
    names: dict[int, str] = {}
    for what, *rest in notes:
        if what == "create" or what == "folder":
            names[rest[1]] = rest[0]
        if what in ("write", "fsync", "truncate"):
            yield [what, names.get(rest[0], ".")]
        elif what in ("create", "unlink"):
            yield [what, rest[0]]
        elif what in ("rename", "link"):
            if what == "rename":
                names.update({inode: rest[1] for inode, name in names.items() if name == rest[0]})
            yield [what, *rest]


def whole_lines(text: str) -> Iterator[str]:
    """Calls in the order in which they ended; those that others came between are put together."""
    begun: dict[str, str] = {}
    for line in text.splitlines():
        pid, _, call = line.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            begun[pid] = call.removesuffix("<unfinished ...>").rstrip()
        elif match := re.match(r"<\.\.\. \w+ resumed>(.*)", call):
            yield begun.pop(pid) + match[1]
        else:
            yield call


WORDS = {
    "pwrite64": "write", "fdatasync": "fsync", "ftruncate": "truncate", "renameat": "rename",
    "renameat2": "rename", "linkat": "link", "unlinkat": "unlink",
}  # fmt: skip


def of_strace(text: str, root: Path) -> Iterator[Call]:
    """What the kernel did below `root`, without what only reads."""
    seen: set[str] = set()
    for line in whole_lines(text):
        match = re.match(r"(\w+)\((.*)\) += (-?\d+)", line)
        if match is None or int(match[3]) < 0:
            continue
        what, arguments = WORDS.get(match[1], match[1]), match[2]
        paths = re.findall(r'"([^"]*)"', arguments)
        if what in ("write", "fsync", "truncate"):
            descriptor = re.match(r"\d+<([^>]*)>", arguments)
            paths = [] if descriptor is None else [descriptor[1].removesuffix(" (deleted)")]
        elif what in ("open", "openat") and "O_CREAT" in arguments and paths[0] not in seen:
            what = "create"
            seen.add(paths[0])
        elif what not in ("rename", "link", "unlink"):
            continue
        if paths and all(path.startswith(f"{root}/") for path in paths):
            yield [what, *(path.removeprefix(f"{root}/") for path in paths)]


def ours(calls: Iterable[Call]) -> list[Call]:
    """Without SQLite's files; several writes in a row are one."""
    kept: list[Call] = []
    for call in calls:
        if OURS.match(call[1]) and not (call[0] == "write" and kept and kept[-1] == call):
            kept.append(call)
    return kept


def position(calls: list[Call], what: str, pattern: str, start: int = 0) -> int:
    """Where a call like this comes, at `start` or later."""
    for at, call in enumerate(calls[start:], start):
        if call[0] == what and re.search(pattern, call[-1]):
            return at
    raise AssertionError(f"no {what} of {pattern} from {start} on")


def assert_synced(calls: list[Call]) -> None:
    """The catalog was written, and synced after that."""
    log = [what for what, *paths in calls if re.search(r"catalog/.*\.db-wal$", paths[-1])]
    assert "write" in log
    assert log[-1] == "fsync"


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_the_real_calls_are_the_recorded_ones(tmp_path: Path) -> None:
    root, log = tmp_path / "store", tmp_path / "strace"
    root.mkdir()
    code = f"import test_real_calls; test_real_calls.child({str(root)!r})"
    done = subprocess.run(
        ["strace", "-f", "-y", "-qq", "-s", "16", "-e", "trace=file,desc", "-e", "signal=none",
         "-o", str(log), sys.executable, "-c", code],
        capture_output=True, text=True, timeout=240,
        env={**os.environ, "PYTHONPATH": str(TESTS), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    recorded = ours(json.loads(done.stdout.splitlines()[-1]))
    real = list(of_strace(log.read_text(errors="replace"), root))
    assert ours(real) == recorded
    assert len(recorded) > 60
    # A put: body and ticket are synced, then the name, then the folder.
    body = position(real, "fsync", r"\.wav$")
    ticket = position(real, "fsync", r"\.ticket\.tmp$", body)
    name = position(real, "rename", r"\.ticket$", ticket)
    folder = position(real, "fsync", r"^spool/[0-9a-f]{2}$", name)
    # The acknowledgement: the copy, its row synced, the ticket gone and synced, then the body.
    link = position(real, "link", r"^cache/", folder)
    gone = position(real, "unlink", r"\.ticket$", link)
    assert_synced(real[link:gone])
    folder = position(real, "fsync", r"^spool/[0-9a-f]{2}$", gone)
    position(real, "rename", r"\.condemned$", folder)
    # The end of a delete: no row comes back, then the ticket goes.
    name = position(real, "rename", r"\.ticket$", folder)
    gone = position(real, "unlink", r"\.ticket$", name)
    assert_synced(real[name:gone])
