"""`AsyncCacheStore`: the same names, awaited. A hot hit is answered on the event loop."""

from __future__ import annotations

import asyncio
import builtins
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from cachestore.checking import FsckReport
from cachestore.events import Event
from cachestore.flight import Pool
from cachestore.keys import check_key
from cachestore.links import Links
from cachestore.listing import Item
from cachestore.model import (
    FlushReport,
    Minute,
    ObjectInfo,
    PendingItem,
    PresignedUpload,
    PutRequest,
    Tally,
)
from cachestore.opened import OpenFile
from cachestore.options import Options
from cachestore.receipts import Receipt, State
from cachestore.stats import Counts
from cachestore.store import CacheStore
from cachestore.upkeep import WarmReport

T = TypeVar("T")
_IN_MEMORY = 1 << 20
_Asked = dict[tuple[str, int], "asyncio.Future[Path]"]


async def done_by(pool: Pool, work: Callable[[], T]) -> T:
    """Wait for work on one of a pool's threads; being cancelled does not stop the work."""
    return await asyncio.shield(asyncio.wrap_future(pool.submit(work)))


async def lent_by(pool: Pool, work: Callable[[], T], give_back: Callable[[T], Any]) -> T:
    """Like `done_by` for a result that must be given back when nobody takes it."""
    future = pool.submit(work)
    try:
        return await asyncio.shield(asyncio.wrap_future(future))
    except asyncio.CancelledError:
        future.add_done_callback(
            lambda done: None if done.exception() else give_back(done.result())
        )
        raise


class AsyncCacheStore:
    """A thin layer over a `CacheStore`; see there for what each name promises and raises."""

    def __init__(self, store: CacheStore) -> None:
        self.sync = store
        self._pool = Pool(32, "cachestore-async")
        self._asked: dict[asyncio.AbstractEventLoop, _Asked] = {}

    def __repr__(self) -> str:
        return f"Async{self.sync!r}"

    async def _run(self, work: Callable[[], T]) -> T:
        return await done_by(self._pool, work)

    # -- reading -------------------------------------------------------------------------------

    async def get(self, key: str, *, max_age: float | None = None) -> Path:
        if max_age is not None:
            return await self._run(lambda: self.sync.get(key, max_age=max_age))
        path = self.sync._hot(key)
        return path if path is not None else await self._get(key)

    async def _get(self, key: str) -> Path:
        """One future for all on this loop who want a key as it is now."""
        core = self.sync.core
        asked = self._asked_on(asyncio.get_running_loop())
        # With the token: who comes after a newer put gets no answer from before it.
        name = (key, core.board.token(core.spool.place(check_key(key)).slot))
        future = asked.get(name)
        if future is None:
            future = asyncio.wrap_future(self._pool.submit(lambda: self.sync.get(key)))
            asked[name] = future
            future.add_done_callback(lambda done: _answered(asked, name, done))
        return await asyncio.shield(future)

    def _asked_on(self, loop: asyncio.AbstractEventLoop) -> _Asked:
        """What is under way on a loop; what a closed one left is forgotten."""
        if loop not in self._asked:
            self._asked = {old: each for old, each in self._asked.items() if not old.is_closed()}
        return self._asked.setdefault(loop, {})

    async def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return await self._run(lambda: self.sync.read(key, start, end))

    async def open(self, key: str, at: int = 0) -> OpenFile:
        return await lent_by(self._pool, lambda: self.sync.open(key, at), lambda file: file.close())

    @asynccontextmanager
    async def lease(self, key: str) -> AsyncIterator[Path]:
        lease = self.sync.lease(key)
        path = await lent_by(
            self._pool, lease.__enter__, lambda _: lease.__exit__(None, None, None)
        )
        try:
            yield path
        finally:
            lease.__exit__(None, None, None)

    async def download(self, key: str, destination: str | PathLike[str]) -> Path:
        return await self._run(lambda: self.sync.download(key, destination))

    async def head(self, key: str) -> ObjectInfo:
        return await self._run(lambda: self.sync.head(key))

    async def exists(self, key: str) -> bool:
        return await self._run(lambda: self.sync.exists(key))

    async def list(self, prefix: str = "", delimiter: str | None = None) -> AsyncIterator[Item]:
        items = await self._run(lambda: self.sync.list(prefix, delimiter))
        while True:
            batch = await self._run(lambda: _take(items, 500))
            for item in batch:
                yield item
            if len(batch) < 500:
                return

    # -- writing -------------------------------------------------------------------------------

    async def put(self, key: str, source: Any, **attributes: Any) -> AsyncReceipt:
        """As `CacheStore.put`; `source` may also be an async iterator of bytes."""
        if hasattr(source, "__aiter__"):
            with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
                async for chunk in source:
                    await self._run(partial(file.write, chunk))
                receipt = await self._run(lambda: self.sync.put(key, file, **attributes))
        else:
            receipt = await self._run(lambda: self.sync.put(key, source, **attributes))
        return AsyncReceipt(receipt, self._run)

    async def delete(self, key: str) -> None:
        await self._run(lambda: self.sync.delete(key))

    async def delete_prefix(self, prefix: str, *, everything: bool = False) -> int:
        return await self._run(lambda: self.sync.delete_prefix(prefix, everything=everything))

    async def delete_unchanged(self, tokens: Mapping[str, int]) -> builtins.list[str]:
        return await self._run(lambda: self.sync.delete_unchanged(tokens))

    async def copy(self, source: str, target: str) -> AsyncReceipt:
        return AsyncReceipt(await self._run(lambda: self.sync.copy(source, target)), self._run)

    # -- URLs ----------------------------------------------------------------------------------

    async def url(self, key: str) -> str:
        return await self._run(lambda: self.sync.url(key))

    async def presign_get(self, key: str, expires_in: int = 3600, *, reuse: bool = True) -> str:
        return await self._run(lambda: self.sync.presign_get(key, expires_in, reuse=reuse))

    async def presign_put(self, key: str, **announced: Any) -> PresignedUpload:
        return await self._run(lambda: self.sync.presign_put(key, **announced))

    async def presign_puts(
        self, uploads: Iterable[PutRequest], expires_in: int = 3600
    ) -> builtins.list[PresignedUpload]:
        return await self._run(lambda: self.sync.presign_puts(uploads, expires_in))

    async def presign_post(self, key: str, **announced: Any) -> PresignedUpload:
        return await self._run(lambda: self.sync.presign_post(key, **announced))

    async def confirm_upload(self, key: str, **announced: Any) -> ObjectInfo:
        return await self._run(lambda: self.sync.confirm_upload(key, **announced))

    # -- the rest ------------------------------------------------------------------------------

    async def pending(self) -> builtins.list[PendingItem]:
        return await self._run(self.sync.pending)

    async def retry(self, key: str | None = None) -> int:
        return await self._run(lambda: self.sync.retry(key))

    async def flush(self, timeout: float | None = None) -> FlushReport:
        return await self._run(lambda: self.sync.flush(timeout))

    async def start(self) -> None:
        await self._run(self.sync.start)

    @property
    def options(self) -> Options:
        return self.sync.options

    @property
    def links(self) -> Links:
        return self.sync.links

    def subscribe(self, hook: Callable[[Event], None]) -> Callable[[], None]:
        """Not awaited: `hook` is called by whichever thread something happens in."""
        return self.sync.subscribe(hook)

    async def stats(self) -> Counts:
        return await self._run(self.sync.stats)

    async def minutes(self, seconds: float = 3600.0) -> builtins.list[Minute]:
        return await self._run(lambda: self.sync.minutes(seconds))

    async def history(self, days: int = 30) -> builtins.list[Tally]:
        return await self._run(lambda: self.sync.history(days))

    async def health(self) -> dict[str, Any]:
        return await self._run(self.sync.health)

    async def clean(self) -> dict[str, int]:
        return await self._run(self.sync.clean)

    async def fsck(
        self, repair: bool = False, *, deep: bool = False, bucket: bool = False
    ) -> FsckReport:
        return await self._run(lambda: self.sync.fsck(repair, deep=deep, bucket=bucket))

    async def reload(self) -> None:
        await self._run(self.sync.reload)

    async def warm(
        self, keys: Iterable[str], progress: Callable[[str], None] | None = None
    ) -> WarmReport:
        return await self._run(lambda: self.sync.warm(keys, progress))

    async def pin(self, key: str) -> None:
        await self._run(lambda: self.sync.pin(key))

    async def unpin(self, key: str) -> None:
        await self._run(lambda: self.sync.unpin(key))

    async def invalidate(self, key: str) -> None:
        await self._run(lambda: self.sync.invalidate(key))

    async def close(self, drain: float = 5.0) -> None:
        await self._run(lambda: self.sync.close(drain))
        self._pool.close()

    async def __aenter__(self) -> AsyncCacheStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncReceipt:
    """A `Receipt` whose questions are awaited."""

    def __init__(self, receipt: Receipt, run: Callable[[Callable[[], Any]], Any]) -> None:
        self.sync = receipt
        self._run = run
        self.key, self.id = receipt.key, receipt.id
        self.size, self.sha256 = receipt.size, receipt.sha256

    def __repr__(self) -> str:
        return f"Async{self.sync!r}"

    async def wait(self, timeout: float | None = None) -> State:
        outcome: State = await self._run(lambda: self.sync.wait(timeout))
        return outcome

    async def state(self) -> State:
        state: State = await self._run(lambda: self.sync.state)
        return state

    async def path(self) -> Path:
        path: Path = await self._run(lambda: self.sync.path)
        return path

    async def url(self) -> str:
        url: str = await self._run(self.sync.url)
        return url

    def add_done_callback(self, call: Callable[[State], None]) -> None:
        self.sync.add_done_callback(call)


def _take(items: Any, count: int) -> list[Item]:
    found: list[Item] = []
    for item in items:
        found.append(item)
        if len(found) == count:
            break
    return found


def _answered(asked: _Asked, name: tuple[str, int], future: asyncio.Future[Path]) -> None:
    asked.pop(name, None)
    if not future.cancelled():
        future.exception()  # whoever waits has it; nobody may be left who does
