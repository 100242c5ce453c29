"""`cachestore doctor`: a real round trip, and the likely cause of each thing that can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_rig import Cli
from cli_rig import cli as cli
from cli_rig import place as place
from servers import client_of
from store_rig import on_server

from cachestore.cli import checks
from cachestore.errors import NotFound, RemoteRefused, RemoteUnavailable
from cachestore.files import Files
from cachestore.local.disks import Disk, disk_of, missing_powers
from cachestore.policy.diagnosis import likely_cause

STEPS = ["list", "put", "head", "get", "presigned", "delete"]


def report(cli: Cli, *more: str, code: int = 0) -> dict[str, dict[str, Any]]:
    shown = cli.json("doctor", *more, code=code)
    assert shown["ok"] is (code == 0)
    return {check["name"]: check for check in shown["checks"]}


def test_all_is_well_on_every_server(cli: Cli, s3_server: Any, bucket: str) -> None:
    cli.configure(s3_server, bucket)
    found = report(cli)
    assert [name for name in found if name in STEPS] == STEPS
    assert all(check["ok"] for check in found.values()), found
    left = client_of(s3_server).list_objects_v2(Bucket=bucket)
    assert "Contents" not in left


def test_nothing_configured_and_offline(cli: Cli) -> None:
    found = report(cli)
    assert found["bucket"]["ok"] is None
    assert "bucket" not in report(cli, "--offline")
    text = cli("doctor", "--offline").stdout
    assert "SPOOL_DIR" in text
    assert "nothing configured" in text


def test_incomplete_settings_are_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2_ACCESS_KEY_ID", "k")
    settings = report(cli)["settings"]
    assert settings["ok"] is None
    assert "R2_SECRET_ACCESS_KEY" in settings["detail"]
    assert "missing" in settings["cause"]
    monkeypatch.setenv("FALLBACK_TO_LOCAL", "false")
    assert "R2_SECRET_ACCESS_KEY" in report(cli, code=2)["settings"]["detail"]


def test_a_bucket_in_the_endpoint(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "R2_ACCESS_KEY_ID": "k", "R2_SECRET_ACCESS_KEY": "s", "R2_BUCKET_NAME": "media",
        "R2_ENDPOINT": "https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com/media",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert "/media" in report(cli, code=2)["settings"]["detail"]


def test_a_wrong_secret_a_wrong_key_and_a_wrong_bucket(cli: Cli, r2_double: Any) -> None:
    cli.configure(r2_double, r2_double.bucket, AWS_SECRET_ACCESS_KEY="wrong")
    assert "secret access key" in report(cli, code=1)["put"]["cause"]
    cli.configure(r2_double, r2_double.bucket, AWS_ACCESS_KEY_ID="unknown")
    assert "access key id" in report(cli, code=1)["put"]["cause"]
    cli.configure(r2_double, "no-such-bucket")
    assert "no bucket" in report(cli, code=1)["put"]["cause"]


def test_nothing_listens(cli: Cli, r2_double: Any) -> None:
    cli.configure(r2_double, r2_double.bucket, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    found = report(cli, code=1)
    assert "cannot be reached" in found["put"]["cause"]
    assert "head" not in found


def test_a_read_only_token_and_one_that_may_not_list(cli: Cli, r2_double: Any) -> None:
    cli.configure(r2_double, r2_double.bucket)
    r2_double.rules.add("status", status=403, code="AccessDenied", method="PUT")
    assert "read-only" in report(cli, code=1)["put"]["cause"]
    r2_double.rules.clear()
    r2_double.rules.add("status", status=403, code="AccessDenied", operation="ListObjects*")
    found = report(cli)
    assert found["list"]["ok"] is None
    assert "may not list" in found["list"]["cause"]
    assert found["delete"]["ok"]


def test_cors_rules_are_printed(cli: Cli, r2_double: Any) -> None:
    cli.configure(r2_double, r2_double.bucket)
    found = report(cli, "--origin", "https://app.example", code=1)
    assert "https://app.example" in found["CORS"]["fix"]
    text = cli("doctor", "--origin", "https://app.example", code=1).stdout
    assert '"AllowedOrigins"' in text


@pytest.mark.parametrize(
    ("error", "step", "passed", "words"),
    [
        (RemoteRefused("x", status=403, code="RequestTimeTooSkewed"), "list", {}, "clock"),
        (RemoteRefused("x", status=400, code="ExpiredToken"), "list", {}, "expired"),
        (RemoteRefused("x", status=403, code="AccessDenied"), "put", {"list": True}, "read-only"),
        (RemoteRefused("x", status=403), "put", {"list": False}, "no rights"),
        (RemoteUnavailable("x"), "put", {}, "cannot be reached"),
        (RemoteUnavailable("x", status=503), "put", {}, "fault of its own"),
        (NotFound("no such key"), "head", {"put": True}, "no such key"),
    ],
)
def test_causes(error: Exception, step: str, passed: dict[str, bool], words: str) -> None:
    assert words in likely_cause(error, step, passed)[0]


def test_a_clock_far_off_explains_any_refusal() -> None:
    error = RemoteRefused("x", status=403, code="SignatureDoesNotMatch")
    assert "clock" in likely_cause(error, "list", {}, skew=4000.0)[0]


def test_the_clock_is_compared_with_the_remote(moto_server: Any) -> None:
    skew = checks.clock_skew(moto_server.endpoint)
    assert skew is not None
    assert abs(skew) < 60


def test_disks(tmp_path: Path) -> None:
    assert missing_powers(tmp_path, Files()) == []
    assert list(tmp_path.iterdir()) == []
    assert disk_of(tmp_path).total > 0
    assert disk_of(Path("/dev/shm")).kind == "tmpfs"
    assert Disk("tmpfs", 1, 1).volatile
    assert Disk("overlay", 1, 1).volatile
    assert Disk("nfs4", 1, 1).network
    assert not Disk("ext4", 1, 1).volatile


def test_a_disk_without_locks_or_fsync_is_named(tmp_path: Path) -> None:
    class Poor(Files):
        def fsync(self, fd: int) -> None:
            raise OSError(22, "not here")

        def try_lock(self, fd: int, *, shared: bool = False) -> bool:
            return True

    assert missing_powers(tmp_path, Poor()) == ["fsync", "flock"]


def test_cors_is_asked_for_as_a_browser_does(tmp_path: Path, r2_double: Any) -> None:
    options = on_server(tmp_path, r2_double, r2_double.bucket)
    origin = "https://app.example.com"
    refused = checks.check_cors(options, origin)
    assert (refused.ok, refused.cause) == (False, f"no CORS rule lets {origin} upload")
    r2_double.allow_origin("https://other.example.com")
    assert "403" in checks.check_cors(options, origin).detail
    r2_double.allow_origin(origin)
    assert checks.check_cors(options, origin).ok
