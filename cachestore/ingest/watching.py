"""What a watcher hears, which files it takes when, and what it says of itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from cachestore.clock import Clock
from cachestore.errors import ConfigError
from cachestore.events import log
from cachestore.ingest.plan import Naming, Unit
from cachestore.ingest.report import SyncReport
from cachestore.ingest.scan import Scanner, Source
from cachestore.ingest.waiting import Waiting
from cachestore.options import Options
from cachestore.policy.hours import ActiveHours, active_hours


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """What a watcher does. `waiting`: paths of files that are not whole, or not sent yet.

    `watching`: False while the system tells nothing (`problem` says why) and only the periodic
    sync finds files. `uploaded`, `failed`: files since the start. `is_active_hours`: now is inside
    of every kind of hours that is set; `settings`: enabled, ingest_hours, upload_hours, timezone,
    every and settle (seconds).
    """

    folder: str
    watching: bool
    problem: str
    waiting: tuple[str, ...]
    uploaded: int
    failed: int
    last_sync: SyncReport | None
    last_sync_at: datetime | None
    is_active_hours: bool
    current_time: datetime
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Timing:
    """When things happen: seconds, and hours as they were given (None: as the settings say)."""

    every: float | None
    settle: float
    ingest: str | None
    upload: str | None
    zone: tzinfo

    def __post_init__(self) -> None:
        if self.every is not None and self.every <= 0:
            raise ConfigError(f"every is {self.every} seconds; it must be more than none")
        if self.settle < 0:
            raise ConfigError(f"settle is {self.settle} seconds; it cannot be negative")
        for text in (self.ingest, self.upload):
            active_hours(text, self.zone)

    def hours(self, options: Options) -> tuple[ActiveHours | None, ActiveHours | None]:
        """Which files are taken, and when they are sent, as it is set now."""
        if not options.watch_active_hours:
            return None, None
        return (
            active_hours(self.ingest or options.watch_ingest_hours, self.zone),
            active_hours(self.upload or options.watch_upload_hours, self.zone),
        )

    def shown(self, options: Options) -> dict[str, Any]:
        """The same for people."""
        return {
            "enabled": options.watch_active_hours,
            "ingest_hours": self.ingest or options.watch_ingest_hours,
            "upload_hours": self.upload or options.watch_upload_hours,
            "timezone": str(self.zone), "every": self.every, "settle": self.settle,
        }  # fmt: skip


class Ear:
    """Hears what the system tells of a folder, remembers it, and wakes who has to act.

    Safe to share by threads.
    """

    def __init__(self, scanner: Scanner, waiting: Waiting, wake: threading.Event) -> None:
        self._scanner = scanner
        self._waiting = waiting
        self._wake = wake
        self._lock = threading.Lock()
        self._folders: set[str] = set()
        self._missed = False

    def written(self, path: str) -> None:
        """A file was made or written to."""
        if self._concerns(path):
            self._waiting.written(path)
            self._wake.set()

    def closed(self, path: str) -> None:
        """A file was closed behind a writer, or renamed into place."""
        if self._concerns(path):
            self._waiting.closed(path)
            self._wake.set()

    def gone(self, path: str) -> None:
        """A file is no longer there; what the storage has of it stays."""
        self._waiting.gone(path)

    def appeared(self, folder: str) -> None:
        """A folder in which files may lie already."""
        if not self._scanner.leaves_out(folder):
            with self._lock:
                self._folders.add(folder)
            self._wake.set()

    def missed(self) -> None:
        """Events were lost, so everything has to be looked through."""
        log.warning("cachestore: watching %s: events were lost; looking", self._scanner.root)
        with self._lock:
            self._missed = True
        self._wake.set()

    def _concerns(self, path: str) -> bool:
        return not self._scanner.leaves_out(folder_of(path)) and not self._scanner.excludes(path)

    def take_missed(self) -> bool:
        """True once after events were lost."""
        with self._lock:
            missed, self._missed = self._missed, False
            return missed

    def take_folders(self) -> set[str]:
        """Folders that appeared since the last call, and all below them."""
        with self._lock:
            appeared, self._folders = self._folders, set()
        found: set[str] = set()
        for folder in appeared:
            for here, _, _ in os.walk(os.path.join(self._scanner.root, folder)):
                found.add(os.path.relpath(here, self._scanner.root).replace(os.sep, "/"))
        return {folder for folder in found if self._scanner.looks_into(folder)}


class Judge:
    """Says of files that go together, found by one run, whether they are taken now.

    `whole`: those that waited and may be taken. `hours`: only files whose own time is inside.
    `manual`: somebody asked, so no file has to have settled. `held`: what was not taken yet.
    """

    def __init__(
        self, naming: Naming, waiting: Waiting, clock: Clock, settle: float,
        hours: ActiveHours | None, *, manual: bool,
    ) -> None:  # fmt: skip
        self._naming = naming
        self._waiting = waiting
        self._clock = clock
        self._settle = settle
        self._hours = hours
        self._manual = manual
        self.whole = waiting.whole()
        self.held: set[str] = set()

    def __call__(self, unit: Unit) -> bool:
        items = [*unit.items, *(item.main for item in unit.sidecars if item.main is not None)]
        if not all(self._is_whole(item.source) for item in items):
            self.held.update(item.source.path for item in items)
            return False
        main = items[-1]
        time = self._naming.time(main.source, main.document)
        return self._hours is None or self._hours.contains(time)

    def _is_whole(self, source: Source) -> bool:
        path = source.path
        if self._manual:
            return path in self.whole or not self._waiting.is_being_written(path)
        if self._waiting.holds(path):
            return path in self.whole
        age = self._clock.now() - source.mtime_ns / 1e9
        if 0 <= age < self._settle:
            self._waiting.found(path)
            return False
        return True


def folder_of(path: str) -> str:
    """The folder of a relative path; "" at the top."""
    return path.rpartition("/")[0]
