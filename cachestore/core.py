"""The parts of one open store, put together by `open`, used by the rooms above."""

from __future__ import annotations

import secrets
import sys
import time
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cachestore import events
from cachestore.census import Census
from cachestore.clock import Clock
from cachestore.errors import StoreClosed
from cachestore.events import Events
from cachestore.files import Files
from cachestore.flight import Flights, Pool
from cachestore.janitor import Janitor
from cachestore.keys import Place
from cachestore.local.announcements import Announcements
from cachestore.local.board import Board
from cachestore.local.bypass import Bypass
from cachestore.local.cache import CacheFiles
from cachestore.local.catalog import Catalog
from cachestore.local.catalog_rows import Row
from cachestore.local.facts import Facts
from cachestore.local.folder import LocalFolder
from cachestore.local.handing import HandOuts
from cachestore.local.hot import HotMap
from cachestore.local.minutes import Minutes
from cachestore.local.pending_index import PendingIndex
from cachestore.local.records import Record
from cachestore.local.room import Room
from cachestore.local.spool import Spool
from cachestore.local.tickets import Ticket
from cachestore.model import ObjectInfo, RemoteObject, Storage
from cachestore.options import Options
from cachestore.policy.newest import RecordFacts, newest
from cachestore.policy.routing import is_local
from cachestore.progressive.registry import Progressive
from cachestore.remote.breaker import GuardedRemote
from cachestore.stats import Stats
from cachestore.uploader import Uploader


@dataclass(slots=True)
class Core:
    """What the reading, writing and keeping rooms share.

    `remote`: None in local mode. `shadow`: the bucket that local mode's changes are sent to then.
    """

    options: Options
    clock: Clock
    files: Files
    events: Events
    stats: Stats
    remote_id: str
    board: Board
    spool: Spool
    catalog: Catalog
    cache: CacheFiles
    room: Room
    hand_outs: HandOuts
    facts: Facts
    bypass: Bypass
    folder: LocalFolder
    remote: GuardedRemote | None
    uploader: Uploader
    janitor: Janitor
    minutes: Minutes
    census: Census
    hot: HotMap
    index: PendingIndex
    announcements: Announcements
    downloads: Flights = field(default_factory=lambda: Flights(Pool(32, "cachestore-get")))
    asks: Flights = field(default_factory=lambda: Flights(Pool(8, "cachestore-ask")))
    workers: Pool = field(default_factory=lambda: Pool(8, "cachestore-warm"))
    shadow: GuardedRemote | None = None
    progressive: Progressive | None = None
    closed: bool = False
    warned: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    def check_open(self) -> None:
        """Raise `StoreClosed` after `close`."""
        if self.closed:
            raise StoreClosed("the store was closed; open a new one")

    def is_local(self, key: str) -> bool:
        """True when this key is kept in LOCAL_DIR and never sent."""
        return is_local(key, self.options.mode, self.options.local_only_prefixes)

    def newest(self, key: str, place: Place) -> Ticket | Record | None:
        """The newest version of a key that the remote does not have; None if it has all.

        Raises `SpoolError` when that cannot be known.
        """
        ticket = self.spool.read(place)
        record = self.folder.record(key)
        facts = None if record is None else RecordFacts(record.id, record.state, record.replaces)
        which = newest(None if ticket is None else ticket.id, facts)
        return {"ticket": ticket, "record": record}.get(which or "")

    def warn_if_in_loop(self, what: str) -> None:
        """A sync call that waits inside a running event loop stops the whole app: say so once."""
        asyncio = sys.modules.get("asyncio")
        if asyncio is None or self.warned:
            return
        if asyncio._get_running_loop() is not None:
            self.warned = True
            warnings.warn(
                f"cachestore: {what} waits inside a running event loop; use open_async_store()",
                RuntimeWarning,
                stacklevel=_callers_level(),
            )

    def trouble(self, where: str, error: BaseException) -> None:
        """Report something that was worked around."""
        self.events.emit(events.Trouble("", where, f"{type(error).__name__}: {error}"))


def _callers_level() -> int:
    """The stack level, as seen by our caller, of the first frame outside this package."""
    frame, level = sys._getframe(2), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(
        "cachestore."
    ):
        frame, level = frame.f_back, level + 1
    return level


def utc(seconds: float) -> datetime:
    """Wall seconds as an aware `datetime`."""
    return datetime.fromtimestamp(seconds, UTC)


def info_of_ticket(ticket: Ticket) -> ObjectInfo:
    """A pending put as callers see it."""
    return ObjectInfo(
        ticket.key, ticket.size, "", ticket.content_type, dict(ticket.metadata),
        utc(ticket.time), "pending", ticket.sha256, ticket.cache_control,
    )  # fmt: skip


def info_of_row(row: Row) -> ObjectInfo:
    """A clean copy as callers see it."""
    return ObjectInfo(
        row.key, row.size, row.etag, row.content_type, dict(row.metadata),
        utc(row.modified), "cached", row.sha256, row.cache_control,
    )  # fmt: skip


def info_of_remote(obj: RemoteObject, key: str, storage: Storage = "remote") -> ObjectInfo:
    """What the remote said, as callers see it."""
    return ObjectInfo(
        key, obj.size, obj.etag, obj.content_type, dict(obj.metadata),
        utc(obj.modified), storage, obj.sha256, obj.cache_control,
    )  # fmt: skip


class Timer:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start
