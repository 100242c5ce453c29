"""A bucket with large files on a double that counts, and stores that read them block by block."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

from process_rig import load_options, say
from servers import client_of
from store_rig import on_server, store_of

from cachestore.options import Options
from cachestore.store import CacheStore
from cachestore.testing.r2 import R2Double

KB, MIB = 1 << 10, 1 << 20
BLOCK = 64 * KB
PAGE = BLOCK // 16
SIZE = 20 * BLOCK + 1234
KEY = "songs/long.wav"


def content(size: int = SIZE, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


class Rig:
    """`options` are those of the stores; `data` is what the bucket has under `KEY`."""

    def __init__(self, root: Path, double: R2Double) -> None:
        self.root = root
        self.double = double
        self.bucket = double.new_bucket()
        self.client = client_of(double)
        self.data = content()
        self.etag = self.put(KEY, self.data)

    def put(self, key: str, data: bytes) -> str:
        """Store an object as others would; its ETag."""
        answer = self.client.put_object(
            Bucket=self.bucket, Key=key, Body=data, ContentType="audio/wav"
        )
        return str(answer["ETag"]).strip('"')

    def options(self, **fields: Any) -> Options:
        values = {"block_bytes": BLOCK, "read_ahead_bytes": 0}
        return on_server(self.root, self.double, self.bucket, **(values | fields))

    def store(self, **fields: Any) -> CacheStore:
        return store_of(self.options(**fields))

    def ranges(self, key: str = KEY) -> int:
        """GET requests for the key."""
        return self.double.log.count("GET", key)

    def sent(self, key: str = KEY) -> int:
        """Bytes of the key that left the server."""
        return self.double.log.bytes_sent(key, "GET")

    def parts(self) -> list[Path]:
        """Files of partial copies."""
        return list((self.root / "cache").glob("*/partial/*.part"))


def child_reads(options: str, seed: str, count: str) -> None:
    """Read pieces anywhere, and say the digest of what came with where."""
    chance = random.Random(int(seed))
    with store_of(load_options(options)) as store:
        say("open")
        for _ in range(int(count)):
            with store.open(KEY) as file:
                at = chance.randrange(SIZE)
                file.seek(at)
                data = file.read(chance.randrange(1, 3 * BLOCK))
                say(at, len(data), hashlib.sha256(data).hexdigest())
    say("done")


def child_reads_on(options: str) -> None:
    """Read from the beginning on until somebody kills us."""
    store = store_of(load_options(options))
    file = store.open(KEY)
    while piece := file.read(PAGE):
        say(len(piece))
