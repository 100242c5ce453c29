"""`watch`: a folder's files into the storage as they appear, each once and whole."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from types import TracebackType
from typing import Any

from cachestore.clock import Clock
from cachestore.errors import CacheStoreError, StoreClosed
from cachestore.events import log
from cachestore.ingest.engine import WORKERS, run_to_end
from cachestore.ingest.observing import Observing
from cachestore.ingest.plan import naming_of
from cachestore.ingest.report import Progress, SyncReport
from cachestore.ingest.run import Run, Wish
from cachestore.ingest.scan import Patterns, Scanner, own_folders
from cachestore.ingest.sidecars import Maker, SidecarWriter
from cachestore.ingest.waiting import QUIET, Waiting
from cachestore.ingest.watching import Ear, Judge, Timing, WatchStatus, folder_of
from cachestore.store import CacheStore

QUARTER = 900.0
_TICK = 1.0
"""Seconds after which hours, flags and the observer are looked at, whatever happens."""

_SHORTEST = 0.02
_LONGEST_RETRY = 60.0
_CLOSING = 60.0
Tell = Callable[[Progress], None]
Hear = Callable[[SyncReport], None]


def watch(
    store: CacheStore,
    folder: str | os.PathLike[str],
    *,
    every: float | None = QUARTER,
    settle: float = 2.0,
    ingest_hours: str | None = None,
    upload_hours: str | None = None,
    prefix: str = "",
    template: str | None = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    sidecars: bool = True,
    write_sidecar: Maker | Mapping[str, Any] | str | None = None,
    sidecar_model: Any = None,
    time_pattern: str | None = None,
    time_field: str = "timestamp",
    timezone: str | tzinfo | None = None,
    workers: int | None = None,
    patience: float = 60.0,
    progress: Tell | None = None,
    reported: Hear | None = None,
) -> Watcher:
    """Store every file of `folder` as soon as it is whole, until the watcher is closed.

    What is there already is taken first, as by `sync`, whose arguments mean the same here.
    `every`: seconds between two syncs of everything, whatever was heard; None: none. `settle`:
    seconds for which a file that was not heard to be closed or renamed has to stay as it is.
    `ingest_hours` (`20:00-06:00`, a time zone behind it, or that of `timezone`): only files whose
    own time is inside are taken. `upload_hours`: when they are sent. Left out, both follow the
    settings (`WATCH_INGEST_HOURS`, `WATCH_UPLOAD_HOURS`); `none` is any time, and so is all time
    while `WATCH_ACTIVE_HOURS` is off. `progress` and `reported` (what each sync that had something
    to do came to) are called from the watcher's thread.

    Raises `ConfigError`, `StoreClosed`.
    """
    naming = naming_of(prefix, template, time_pattern, time_field, timezone)
    timing = Timing(every, settle, ingest_hours, upload_hours, naming.zone)
    wish = Wish(
        folder=folder, naming=naming,
        patterns=Patterns(include, exclude), since=None, limit=None, sidecars=sidecars,
        writer=None if write_sidecar is None else SidecarWriter(write_sidecar, sidecar_model),
        check=False, dry_run=False, patience=patience,
        workers=workers or max(WORKERS, store.options.workers), finished=True,
    )  # fmt: skip
    return Watcher(store, wish, timing, progress or (lambda step: None), reported)


class Watcher:
    """A folder that is watched, by threads of its own. Made by `watch`; close it, or use `with`."""

    def __init__(
        self, store: CacheStore, wish: Wish, timing: Timing, tell: Tell, reported: Hear | None
    ) -> None:
        store.core.check_open()
        self._store = store
        self._wish = wish
        self._timing = timing
        self._tell = tell
        self._reported = reported or (lambda report: None)
        self._scanner = Scanner(
            wish.folder, wish.patterns, own_folders(store.options), lambda path, error: None
        )
        self._clock: Clock = store.core.clock
        self._root = self._scanner.root
        self._waiting = Waiting(self._root, self._clock, timing.settle, self._quiet())
        self._lock = threading.Lock()  # one run at a time
        self._state = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._ear = Ear(self._scanner, self._waiting, self._wake)
        self._observing: Observing | None = None
        self._problem = ""
        self._all = True  # everything has to be looked through
        self._all_at = self._clock.monotonic()
        self._pause_until = 0.0
        self._troubles = 0
        self._run: Run | None = None
        self._uploaded = self._failed = 0
        self._last: SyncReport | None = None
        self._last_at: datetime | None = None
        self._observe()
        self._thread = threading.Thread(target=self._work, name="cachestore-watch", daemon=True)
        self._thread.start()

    # -- for callers -------------------------------------------------------------------------------

    def sync_now(self) -> SyncReport:
        """Sync everything that is whole, whatever the hours, and return when it is there."""
        self._store.core.check_open()
        with self._lock:
            return self._pass(None, manual=True)

    def status(self) -> WatchStatus:
        """What it does, and since when."""
        now, timing = self._clock.now(), self._timing
        options = self._store.options
        hours = [each for each in timing.hours(options) if each is not None]
        with self._state:
            return WatchStatus(
                folder=self._root, watching=self._observing is not None, problem=self._problem,
                waiting=tuple(self._waiting.paths), uploaded=self._uploaded, failed=self._failed,
                last_sync=self._last, last_sync_at=self._last_at,
                is_active_hours=all(each.contains_seconds(now) for each in hours),
                current_time=datetime.fromtimestamp(now, timing.zone),
                settings=timing.shown(options),
            )  # fmt: skip

    def close(self) -> None:
        """Begin nothing more, let what is on the wire end, and stop the threads."""
        self._stop.set()
        self._wake.set()
        run = self._run
        if run is not None:
            run.turns.stop("the watcher was closed")
        if self._observing is not None:
            self._observing.close()
        if self._thread is not threading.current_thread():
            self._thread.join(_CLOSING)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- the thread --------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                self._turn()
            except StoreClosed:
                if self._store.core.closed:
                    self._note_problem("the store is closed")
                    return
            except Exception as error:  # the watcher outlives whatever one run meets
                self._trouble(f"{error}" if isinstance(error, CacheStoreError) else repr(error))
            self._wake.clear()
            if not self._stop.is_set():
                self._clock.wait(self._wake, self._pause())

    def _pause(self) -> float:
        """Seconds until there may be something to do."""
        due = self._waiting.due_in()
        if due is None:
            due = _TICK
        resting = self._pause_until - self._clock.monotonic()
        return max(_SHORTEST, min(_TICK, max(due, resting)))

    def _turn(self) -> None:
        """Look what is due, and do it."""
        self._look_after_observer()
        now = self._clock.monotonic()
        if now < self._pause_until or not self._may_send():
            return
        every = self._timing.every
        self._all = self._ear.take_missed() or self._all
        if self._all or (every is not None and now >= self._all_at + every):
            self._all, self._all_at = False, now
            try:
                with self._lock:
                    self._pass(None)
            except BaseException:
                self._all = True
                raise
        else:
            folders = self._ear.take_folders()
            folders |= {folder_of(path) for path in self._waiting.due(self._waiting.whole())}
            if folders:
                with self._lock:
                    self._pass(frozenset(folders))

    def _may_send(self) -> bool:
        upload = self._timing.hours(self._store.options)[1]
        return upload is None or upload.contains_seconds(self._clock.now())

    def _quiet(self) -> float:
        """A file whose sidecar tells its time, and by it the key or the hours, waits for that."""
        naming, timing = self._wish.naming, self._timing
        asked = naming.template.needs_time or timing.hours(self._store.options)[0] is not None
        if asked and self._wish.sidecars and naming.pattern is None:
            return max(QUIET, timing.settle)
        return QUIET

    # -- a run -------------------------------------------------------------------------------------

    def _pass(self, folders: frozenset[str] | None, *, manual: bool = False) -> SyncReport:
        """One sync, of everything or of some folders."""
        ingest = None if manual else self._timing.hours(self._store.options)[0]
        judge = Judge(
            self._wish.naming, self._waiting, self._clock, self._timing.settle, ingest,
            manual=manual,
        )  # fmt: skip

        def tell(step: Progress) -> None:
            if not manual and not self._may_send():
                run.turns.stop("the upload hours are over")
            self._tell(step)

        wish = replace(self._wish, folders=folders, accept=judge)
        with self._store.held() as core:
            self._run = run = Run(self._store, core, wish, tell)
            if self._stop.is_set():
                run.turns.stop("the watcher was closed")
            try:
                report = run_to_end(run)
            finally:
                self._run = None
        left = run.undone | judge.held
        # Others became whole since it was decided where to look.
        seen = {
            path: at
            for path, at in judge.whole.items()
            if folders is None or folder_of(path) in folders
        }
        self._waiting.done({path: at for path, at in seen.items() if path not in left})
        self._waiting.rest({path: at for path, at in seen.items() if path in judge.held})
        self._waiting.again(run.undone, judge.whole, self._timing.every or QUARTER)
        self._heed(report)
        return report

    def _heed(self, report: SyncReport) -> None:
        with self._state:
            self._uploaded += report.uploaded
            self._failed += report.failed
            self._last, self._last_at = report, datetime.fromtimestamp(self._clock.now(), UTC)
        if report.stopped and not self._stop.is_set() and self._may_send():
            self._trouble(report.stopped)
        else:
            self._troubles = 0
        if report.uploaded or report.failed or report.stopped:
            self._reported(report)

    def _trouble(self, reason: str) -> None:
        """Something that concerns all files: rest a while, longer each time."""
        pause = min(_LONGEST_RETRY, self._store.options.retry_base * 2.0**self._troubles)
        self._troubles = min(self._troubles + 1, 16)
        self._pause_until = self._clock.monotonic() + pause
        log.warning("cachestore: watching %s: %s; again in %.0f s", self._root, reason, pause)

    # -- what is heard -----------------------------------------------------------------------------

    def _observe(self) -> None:
        """Listen; where that is not possible, the periodic sync has to do."""
        try:
            self._observing = Observing(self._root, self._ear)
            self._waiting.closes = self._observing.closes
            self._note_problem("")
        except OSError as error:
            self._note_problem(f"the system tells nothing of it: {error.strerror or error}")

    def _look_after_observer(self) -> None:
        """Replace one that ended: its folder went away, or a thread of it failed."""
        observing = self._observing
        if observing is not None and observing.alive:
            return
        if observing is not None:
            observing.close()
            self._observing = None
            self._note_problem("the folder is gone, or its observer ended")
        if os.path.isdir(self._root):
            self._observe()
            self._all = self._all or self._observing is not None

    def _note_problem(self, problem: str) -> None:
        with self._state:
            if problem and problem != self._problem:
                log.warning("cachestore: watching %s: %s", self._root, problem)
            self._problem = problem
