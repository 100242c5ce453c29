"""`prune`: what is old goes; what is pinned, pending, labelled or newer than seen stays."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cli_rig import Cli
from cli_rig import cli as cli
from cli_rig import place as place
from ingest_rig import in_bucket, options_on
from store_rig import make_options, on_server, store_of, until

from cachestore.errors import ConfigError, RemoteUnavailable
from cachestore.ingest import PruneInterrupted, PruneReport, PruneStep, label, prune
from cachestore.model import Attributes, ObjectInfo
from cachestore.policy.retention import Dated, Label, owners_of, weekly_samples
from cachestore.store import CacheStore
from cachestore.testing.r2 import R2Double

PATTERN = "%Y%m%d_%H%M%S"
NOW = datetime.now(UTC)
DAY = 86400.0
JPEG = Attributes("image/jpeg")


def shot(age: float, camera: str = "side", folder: str = "snapshots") -> str:
    """The key of a picture that is so many days old."""
    when = NOW - timedelta(days=age)
    return f"{folder}/event_{when:%Y%m%d_%H%M%S}_{camera}.jpg"


@pytest.fixture
def store(r2_double: R2Double, tmp_path: Path) -> Iterator[CacheStore]:
    with store_of(options_on(tmp_path / "store", r2_double)) as opened:
        yield opened


def sent(store: CacheStore, *keys: str, **metadata: str) -> None:
    for key in keys:
        store.put(key, key.encode(), metadata=metadata)
    assert store.flush(60).done


def there(store: CacheStore) -> list[str]:
    return [item.key for item in store.list() if isinstance(item, ObjectInfo)]


def pruned(store: CacheStore, prefix: str = "snapshots/", **asked: Any) -> PruneReport:
    """Older than 30 days, by the name."""
    asked = {"older_than": 30 * DAY, "time_pattern": PATTERN} | asked
    return prune(store, prefix, **asked)


def test_what_is_old_goes_and_the_rest_is_not_asked_about(
    store: CacheStore, r2_double: R2Double
) -> None:
    old, young = [shot(31), shot(400)], [shot(1), shot(29)]
    sent(store, *old, *young, "other/event_20200101_000000_side.jpg")
    r2_double.log.clear()
    dry = pruned(store, dry_run=True)
    assert (dry.deleted, dry.listed, dry.old, dry.looks) == (2, 4, 2, 2)
    assert len(there(store)) == 5
    report = pruned(store)
    assert (report.deleted, report.bytes, report.kept) == (2, sum(map(len, old)), {})
    assert report.complete
    assert r2_double.log.count("HEAD") == 4, "a head for each old object, and for no other"
    for key in old:
        assert not store.exists(key)
    assert store.flush(60).done
    assert [in_bucket(r2_double, key) for key in old] == [None, None]
    assert sorted(there(store)) == sorted([*young, "other/event_20200101_000000_side.jpg"])


def test_pinned_labelled_and_prefixes_stay(store: CacheStore, r2_double: R2Double) -> None:
    plain, pinned, kept, tagged, other, left = (shot(40 + n) for n in range(6))
    apart = shot(50, folder="snapshots/keep")
    sent(store, plain, pinned, apart)
    sent(store, kept, keep="1")
    sent(store, tagged, label="training")
    sent(store, other, label="junk")
    sent(store, left, unrelated="x")
    store.pin(pinned)
    r2_double.log.clear()
    report = pruned(store, keep=["Label=training"], keep_prefixes=["snapshots/keep/"])
    assert report.kept == {"pinned": 1, "labelled": 2, "prefix": 1}
    assert sorted(there(store)) == sorted([pinned, kept, tagged, apart])
    assert r2_double.log.count("HEAD") == 5, "what is kept for less is not asked about"
    # Any value of the label; and without labels only what needs no request stays.
    assert pruned(store, keep=["label"], keep_prefixes=["snapshots/keep/"]).deleted == 0
    r2_double.log.clear()
    assert pruned(store, labels=False).kept == {"pinned": 1}
    assert r2_double.log.count("HEAD") == 0
    assert there(store) == [pinned]


def test_a_label_that_somebody_else_gave_is_seen(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    """The copy here is fresh, and its ETag the same: only the bucket knows."""
    key = shot(40)
    sent(store, key)
    store.get(key)
    with store_of(options_on(tmp_path / "other", r2_double)) as other:
        assert label(other, key, "label", "training")
        assert not label(other, key, "label", "training")
        assert other.flush(60).done
    assert "label" not in store.head(key).metadata
    assert pruned(store, keep=["label"]).kept == {"labelled": 1}
    assert in_bucket(r2_double, key) == key.encode()


@pytest.mark.parametrize("labels", [True, False])
def test_pending_work_stays(store: CacheStore, r2_double: R2Double, labels: bool) -> None:
    fresh, again, clean = shot(40), shot(41), shot(42)
    sent(store, again, clean)
    r2_double.rules.add("status", method="PUT", status=503)
    store.put(fresh, b"never sent")
    store.put(again, b"newer, not sent")
    assert pruned(store, labels=labels).kept == {"pending": 2}
    assert store.get(fresh).read_bytes() == b"never sent"
    assert store.get(again).read_bytes() == b"newer, not sent"
    assert not store.exists(clean)
    r2_double.rules.clear()
    assert store.flush(60).done
    assert in_bucket(r2_double, again) == b"newer, not sent"


@pytest.mark.parametrize("labels", [True, False])
def test_a_put_between_the_look_and_the_delete_wins(
    store: CacheStore, r2_double: R2Double, labels: bool
) -> None:
    """Pending, or in the bucket already: what was put since is not what was found old."""
    pending, arrived, plain = shot(40), shot(41), shot(42)
    sent(store, pending, arrived, plain)

    def meanwhile(step: PruneStep) -> None:
        if step.what == ("looked" if labels else "listed") and step.done >= 3:
            store.put(arrived, b"newer")
            assert store.flush(60).done
            r2_double.rules.add("status", method="PUT", status=503)
            store.put(pending, b"newest")

    report = pruned(store, labels=labels, progress=meanwhile)
    assert report.kept == {"changed": 2}
    assert report.deleted == 1
    r2_double.rules.clear()
    assert store.flush(60).done
    assert in_bucket(r2_double, pending) == b"newest"
    assert in_bucket(r2_double, arrived) == b"newer"
    assert in_bucket(r2_double, plain) is None


def test_a_put_of_local_mode_between_listing_and_look_wins(
    store: CacheStore, r2_double: R2Double
) -> None:
    """It has no ticket: a delete would take its place unseen."""
    key = shot(40)
    sent(store, key)
    with store_of(replace(store.options, mode="local")) as local:

        def meanwhile(step: PruneStep) -> None:
            if step.what == "listed":
                local.put(key, b"put while R2 was off")

        assert pruned(store, progress=meanwhile).kept == {"pending": 1}
    assert store.get(key).read_bytes() == b"put while R2 was off"
    assert store.flush(60).done
    assert in_bucket(r2_double, key) == b"put while R2 was off"


def test_another_machine_that_puts_between_listing_and_look_wins(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    key = shot(40)
    sent(store, key)
    with store_of(options_on(tmp_path / "other", r2_double)) as other:

        def meanwhile(step: PruneStep) -> None:
            if step.what == "listed":
                other.put(key, b"of another machine", durability="remote")

        assert pruned(store, progress=meanwhile).kept == {"changed": 1}
    assert store.flush(60).done
    assert in_bucket(r2_double, key) == b"of another machine"


def test_labels_that_cannot_be_read_keep(store: CacheStore, r2_double: R2Double) -> None:
    sent(store, shot(40), shot(41), shot(42))
    r2_double.rules.add("status", method="HEAD", key=shot(41), status=403, code="AccessDenied")
    report = pruned(store)
    assert report.kept["unknown"] >= 1
    assert not report.complete
    assert report.stopped
    assert shot(41) in there(store)


def test_sidecars_go_with_their_files(store: CacheStore) -> None:
    plain, kept, pair = shot(40), shot(41), "snapshots/pair"
    documents = [key.replace(".jpg", ".json") for key in (plain, kept)]
    sent(store, plain, *documents, f"{plain}.xmp.json")
    sent(store, kept, keep="1")
    sent(store, f"{pair}.jpg", f"{pair}.mp4", f"{pair}.json", f"{pair}.mp4.json")
    store.pin(f"{pair}.mp4")
    report = pruned(store, older_than=0)
    assert report.kept == {"pinned": 1, "labelled": 1, "file": 3}
    left = [kept, documents[1], f"{pair}.mp4", f"{pair}.json", f"{pair}.mp4.json"]
    assert sorted(there(store)) == sorted(left)


def test_the_time_comes_from_name_sidecar_or_storing(store: CacheStore) -> None:
    old = (NOW - timedelta(days=60)).isoformat()
    sent(store, shot(40), "snapshots/plain.jpg", "snapshots/told.jpg", "snapshots/odd.jpg")
    for name, document in (("told", {"timestamp": old}), ("odd", {"timestamp": "soon"})):
        store.put(f"snapshots/{name}.json", json.dumps(document).encode())
    # In its name, whatever its sidecar says.
    store.put(shot(2), b"x")
    store.put(shot(2).replace(".jpg", ".json"), json.dumps({"timestamp": old}).encode())
    assert store.flush(60).done
    assert pruned(store).deleted == 1
    assert pruned(store, time_field="timestamp").deleted == 2
    assert not store.exists("snapshots/told.json")
    assert len(there(store)) == 5
    assert pruned(store, older_than=0, time_pattern=None).deleted == 5


def test_a_zone_decides_what_day_it_was(store: CacheStore) -> None:
    local = NOW - timedelta(days=30, hours=-2)  # in UTC not old enough yet
    key = f"snapshots/{local:%Y%m%d_%H%M%S}.jpg"
    sent(store, key)
    assert pruned(store, dry_run=True).deleted == 0
    assert pruned(store, dry_run=True, timezone="Asia/Tokyo").deleted == 1


def test_one_sample_a_camera_and_week_is_spared(store: CacheStore) -> None:
    """The wildlife camera: of each week one picture of the night stays, the same in every run."""
    day = datetime(2026, 1, 5, tzinfo=UTC)
    keys = [
        f"snapshots/event_{day + timedelta(days=n, hours=hour):%Y%m%d_%H%M%S}_{camera}.jpg"
        for n in range(14)
        for hour in (2, 12, 22)
        for camera in ("side", "front")
    ]
    sent(store, *keys)

    def spare(files: list[Dated]) -> list[str]:
        chosen = weekly_samples(
            files, group=lambda key: key.rsplit("_", 1)[1], seed="deer",
            inside=lambda time: time.hour >= 20 or time.hour < 6,
        )  # fmt: skip
        assert len(chosen) == 4
        return list(chosen.values())

    report = pruned(store, spare=spare)
    assert (report.deleted, report.kept) == (len(keys) - 4, {"spared": 4})
    left = there(store)
    assert all(int(key[25:27]) in (2, 22) for key in left)
    assert len({(key[-9:], datetime.strptime(key[16:24], "%Y%m%d").isocalendar()[1])
                for key in left}) == 4  # fmt: skip
    assert pruned(store, spare=spare).deleted == 0


def test_samples_do_not_depend_on_order_or_on_when_they_are_drawn() -> None:
    start = datetime(2026, 3, 2, tzinfo=UTC)
    files = [Dated(f"{n}.jpg", start + timedelta(hours=n)) for n in range(7 * 24)]
    drawn = weekly_samples(files, group=lambda key: "cam", seed="a")
    assert drawn == weekly_samples(reversed(files), group=lambda key: "cam", seed="a")
    # Pruned day by day, what is left in the end is the same.
    left: list[Dated] = []
    for day in range(7):
        left += files[day * 24 : (day + 1) * 24]
        kept = set(weekly_samples(left, group=lambda key: "cam", seed="a").values())
        left = [each for each in left if each.key in kept]
    assert [each.key for each in left] == list(drawn.values())
    seeds = {
        tuple(weekly_samples(files, group=lambda key: "cam", seed=str(n)).values())
        for n in range(40)
    }
    assert len(seeds) > 20, "it is drawn by lot"
    # A week begins on Monday, and the last days of a year may belong to the next one's first.
    edge = [Dated("a", datetime(2024, 12, 29, tzinfo=UTC)),
            Dated("b", datetime(2024, 12, 30, tzinfo=UTC)),
            Dated("c", datetime(2025, 1, 5, tzinfo=UTC))]  # fmt: skip
    assert [week[1:] for week in weekly_samples(edge, group=str)] == [
        (2024, 52), (2025, 1), (2025, 1),
    ]  # fmt: skip


def test_labels_and_pairs_by_themselves() -> None:
    assert Label.parse("Keep") == Label("keep")
    assert Label.parse("a=b=c") == Label("a", "b=c")
    assert Label.parse("a=").is_on({"a": ""})
    assert not Label.parse("a=").is_on({"a": "x"})
    with pytest.raises(ConfigError, match="no name"):
        Label.parse("=x")
    keys = ["a/x.jpg", "a/x.json", "a/x.jpg.json", "b/x.json", "a.b/y", "a.b/y.json", "j.json"]
    assert owners_of(keys) == {
        "a/x.json": ["a/x.jpg"], "a/x.jpg.json": ["a/x.jpg"], "a.b/y.json": ["a.b/y"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prefix": ""}, "everything=True"),
        ({"older_than": -1.0}, "negative"),
        ({"older_than": float("nan")}, "negative"),
        ({"keep": "label"}, "list of labels"),
        ({"keep_prefixes": "a/"}, "list of prefixes"),
        ({"keep": [""]}, "no name"),
        ({"time_pattern": "%H"}, "no whole date"),
        ({"timezone": "Mars"}, "no time zone"),
        ({"workers": 0}, "at least 1"),
    ],
)
def test_what_is_asked_is_checked_first(
    store: CacheStore, r2_double: R2Double, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pruned(store, **asked)
    assert r2_double.log.count() == 0


def test_nothing_goes_when_the_listing_fails_or_pins_are_unknown(
    store: CacheStore, r2_double: R2Double
) -> None:
    sent(store, shot(40))
    r2_double.rules.add("status", operation="ListObjectsV2", status=503)
    with pytest.raises(RemoteUnavailable):
        pruned(store)
    r2_double.rules.clear()
    store.core.catalog.close()  # as on a broken disk: what is asked finds nothing
    with pytest.raises(Exception, match="pinned"):
        pruned(store)
    assert in_bucket(r2_double, shot(40)) is not None


def test_an_interruption_before_the_end_deletes_nothing(
    store: CacheStore, r2_double: R2Double
) -> None:
    sent(store, *(shot(40 + n) for n in range(5)))

    def interrupt(step: PruneStep) -> None:
        if step.what == "looked":
            raise KeyboardInterrupt

    with pytest.raises(PruneInterrupted) as caught:
        pruned(store, progress=interrupt)
    assert caught.value.report.deleted == 0
    assert caught.value.report.stopped == "interrupted"
    assert len(there(store)) == 5
    assert pruned(store).deleted == 5


def test_local_mode_and_prefixes_that_stay_here(r2_double: R2Double, tmp_path: Path) -> None:
    options = options_on(tmp_path, r2_double, local_only_prefixes=("samples/",))
    both = {"older_than": 0.0, "everything": True}
    with store_of(options) as store:
        store.put("samples/kept.wav", b"1", metadata={"keep": "yes"})
        store.put("samples/gone.wav", b"2")
        sent(store, "songs/a.wav")
        assert prune(store, "", **both).deleted == 2
        assert there(store) == ["samples/kept.wav"]
        sent(store, "songs/sent.wav")
    with store_of(replace(options, mode="local")) as store:
        store.put("songs/local.wav", b"3")
        store.put("songs/kept.wav", b"4", metadata={"keep": "yes"})
        store.pin("songs/local.wav")
        report = prune(store, "songs/", older_than=0.0)
        assert report.kept == {"pinned": 1, "labelled": 1}
        assert not store.exists("songs/sent.wav")
        assert store.get("songs/kept.wav").read_bytes() == b"4"
    with store_of(options) as store:
        assert store.flush(60).done
        assert in_bucket(r2_double, "songs/sent.wav") is None
        assert in_bucket(r2_double, "songs/kept.wav") == b"4"


def test_many_go_in_few_requests(store: CacheStore, r2_double: R2Double) -> None:
    keys = [f"many/{n:04}.jpg" for n in range(300)]
    assert store.core.remote is not None
    for key in keys:
        store.core.remote.put(key, io.BytesIO(b"x"), size=1, sha256="", attributes=JPEG)
    r2_double.log.clear()
    seen: list[str] = []

    def progress(step: PruneStep) -> None:
        if step.what == "deleted":
            seen.append(step.key)

    assert prune(store, "many/", older_than=0.0, labels=False, progress=progress).deleted == 300
    assert sorted(seen) == keys
    assert store.flush(120).done
    assert there(store) == []
    assert r2_double.log.count("POST") + r2_double.log.count("DELETE") < 60


def test_on_other_servers(s3_server: Any, bucket: str, tmp_path: Path) -> None:
    with store_of(on_server(tmp_path, s3_server, bucket)) as store:
        sent(store, shot(40), shot(41), shot(1))
        sent(store, shot(42), label="training")
        report = pruned(store, keep=["label"])
        assert (report.deleted, report.kept) == (2, {"labelled": 1})
        assert store.flush(60).done
        assert sorted(there(store)) == sorted([shot(1), shot(42)])


def test_label_replaces_nothing_newer(
    store: CacheStore, r2_double: R2Double, tmp_path: Path
) -> None:
    sent(store, "a.jpg", cat="yes")
    store.get("a.jpg")
    with store_of(options_on(tmp_path / "other", r2_double)) as other:
        other.put("a.jpg", b"newer", durability="remote", metadata={"dog": "yes"})
        assert label(store, "a.jpg", "Label", "night")
        info = other.head("a.jpg")
        assert in_bucket(r2_double, "a.jpg") == b"newer"
        other.invalidate("a.jpg")
        info = other.head("a.jpg")
    assert info.metadata == {"dog": "yes", "label": "night"}
    with store_of(make_options(tmp_path / "local")) as local:
        local.put("b.jpg", b"b", metadata={"x": "1"})
        assert label(local, "b.jpg", "y", "2")
        assert local.head("b.jpg").metadata == {"x": "1", "y": "2"}
        assert local.get("b.jpg").read_bytes() == b"b"


# -- the command ----------------------------------------------------------------------------------


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_command(cli: Cli, r2_double: R2Double) -> None:
    cli.configure(r2_double, r2_double.bucket)
    for name, more in (("old.txt", ()), ("kept.txt", ("--meta", "label=x"))):
        (cli.folder / name).write_bytes(b"text")
        cli("put", name, f"p/{name}", "--wait", *more)
    base = ("prune", "p/", "--older-than", "0s", "--keep-tagged", "label")
    shown = cli(*base, "--dry-run")
    assert "would delete p/old.txt" in shown.stdout
    assert "1 kept: labelled" in shown.stdout
    listed, kept, gone, sums = lines(cli(*base, "--json").stdout)
    assert listed == {"event": "listed", "objects": 2, "old": 2}
    assert kept == {"event": "kept", "key": "p/kept.txt", "size": 4, "reason": "labelled"}
    assert gone == {"event": "deleted", "key": "p/old.txt", "size": 4}
    assert (sums["deleted"], sums["pending"], sums["exit"]) == (1, 0, 0)
    assert in_bucket(r2_double, "p/old.txt") is None
    assert "everything" in cli("prune", "", "--older-than", "1d", code=2).output
    assert "older-than" in lines(cli("prune", "p/", "--older-than", "soon", "--json",
                                     code=2).stdout)[0]["error"]  # fmt: skip


def test_the_command_says_what_the_bucket_still_has(cli: Cli, r2_double: R2Double) -> None:
    cli.configure(r2_double, r2_double.bucket)
    (cli.folder / "a.txt").write_bytes(b"text")
    cli("put", "a.txt", "p/a.txt", "--wait")
    r2_double.rules.add("status", method="DELETE", status=503)
    base = ("prune", "p/", "--older-than", "0s")
    assert "still in the bucket" in cli(*base, "--drain", "0.3", code=5).output
    assert cli.json("ls", "-r") == []
    r2_double.rules.clear()
    r2_double.rules.add("status", operation="ListObjectsV2", status=403, code="AccessDenied")
    cli(*base, code=4)


def test_the_page_itself(store: CacheStore) -> None:
    """The Python of docs/retention.md, one block after the other."""
    text = (Path(__file__).parent.parent / "docs" / "retention.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    prunings = [block for block in blocks if "lifecycle" not in block]
    assert len(prunings) == 3
    names: dict[str, Any] = {"store": store}
    night = datetime(2026, 1, 15, 23, tzinfo=UTC)
    sent(store, *(f"snapshots/event_{night + timedelta(days=n):%Y%m%d_%H%M%S}_side.jpg"
                  for n in range(21)))  # fmt: skip
    for block in prunings:
        exec(block, names)
        assert store.flush(60).done
    assert names["report"].deleted >= 15
    assert names["report"].kept == {"spared": 4, "labelled": 2}, (there(store), names["report"])
    kept, tagged, *samples = there(store)
    assert len(samples) == 4
    assert store.head(kept).metadata == {"keep": "yes"}
    assert store.head(tagged).metadata == {"label": "training"}
    label_of = {"label": "weekly_background_sample"}
    assert [store.head(key).metadata for key in samples] == [label_of] * 4


def test_an_interrupted_command_says_so_by_its_exit_code(cli: Cli, r2_double: R2Double) -> None:
    cli.configure(r2_double, r2_double.bucket)
    r2_double.rules.add("status", method="PUT", status=503)
    (cli.folder / "a.txt").write_bytes(b"kept")
    cli("put", "a.txt", "--drain", "0")
    before = r2_double.log.count("PUT")
    code = "from cachestore.cli import main; main()"
    child = subprocess.Popen([sys.executable, "-c", code, "flush"], stderr=subprocess.DEVNULL)
    try:
        until(lambda: r2_double.log.count("PUT") > before, "the flush began")
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
    finally:
        child.kill()
    assert [item["key"] for item in cli.json("queue")] == ["a.txt"]


def test_the_shell_completes_commands_and_options() -> None:
    code = "import sys; sys.argv[0] = 'cachestore'; from cachestore.cli import main; main()"
    for words, expected in (
        ("cachestore pru", "prune"),
        ("cachestore prune --older", "--older-than"),
    ):
        env = {**os.environ, "_CACHESTORE_COMPLETE": "complete_bash", "COMP_WORDS": words,
               "COMP_CWORD": str(len(words.split()) - 1)}  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60
        )
        assert expected in done.stdout.split(), done
