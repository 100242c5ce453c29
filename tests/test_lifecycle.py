"""The bucket's own rules: ours among those of others, and what is said where we may not."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_rig import Cli
from cli_rig import cli as cli
from cli_rig import place as place
from concurrency_rig import on_double
from servers import client_of
from store_rig import make_options, on_server, store_of

from cachestore.errors import ConfigError, RemoteRefused, RemoteUnavailable, Unsupported
from cachestore.ingest import LifecycleRule, apply_lifecycle, lifecycle_rules
from cachestore.policy.lifecycle import commands, in_words, merged
from cachestore.testing.r2 import R2Double

THEIRS = {
    "ID": "of somebody else", "Status": "Disabled", "Filter": {"Prefix": "tmp/"},
    "Expiration": {"Days": 3},
}  # fmt: skip
TMP = LifecycleRule("tmp/", expire_days=7)
LOST = LifecycleRule("", abort_days=2)


@pytest.fixture
def admin() -> Iterator[R2Double]:
    """An R2 double for a key with rights of an administrator."""
    with R2Double(admin=True) as double:
        yield double


def put_theirs(server: Any, bucket: str, *rules: dict[str, Any]) -> None:
    client_of(server).put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)}
    )


def ids(rules: Any) -> list[str]:
    return [rule["ID"] for rule in rules]


@pytest.mark.parametrize("which", ["double", "moto"])
def test_ours_are_written_among_those_of_others(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server: Any = request.getfixturevalue({"double": "admin", "moto": "moto_server"}[which])
    bucket = server.new_bucket()
    with store_of(on_server(tmp_path, server, bucket)) as store:
        assert lifecycle_rules(store) == []
        put_theirs(server, bucket, THEIRS)
        dry = apply_lifecycle(store, [TMP], dry_run=True)
        assert (dry.changed, ids(dry.after)) == (True, ["of somebody else", "cachestore tmp/"])
        assert ids(lifecycle_rules(store)) == ["of somebody else"]
        cold = LifecycleRule("old/", infrequent_days=30, expire_days=365)
        assert apply_lifecycle(store, [TMP, LOST, cold]).changed
        theirs, tmp, lost, old = lifecycle_rules(store)
        assert {**THEIRS, **theirs} == theirs
        assert in_words(tmp) == ("tmp/", "7 d", "", "")
        assert in_words(lost) == ("", "", "", "2 d")
        assert in_words(old) == ("old/", "365 d", "30 d", "")
        assert old["Transitions"][0]["StorageClass"] == "STANDARD_IA"
        # Written again, a rule of ours takes its own place; what is not named stays.
        apply_lifecycle(store, [replace(TMP, expire_days=9)], remove=["old/"])
        assert ids(lifecycle_rules(store)) == ids([theirs, tmp, lost])
        assert in_words(lifecycle_rules(store)[1])[1] == "9 d"
        assert apply_lifecycle(store, [], remove=["tmp/", ""]).changed
        assert ids(lifecycle_rules(store)) == ["of somebody else"]
        put_theirs(server, bucket, LOST.raw())
        apply_lifecycle(store, [], remove=[""])
        assert lifecycle_rules(store) == []


def test_nothing_is_written_when_nothing_changes(admin: R2Double, tmp_path: Path) -> None:
    with store_of(on_double(tmp_path, admin)) as store:
        both = LifecycleRule("a/", expire_days=9, infrequent_days=3, abort_days=1)
        assert apply_lifecycle(store, [TMP, both, LOST]).changed
        admin.log.clear()
        assert not apply_lifecycle(store, [both, LOST]).changed
        assert admin.log.count("PUT") == 0
        # One that somebody switched off is written again.
        put_theirs(admin, admin.bucket, TMP.raw() | {"Status": "Disabled"})
        assert apply_lifecycle(store, [TMP]).changed
        assert lifecycle_rules(store)[0]["Status"] == "Enabled"


def test_a_key_for_objects_is_refused_and_goes_on_working(
    r2_double: R2Double, tmp_path: Path
) -> None:
    with store_of(on_double(tmp_path, r2_double)) as store:
        for _ in range(7):
            with pytest.raises(RemoteRefused, match=r"lifecycle rules.*403"):
                apply_lifecycle(store, [TMP])
        # A refusal of objects would open the breaker, and hold up reads and uploads.
        assert store.core.remote is not None
        assert store.core.remote.state == "closed"
        store.put("a.txt", b"a", durability="remote")


def test_where_there_are_no_rules(tmp_path: Path) -> None:
    mock = make_options(tmp_path, mode="mock", mock_dir=tmp_path / "remote")
    with store_of(mock) as store, pytest.raises(Unsupported, match="no rules of its own"):
        lifecycle_rules(store)
    local = make_options(tmp_path)
    with store_of(local) as store, pytest.raises(RemoteUnavailable, match="switched off"):
        apply_lifecycle(store, [TMP])


@pytest.mark.parametrize(
    "days",
    [
        {}, {"expire_days": 0}, {"abort_days": -1}, {"expire_days": 30, "infrequent_days": 30},
        {"expire_days": 0, "abort_days": 1},
    ],
)  # fmt: skip
def test_rules_that_mean_nothing_are_refused(days: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        LifecycleRule("a/", **days)


def test_merging_by_itself() -> None:
    with pytest.raises(ConfigError, match="no rule of ours for 'x/'"):
        merged([THEIRS], [], ["x/"])
    many = [{**THEIRS, "ID": str(n)} for n in range(1000)]
    with pytest.raises(ConfigError, match="1001 rules are too many"):
        merged(many, [TMP])
    assert merged([*many, TMP.raw()], [], ["tmp/"]) == many
    older = {"ID": TMP.id, "Status": "Enabled", "Prefix": "tmp/", "Expiration": {"Days": 7}}
    assert merged([older], [TMP]) == [older], "the same in another server's words"


def test_commands_for_somebody_who_may() -> None:
    host = "https://0123456789abcdef0123456789abcdef"
    cold = LifecycleRule("a b/", infrequent_days=30, expire_days=60)
    made = commands(f"{host}.eu.r2.cloudflarestorage.com", "photos", [cold, LOST], ["tmp/"])
    base = ["npx", "wrangler", "r2", "bucket", "lifecycle"]
    assert [shlex.split(line) for line in made] == [
        [*base, "remove", "photos", "--name", "cachestore tmp/", "--jurisdiction", "eu"],
        [*base, "add", "photos", "cachestore a b/", "a b/", "--expire-days", "60",
         "--ia-transition-days", "30", "--jurisdiction", "eu"],
        [*base, "add", "photos", "cachestore everything", "--abort-multipart-days", "2",
         "--jurisdiction", "eu"],
    ]  # fmt: skip
    assert "jurisdiction" not in commands(f"{host}.r2.cloudflarestorage.com", "b", [TMP])[0]
    assert commands("http://127.0.0.1:9000", "b", [TMP]) == []


@pytest.mark.servers
def test_what_wrangler_does_not_have_is_an_answer(
    cli: Cli, wrangler_server: Any, wrangler_bucket: str
) -> None:
    """Cloudflare's local R2 keeps no rules (501): they are printed instead."""
    cli.configure(wrangler_server, wrangler_bucket)
    told = cli.json("lifecycle", "apply", "--expire", "tmp/=7d", code=4)
    assert told["applied"] is False
    assert told["rules"] == [TMP.raw()]
    assert "501" in told["error"]


# -- the command ----------------------------------------------------------------------------------


def test_the_command(cli: Cli, admin: R2Double) -> None:
    cli.configure(admin, admin.bucket)
    assert "no rules" in cli("lifecycle", "show").stdout
    put_theirs(admin, admin.bucket, THEIRS)
    wanted = ("lifecycle", "apply", "--expire", "tmp/=7d", "--abort-uploads", "48h")
    assert "would be written" in cli(*wanted, "--dry-run").stdout
    assert len(cli.json("lifecycle", "show")["rules"]) == 1
    told = cli.json(*wanted, "--infrequent", "tmp/=1d")
    assert told["applied"] is True
    _, tmp, lost = cli.json("lifecycle", "show")["rules"]
    assert in_words(tmp) == ("tmp/", "7 d", "1 d", "")
    assert in_words(lost) == ("", "", "", "2 d")
    shown = cli("lifecycle", "show").stdout
    assert "enabled, ours" in shown
    assert "disabled" in shown
    cli("lifecycle", "apply", "--remove", "tmp/", "--remove", "")
    assert ids(cli.json("lifecycle", "show")["rules"]) == ["of somebody else"]


def test_the_command_prints_what_the_key_may_not_set(cli: Cli, r2_double: R2Double) -> None:
    cli.configure(r2_double, r2_double.bucket)
    wanted = ("lifecycle", "apply", "--expire", "tmp/=7d")
    refused = cli(*wanted, code=4)
    assert json.loads(refused.stdout) == {"Rules": [TMP.raw()]}
    assert "403" in refused.stderr
    r2_double.log.clear()
    assert json.loads(cli(*wanted, "--print").stdout) == {"Rules": [TMP.raw()]}
    assert r2_double.log.count() == 0
    cli("lifecycle", "show", code=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("apply",), "say what"),
        (("show", "--expire", "a/=1d"), "lifecycle apply"),
        (("apply", "--expire", "a/"), "PREFIX=AGE"),
        (("apply", "--expire", "=30d"), "--everything"),
        (("apply", "--expire", "a/=36h"), "whole days"),
        (("apply", "--expire", "a/=soon"), "--expire 'soon'"),
        (("apply", "--expire", "a/=1d", "--expire", "a/=2d"), "twice"),
    ],
)
def test_what_is_asked_is_checked_first(
    cli: Cli, r2_double: R2Double, arguments: tuple[str, ...], message: str
) -> None:
    cli.configure(r2_double, r2_double.bucket)
    assert message in cli.json("lifecycle", *arguments, code=2)["error"]
    assert r2_double.log.count() == 0
