"""Two processes on the same folders over HTTP: one puts, the other reads at once."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

from process_rig import finish, load_options, save_options, say, start
from store_rig import on_server, store_of

FILES = 500
TYPES = {".wav": "audio/wav", ".jpg": "image/jpeg", ".json": "application/json", "": None}


def content(number: int) -> bytes:
    """Mixed sizes: many small ones, some of a few hundred KB, a few of megabytes."""
    rng = random.Random(number)
    size = rng.choice([0, 1, 100, 5_000, 24_000, 24_000, 100_000, 300_000])
    if number % 100 == 99:
        size = 2_000_000
    return rng.randbytes(size)


def name(number: int) -> str:
    return f"mixed/{number % 7}/datei ü {number}{list(TYPES)[number % 4]}"


def child_put(options: str) -> None:
    with store_of(load_options(options)) as store:
        for number in range(FILES):
            data = content(number)
            store.put(name(number), data, metadata={"number": str(number), "who": "Jürgen"})
            say(number)
        report = store.flush(240)
        assert report.done, report.reason


def child_read(options: str) -> None:
    with store_of(load_options(options)) as store:
        for line in iter(input, "end"):
            number = int(line)
            path = store.get(name(number))
            assert path.read_bytes() == content(number), number
            assert path.suffix == Path(name(number)).suffix
        say("read all")


def child_read_all(options: str) -> None:
    with store_of(load_options(options)) as store:
        for number in range(FILES):
            assert store.get(name(number)).read_bytes() == content(number), number
        assert store.stats().misses == FILES


def test_one_process_puts_and_another_reads_each_file_at_once(
    s3_server: Any, tmp_path: Path
) -> None:
    bucket = s3_server.new_bucket()
    options = on_server(tmp_path, s3_server, bucket, workers=8)
    saved = save_options(options, tmp_path / "options")
    putter = start("test_whole_system:child_put", saved)
    reader = start("test_whole_system:child_read", saved)
    assert putter.stdout is not None
    assert reader.stdin is not None
    for line in putter.stdout:
        reader.stdin.write(line)
        reader.stdin.flush()
    reader.stdin.write("end\n")
    reader.stdin.flush()
    finish(putter, 300)
    assert "read all" in finish(reader, 300)

    remote = store_of(options).core.remote
    assert remote is not None
    listed = {obj.key: obj for page in remote.list() for obj in page.objects}
    assert sorted(listed) == sorted(name(n) for n in range(FILES))
    for number in range(FILES):
        key, data = name(number), content(number)
        assert listed[key].size == len(data)
        body = remote.get(key)
        assert body is not None
        with body as answer:
            assert b"".join(answer) == data
            info = answer.info
        assert info.metadata == {"number": str(number), "who": "Jürgen"}
        assert info.sha256 == hashlib.sha256(data).hexdigest()
        wanted = TYPES[list(TYPES)[number % 4]]
        assert info.content_type == (wanted or "application/octet-stream")

    for root in ("one", "two"):
        fresh = on_server(tmp_path / root, s3_server, bucket)
        child = start("test_whole_system:child_read_all", save_options(fresh, tmp_path / root[0]))
        finish(child, 300)
