"""One run of a sync: scan, plan, compare, send with many hands, look again, report."""

from __future__ import annotations

import contextlib
import os
import queue
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cachestore.core import Core
from cachestore.errors import CacheStoreError, ConfigError
from cachestore.events import log
from cachestore.flight import Pool
from cachestore.ingest.bucket import Bucket
from cachestore.ingest.deliver import Delivery, Done
from cachestore.ingest.memory import Memory, Seen
from cachestore.ingest.plan import Item, Naming, Plan, Planner, Unit, remembering
from cachestore.ingest.report import Progress, SyncError, SyncReport, What
from cachestore.ingest.scan import Patterns, Scanner, own_folders
from cachestore.ingest.sidecars import SUFFIX, SidecarWriter
from cachestore.ingest.turns import Stopped, Turns
from cachestore.remote.sending import SendCancelled
from cachestore.store import CacheStore

_BATCH = 256
_FLUSH_SECONDS = 0.2
_ENDING = 30.0
MEMORY = "synced.db"
_OUTCOMES = ("uploaded", "skipped", "failed", "left", "gone", "unfinished")
_NOT_THERE = ("left", "gone", "unfinished")


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for, checked.

    `folders`: look into these only, by relative path, and not below them. `finished`: leave what
    is being written. `accept`: says of files that go together whether they are taken.
    """

    folder: str | os.PathLike[str]
    naming: Naming
    patterns: Patterns
    since: float | None
    limit: int | None
    sidecars: bool
    writer: SidecarWriter | None
    check: bool
    dry_run: bool
    patience: float
    workers: int
    folders: frozenset[str] | None = None
    finished: bool = False
    accept: Callable[[Unit], bool] = lambda unit: True

    def __post_init__(self) -> None:
        if self.since is not None and self.since < 0:
            raise ConfigError(f"since is {self.since} seconds; it cannot be negative")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}; it must be at least 1")


class Run:
    """Files of a folder on their way. All but the workers' part is for one thread."""

    def __init__(
        self, store: CacheStore, core: Core, wish: Wish, tell: Callable[[Progress], None]
    ) -> None:
        core.check_open()
        core.warn_if_in_loop("sync")
        self._store = store
        self._core = core
        self._wish = wish
        self._tell = tell
        self._start = time.monotonic()
        self._errors: list[SyncError] = []
        self._scanner = Scanner(
            wish.folder, self._scanned(), own_folders(core.options), self._unreadable
        )
        self._memory = Memory(
            core.cache.root / MEMORY, self._scanner.root,
            wish.naming.variant(wish.writer, wish.sidecars),
        )  # fmt: skip
        self.turns = Turns(core.options, core.clock, wish.patience, wish.limit)
        self._pool = Pool(wish.workers, "cachestore-sync")
        self._ended: queue.SimpleQueue[tuple[Item, Done | Exception | None]] = queue.SimpleQueue()
        self._saves: queue.SimpleQueue[tuple[Item, str, str, Mapping[str, Any]]]
        self._saves = queue.SimpleQueue()
        self._plan = Plan()
        self._not_planned = 0
        self._delivery: Delivery
        self._open = self._begun = 0
        self._served: list[Unit] = []
        self._late: list[tuple[Unit, Item, Done]] = []
        self._rows: list[Seen] = []
        self._rows_at = self._start
        self._counts = dict.fromkeys(_OUTCOMES, 0)
        self._sent = self._bytes_done = self._bytes_total = 0
        self._parts_done: dict[str, int] = {}
        self._undone: set[str] = set()

    def _scanned(self) -> Patterns:
        """Sidecars are found whatever the patterns include: they go with their files."""
        patterns = self._wish.patterns
        if not patterns.include or not self._wish.sidecars:
            return patterns
        return Patterns([*patterns.include, f"*{SUFFIX}"], patterns.exclude)

    def _unreadable(self, path: str, error: OSError) -> None:
        self._fail(path, "", f"cannot be looked at: {error.strerror or error}")

    # -- the steps ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Scan, plan, and learn what the bucket has."""
        core, wish = self._core, self._wish
        folders = wish.folders
        scanner = self._scanner
        sources = list(scanner.files() if folders is None else scanner.files_in(folders))
        rows = self._memory.all()
        remembered = remembering(rows, self._place_of)
        planner = Planner(
            wish.naming, wish.patterns, sidecars=wish.sidecars, writer=wish.writer,
            remembered=remembered, check=wish.check,
            since=None if wish.since is None else core.clock.now() - wish.since,
            elsewhere=self._elsewhere(rows.values()),
        )  # fmt: skip
        self._plan = planner.make(sources)
        self._plan.units = [unit for unit in self._plan.units if wish.accept(unit)]
        self._undone = {item.source.path for unit in self._plan.units for item in unit.items}
        self._counts["skipped"] = self._plan.known
        self._not_planned = self._counts["failed"]
        self._bytes_total = sum(item.size for unit in self._plan.units for item in unit.items)
        if wish.since is None and folders is None and not self._scanner.narrowed:
            there = {source.path for source in sources}
            self._memory.forget([path for path, _ in rows if path.split("\n")[0] not in there])
        self._step("planned", None)
        bucket = None if core.remote is None else Bucket(core.remote)
        if bucket is not None:
            self._list(bucket)
        self._delivery = Delivery(
            self._store, core, self.turns, wish.naming, bucket, writer=wish.writer,
            parts=self._memory.parts(), save_parts=self._save_parts, named=self._plan.named,
            dry=wish.dry_run, check=wish.check, finished=wish.finished,
        )  # fmt: skip

    def _elsewhere(self, rows: Iterable[Seen]) -> dict[str, Seen]:
        """By key, files that are remembered and lie where this run does not look."""
        folders = self._wish.folders
        if folders is None:
            return {}
        return {
            row.key: row
            for row in rows
            if row.path.rpartition("/")[0] not in folders and row.place == self._place_of(row.key)
        }

    def _place_of(self, key: str) -> str:
        return "folder" if self._core.is_local(key) else "bucket"

    def _list(self, bucket: Bucket) -> None:
        """One listing in the place of many questions; without it each file is asked for."""
        items = [item for unit in self._plan.units for item in unit.items if not item.error]
        asked = [item for item in items if item.seen is None or self._wish.check]
        keys = [item.key for item in asked if item.key and self._place_of(item.key) == "bucket"]
        unnamed = sum(1 for item in asked if not item.key and item.kind == "file")
        if not keys and not unnamed:
            return
        base = self._wish.naming.base

        def read(tries: int) -> None:
            if unnamed:
                bucket.read((), self.turns.is_stopped, prefix=base, count=len(keys) + unnamed)
            else:
                bucket.read(keys, self.turns.is_stopped)

        try:
            self.turns.ask(read, self.turns.deadline())
        except (CacheStoreError, ValueError) as error:
            self.turns.stop(f"the bucket cannot be listed: {error}")
        except Stopped:
            pass

    def work(self) -> None:
        """Send, and hear of each end."""
        waiting = self._plan.units
        while waiting:
            # No more than may still be sent, so that under a limit the oldest go.
            count = self.turns.room or len(waiting)
            for unit in waiting[:count]:
                self._submit(unit)
            self._drain()
            waiting = waiting[count:]
        self._look_again()

    def _submit(self, unit: Unit) -> None:
        self._open += len(unit.items)
        self._pool.submit(lambda: self._serve(unit))
        self._begun += 1

    def _drain(self) -> None:
        """Until every file of every unit has ended."""
        while self._open:
            try:
                item, found = self._ended.get(timeout=_FLUSH_SECONDS)
            except queue.Empty:
                self._flush()
                continue
            self._take(item, found)

    def finish(self) -> None:
        """After an interruption: what is on the wire may end, and is remembered."""
        end = time.monotonic() + _ENDING
        while time.monotonic() < end:
            # The one that was taken from the queue as the interruption came is not known.
            ended = len(self._served) >= self._begun
            with contextlib.suppress(queue.Empty):
                self._take(*self._ended.get(timeout=0.0 if ended else _FLUSH_SECONDS))
                continue
            if ended:
                return

    def close(self) -> None:
        """Remember what arrived, and let the workers go."""
        if self._open:
            self.turns.stop("it ended early")
        self._flush()
        self._pool.close()
        self._memory.close()

    # -- the workers -------------------------------------------------------------------------------

    def _serve(self, unit: Unit) -> None:
        """One worker, one unit: its files, then their sidecars."""
        held: Exception | None = None
        left = False
        for item in unit.items:
            found: Done | Exception | None = None
            try:
                if item.kind != "file" and held is not None:
                    raise CacheStoreError(f"it goes behind its file, which failed: {held}")
                found = Done("left") if item.kind != "file" and left else self._deliver(item)
            except Exception as error:  # the app's own callable may raise anything
                found = error
            if item.kind == "file":
                held = found if isinstance(found, Exception) else held
                left = left or (isinstance(found, Done) and found.outcome in _NOT_THERE)
            self._ended.put((item, found))
        self._served.append(unit)

    def _deliver(self, item: Item) -> Done:
        try:
            done = self._delivery.take(item)
        except (Stopped, SendCancelled):
            return Done("left")
        item.seen = done.seen or item.seen
        return done

    def _save_parts(self, item: Item, key: str, sha256: str, state: Mapping[str, Any]) -> None:
        self._saves.put((item, key, sha256, state))

    # -- what comes back ---------------------------------------------------------------------------

    def _take(self, item: Item, found: Done | Exception | None) -> None:
        self._open -= 1
        self._bytes_done += item.size - self._parts_done.pop(item.key, 0)
        if not isinstance(found, Done):
            self._fail(item.shown, item.key, _words(found))
            self._step("failed", item, error=self._errors[-1].error)
        else:
            self._counts[found.outcome] += 1
            if found.outcome not in ("left", "unfinished") and item.kind != "made":
                self._undone.discard(item.source.path)
            self._sent += found.sent
            if found.seen is not None and not self._wish.dry_run:
                self._keep(item, found)
            if found.outcome in ("uploaded", "skipped"):
                self._step("uploaded" if found.outcome == "uploaded" else "skipped", item)
        if time.monotonic() - self._rows_at > _FLUSH_SECONDS or len(self._rows) >= _BATCH:
            self._flush()

    def _keep(self, item: Item, done: Done) -> None:
        assert done.seen is not None
        if done.look_at is not None:
            self._late.append((Unit([item]), item, done))
            return
        self._rows.append(done.seen)
        if done.sent >= self._store.options.multipart_threshold:
            self._saves.put((item, item.key, done.seen.sha256, {}))

    def _fail(self, path: str, key: str, error: str) -> None:
        self._counts["failed"] += 1
        self._errors.append(SyncError(path, key, error))
        log.warning("cachestore: sync of %s failed: %s", path, error)

    def _flush(self) -> None:
        """Write down what arrived, and how far large files are."""
        while not self._saves.empty():
            item, key, sha256, state = self._saves.get()
            self._memory.save_parts(key, sha256, state)
            done = min(item.size, len(state.get("etags", ())) * int(state.get("part_size", 0)))
            if state and self._open:
                self._bytes_done += done - self._parts_done.get(key, 0)
                self._parts_done[key] = done
                self._step("part", item)
        self._memory.add(self._rows)
        self._rows, self._rows_at = [], time.monotonic()

    def _look_again(self) -> None:
        """Older requests of a process that died may have come late: look, and send again."""
        late, self._late = self._late, []
        for unit, item, done in late:
            assert done.seen is not None
            assert done.look_at is not None
            try:
                self.turns.pause(done.look_at - self._core.clock.now())
                if self._delivery.confirm(done.seen):
                    self._rows.append(done.seen)
                    continue
            except (Stopped, CacheStoreError):
                continue  # not remembered: the next sync compares it
            item.seen, item.asked = None, True
            self._counts[done.outcome] -= 1
            self._bytes_total += item.size
            self._submit(unit)
        self._drain()
        for _, _, done in self._late:
            self._rows.extend([done.seen] if done.seen else [])

    # -- what is told ------------------------------------------------------------------------------

    def _step(self, what: What, item: Item | None, error: str = "") -> None:
        counts = self._counts
        done = counts["uploaded"] + counts["skipped"] + counts["failed"]
        total = done + self._open if what != "planned" else done + _count(self._plan)
        path, key, size = ("", "", 0) if item is None else (item.shown, item.key, item.size)
        self._tell(
            Progress(what, path, key, size, done, total, self._bytes_done, self._bytes_total, error)
        )

    @property
    def undone(self) -> frozenset[str]:
        """The paths of files that were to be sent and did not arrive."""
        return frozenset(self._undone)

    def report(self) -> SyncReport:
        """The sums; what had no end is left."""
        counts, wish = self._counts, self._wish
        ended = sum(counts[what] for what in ("uploaded", "skipped", "failed", "gone"))
        left = _count(self._plan) + self._plan.known + self._not_planned - ended
        report = SyncReport(
            uploaded=counts["uploaded"], skipped=counts["skipped"], failed=counts["failed"],
            left=max(0, left), bytes=self._sent, seconds=time.monotonic() - self._start,
            errors=tuple(self._errors), dry_run=wish.dry_run, stopped=self.turns.reason,
        )  # fmt: skip
        log.info(
            "cachestore: sync of %s: uploaded=%d, failed=%d, skipped=%d",
            self._scanner.root, report.uploaded, report.failed, report.skipped,
        )  # fmt: skip
        return report


def _count(plan: Plan) -> int:
    return sum(len(unit.items) for unit in plan.units)


def _words(error: Exception | None) -> str:
    """An error in words; a class name only where there are no others."""
    if isinstance(error, CacheStoreError):
        return str(error)
    return f"{type(error).__name__}: {error}"
