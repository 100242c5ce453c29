"""One run of an export: list, place, fetch with many hands, remember, report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cachestore.core import Core
from cachestore.errors import CacheStoreError, InvalidKey
from cachestore.events import log
from cachestore.ingest.crew import Crew
from cachestore.ingest.fetching import Arrived, Fetching, Job
from cachestore.ingest.landing import InTheWay, Landing
from cachestore.ingest.memory import Memory, Seen
from cachestore.ingest.placing import Placing, is_marker
from cachestore.ingest.report import ExportReport, Progress, TransferError, What
from cachestore.ingest.run import MEMORY
from cachestore.ingest.turns import Turns
from cachestore.model import ObjectInfo
from cachestore.store import CacheStore

_BATCH = 256
_FLUSH_SECONDS = 0.2
_VARIANT = "export"


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for, checked. `root`: the folder's real path."""

    prefix: str
    root: Path
    past_cache: bool
    verify: bool
    overwrite: bool
    encode: bool
    dry_run: bool
    patience: float
    workers: int


class Exporting:
    """Keys on their way into a folder. All but the workers' part is for one thread."""

    def __init__(
        self, store: CacheStore, core: Core, order: Order, tell: Callable[[Progress], None]
    ) -> None:
        self._store = store
        self._order = order
        self._tell = tell
        self._start = time.monotonic()
        self._landing = Landing(order.root, core.files)
        self._memory = Memory(core.cache.root / MEMORY, str(order.root), _VARIANT)
        self.turns = Turns(core.options, core.clock, order.patience, None)
        self._errors: list[TransferError] = []
        self._conflicts: list[str] = []
        self._counts = dict.fromkeys(("exported", "skipped", "failed", "left", "gone"), 0)
        self._rows: list[Seen] = []
        self._rows_at = self._start
        self._jobs: list[Job] = []
        self._written = self._bytes_done = self._bytes_total = 0
        rows = self._memory.all()
        self._fetching = Fetching(
            store, core, self.turns, self._landing, {path: row for (path, _), row in rows.items()},
            past_cache=order.past_cache, verify=order.verify, overwrite=order.overwrite,
            dry=order.dry_run,
        )  # fmt: skip
        self._crew = Crew(
            self.turns, order.workers, "cachestore-export",
            work=self._fetching.bring, take=self._take, tick=self._tick,
        )  # fmt: skip

    # -- the steps ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Make the folder, list the keys, and give each its path."""
        order = self._order
        folded = False if order.dry_run else self._landing.begin()
        placing = Placing(order.prefix, encode=order.encode, folded=folded)
        listed = self.turns.ask(
            lambda tries: list(self._store.list(order.prefix)), self.turns.deadline()
        )
        for info in listed:
            assert isinstance(info, ObjectInfo), "there is no delimiter"
            if is_marker(info.key, info.size):
                continue
            try:
                self._jobs.append(Job(info, placing.path(info.key)))
            except InvalidKey as error:
                self._fail(info.key, "", str(error))
        self._bytes_total = sum(job.info.size for job in self._jobs)
        self._step("planned", None)

    def work(self) -> None:
        """Fetch, and hear of each end."""
        self._crew.run(self._jobs)

    def close(self) -> None:
        """Remember what arrived, and let the workers go."""
        self._flush()
        self._crew.close()
        self._memory.close()
        if not self._order.dry_run:
            self._landing.end()

    # -- what comes back ---------------------------------------------------------------------------

    def _take(self, job: Job, end: Arrived | Exception | None) -> None:
        self._fetching.partial.pop(job.path, None)
        if end is None:
            self._counts["left"] += 1
            return
        self._bytes_done += job.info.size
        if isinstance(end, Exception):
            if isinstance(end, InTheWay):
                self._conflicts.append(job.info.key)
            self._fail(job.info.key, job.path, _words(end))
            self._step("failed", job, error=self._errors[-1].error)
            return
        self._counts[end.outcome] += 1
        if end.outcome == "exported":
            self._written += end.size
        if end.seen is not None and not self._order.dry_run:
            self._rows.append(end.seen)
        if end.outcome != "gone":
            self._step("exported" if end.outcome == "exported" else "skipped", job)
        if len(self._rows) >= _BATCH or time.monotonic() - self._rows_at > _FLUSH_SECONDS:
            self._flush()

    def _fail(self, key: str, path: str, error: str) -> None:
        self._counts["failed"] += 1
        self._errors.append(TransferError(key, path, error))
        log.warning("cachestore: export of %s failed: %s", ascii(key), error)

    def _flush(self) -> None:
        self._memory.add(self._rows)
        self._rows, self._rows_at = [], time.monotonic()

    def _tick(self) -> None:
        self._flush()
        if self._fetching.partial:
            self._step("part", None)

    # -- what is told ------------------------------------------------------------------------------

    def _step(self, what: What, job: Job | None, error: str = "") -> None:
        path, key, size = ("", "", 0) if job is None else (job.path, job.info.key, job.info.size)
        refused = sum(1 for each in self._errors if not each.path)
        done = sum(self._counts.values())
        arrived = self._bytes_done + sum(list(self._fetching.partial.values()))
        self._tell(
            Progress(
                what, path, key, size, done, len(self._jobs) + refused, arrived,
                self._bytes_total, error,
            )
        )  # fmt: skip

    def report(self) -> ExportReport:
        """The sums; what had no end is left."""
        counts = self._counts
        refused = sum(1 for each in self._errors if not each.path)
        left = len(self._jobs) + refused - sum(counts.values()) + counts["left"]
        log.info(
            "cachestore: export of %s to %s: exported=%d, failed=%d, skipped=%d",
            ascii(self._order.prefix), self._order.root, counts["exported"], counts["failed"],
            counts["skipped"],
        )  # fmt: skip
        return ExportReport(
            exported=counts["exported"], skipped=counts["skipped"], failed=counts["failed"],
            left=left, gone=counts["gone"], bytes=self._written,
            seconds=time.monotonic() - self._start, errors=tuple(self._errors),
            dry_run=self._order.dry_run, stopped=self.turns.reason,
        )  # fmt: skip

    @property
    def root(self) -> Path:
        """The folder."""
        return self._order.root

    @property
    def paths(self) -> dict[str, str]:
        """The keys by their paths in the folder."""
        return {job.path: job.info.key for job in self._jobs}

    @property
    def conflicts(self) -> tuple[str, ...]:
        """Keys whose place another file has."""
        return tuple(sorted(self._conflicts))


def _words(error: Exception) -> str:
    """An error in words; a class name only where there are no others."""
    if isinstance(error, CacheStoreError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be written: {error.strerror}"
    return f"{type(error).__name__}: {error}"
