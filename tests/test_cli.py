"""The commands, on LOCAL_DIR and on a real S3 server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from cli_rig import Cli
from cli_rig import cli as cli
from cli_rig import place as place
from store_rig import until

from cachestore import __version__
from cachestore.cli import demo_files
from cachestore.cli.demo_files import write_tone


def test_put_get_cat_ls_stat_rm_with_nothing_configured(cli: Cli) -> None:
    (cli.folder / "a.wav").write_bytes(b"RIFF and so on")
    assert "local" in cli("put", "a.wav", "songs/a.wav", "--meta", "Who=Jürgen").stdout
    path = Path(cli("get", "songs/a.wav").stdout.strip())
    assert path.read_bytes() == b"RIFF and so on"
    assert cli("cat", "songs/a.wav").stdout_bytes == b"RIFF and so on"
    cli("get", "songs/a.wav", "copy.wav")
    assert (cli.folder / "copy.wav").read_bytes() == b"RIFF and so on"
    listed = cli.json("ls", "-r")
    assert [item["key"] for item in listed] == ["songs/a.wav"]
    assert cli.json("ls")[0]["key"] == "songs/"
    info = cli.json("stat", "songs/a.wav")
    assert (info["size"], info["content_type"]) == (14, "audio/wav")
    assert info["metadata"] == {"who": "Jürgen"}
    assert cli.json("rm", "songs/a.wav") == {"deleted": 1}
    cli("get", "songs/a.wav", code=3)
    cli("rm", "songs/a.wav", code=3)


def test_the_same_on_a_server(cli: Cli, moto_server: Any) -> None:
    cli.configure(moto_server, moto_server.new_bucket())
    (cli.folder / "b.txt").write_bytes(b"text")
    assert cli.json("put", "b.txt", "--wait", "--drain", "0")["state"] == "uploaded"
    cli("put", "-", "piped.bin", stdin=b"\x00piped")
    assert cli("cat", "piped.bin").stdout_bytes == b"\x00piped"
    assert "standard input" in cli.json("put", "-", code=1)["error"]
    assert cli.json("put", "b.txt", "c/d.txt")["state"] in ("uploaded", "pending")
    assert cli.json("flush")["done"] is True
    assert "nothing is pending" in cli("queue").stdout
    with urlopen(cli.json("url", "b.txt")["url"], timeout=20) as answer:
        assert answer.read() == b"text"
        assert answer.headers["Content-Type"] == "text/plain"
    health = cli.json("stats")
    assert health["mode"] == "remote"
    assert health["pending"]["count"] == 0
    [day] = health["history"]["by_day"]
    assert (day["reads"], day["hit_rate"]) == (1, 1.0)
    assert "by prefix" in cli("stats", "--days", "1").stdout
    assert cli.json("fsck")["findings"] == []
    cleaned = cli("clean").stdout
    for word in ("evicted", "freed", "expired", "condemned", "orphaned", "unfinished"):
        assert word in cleaned
    assert cli.json("clean")["orphaned"] == 0
    assert cli.json("rm", "-r", "c/") == {"deleted": 1}
    assert [item["key"] for item in cli.json("ls", "-r")] == ["b.txt", "piped.bin"]


def test_pending_work_is_shown_and_flush_says_so_by_its_exit_code(cli: Cli) -> None:
    class Nowhere:
        access_key, secret_key, endpoint = "k", "s", "http://127.0.0.1:9"

    cli.configure(Nowhere, "bucket")
    (cli.folder / "a.txt").write_bytes(b"kept")
    assert cli.json("put", "a.txt", "--drain", "0.2")["state"] == "pending"
    assert cli("cat", "a.txt").stdout_bytes == b"kept"
    [item] = cli.json("queue")
    assert (item["key"], item["operation"]) == ("a.txt", "put")
    left = cli.json("flush", "--timeout", "1", code=5)
    assert [each["key"] for each in left["left"]] == ["a.txt"]
    assert cli.json("retry")["due"] in (0, 1)
    assert "a.txt" in cli("queue").stdout
    cli("get", "unknown.txt", code=4)


def test_flags_show_where_each_value_came_from_and_can_be_set_live(cli: Cli) -> None:
    (cli.folder / ".env").write_text("CACHE_TTL_HOURS=2\nOTHER=1\n")
    shown = cli.json("flags")
    assert shown["mode"] == "local"
    assert "CACHE_TTL_HOURS" in shown["settings"]["CACHE_TTL_HOURS"]["from"]
    cli("flags", "USE_R2_STORAGE=false")
    shown = cli.json("flags")
    assert shown["settings"]["USE_R2_STORAGE"] == {"value": "false", "from": "flags"}
    cli("flags", "--unset", "USE_R2_STORAGE")
    assert cli.json("flags")["settings"]["USE_R2_STORAGE"]["from"] == "default"
    assert "NO_SUCH" in cli("flags", "NO_SUCH=1", code=2).output


def test_errors_have_their_exit_codes(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.json("get", "../x", code=2)["type"] == "InvalidKey"
    cli("put", "missing-file", code=1)
    monkeypatch.setenv("CACHESTORE_NO_SUCH_THING", "1")
    assert "NO_SUCH_THING" in cli.json("ls", code=2)["error"]


def test_demo_with_nothing_configured(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_files, "LARGEST", 200_000)
    result = cli.json("demo", "--files", "6", "--visits", "2", "--reads", "20")
    assert (result["files"], result["uploads"], result["pending"]) == (6, 6, 0)
    assert "stands in for R2" in result["remote"]
    first, second = result["visits"]
    assert first["first_reads"] + first["hits"] == first["reads"] == 20
    assert first["first_reads"] > 0
    # Restarted on the same folders: what was read before is a hit.
    assert first["first_reads"] + second["first_reads"] <= 6
    assert list(cli.folder.iterdir()) == []


def test_demo_on_a_server_leaves_nothing_behind(
    cli: Cli, moto_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_files, "LARGEST", 100_000)
    cli.configure(moto_server, moto_server.new_bucket())
    assert "Remote: bucket" in cli("demo", "--files", "3", "--visits", "1", "--reads", "5").stdout
    until(lambda: cli.json("ls", "-r") == [], "an empty bucket")


def test_a_demo_file_is_a_playable_wav(tmp_path: Path) -> None:
    import wave

    write_tone(tmp_path / "a.wav", 100_000, 440)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 44_100)
        frames = file.readframes(file.getnframes())
    assert (tmp_path / "a.wav").stat().st_size == 100_000
    assert len(set(frames)) > 100


def test_the_command_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from cachestore.cli import main; main()", "--version"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == __version__


def test_without_typer_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None; from cachestore.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "cachestore-r2[cli]" in done.stderr
