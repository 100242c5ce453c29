"""The janitor: flushes counted hits, removes what nobody asked for, keeps the limits, syncs."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

from cachestore.clock import Clock
from cachestore.errors import SpoolError
from cachestore.events import Events, Evicted, Hit, Trouble
from cachestore.files import Files
from cachestore.local.board import SHARDS
from cachestore.local.cache import CacheFiles
from cachestore.local.catalog import Catalog
from cachestore.local.catalog_rows import Row
from cachestore.local.folder import LocalFolder
from cachestore.local.hot import HotMap
from cachestore.local.lead import Lead
from cachestore.local.minutes import Minutes
from cachestore.local.partials import Partials
from cachestore.local.room import Room
from cachestore.local.spool import Spool
from cachestore.local.spool_scan import recount_shard, tidy_shard
from cachestore.local.tallies import Tallies
from cachestore.locks import ForkLock
from cachestore.options import Options

_FIRST_DELAY = 5.0
_TICK = 15.0
_SLICE = 64


class Janitor:
    """Works hourly and at start on a thread of its own, and whenever `run_once` is called."""

    def __init__(
        self,
        *,
        spool: Spool,
        catalog: Catalog,
        cache: CacheFiles,
        room: Room,
        hot: HotMap,
        files: Files,
        clock: Clock,
        events: Events,
        options: Options,
        tallies: Tallies,
        partials: Partials,
        minutes: Minutes | None = None,
        folder: LocalFolder | None = None,
    ) -> None:
        self._spool = spool
        self._catalog = catalog
        self._cache = cache
        self._room = room
        self._hot = hot
        self._files = files
        self._clock = clock
        self._events = events
        self._options = options
        self._tallies = tallies
        self._partials = partials
        self._minutes = minutes
        self._folder = folder
        self.unconfirmed: Callable[[], Callable[[], int] | None] = lambda: None
        """A weak reference to what ends announced uploads, which is set by who can."""
        self._lead = Lead(files, cache.root / "janitor.lock")
        self._reads: dict[str, tuple[int, float]] = {}
        self._lock = ForkLock()
        self._stop = threading.Event()
        self._pid = 0

    # -- reads -----------------------------------------------------------------------------------

    def touched(self, key: str) -> None:
        """A slow-path hit; the hot map counts the others itself. Starts the thread if need be."""
        now = self._clock.now()
        with self._lock:
            count, _ = self._reads.get(key, (0, 0.0))
            self._reads[key] = (count + 1, now)
        self.start()

    def gather(self) -> None:
        """Turn counted hot hits into events, and note them for the next batch."""
        now = self._clock.now()
        for key, entry, count in self._hot.collect():
            self._events.emit(Hit(key, entry.size, entry.kind, count))
            with self._lock:
                before, _ = self._reads.get(key, (0, 0.0))
                self._reads[key] = (before + count, now)

    def flush_hits(self) -> None:
        """`gather`; write all reads, and sums by day and by minute, in batches."""
        self.gather()
        with self._lock:
            reads, self._reads = self._reads, {}
        if reads:
            self._catalog.touch(reads)
        self._catalog.tend(self._breathe)  # misses alone are something to learn from, too
        sums = self._tallies.drain()
        if sums and not self._catalog.tally(sums):
            self._tallies.put_back(sums)
        if self._minutes is not None:
            self._minutes.write()

    # -- the thread ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread unless it runs; a forked child starts its own."""
        if self._pid == os.getpid() or self._stop.is_set():
            return
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
        me = weakref.ref(self)
        threading.Thread(target=_serve, args=(me,), name="cachestore-janitor", daemon=True).start()

    def close(self) -> None:
        self._stop.set()
        self._lead.close()
        self.flush_hits()

    # -- the work --------------------------------------------------------------------------------

    def run_once(self) -> dict[str, int]:
        """Do everything now; returns how many of what were removed.

        Copies: "expired" (nobody asked for them), "evicted" (the limits), "freed" (the disk's
        free share). Files: "condemned" (had left, and were in use until now), "orphaned" (known
        to nobody), "unfinished" (of processes that died), "files" (others of ours), "bodies" (of
        the spool), "unconfirmed" (uploads that were announced, and not confirmed in time).
        """
        done = dict.fromkeys(
            ("expired", "evicted", "freed", "condemned", "orphaned", "unfinished", "files",
             "bodies", "unconfirmed"), 0,
        )  # fmt: skip
        self.flush_hits()
        self._room.forget()
        steps: tuple[tuple[str, Callable[[], int]], ...] = (
            ("condemned", self._room.tidy),
            ("unfinished", self._room.reclaim),
            ("expired", self._expire),
            ("evicted", self._keep_limits),
            ("freed", self._keep_free),
            ("orphaned", self._orphans),
            ("unfinished", self._partials.expire),
            ("unfinished", lambda: self._cache.sweep(self._partials.names())),
            ("files", self._catalog.tidy),
            ("bodies", self._tidy_spool),
            ("files", self._tidy_folder),
        )
        for name, work in steps:
            try:
                done[name] += work()
            except (OSError, SpoolError) as error:  # what is wrong in one place stops no other
                where = "spool" if name == "bodies" else "cache"
                self._events.emit(Trouble("", where, f"cleaning: {error}"))
        self._sync()
        sweep = self.unconfirmed()
        done["unconfirmed"] = 0 if sweep is None else sweep()
        return done

    def quick(self) -> None:
        """What is done every few seconds: counted hits, syncing, files that waited, watermarks.

        All but the hits are one process's work; admission keeps the limits when it is stopped.
        """
        self.flush_hits()
        if self._lead.held():
            self._sync()
            self._room.reclaim()
            self._room.tidy()
            self._keep_limits()

    def hourly(self) -> None:
        """`run_once`, unless another process sees to it."""
        if self._lead.held():
            self.run_once()
        else:
            self.flush_hits()

    def _discard(self, rows: list[Row], reason: str) -> int:
        """Take out what is still there and was not pinned meanwhile."""
        gone = 0
        for start in range(0, len(rows), _SLICE):
            batch = self._catalog.remove_many(rows[start : start + _SLICE])
            self._room.discard(batch)
            for row in batch:
                self._events.emit(Evicted(row.key, row.size, reason))
                gone += 1
            self._breathe()
        return gone

    def _expire(self) -> int:
        """Copies that nobody read for their TTL and the time after it."""
        options = self._options
        limit = self._clock.now() - options.unused_after
        gone = 0
        while rows := self._catalog.unused_before(limit, options, _SLICE, self._breathe):
            count = self._discard(rows, "age")
            gone += count
            if not count:
                break
        return gone

    def _keep_limits(self) -> int:
        """Down to the low watermark. Admission keeps the limit itself, where it did not change."""
        need = self._room.surplus()
        if not need.nothing and self._room.give_up_idle(need.bytes):
            need = self._room.surplus()
        if need.nothing:
            return 0
        return self._discard(self._catalog.worst(need.bytes, need.entries), "space")

    def _keep_free(self) -> int:
        """The disk's free share, which others use up too."""
        lacking = self._room.lacking()
        if lacking > 0 and self._room.give_up_idle(lacking):
            lacking = self._room.lacking()
        return self._discard(self._catalog.worst(lacking, 0), "free") if lacking > 0 else 0

    def _sync(self) -> None:
        """Make copies durable that are older than half a minute, and mark them."""
        before = self._clock.now() - self._options.sync_after
        while rows := self._catalog.undurable(before):
            done = []
            for row in rows:
                if self._synced(row):
                    done.append(row)
                else:
                    self._catalog.remove(row.key, row.file)
                    self._cache.discard([row])
                self._breathe(len(done))
            if not self._catalog.mark_durable(done):
                return  # a busy catalog: the same rows would come again

    def _synced(self, row: Row) -> bool:
        """Make one copy durable; one that cannot be is not to be trusted."""
        try:
            fd = self._files.open_read(self._cache.path(row))
        except OSError:
            return False
        try:
            self._files.fsync(fd)
        except OSError:
            return False
        finally:
            self._files.close(fd)
        return True

    def _orphans(self) -> int:
        """Copies without a row: of a lost catalog, or of a crash between file and row."""
        gone = 0
        for shard in range(SHARDS):
            copies = list(self._cache.copies(shard))
            # The rows after the names: a copy that is admitted in between has one.
            known = self._catalog.files_in(f"{shard:02x}") if copies else None
            if known is not None:
                gone += sum(self._cache.orphan(path) for name, path in copies if name not in known)
            self._breathe()
        return gone

    def _tidy_folder(self) -> int:
        return 0 if self._folder is None else self._folder.tidy()

    def _tidy_spool(self) -> int:
        moved = 0
        for shard in range(SHARDS):
            moved += len(tidy_shard(self._spool, shard, self._clock.now()))
            recount_shard(self._spool, shard)
            self._clock.wait(self._stop, 0.0)
        return moved

    def _breathe(self, count: int = 0) -> None:
        """Let others run: one busy thread makes their hits slow."""
        if count % _SLICE == 0 and threading.current_thread().name == "cachestore-janitor":
            self._clock.wait(self._stop, 0.001)

    def wait(self, seconds: float) -> bool:
        """Sleep on the janitor's thread; True when it is to end."""
        return self._clock.wait(self._stop, seconds)

    @property
    def interval(self) -> float:
        return self._options.janitor_interval


def _serve(me: weakref.ref[Janitor]) -> None:
    """The thread's work; it ends with the janitor or its store."""
    passed, due = 0.0, _FIRST_DELAY
    while (janitor := me()) is not None:
        pause = min(_TICK, max(0.1, due - passed))
        if janitor.wait(pause):
            return
        passed += pause
        try:
            if passed >= due:
                passed, due = 0.0, janitor.interval
                janitor.hourly()
            else:
                janitor.quick()
        except Exception as error:  # the janitor never ends because of one bad day
            janitor._events.emit(Trouble("", "cache", f"janitor: {error}"))
        del janitor
