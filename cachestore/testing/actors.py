"""Stores that do what a test says, in this process or in another one that can be killed."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cachestore.model import Attributes
from cachestore.open import assemble
from cachestore.options import Options
from cachestore.remote.directory import DirectoryRemote
from cachestore.store import CacheStore
from cachestore.testing.clock import ShiftedClock
from cachestore.testing.remotes import FaultyRemote

PATIENCE = 60.0


def bucket(root: Path) -> dict[str, bytes]:
    """All that the bucket below `root` has."""
    remote, found = DirectoryRemote(root / "remote", durable=False), {}
    for page in remote.list():
        for obj in page.objects:
            body = remote.get(obj.key)
            assert body is not None
            with body as chunks:
                found[obj.key] = b"".join(chunks)
    return found


def put_into_bucket(root: Path, key: str, data: bytes) -> None:
    """What another machine does."""
    remote = DirectoryRemote(root / "remote", durable=False)
    attributes = Attributes("application/octet-stream")
    remote.put(key, io.BytesIO(data), size=len(data), sha256="", attributes=attributes)


class Actor:
    """A store below `root` on the folder `root/remote` as its bucket, with a clock of its own.

    `fields` are those of `Options`. What it answers can be pickled.
    """

    def __init__(self, root: Path, fields: dict[str, Any]) -> None:
        self.root = root
        self.clock = ShiftedClock()
        self.remote = FaultyRemote(DirectoryRemote(root / "remote", durable=False))
        self._fields = fields
        self._store: CacheStore | None = None

    @property
    def store(self) -> CacheStore:
        """The open store."""
        assert self._store is not None, "the store is not open"
        return self._store

    # -- its life --------------------------------------------------------------------------------

    def open(self, mode: str) -> None:
        """Open the store, in `remote` or `local` mode."""
        values: dict[str, Any] = {
            "cache_dir": self.root / "cache", "spool_dir": self.root / "spool",
            "local_dir": self.root / "output", "cache_min_free": 0.0, "retry_base": 0.02,
            "retry_cap": 0.2, "key_interval": 0.0, "doubt_wait": 0.1, "leader_interval": 0.05,
            "revalidate_deadline": PATIENCE, "miss_deadline": PATIENCE, "lock_timeout": PATIENCE,
        }  # fmt: skip
        options = Options(**(values | self._fields | {"mode": mode}))
        remote = self.remote if mode == "remote" else None
        self._store = CacheStore(lambda: assemble(options, clock=self.clock, remote=remote))

    def close(self) -> None:
        """Close without waiting for uploads; what is pending stays on disk."""
        if self._store is not None:
            self._store.close(drain=0.0)
            self._store = None

    crash = close

    def down(self) -> None:
        """The bucket cannot be reached any more."""
        self.remote.down()

    def up(self) -> None:
        """The bucket can be reached, and no fault is left."""
        self.remote.up()

    def fail(self, operation: str, times: int, after: bool) -> None:
        """Let the next requests fail; `after`: when they have taken effect."""
        self.remote.fail(operation, times=times, after=after)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    # -- what it is asked ------------------------------------------------------------------------

    def put(self, key: str, data: bytes, metadata: dict[str, str]) -> None:
        self.store.put(key, data, metadata=metadata)

    def delete(self, key: str) -> None:
        self.store.delete(key)

    def delete_prefix(self, prefix: str) -> int:
        return self.store.delete_prefix(prefix, everything=not prefix)

    def copy(self, source: str, target: str) -> None:
        self.store.copy(source, target)

    def get(self, key: str) -> bytes:
        return self.store.get(key).read_bytes()

    def current(self, key: str) -> bytes:
        """The bytes, asking the bucket."""
        return self.store.get(key, max_age=0).read_bytes()

    def read(self, key: str, start: int, end: int | None) -> bytes:
        return self.store.read(key, start, end)

    def opened(self, key: str) -> bytes:
        """The bytes by way of an open file."""
        with self.store.open(key) as file:
            return file.read()

    def leased(self, key: str) -> bytes:
        """The bytes by way of a lease."""
        with self.store.lease(key) as path:
            return path.read_bytes()

    def head(self, key: str) -> tuple[int, dict[str, str]]:
        """Size and metadata."""
        info = self.store.head(key)
        return info.size, dict(info.metadata)

    def exists(self, key: str) -> bool:
        return self.store.exists(key)

    def listed(self, prefix: str) -> dict[str, int]:
        """Sizes by key; fails if a key comes twice or they are not in order."""
        items = list(self.store.list(prefix))
        keys = [item.key.encode() for item in items]
        assert keys == sorted(set(keys)), f"not in order, or not once: {keys}"
        return {item.key: getattr(item, "size", -1) for item in items}

    def invalidate(self, key: str) -> None:
        self.store.invalidate(key)

    def clean(self) -> None:
        self.store.clean()

    def fsck(self) -> list[str]:
        """What is wrong, in words."""
        return [f"{f.what}: {f.where} {f.detail}" for f in self.store.fsck().findings]

    def pending(self) -> list[str]:
        """Keys of pending operations."""
        return [item.key for item in self.store.pending()]

    def flush(self) -> None:
        """Send all that is pending; fails if that does not end."""
        end = time.monotonic() + PATIENCE
        while not (report := self.store.flush(0.05)).done:
            assert time.monotonic() < end, f"not flushed: {report}"
            self.clock.advance(0.2)
        assert not report.parked, f"parked: {report.parked}"


class OtherProcess:
    """An `Actor` in a process of its own; has all of its methods, and dies by `crash`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._made: tuple[Path, dict[str, Any]] | None = None

    def begin(self, root: Path, fields: dict[str, Any]) -> None:
        """Become an actor below `root`; the process is used again if there is one."""
        self._made = (root, fields)
        self._ask("begin", root, fields)

    def crash(self) -> None:
        """Kill it with SIGKILL. The next one knows of no faults."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *arguments: self._ask(name, *arguments)

    def _ask(self, name: str, *arguments: Any) -> Any:
        if self._process is None:
            code = "from cachestore.testing.actors import serve; serve()"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            if name != "begin" and self._made is not None:
                self._ask("begin", *self._made)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((name, arguments), self._process.stdin)
        self._process.stdin.flush()
        good, answer = pickle.load(self._process.stdout)
        if not good:
            raise answer
        return answer


def serve() -> None:
    """The other process's work: one answer for each question, until its input ends."""
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    actor: Actor | None = None
    while True:
        try:
            name, arguments = pickle.load(questions)
        except EOFError:
            return
        try:
            if name == "begin":
                actor, answer = Actor(*arguments), None
            else:
                answer = getattr(actor, name)(*arguments)
            good = True
        except Exception as error:
            good, answer = False, error
        pickle.dump((good, answer), answers)
        answers.flush()
