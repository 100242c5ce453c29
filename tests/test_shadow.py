"""From local to R2 by its flags, and back: local, shadow (both), write-behind."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from cli_rig import Cli
from cli_rig import cli as cli
from cli_rig import place as place
from ingest_rig import in_bucket, options_on, write
from process_rig import finish, load_options, save_options, start
from settings_rig import Place
from store_rig import make_options, store_of, until
from transfer_rig import shown

from cachestore.errors import ConfigError, NotFound
from cachestore.ingest import migrate, migrate_back
from cachestore.options import Options
from cachestore.settings import Settings
from cachestore.store import CacheStore
from cachestore.testing.r2 import R2Double


def stages(root: Path, double: R2Double) -> tuple[Options, Options, Options]:
    """Local, shadow and write-behind, on the same folders."""
    remote = options_on(root, double)
    local = make_options(root, mode="local", remote=remote.remote)
    shadow = make_options(root, mode="local", remote=remote.remote, shadow=True)
    return local, shadow, remote


def content(store: CacheStore) -> dict[str, bytes]:
    return {item.key: store.read(item.key) for item in store.list()}


def bucket(double: R2Double, keys: dict[str, bytes]) -> dict[str, bytes | None]:
    return {key: in_bucket(double, key) for key in keys}


def test_the_whole_way_and_back(r2_double: R2Double, tmp_path: Path) -> None:
    local, shadow, remote = stages(tmp_path, r2_double)
    with store_of(local) as store:
        store.put("a.txt", b"put in local mode")
        store.put("b.txt", b"deleted in shadow")
        write(local.local_dir, "legacy.wav", b"of an older app")
    assert r2_double.log.count() == 0
    with store_of(shadow) as store:
        store.put("c.txt", b"in both")
        store.put("a.txt", b"changed in shadow")
        store.delete("b.txt")
        assert store.flush(60).done
        report = migrate(store, verify=True)
        assert (shown(report), report.verified, report.only_target) == ((1, 2, 0), 3, ())
        expected = {
            "a.txt": b"changed in shadow", "c.txt": b"in both", "legacy.wav": b"of an older app",
        }  # fmt: skip
        r2_double.log.clear()
        assert content(store) == expected
        assert r2_double.log.count() == 0  # nothing is read from the bucket
        assert store.health()["remote"]["state"] == "closed"
    assert bucket(r2_double, expected) == expected
    assert in_bucket(r2_double, "b.txt") is None
    with store_of(local) as store:  # rolling back from shadow needs nothing
        assert content(store) == expected
    with store_of(remote) as store:
        assert content(store) == expected
        store.put("d.txt", b"in the bucket alone")
        store.delete("c.txt")
        assert store.flush(60).done
    del expected["c.txt"]
    expected["d.txt"] = b"in the bucket alone"
    with store_of(remote) as store:
        assert shown(migrate_back(store, verify=True)) == (1, 2, 0)
        store.invalidate("d.txt")
    for stage in (shadow, local):
        with store_of(stage) as store:
            assert content(store) == expected
            assert store.pending() == []


def test_in_shadow_the_bucket_holds_nobody_up(r2_double: R2Double, tmp_path: Path) -> None:
    _, shadow, _ = stages(tmp_path, r2_double)
    r2_double.rules.add("status")
    with store_of(shadow) as store:
        receipt = store.put("a.txt", b"first")
        assert receipt.wait(0) == "local"
        store.put("gone.txt", b"x")
        store.delete("gone.txt")
        until(lambda: store.core.uploader.health()["last_error"], "an upload that failed")
        assert store.read("a.txt") == b"first"
        assert [item.key for item in store.list()] == ["a.txt"]
        assert {(item.key, item.operation) for item in store.pending()} == {
            ("a.txt", "put"), ("gone.txt", "delete"),
        }  # fmt: skip
        with pytest.raises(NotFound):
            store.read("gone.txt")
        assert not store.flush(0.5).done
        r2_double.rules.clear()
        # By itself, once the bucket is back.
        until(lambda: in_bucket(r2_double, "a.txt") == b"first", "the upload")
        until(lambda: store.pending() == [], "the delete")
        store.put("a.txt", b"second")
        until(lambda: in_bucket(r2_double, "a.txt") == b"second", "the next upload")


def put_and_wait(options: str) -> None:
    """A process in shadow that is killed with changes that the bucket does not have."""
    store = store_of(load_options(options))
    for number in range(8):
        store.put(f"{number}.txt", str(number).encode())
    store.delete("0.txt")
    print("put", flush=True)
    sys.stdin.readline()


def put_one(options: str) -> None:
    """A process in shadow beside one that uploads."""
    with store_of(load_options(options)) as store:
        store.put("other.txt", b"of another process")
        store.delete("mine.txt")
        store.close(drain=0.0)


def test_who_uploads_sees_what_other_processes_change(r2_double: R2Double, tmp_path: Path) -> None:
    _, shadow, _ = stages(tmp_path, r2_double)
    with store_of(shadow) as store:
        store.put("mine.txt", b"mine")
        until(lambda: in_bucket(r2_double, "mine.txt") == b"mine", "the first upload")
        finish(start("test_shadow:put_one", save_options(shadow, tmp_path / "options")))
        until(lambda: in_bucket(r2_double, "other.txt"), "the other's upload", 20)
        until(lambda: in_bucket(r2_double, "mine.txt") is None, "the other's delete", 20)


def test_a_killed_process_in_shadow_loses_nothing(r2_double: R2Double, tmp_path: Path) -> None:
    _, shadow, remote = stages(tmp_path, r2_double)
    r2_double.rules.add("hang", method="PUT")
    child = start("test_shadow:put_and_wait", save_options(shadow, tmp_path / "options"))
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "put\n"
        r2_double.log.wait_for(1, "PUT")
        child.send_signal(signal.SIGKILL)
        child.wait(60)
    finally:
        child.kill()
        child.communicate()
    r2_double.rules.clear()
    expected = {f"{number}.txt": str(number).encode() for number in range(1, 8)}
    with store_of(remote) as store:  # straight on to write-behind
        assert content(store) == expected
        assert store.flush(60).done
    assert bucket(r2_double, expected) == expected
    assert in_bucket(r2_double, "0.txt") is None


def test_the_flags(place: Place, r2_double: R2Double) -> None:
    names = {
        "AWS_ACCESS_KEY_ID": r2_double.access_key, "AWS_SECRET_ACCESS_KEY": r2_double.secret_key,
        "AWS_ENDPOINT_URL": r2_double.endpoint, "S3_BUCKET": r2_double.bucket,
    }  # fmt: skip
    place.set(names, {"USE_R2_STORAGE": "false", "R2_SHADOW": "true"})
    options = Settings().options()
    assert (options.mode, options.shadow) == ("local", True)
    assert "changes are sent to the bucket too" in options.reason
    assert not Settings(use_r2_storage=True).options().shadow
    assert not Settings(r2_shadow=False).options().shadow
    place.set({"USE_R2_STORAGE": "false", "R2_SHADOW": "true"}, {"AWS_SECRET_ACCESS_KEY": ""})
    with pytest.raises(ConfigError, match="R2_SHADOW is true, but"):
        Settings().options()


def test_by_the_command_line(cli: Cli, r2_double: R2Double) -> None:
    """What docs/migration.md says, step by step."""
    cli.configure(r2_double, r2_double.bucket)
    cli("flags", "USE_R2_STORAGE=false")
    (cli.folder / "a.wav").write_bytes(b"RIFF")
    assert "local" in cli("put", "a.wav", "songs/a.wav").stdout
    write(cli.folder / "output", "songs/legacy.wav", b"legacy")
    cli("flags", "R2_SHADOW=true")
    (cli.folder / "a.wav").write_bytes(b"in both")
    cli("put", "a.wav", "songs/b.wav")
    assert cli.json("flush")["done"] is True
    assert "1 copied" in cli("migrate", "--verify").stdout
    cli("flags", "USE_R2_STORAGE=true")
    assert [item["key"] for item in cli.json("ls", "-r")] == [
        "songs/a.wav", "songs/b.wav", "songs/legacy.wav",
    ]  # fmt: skip
    cli("put", "a.wav", "songs/c.wav", "--wait")
    assert "1 copied" in cli("migrate", "--back", "--verify").stdout
    cli("flags", "USE_R2_STORAGE=false")
    assert cli("cat", "songs/c.wav").stdout_bytes == b"in both"
    assert len(cli.json("ls", "-r")) == 4
