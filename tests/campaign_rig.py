"""The child of the crash campaign: works on a store under load, and dies where it is told to.

What it says goes through a pipe, each line with one write: `try put k 7` before a call, `did put
k 7` after its return. Children are forked from a server that has everything imported, so one
costs a few milliseconds.
"""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from process_rig import load_options
from store_rig import store_of

from cachestore.downloader import Downloader
from cachestore.errors import NotFound
from cachestore.files import Files
from cachestore.local.cache import CacheFiles
from cachestore.store import CacheStore
from cachestore.uploads import work
from cachestore.writing import Writer

GONE = "-"
TORN = "torn"
CALLS = (
    "create", "open_read", "open_shared", "write", "pwrite", "truncate", "close", "chmod", "fsync",
    "fsync_dir", "rename", "link", "unlink", "make_folder", "stat", "list", "try_lock", "unlock",
)  # fmt: skip


def content(key: str, version: int) -> bytes:
    """Bytes that tell their key and version, and whether they are whole."""
    rng = random.Random(f"{key} {version}")
    body = rng.randbytes(rng.choice([0, 200, 3_000, 20_000, 60_000]))
    head = f"{key} {version} {len(body)} {hashlib.md5(body).hexdigest()}\n"
    return head.encode() + body


def version_of(key: str, data: bytes) -> str:
    """The version that these bytes are, `TORN` if they are not the whole of any."""
    words = data[:200].split(b"\n")[0].decode("ascii", "replace").split()
    known = len(words) == 4 and words[0] == key and words[1].isdigit()
    return words[1] if known and content(key, int(words[1])) == data else TORN


@dataclass(frozen=True)
class Plan:
    """What one child does. It dies at the `nth` call of `phase` ("" for never by itself)."""

    options: str
    lane: int
    keys: tuple[str, ...]
    first: int
    seed: int
    phase: str = ""
    nth: int = 0


class Phases:
    """Which part of the library a thread is in."""

    def __init__(self) -> None:
        self._local = threading.local()

    @property
    def now(self) -> str:
        return getattr(self._local, "phase", "")

    def around(self, phase: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def inside(*args: Any, **fields: Any) -> Any:
            before = self.now
            self._local.phase = phase
            try:
                return call(*args, **fields)
            finally:
                self._local.phase = before

        return inside


PHASES = Phases()


def mark_phases() -> None:
    """Let threads know in which part they are; once for a process of the campaign's own.

    The parts themselves are wrapped, since nothing in them says that they begin.
    """
    Writer.put = PHASES.around("put", Writer.put)  # type: ignore[method-assign]  # wrapped
    Writer.delete = PHASES.around("delete", Writer.delete)  # type: ignore[method-assign]  # wrapped
    evicting = PHASES.around("eviction", CacheFiles.discard)
    CacheFiles.discard = evicting  # type: ignore[method-assign]  # wrapped
    admitting = PHASES.around("admission", Downloader.download)
    Downloader.download = admitting  # type: ignore[method-assign]  # wrapped
    work.acknowledge = PHASES.around("acknowledgement", work.acknowledge)


class Deadly(Files):
    """Kills its own process right after the nth call of a phase; a write is only half done then."""

    def __init__(self, plan: Plan, say: Callable[..., None]) -> None:
        self._plan = plan
        self._say = say
        self._left = plan.nth
        self._lock = threading.Lock()

    def counts(self, name: str) -> bool:
        """True when this call is the one."""
        if not self._plan.phase or PHASES.now != self._plan.phase:
            return False
        with self._lock:
            self._left -= 1
            return self._left == 0

    def die(self, name: str) -> None:
        self._say("dies", self._plan.phase, name)
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()


def _deadly(name: str) -> Callable[..., Any]:
    def call(self: Deadly, *args: Any, **fields: Any) -> Any:
        last = self.counts(name)
        if last and name in ("write", "pwrite"):
            args = (args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:])
        result = getattr(Files, name)(self, *args, **fields)
        if last:
            self.die(name)
        return result

    return call


for _name in CALLS:
    setattr(Deadly, _name, _deadly(_name))


class Worker:
    """One child's work on its own keys; nobody else touches them."""

    def __init__(self, plan: Plan, store: CacheStore, say: Callable[..., None]) -> None:
        self._plan = plan
        self._store = store
        self._say = say
        self._rng = random.Random(plan.seed)
        self._now: dict[str, str] = {}
        self._version = plan.first

    def read(self, key: str) -> str:
        try:
            if self._rng.random() < 0.5:
                data = self._store.read(key)
            else:
                with self._store.lease(key) as path:
                    data = path.read_bytes()
        except NotFound:
            return GONE
        return version_of(key, data)

    def check(self) -> None:
        """Say what is there after the restart."""
        for key in self._plan.keys:
            self._now[key] = self.read(key)
            self._say("is", key, self._now[key])
        self._say("checked", "all", len(self._plan.keys))

    def work(self) -> None:
        """Put, overwrite, delete and get until the end."""
        key = self._plan.keys[0]
        while True:
            if self._rng.random() < 0.6:  # else the same again, mostly before it is sent
                key = self._rng.choice(self._plan.keys)
            what = self._rng.random()
            if what < 0.5:
                self._version += 1
                self._say("try", key, self._version)
                self._store.put(key, content(key, self._version))
                self._now[key] = str(self._version)
                self._say("did", key, self._version)
            elif what < 0.6:
                self._say("try", key, GONE)
                self._store.delete(key)
                self._now[key] = GONE
                self._say("did", key, GONE)
            else:
                found = self.read(key)
                right = found == self._now[key]
                self._say("got" if right else "wrong", key, found if right else self._now[key])


def child(plan: Plan, pipe: Connection) -> None:
    """Open, check, work, until killed. An error is said, and is the end."""
    lock = threading.Lock()

    def say(*words: Any) -> None:
        with lock:
            os.write(pipe.fileno(), (" ".join(map(str, words)) + "\n").encode())

    try:
        mark_phases()
        options = load_options(plan.options)
        worker = Worker(plan, store_of(options, files=Deadly(plan, say)), say)
        worker.check()
        worker.work()
    except BaseException as error:
        say("failed", type(error).__name__, str(error).replace("\n", " ")[:300])
        os._exit(1)


def processes() -> Any:
    """Where children come from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["campaign_rig", "cachestore.remote.s3", "boto3"])
    return context
