"""A wildlife camera's week on a fake clock, and the code of the page."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from ingest_rig import in_bucket, options_on, write
from store_rig import make_options, store_of, until

from cachestore.events import Event, Uploaded
from cachestore.ingest import Watcher, watch
from cachestore.testing.clock import FakeClock
from cachestore.testing.r2 import R2Double

BERLIN = ZoneInfo("Europe/Berlin")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "watch.md"


class Camera:
    """Snapshots with their documents, at a time of the fake clock; what it took at night."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self._folder = folder
        self._clock = clock
        self.night: dict[str, bytes] = {}

    def until(self, moment: datetime) -> None:
        self._clock.advance(moment.timestamp() - self._clock.now())

    def snapshot(self, moment: datetime, watcher: Watcher) -> None:
        """An image, its document a moment later; returns when the system told of both."""
        self.until(moment)
        stem = f"event_{moment:%Y%m%d_%H%M%S}_side"
        image = os.urandom(2_400)
        text = json.dumps({"camera_id": "10cea9e4511f", "timestamp": f"{moment:%Y-%m-%dT%H:%M:%S}"})
        for name, data in ((f"{stem}.jpg", image), (f"{stem}.json", text.encode())):
            path = write(self._folder, name, data)
            os.utime(path, (self._clock.now(), self._clock.now()))
            until(lambda name=name: name in watcher.status().waiting, f"{name} to be heard of")
            if not 6 <= moment.hour < 20:
                self.night[f"snapshots/{moment:%Y}/{moment:%m}/{name}"] = data


def test_a_week_of_snapshots(r2_double: R2Double, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    folder.mkdir()
    noon = datetime(2026, 1, 29, 12, tzinfo=BERLIN)  # the month ends in this week
    clock = FakeClock(noon.timestamp())
    camera, sent_at = Camera(folder, clock), list[datetime]()

    def look(event: Event) -> None:
        if isinstance(event, Uploaded):
            sent_at.append(datetime.fromtimestamp(clock.now(), BERLIN))

    with store_of(options_on(tmp_path / "store", r2_double), clock=clock) as store:
        store.subscribe(look)
        with watch(
            store, folder, template="snapshots/{mtime:%Y}/{mtime:%m}/{name}", every=900.0,
            time_pattern="%Y%m%d_%H%M%S", timezone="Europe/Berlin",
            ingest_hours="20:00-06:00", upload_hours="05:00-06:00",
        ) as watcher:  # fmt: skip
            for day in range(7):
                for hours in (1, 8.5, 13.25, 15.5):  # 13:00, 20:30, 01:15 and 03:30
                    camera.snapshot(noon + timedelta(days=day, hours=hours), watcher)
                assert not watcher.status().is_active_hours
                camera.until(noon + timedelta(days=day, hours=17, seconds=1))

                def all_sent() -> bool:
                    clock.advance(0.5)
                    return not watcher.status().waiting

                until(all_sent, "the night's snapshots to be sent")
                assert r2_double.log.count("PUT", status=200) == len(camera.night)
                camera.until(noon + timedelta(days=day, hours=18, seconds=1))
    assert len(camera.night) == 7 * 3 * 2
    for key, data in camera.night.items():
        assert in_bucket(r2_double, key) == data
    sent = [entry.key for entry in r2_double.log.entries("PUT", status=200)]
    assert sorted(sent) == sorted(camera.night)  # each once
    assert {key.rpartition("/")[0] for key in sent} == {"snapshots/2026/01", "snapshots/2026/02"}
    for key in camera.night:
        if key.endswith(".jpg"):
            assert sent.index(key) < sent.index(key.replace(".jpg", ".json"))
    assert {moment.hour for moment in sent_at} == {5}


def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    write(tmp_path, "snapshots/a.jpg", b"image")
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        with store_of(make_options(tmp_path / "store")) as store:
            names: dict[str, Any] = {"store": store}
            exec(compile(block, str(PAGE), "exec"), names)
            assert names["report"].complete
            assert store.read("snapshots/a.jpg") == b"image"
    finally:
        os.chdir(before)
