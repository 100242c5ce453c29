"""`kill -9` of the putting process: what was acknowledged is there and gets uploaded."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

from process_rig import load_options, save_options, say, start
from store_rig import on_server, store_of

KILLS = 50


def content(key: str, version: int) -> bytes:
    rng = random.Random(f"{key} {version}")
    return rng.randbytes(rng.choice([10, 3_000, 50_000, 200_000]))


def child_put(options: str, run: str) -> None:
    store = store_of(load_options(options))
    version = int(run) * 1_000_000
    while True:
        version += 1
        key = f"k/{version % 17}.bin"
        store.put(key, content(key, version))
        say(key, version)


def test_fifty_kills_lose_nothing(moto_server: Any, tmp_path: Path) -> None:
    options = on_server(tmp_path, moto_server, moto_server.new_bucket(), workers=4)
    saved = save_options(options, tmp_path / "options")
    rng = random.Random(11)
    newest: dict[str, int] = {}
    acknowledged = 0
    for run in range(KILLS):
        with start("test_kill:child_put", saved, run) as child:
            assert child.stdout is not None
            for _ in range(rng.randint(1, 25)):
                key, version = child.stdout.readline().split()
                newest[key] = int(version)
                acknowledged += 1
            child.kill()
            for line in child.stdout.read().splitlines():
                words = line.split()
                if len(words) == 2 and line.endswith(words[1]):
                    newest[words[0]] = int(words[1])
                    acknowledged += 1
    with store_of(options) as store:
        for key, version in newest.items():
            data = store.get(key).read_bytes()
            # The put that was killed may have taken effect; nothing older may be there.
            assert data in (content(key, version), content(key, version + 17)), key
        report = store.flush(120)
        assert report.done, report
        assert not store.pending()
        remote = store.core.remote
        assert remote is not None
        for key, version in newest.items():
            wanted = {hashlib.sha256(content(key, v)).hexdigest() for v in (version, version + 17)}
            assert remote.head(key).sha256 in wanted, key
    print(f"{KILLS} kills, {acknowledged} acknowledged puts, none lost")
