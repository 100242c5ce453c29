"""Where the newest version of a key is (L3): ticket, unsent local change, clean copy, remote."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from random import random
from typing import Literal, NoReturn

from cachestore import events
from cachestore.core import Core, Timer, info_of_remote, info_of_row, info_of_ticket
from cachestore.downloader import Downloader
from cachestore.errors import CacheFull, NotFound, RemoteError, RemoteUnavailable, SpoolError
from cachestore.keys import Place
from cachestore.landed import Landed
from cachestore.local.catalog_rows import Row
from cachestore.local.folder_reader import LocalFile
from cachestore.local.records import Record
from cachestore.local.tickets import Ticket
from cachestore.model import ObjectInfo, RemoteObject
from cachestore.parts import Parts
from cachestore.policy.freshness import Freshness, Rules, decide, may_serve_on_error, rules_for
from cachestore.policy.newest import local_readable
from cachestore.policy.verification import is_due
from cachestore.progressive.past import Passing
from cachestore.progressive.reader import Reading

Kind = Literal["fresh", "stale", "stale-if-error", "pending", "local", "miss", "partial"]
Answer = Literal["same", "changed", "gone"]
FOREVER = float("inf")


@dataclass(slots=True)
class Found:
    """A file that holds the newest version. `expires`: wall seconds until which it is fresh.

    `ticket` is set when it is a spool body, which is never handed out as it is. `reading`: set
    when it is read while it comes, and `path` is not the whole. `counted`: its bytes were told of
    as they came.
    """

    path: Path
    info: ObjectInfo
    kind: Kind
    token: int
    expires: float = FOREVER
    ticket: Ticket | None = None
    seconds: float = 0.0
    reading: Reading | Passing | None = None
    counted: bool = False


class Finder:
    """Answers where a key's bytes are, fetching them when they are nowhere here."""

    def __init__(
        self,
        core: Core,
        downloader: Downloader,
        adopt: Callable[[str, LocalFile, int], None],
    ) -> None:
        self._core = core
        self._adopt = adopt
        self._downloader = downloader
        self._parts = Parts(core, downloader)

    def find(
        self,
        key: str,
        max_age: float | None = None,
        *,
        hand_out: bool = False,
        at: int | None = None,
    ) -> Found:
        """The newest version of a checked key as a file; raises `NotFound` or why not.

        `hand_out`: its path goes to the app, and stays readable for the grace. `at`: where it
        will be read first; a large object may then be one that is still to come.
        """
        core = self._core
        place = core.spool.place(key)
        for _ in range(8):
            core.check_open()
            if hand_out:
                core.board.hand_out(place.slot, core.clock.now())
            token = core.board.token(place.slot)
            found = self._look(key, place, token, max_age, at)
            if found is not None:
                return found
        raise RemoteUnavailable(f"{key!r} changed faster than it could be read; try again")

    def _look(
        self, key: str, place: Place, token: int, max_age: float | None, at: int | None
    ) -> Found | None:
        core = self._core
        newest = core.newest(key, place)
        if isinstance(newest, Ticket):
            if newest.operation == "delete":
                self.absent(key, negative=True)
            if is_due(core.options.verify, random()):
                self._downloader.check_pending(newest)
            body = core.spool.body(newest)
            return Found(body, info_of_ticket(newest), "pending", token, ticket=newest)
        if isinstance(newest, Record) and newest.operation == "delete":
            self.absent(key, negative=True)
        if core.is_local(key) or newest is not None:
            return self._local(key, token)
        return self._clean(key, place, token, max_age, at)

    def absent(self, key: str, *, negative: bool) -> NoReturn:
        """Raise `NotFound`; `negative`: known without asking the remote."""
        self._core.events.emit(events.Absent(key, negative))
        raise NotFound(f"no such key: {key!r}")

    # -- LOCAL_DIR -----------------------------------------------------------------------------

    def _local(self, key: str, token: int) -> Found | None:
        """A file of LOCAL_DIR; what the remote gave before stays readable in local mode."""
        core = self._core
        record = core.folder.record(key)
        there = core.folder.locate(key)
        row = self._row(key)
        if row is not None and not self._trusts(row):
            return None
        state = None if record is None else record.state
        stale = row is not None and record is not None and row.etag != record.etag
        readable = there is not None and local_readable(state, newer_known=stale)
        if there is not None and readable and not (there.legacy and row is not None):
            return self._found_local(there, token)
        if state == "unsent":
            self.absent(key, negative=True)  # somebody removed the file from LOCAL_DIR
        if row is not None:
            return self._found_row(row, token, "fresh", FOREVER)
        if record is not None and record.state == "superseded":
            raise RemoteUnavailable(
                f"the newest version of {key!r} is in the bucket, which is switched off; what"
                " LOCAL_DIR holds is older. Switch the remote on to read it"
            )
        self.absent(key, negative=True)

    def _found_local(self, there: LocalFile, token: int) -> Found:
        return Found(there.path, self._core.folder.info(there), "local", token)

    # -- clean copies --------------------------------------------------------------------------

    def _row(self, key: str) -> Row | None:
        """The catalog's row if its file is the one it describes."""
        core = self._core
        row = core.catalog.get(key)
        if row is None or core.cache.matches(row):
            return row
        core.catalog.remove(key, row.file)
        return None

    def _trusts(self, row: Row) -> bool:
        """False for a damaged copy, which is then out of the way."""
        verify = is_due(self._core.options.verify, random())
        return self._downloader.trustworthy(row, verify=verify)

    def _found_row(self, row: Row, token: int, kind: Kind, expires: float) -> Found:
        return Found(self._core.cache.path(row), info_of_row(row), kind, token, expires)

    def rules(self, row: Row) -> Rules:
        """The freshness rules for one copy."""
        return rules_for(row.key, row.ttl, self._core.options)

    def _expires(self, row: Row, validated: float) -> float:
        rules = self.rules(row)
        return FOREVER if rules.ttl is None else validated + rules.ttl

    def copy(self, key: str, place: Place, token: int) -> tuple[Row | None, bool]:
        """The clean copy's row, and whether it may stand for the remote's without asking first."""
        row = self._row(key)
        if row is None:
            return None, False
        state = decide(row, self._core.clock.now(), self.rules(row))
        if state is Freshness.STALE:
            self._ask(row, place, token)
        return row, state is not Freshness.EXPIRED

    def partly(self, key: str, place: Place, token: int) -> ObjectInfo | None:
        """What is known of a key of which a part is here, as long as that is fresh."""
        row = self._parts.fresh(key, token)
        return None if row is None else info_of_remote(row.info, key)

    def _clean(
        self, key: str, place: Place, token: int, max_age: float | None, at: int | None
    ) -> Found | None:
        core = self._core
        row = self._row(key)
        if row is not None and not self._trusts(row):
            return None
        if row is None:
            return self._miss(key, place, token, None, at, max_age)
        now = core.clock.now()
        state = decide(row, now, self.rules(row), max_age=max_age)
        if state is Freshness.FRESH:
            expires = self._expires(row, row.validated)
            return self._found_row(row, token, "fresh", expires if max_age is None else now)
        if state is Freshness.STALE:
            self._ask(row, place, token)
            return self._found_row(row, token, "stale", now)
        if max_age is None and self._parts.fresh(key, token) is not None:
            return self._renewed(row, place, token, at, None)  # a newer one that has begun
        return self._expired(row, place, token, at, max_age)

    def _expired(
        self, row: Row, place: Place, token: int, at: int | None, max_age: float | None
    ) -> Found | None:
        """Ask the remote whether the copy is current, for a bounded time."""
        core = self._core
        core.warn_if_in_loop("a revalidation")
        future = self._ask(row, place, token)
        try:
            answer = future.result(core.options.revalidate_deadline)
        except FutureTimeout:
            return self._on_error(row, token, None)
        except RemoteError as error:
            return self._on_error(row, token, error)
        if answer == "same":
            return self._found_row(row, token, "fresh", self._expires(row, core.clock.now()))
        if answer == "changed":
            return self._renewed(row, place, token, at, max_age)
        return self._gone(row.key, token)

    def _renewed(
        self, row: Row, place: Place, token: int, at: int | None, max_age: float | None
    ) -> Found | None:
        """Fetch the newer version; while its bytes do not come, the copy is served after all."""
        try:
            return self._miss(row.key, place, token, row, at, max_age)
        except RemoteError as error:
            return self._on_error(row, token, error)
        except CacheFull as error:
            self._core.trouble("cache", error)
            return self._on_error(row, token, None)

    def _on_error(self, row: Row, token: int, error: RemoteError | None) -> Found:
        now = self._core.clock.now()
        self._core.events.emit(events.Revalidated(row.key, "failed"))
        if may_serve_on_error(row, now, self.rules(row)):
            return self._found_row(row, token, "stale-if-error", now)
        if error is None:
            error = RemoteUnavailable(f"the remote did not answer for {row.key!r}")
        raise error

    def _ask(self, row: Row, place: Place, token: int) -> Future[Answer]:
        """Revalidate on a background thread, once for all who want it."""
        name = ("ask", row.key, row.file, token)
        return self._core.asks.join(name, lambda: self._asked(row, place, token))

    def _asked(self, row: Row, place: Place, token: int) -> Answer:
        core = self._core
        if core.remote is None:
            raise RemoteUnavailable("the remote is switched off")
        try:
            body = core.remote.get(
                row.key,
                if_none_match=row.etag,
                timeout=max(5.0, core.options.revalidate_deadline),
                patience=0.0,
            )
        except NotFound:
            self._lost(row, place, token)
            return "gone"
        if body is not None:
            with body:
                pass
            core.events.emit(events.Revalidated(row.key, "changed"))
            return "changed"
        self._same(row, place, token)
        return "same"

    def _same(self, row: Row, place: Place, token: int) -> None:
        core = self._core
        core.events.emit(events.Revalidated(row.key, "same"))
        if core.board.token(place.slot) == token:
            core.catalog.validated(row.key, row.file, core.clock.now())

    def _lost(self, row: Row, place: Place, token: int) -> None:
        core = self._core
        core.events.emit(events.Revalidated(row.key, "gone"))
        if core.board.token(place.slot) == token:
            core.catalog.remove(row.key, row.file)
            core.cache.discard([row])

    def headed(self, row: Row, place: Place, token: int) -> RemoteObject | None:
        """What the remote says of a key with an expired copy; None: the copy's facts stand.

        Raises `NotFound`; and, where the copy may not stand for it, why there is no answer.
        """
        name = ("head", row.key, row.file, token)
        future = self._core.asks.join(name, lambda: self._head(row, place, token))
        try:
            obj = future.result(self._core.options.revalidate_deadline)
        except (FutureTimeout, RemoteError) as error:
            self._on_error(row, token, error if isinstance(error, RemoteError) else None)
            return None
        return None if obj.etag == row.etag else obj

    def _head(self, row: Row, place: Place, token: int) -> RemoteObject:
        core = self._core
        if core.remote is None:
            raise RemoteUnavailable("the remote is switched off")
        try:
            timeout = max(5.0, core.options.revalidate_deadline)
            obj = core.remote.head(row.key, timeout=timeout, patience=0.0)
        except NotFound:
            self._lost(row, place, token)
            raise
        if obj.etag == row.etag:
            self._same(row, place, token)
        return obj

    # -- the remote ----------------------------------------------------------------------------

    def _miss(
        self, key: str, place: Place, token: int, old: Row | None, at: int | None,
        max_age: float | None,
    ) -> Found | None:  # fmt: skip
        core = self._core
        if core.facts.get(place, "absent", "") is not None and old is None:
            return self._gone(key, token, negative=True)
        if core.remote is None or core.progressive is None:
            raise RemoteUnavailable(f"{key!r} is not here, and the remote is switched off")
        core.warn_if_in_loop("a download")
        row = self._parts.begun(key, place, token, max_age)
        timer = Timer()
        if row is not None:
            landed = self._parts.reader(row, place, whole=at is None)
        else:
            try:
                landed = self._parts.fetch(key, place, token, old, at)
            except NotFound:
                core.facts.put(place, "absent", "", True, core.options.negative_ttl, token)
                return self._gone(key, token)
        if landed is None:
            return None  # it is something else by now: look again
        if isinstance(landed, Landed):
            found = self._found_landed(key, landed, token, timer.seconds)
            found.counted = row is not None
            return found
        return self._found_reading(key, landed, token, timer.seconds)

    def _found_reading(
        self, key: str, reading: Reading | Passing, token: int, seconds: float
    ) -> Found:
        info = info_of_remote(reading.info, key)
        kind: Kind = "miss" if reading.begun else "partial"
        return Found(Path(), info, kind, token, 0.0, None, seconds, reading, counted=True)

    def _found_landed(self, key: str, landed: Landed, token: int, seconds: float) -> Found:
        now = self._core.clock.now()
        self._outdate(key, landed.info.etag)
        if landed.row is not None:
            found = self._found_row(landed.row, token, "miss", self._expires(landed.row, now))
        else:
            info = info_of_remote(landed.info, key)
            found = Found(landed.path, info, "miss", token, now)
        found.seconds = seconds
        return found

    def _outdate(self, key: str, etag: str) -> None:
        """What LOCAL_DIR sent is old once another version was seen, also when this one left."""
        core = self._core
        record = core.folder.record(key)
        if record is None or record.state != "sent" or record.etag == etag:
            return
        try:
            with core.spool.lock(core.spool.place(key)):
                if core.folder.record(key) == record:
                    core.folder.supersede(key, etag)
        except (SpoolError, OSError) as error:
            core.trouble("local", error)  # the next one who fetches it tries again

    def _gone(self, key: str, token: int, *, negative: bool = False) -> Found | None:
        """The bucket has no such object: a legacy file of LOCAL_DIR may be adopted."""
        there = self.legacy(key)
        if there is not None:
            self._adopt(key, there, token)
        elif self._core.newest(key, self._core.spool.place(key)) is None:
            self.absent(key, negative=negative)
        return None  # look again: adopted, or changed while the bucket was asked

    def legacy(self, key: str) -> LocalFile | None:
        """A file of LOCAL_DIR that may be adopted where the bucket has nothing."""
        there = self._core.folder.locate(key)
        return None if there is None or not there.legacy else there
