"""What the bucket holds, counted now and then for all processes by one of them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cachestore.clock import Clock
from cachestore.errors import CacheStoreError
from cachestore.events import Events, RemoteCall, Trouble
from cachestore.files import Files
from cachestore.local.catalog import Catalog
from cachestore.local.known import keep_state, state_of
from cachestore.local.lead import Lead
from cachestore.model import ListPage
from cachestore.remote.breaker import GuardedRemote

_NAME = "bucket"
_AGAIN = 3600.0
_SKEW = 60.0


@dataclass(frozen=True, slots=True)
class Counted:
    """Bytes and objects at `when`; `tried` is when counting last began (wall seconds)."""

    tried: float
    when: float | None = None
    bytes: int = 0
    objects: int = 0


class Census:
    """Lists the bucket behind a question, at most once in `interval` seconds; 0: never.

    A listing is a billed request (class A) for each 1,000 objects. It goes past the breaker: a
    token that may not list must not stop reads and uploads.
    """

    def __init__(
        self,
        remote: GuardedRemote | None,
        interval: float,
        *,
        catalog: Catalog,
        lock: Path,
        files: Files,
        clock: Clock,
        events: Events,
    ) -> None:
        self._remote = remote if interval > 0 else None
        self._interval = interval
        self._catalog = catalog
        self._lead = Lead(files, lock)
        self._clock = clock
        self._events = events
        self._mine: Counted | None = None
        self._pid = 0
        self._stop = threading.Event()

    def last(self) -> Counted | None:
        """The last full count; None if there is none yet. Begins a new one if it is time."""
        if self._remote is None:
            return None
        known = self._known()
        works = self._remote.state == "closed"
        if works and self._is_due(known) and not self.counting and not self._stop.is_set():
            self._pid = os.getpid()  # a forked child has no such thread yet
            threading.Thread(target=self._work, name="cachestore-census", daemon=True).start()
        return None if known is None or known.when is None else known

    @property
    def counting(self) -> bool:
        """True while this process lists the bucket, or is about to."""
        return self._pid == os.getpid()

    def close(self) -> None:
        """Counting ends with the page that is under way."""
        self._stop.set()

    def _is_due(self, known: Counted | None) -> bool:
        if known is None:
            return True
        age = self._clock.now() - known.tried
        failed = known.when is None or known.when < known.tried
        return age < -_SKEW or age >= (min(_AGAIN, self._interval) if failed else self._interval)

    def _work(self) -> None:
        try:
            if self._lead.held() and self._is_due(self._known()):
                self._count()
        except CacheStoreError as error:
            if not self._stop.is_set():
                self._events.emit(Trouble("", "remote", f"counting the bucket: {error}"))
        finally:
            self._lead.close()
            self._pid = 0

    def _count(self) -> None:
        assert self._remote is not None
        now, before = self._clock.now(), self._known()
        old = before or Counted(now)
        self._keep(Counted(now, old.when, old.bytes, old.objects))
        size = count = 0
        for page in self._pages(self._remote):
            if self._stop.is_set():
                return
            size += sum(found.size for found in page.objects)
            count += len(page.objects)
        self._keep(Counted(now, self._clock.now(), size, count))

    def _pages(self, remote: GuardedRemote) -> Iterator[ListPage]:
        pages = _begun_later(remote)
        while True:
            start = self._clock.monotonic()
            try:
                page = next(pages, None)
            except CacheStoreError as error:
                self._tell(type(error).__name__, start)
                raise
            if page is None:
                return  # the end, which was no request
            self._tell("ok", start)
            yield page

    def _tell(self, status: str, start: float) -> None:
        seconds = self._clock.monotonic() - start
        self._events.emit(RemoteCall("", "list", status, seconds, 0))

    # -- shared by all processes -----------------------------------------------------------------

    def _known(self) -> Counted | None:
        """What all know; without a catalog what this process knows."""
        text = self._catalog.ask(lambda db: state_of(db, _NAME), None)
        if isinstance(text, bytes):
            try:
                return Counted(**json.loads(text))
            except (ValueError, TypeError, RecursionError):
                return None
        return self._mine

    def _keep(self, counted: Counted) -> None:
        self._mine = counted
        text = json.dumps(asdict(counted)).encode()
        self._catalog.change(lambda db: keep_state(db, _NAME, text), None)


def _begun_later(remote: GuardedRemote) -> Iterator[ListPage]:
    """Some remotes fail where they are asked to list, others where the first page is taken."""
    yield from remote.inner.list()
