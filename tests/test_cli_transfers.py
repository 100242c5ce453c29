"""`cachestore export`, `migrate` and `backup`: what they say, and their exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_rig import Cli
from cli_rig import cli as cli
from cli_rig import place as place
from ingest_rig import fill, in_bucket
from settings_rig import Place
from transfer_rig import files_in, fill_bucket, objects, without

from cachestore.errors import ConfigError
from cachestore.settings.other import other_remote
from cachestore.testing.r2 import R2Double

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def old() -> Iterator[R2Double]:
    """Another bucket, on another server."""
    with R2Double() as double:
        yield double


def lines(cli: Cli, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in cli(*arguments, "--json", code=code).stdout.splitlines()]


def test_export(cli: Cli, r2_double: R2Double) -> None:
    cli.configure(r2_double, r2_double.bucket)
    made = objects(5)
    fill_bucket(r2_double, made)
    assert "5 would be written" in cli("export", "cam/", "out", "--dry-run", code=5).stdout
    assert not (cli.folder / "out").exists()
    *steps, last = lines(cli, "export", "cam/", "out", "--past-cache")
    assert [step["event"] for step in steps] == ["planned", *["exported"] * 5]
    assert (last["exported"], last["skipped"], last["complete"], last["exit"]) == (5, 0, True, 0)
    assert files_in(cli.folder / "out") == without("cam/", made)
    shown = cli("export", "cam/", "out", "--verify")
    assert "0 written (0 B), 5 there already, 0 failed" in shown.stdout
    assert shown.stderr == ""
    (cli.folder / "out" / "0" / "f0000.jpg").write_bytes(b"edited")
    shown = cli("export", "cam/", "out", code=1)
    assert "no export wrote" in shown.stderr
    assert "1 written" in cli("export", "cam/", "out", "--overwrite").stdout
    assert "invalid prefix" in lines(cli, "export", "../", "out", code=2)[0]["error"]
    assert "own folder" in lines(cli, "export", "cam/", "cache/x", code=2)[0]["error"]
    r2_double.rules.add("status", status=403, code="AccessDenied")
    assert lines(cli, "export", "cam/", "out", code=4)[0]["exit"] == 4


def test_migrate(cli: Cli, place: Place, r2_double: R2Double, old: R2Double) -> None:
    cli.configure(r2_double, r2_double.bucket)
    files = fill(cli.folder / "in", 4)
    fill_bucket(r2_double, {"media/mine": b"only here"})
    *steps, last = lines(cli, "migrate", "in", "--prefix", "media", "--verify")
    assert [step["event"] for step in steps] == ["planned", *["copied"] * 4]
    assert (last["copied"], last["verified"], last["only_target"]) == (4, 4, ["media/mine"])
    assert all(in_bucket(r2_double, f"media/{path}") == data for path, data in files.items())
    # Another bucket, by variables of its own.
    fill_bucket(old, {"old/a": b"a", "media/mine": b"theirs"})
    place.set(
        OLD_AWS_ACCESS_KEY_ID=old.access_key, OLD_AWS_SECRET_ACCESS_KEY=old.secret_key,
        OLD_AWS_ENDPOINT_URL=old.endpoint,
    )  # fmt: skip
    there = ["--from-env", "OLD_", "--from-bucket", old.bucket]
    shown = cli("migrate", *there, "--verify", code=1)
    assert "1 copied" in shown.stdout
    assert "'media/mine': the bucket has something else" in shown.stderr
    assert "only in the target: 'media/0/f0000.jpg'" in shown.stderr
    assert in_bucket(r2_double, "media/mine") == b"only here"
    assert in_bucket(r2_double, "old/a") == b"a"
    assert lines(cli, "migrate", *there, "--overwrite")[-1]["copied"] == 1
    wrong = lines(cli, "migrate", "--from-bucket", "x", code=2)[0]["error"]
    assert wrong.startswith("the other bucket (variables that begin with FROM_)")
    assert "name one source" in lines(cli, "migrate", "in", *there, code=2)[0]["error"]
    assert lines(cli, "migrate", "nowhere", code=2)[0]["exit"] == 2
    # And out again.
    *_, last = lines(cli, "migrate", "--back", "back", "--prefix", "media/", "--verify")
    assert (last["copied"], last["verified"]) == (5, 5)
    assert files_in(cli.folder / "back") == {**files, "mine": b"theirs"}


def test_backup(cli: Cli, r2_double: R2Double) -> None:
    cli.configure(r2_double, r2_double.bucket)
    (cli.folder / "notes.txt").write_bytes(b"one")
    report = cli.json("backup", "notes.txt", "--prefix", "exports", "--every", "daily")
    assert (report["state"], report["pending"]) == ("stored", False)
    assert in_bucket(r2_double, report["key"]) == b"one"
    assert "recent" in cli("backup", "notes.txt", "--prefix", "exports", "--every", "daily").stdout
    (cli.folder / "notes.txt").write_bytes(b"two")
    shown = cli("backup", "notes.txt", "--prefix", "exports", "--keep", "1").stdout
    assert f"pruned {report['key']}" in shown
    assert cli.json("backup", "nothing.db", code=1)["type"] == "SourceError"
    cli("backup", "notes.txt", "--every", "hourly", code=2)
    r2_double.rules.add("status")
    (cli.folder / "notes.txt").write_bytes(b"three")
    shown = cli("backup", "notes.txt", "--prefix", "exports", "--drain", "0.2", code=5)
    assert "cachestore flush" in shown.stderr


def test_ctrl_c_of_an_export(cli: Cli, r2_double: R2Double) -> None:
    cli.configure(r2_double, r2_double.bucket)
    made = objects(20)
    fill_bucket(r2_double, made)
    r2_double.rules.add("slow_headers", method="GET", key="cam/*", nth=5)
    command = [sys.executable, "-c", "from cachestore.cli import main; main()"]
    command += ["export", "cam/", "out", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cli.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as running:  # fmt: skip
        r2_double.log.wait_for(6, "GET", "cam/*")
        running.send_signal(signal.SIGINT)
        r2_double.rules.clear()
        out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    last = json.loads(out.splitlines()[-1])
    assert (last["stopped"], last["exported"] + last["left"]) == ("interrupted", 20)
    assert len(files_in(cli.folder / "out")) == last["exported"]
    again = lines(cli, "export", "cam/", "out")[-1]
    assert (again["exported"], again["skipped"]) == (last["left"], last["exported"])
    assert files_in(cli.folder / "out") == without("cam/", made)


# -- the other bucket's settings -----------------------------------------------------------------


def test_a_second_set_of_settings(place: Place) -> None:
    place.set(
        R2_ACCOUNT_ID="first", R2_ACCESS_KEY_ID="first", R2_SECRET_ACCESS_KEY="first",
        R2_BUCKET_NAME="first", USE_R2_STORAGE="false",
    )  # fmt: skip
    place.write("FROM_R2_ACCOUNT_ID=second", "FROM_R2_ACCESS_KEY_ID=k2", "R2_REGION=moon")
    place.set(FROM_R2_SECRET_ACCESS_KEY="s2", FROM_R2_BUCKET_NAME="b2")
    found = other_remote()
    assert (found.bucket, found.access_key, found.secret_key) == ("b2", "k2", "s2")
    assert (found.endpoint, found.region) == ("https://second.r2.cloudflarestorage.com", "auto")
    assert other_remote("from_", bucket="b3").bucket == "b3"
    assert other_remote(endpoint="http://localhost:1").endpoint == "http://localhost:1"
    # Nothing comes from the first set.
    place.set(OLD_R2_BUCKET_NAME="b4", OLD_R2_ACCOUNT_ID="x")
    with pytest.raises(ConfigError, match=r"OLD_.*R2_ACCESS_KEY_ID") as caught:
        other_remote("OLD_")
    assert "first" not in str(caught.value)
    place.set(
        AT_AWS_ACCESS_KEY_ID="a", AT_AWS_SECRET_ACCESS_KEY="s", AT_S3_BUCKET="left-alone",
    )  # fmt: skip
    found = other_remote("AT_", bucket="named", endpoint="https://s3.eu-west-1.amazonaws.com")
    assert (found.bucket, found.region, found.conditional) == ("named", "eu-west-1", True)
    with pytest.raises(ConfigError, match="need a prefix"):
        other_remote("")
