"""Local mode for tests: stores on one LOCAL_DIR, and a file layer that fails or dies on call."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from store_rig import make_options, store_of

from cachestore.errors import NotFound
from cachestore.files import Files
from cachestore.model import ObjectInfo
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore

CALLS = (
    "create", "open_read", "open_shared", "write", "close", "fsync", "fsync_dir", "rename", "link",
    "unlink", "make_folder", "stat", "list", "try_lock",
)  # fmt: skip

WRITING = ("create", "write", "fsync", "rename", "link", "make_folder")


class Died(BaseException):
    """The process ended here: none of its clean-up happens."""


class Quick(Files):
    """No power is cut in these tests."""

    def fsync(self, fd: int) -> None:
        pass


class Faulty(Quick):
    """After `arm`, the nth call fails with `code`; without a code it and all after it `Died`."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._armed = False
        self._open: set[int] = set()

    def arm(self, nth: int, code: int | None, only: tuple[str, ...] = CALLS) -> None:
        self.calls, self._nth, self._code, self._armed = [], nth, code, True
        self._only = only

    def disarm(self) -> bool:
        """True if the call was reached. What a dead process held open is closed."""
        self._armed = False
        if self._code is None:
            for fd in self._open:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._open.clear()
        return len(self.calls) >= self._nth

    def hit(self, name: str) -> None:
        if not self._armed or name not in self._only:
            return
        self.calls.append(name)
        if self._code is None and len(self.calls) >= self._nth:
            raise Died
        if self._code is not None and len(self.calls) == self._nth:
            raise OSError(self._code, os.strerror(self._code))

    def create(self, path: str | Path, mode: int = 0o600) -> int:
        self.hit("create")
        fd = super().create(path, mode)
        if self._armed:
            self._open.add(fd)
        return fd

    def close(self, fd: int) -> None:
        self.hit("close")
        self._open.discard(fd)
        super().close(fd)


def _counted(name: str) -> Callable[..., Any]:
    def call(self: Faulty, *args: Any, **fields: Any) -> Any:
        self.hit(name)
        return getattr(Quick, name)(self, *args, **fields)

    return call


for _name in CALLS:
    if _name not in Faulty.__dict__:
        setattr(Faulty, _name, _counted(_name))


def local(root: Path, files: Files | None = None, **fields: Any) -> CacheStore:
    """A store in local mode; it belongs to the remote last used below `root`."""
    return store_of(make_options(root, **fields), files=files or Quick())


def remote(root: Path, bucket: MemoryRemote, **fields: Any) -> CacheStore:
    """A store on a bucket in memory, which outlives it."""
    options = make_options(root, mode="remote", **({"leader_interval": 0.02} | fields))
    return store_of(options, files=Quick(), remote=bucket)


def idle(root: Path, bucket: MemoryRemote, **fields: Any) -> CacheStore:
    """The same, but it never uploads."""
    store = remote(root, bucket, **fields)
    store.core.uploader.stop(5.0)
    return store


def look(store: CacheStore, key: str) -> bytes | None:
    """What every way of reading says of a key, None if all say that there is none."""
    listed = [item for item in store.list() if item.key == key]
    try:
        data = store.get(key).read_bytes()
    except NotFound:
        assert listed == [], key
        assert not store.exists(key), key
        return None
    (item,) = listed
    assert isinstance(item, ObjectInfo)
    assert store.read(key) == data
    assert store.head(key).size == item.size == len(data)
    return data


def keys(store: CacheStore, prefix: str = "") -> list[str]:
    return [item.key for item in store.list(prefix)]


def content(bucket: MemoryRemote) -> dict[str, bytes]:
    """What a bucket holds."""
    return {key: data for key, (_, data) in bucket._objects.items()}


def hidden(root: Path, part: str = "*") -> list[str]:
    """Files in the hidden folder that hold bytes."""
    folder = root / "output" / ".cachestore"
    return sorted(p.name for part in ("staged", "objects") for p in folder.glob(f"{part}/*"))
