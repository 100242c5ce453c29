"""1 GB through put, upload, download and get adds at most 64 MB of memory each."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from process_rig import finish, load_options, save_options, say, start
from store_rig import on_server, store_of

MB = 1 << 20
SIZE = 1024 * MB


class Peak:
    """The highest resident size of this process while the block runs."""

    def __enter__(self) -> Peak:
        self._process = psutil.Process()
        self.before = self._process.memory_info().rss
        self.peak = self.before
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._end.wait(0.005):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    @property
    def added(self) -> float:
        return (self.peak - self.before) / MB


def child(options: str, source: str, digest: str) -> None:
    with store_of(load_options(options)) as store:
        store.put("warm", b"x", durability="remote")
        store.invalidate("warm")
        store.get("warm")
        figures = {}
        with Peak() as peak:
            store.put("big.bin", Path(source))
        figures["put"] = peak.added
        with Peak() as peak:
            assert store.flush(600).done
        figures["upload"] = peak.added
        store.invalidate("big.bin")
        with Peak() as peak:
            path = store.get("big.bin")
        figures["download"] = peak.added
        with Peak() as peak:
            store.get("big.bin")
        figures["get"] = peak.added
        found = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(MB):
                found.update(block)
        assert found.hexdigest() == digest
        say({name: round(value, 1) for name, value in figures.items()})
        assert all(value <= 64 for value in figures.values()), figures


def test_a_gigabyte_needs_little_memory(rclone_server: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    digest = hashlib.sha256()
    block = os.urandom(MB)
    with source.open("wb") as file:
        for number in range(SIZE // MB):
            part = number.to_bytes(8, "big") + block[8:]
            file.write(part)
            digest.update(part)
    options = on_server(tmp_path, rclone_server, rclone_server.new_bucket())
    saved = save_options(options, tmp_path / "options")
    began = time.monotonic()
    out = finish(start("test_memory:child", saved, source, digest.hexdigest()), 280)
    print(out, f"{time.monotonic() - began:.0f} s")
