"""Takes the dashboard's pictures for the documentation: `python tests/screenshots.py`."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

from browser_rig import Browser, serving
from fastapi import FastAPI
from store_rig import make_options, store_of, until

from cachestore.errors import Rejected, RemoteUnavailable
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.clock import ShiftedClock
from cachestore.testing.contract_tools import put as upload
from cachestore.testing.remotes import FaultyRemote
from cachestore.web.fastapi import build_router

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"
DESKTOP = {"viewport": {"width": 1200, "height": 900}, "color_scheme": "light"}
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "is_mobile": True,
         "device_scale_factor": 2}  # fmt: skip


class Media(FaultyRemote):
    name = "media at the account's R2"


def remote_with_songs() -> FaultyRemote:
    made = MemoryRemote()
    for number in range(120):
        folder = ("songs", "samples", "renders")[number % 3]
        size = 4_000 * random.Random(number).randint(20, 200)
        upload(made, f"{folder}/{number:03}.wav", bytes(size))
    return Media(made)


def live(store: CacheStore, clock: ShiftedClock, remote: FaultyRemote) -> None:
    """Four days, then an hour of skewed reads, and some uploads of which one is refused."""
    dice = random.Random(7)
    keys = sorted(item.key for item in store.list())
    dice.shuffle(keys)

    def read(times: int) -> None:
        for _ in range(times):
            store.get(keys[min(int(dice.paretovariate(0.7)) - 1, len(keys) - 1)])
        store.stats()

    for _ in range(4):
        read(dice.randint(80, 160))
        clock.advance(86_400)
    for minute in range(60):
        read(int(12 + 8 * dice.random() + minute / 4))
        clock.advance(60)
    remote.fail("put", "*odd*", times=9, error=lambda: Rejected("InvalidPart: bad tag", status=400))
    busy = "SlowDown: reduce your request rate (503)"
    remote.fail("put", "renders/*", times=99, error=lambda: RemoteUnavailable(busy, status=503))
    store.put("songs/odd.wav", bytes(180_000))
    store.put("renders/mix-final.wav", bytes(2_400_000))
    store.put("renders/mix-final-2.wav", bytes(2_500_000))
    until(lambda: store.health()["pending"]["parked"] == 1)
    until(lambda: all(item.tries for item in store.pending()))
    until(lambda: store.health()["bucket"])


def take(browser: Browser, url: str, name: str, **how: Any) -> None:
    with browser.visit(url, **how) as page:
        page.until("document.querySelectorAll('#hottest tr').length > 0", "the tables")
        full = name == "dashboard"
        page.do(lambda each: each.screenshot(path=FOLDER / f"{name}.png", full_page=full))


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    remote, clock, browser = remote_with_songs(), ShiftedClock(), Browser()
    clock.advance(-4 * 86_400 - 3600)
    with tempfile.TemporaryDirectory() as folder:
        options = make_options(
            Path(folder), mode="remote", cache_max_bytes=30_000_000, retry_base=20.0,
            retry_cap=60.0, reason="R2 credentials are complete", handout_grace=0.0,
        )  # fmt: skip
        with store_of(options, remote=remote, clock=clock) as store:
            live(store, clock, remote)
            app = FastAPI()
            app.include_router(build_router(store, authorize=lambda: None))
            with serving(app) as origin:
                take(browser, f"{origin}/dashboard", "dashboard", **DESKTOP)
                take(browser, f"{origin}/dashboard", "dashboard-phone", **PHONE)
            remote.up()
    browser.close()


if __name__ == "__main__":
    main()
