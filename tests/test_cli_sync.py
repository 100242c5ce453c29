"""`cachestore sync`, and what every command's help has to have."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_rig import Cli
from cli_rig import cli as cli
from cli_rig import place as place
from ingest_rig import fill, in_bucket, write
from typer.main import get_command
from typer.testing import CliRunner

from cachestore.cli.app import app
from cachestore.testing.r2 import R2Double

DOCS = Path(__file__).resolve().parent.parent / "docs" / "cli.md"


def lines(cli: Cli, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in cli(*arguments, "--json", code=code).stdout.splitlines()]


def test_sync_with_a_bucket(cli: Cli, r2_double: R2Double) -> None:
    cli.configure(r2_double, r2_double.bucket)
    files = fill(cli.folder / "in", 5)
    assert "5 would be uploaded" in cli("sync", "in", "--dry-run", code=5).stdout
    *steps, last = lines(cli, "sync", "in", "--prefix", "cam", "--limit", "3", code=5)
    assert [step["event"] for step in steps] == ["planned", *["uploaded"] * 3]
    assert (last["uploaded"], last["left"], last["complete"], last["exit"]) == (3, 2, False, 5)
    *steps, last = lines(cli, "sync", "in", "--prefix", "cam")
    assert (last["uploaded"], last["skipped"], last["errors"], last["exit"]) == (2, 3, [], 0)
    for path, data in files.items():
        assert in_bucket(r2_double, f"cam/{path}") == data
    shown = cli("sync", "in", "--prefix", "cam")
    assert "0 uploaded (0 B), 5 there already, 0 failed" in shown.stdout
    assert shown.stderr == ""  # quiet where nobody looks


def test_what_is_wrong_is_said_before_anything_is_sent(cli: Cli, r2_double: R2Double) -> None:
    cli.configure(r2_double, r2_double.bucket)
    fill(cli.folder / "in", 2)
    for wrong in (
        ["--key", "{nam}"], ["--since", "yesterday"], ["--timezone", "Mars"],
        ["--time-pattern", "%H"], ["--prefix", "/x"], ["--limit", "0"],
    ):  # fmt: skip
        assert cli("sync", "in", *wrong, code=2)
    assert "unknown field {nam}" in lines(cli, "sync", "in", "--key", "{nam}", code=2)[-1]["error"]
    assert lines(cli, "sync", "nowhere", code=2)[-1]["exit"] == 2
    assert r2_double.log.count() == 0


def test_exit_codes_of_failures(cli: Cli, r2_double: R2Double) -> None:
    cli.configure(r2_double, r2_double.bucket)
    fill(cli.folder / "in", 4)
    r2_double.rules.add("status", method="PUT", key="1/*", status=400, code="InvalidRequest")
    *steps, last = lines(cli, "sync", "in", code=1)
    assert last["failed"] == 1
    assert [step["path"] for step in steps if step["event"] == "failed"] == ["1/f0001.jpg"]
    assert "failed: 1/f0001.jpg" in cli("sync", "in", code=1).stderr
    r2_double.rules.clear()
    r2_double.rules.add("status", status=403, code="AccessDenied")
    assert "stopped:" in cli("sync", "in", code=4).stderr


def test_templates_sidecars_and_since(cli: Cli) -> None:
    write(cli.folder / "in", "event_20260115_083022.jpg", b"image")
    write(cli.folder / "in", "old.jpg", b"old", age=90_000)
    (cli.folder / "side.json").write_text('{"id": "{stem}", "size": "{size}"}')
    cli(
        "sync", "in", "--since", "24h", "--key", "s/{mtime:%Y}/{mtime:%m}/{name}",
        "--time-pattern", "%Y%m%d_%H%M%S", "--sidecar-template", "side.json",
    )  # fmt: skip
    base = "s/2026/01/event_20260115_083022"
    assert [item["key"] for item in cli.json("ls", "-r")] == [f"{base}.jpg", f"{base}.json"]
    assert json.loads(cli("cat", f"{base}.json").stdout) == {
        "id": "event_20260115_083022",
        "size": 5,
    }


def test_ctrl_c_leaves_a_state_to_go_on_from(cli: Cli, r2_double: R2Double) -> None:
    cli.configure(r2_double, r2_double.bucket)
    files = fill(cli.folder / "in", 30)
    r2_double.rules.add("slow_headers", method="PUT", nth=5)
    command = [sys.executable, "-c", "from cachestore.cli import main; main()", "sync", "in"]
    with subprocess.Popen(
        [*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(DOCS.parent.parent)}, cwd=cli.folder,
    ) as running:  # fmt: skip
        r2_double.log.wait_for(6, "PUT")
        running.send_signal(signal.SIGINT)
        r2_double.rules.clear()
        out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    last = json.loads(out.splitlines()[-1])
    assert last["stopped"] == "interrupted"
    assert 4 <= last["uploaded"] < 30
    assert last["uploaded"] + last["left"] == 30, last
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": str(DOCS.parent.parent)}, cwd=cli.folder,
    )  # fmt: skip
    again = json.loads(done.stdout.splitlines()[-1])
    assert again["uploaded"] + again["skipped"] == 30
    assert again["skipped"] >= last["uploaded"]
    assert r2_double.log.count("PUT", status=200) == 30
    assert all(in_bucket(r2_double, path) == data for path, data in list(files.items())[:5])


COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]  # the app is a group


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_and_has_an_example(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output
    found = re.search(r"Example: cachestore (\S+)(.*)", shown)
    assert found is not None, f"`{name}` has no example: add one to cachestore/cli/examples.py"
    assert found[1] == name
    given = {word for word in found[2].split() if re.fullmatch(r"--?[a-z][a-z-]*", word)}
    assert all(word in shown.replace(found[0], "") for word in given)
    assert f"| `{name}" in DOCS.read_text("utf-8")
