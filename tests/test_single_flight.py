"""64 threads and 4 processes want one cold key: one object's worth of bytes leaves the server."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

from process_rig import finish, load_options, save_options, say, start
from store_rig import make_options, store_of

from cachestore.options import RemoteOptions
from cachestore.testing.r2 import R2Double

SIZE = 20_000_000


def child_get(options: str, threads: str, digest: str) -> None:
    with store_of(load_options(options)) as store:
        say("ready")
        input()
        wrong: list[object] = []

        def one() -> None:
            try:
                data = store.get("big.bin").read_bytes()
                if hashlib.sha256(data).hexdigest() != digest:
                    wrong.append("digest")
            except Exception as error:
                wrong.append(error)

        crowd = [threading.Thread(target=one) for _ in range(int(threads))]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        assert not wrong, wrong


def test_one_miss_one_get(tmp_path: Path) -> None:
    data = bytes(range(256)) * (SIZE // 256)
    digest = hashlib.sha256(data).hexdigest()
    with R2Double() as double:
        remote = RemoteOptions(
            bucket=double.bucket,
            endpoint=double.endpoint,
            access_key=double.access_key,
            secret_key=double.secret_key,
            conditional=True,
        )
        options = make_options(tmp_path, mode="remote", remote=remote)
        with store_of(options) as store:
            store.put("big.bin", data, durability="remote")
            store.invalidate("big.bin")
        before = double.log.bytes_sent("big.bin")
        saved = save_options(options, tmp_path / "options")
        children = [start("test_single_flight:child_get", saved, 16, digest) for _ in range(4)]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        for child in children:
            finish(child)
        sent = double.log.bytes_sent("big.bin") - before
    print(f"{sent} bytes sent for {len(data)}")
    assert len(data) <= sent < len(data) * 1.01
