"""`cachestore watch`, as a command of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cli_rig import Cli
from cli_rig import cli as cli
from cli_rig import place as place
from ingest_rig import in_bucket, write
from store_rig import until

from cachestore.testing.r2 import R2Double

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def command(cli: Cli, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`cachestore watch in ...`, running."""
    call = [sys.executable, "-c", "from cachestore.cli import main; main()", "watch", "in"]
    with subprocess.Popen(
        [*call, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=cli.folder,
    ) as running:  # fmt: skip
        try:
            yield running
        finally:
            running.kill()


def ended(running: subprocess.Popen[str], how: int, code: int) -> tuple[str, str]:
    running.send_signal(how)
    out, err = running.communicate(timeout=60)
    assert running.returncode == code, (out, err)
    return out, err


def test_json_lines_until_the_service_is_stopped(cli: Cli, r2_double: R2Double) -> None:
    cli.configure(r2_double, r2_double.bucket)
    write(cli.folder / "in", "old.jpg", b"old")
    with command(cli, "--prefix", "cam", "--json") as running:
        until(lambda: in_bucket(r2_double, "cam/old.jpg"), "what was there")
        (cli.folder / "in/new.jpg").write_bytes(b"new")
        until(lambda: in_bucket(r2_double, "cam/new.jpg"), "what came")
        out, _ = ended(running, signal.SIGTERM, 0)
    first, *steps, last = [json.loads(line) for line in out.splitlines()]
    assert (first["event"], first["watching"]) == ("watching", True)
    assert [(step["event"], step["key"]) for step in steps] == [
        ("uploaded", "cam/old.jpg"), ("uploaded", "cam/new.jpg"),
    ]  # fmt: skip
    assert (last["event"], last["uploaded"], last["waiting"], last["exit"]) == ("stopped", 2, [], 0)
    assert last["is_active_hours"] is True


def test_ctrl_c_says_what_is_left(cli: Cli, r2_double: R2Double) -> None:
    cli.configure(r2_double, r2_double.bucket)
    write(cli.folder / "in", "old.jpg", b"old")
    with command(cli, "--every", "none") as running:
        until(lambda: in_bucket(r2_double, "old.jpg"), "what was there")
        with open(cli.folder / "in/half.jpg", "wb") as file:
            file.write(b"half")
            file.flush()
            # What was closed behind it has arrived, so it was heard of, too.
            (cli.folder / "in/behind.jpg").write_bytes(b"behind")
            until(lambda: in_bucket(r2_double, "behind.jpg"), "the next file")
            out, err = ended(running, signal.SIGINT, 5)
    assert "1 left: the same command goes on" in out
    assert "left: half.jpg" in err
    assert "uploaded (3 B)" in err
    assert in_bucket(r2_double, "half.jpg") is None


def test_wrong_usage(cli: Cli) -> None:
    (cli.folder / "in").mkdir()
    for wrong in (["--every", "x"], ["--ingest-hours", "8-9"], ["--upload-hours", "1:00-2:00 M"],
                  ["--key", "{nam}"], ["--settle", "-1"]):  # fmt: skip
        last: dict[str, Any] = json.loads(cli("watch", "in", *wrong, "--json", code=2).stdout)
        assert last["exit"] == 2, wrong
    assert "not a folder" in cli("watch", "nowhere", code=2).stderr
