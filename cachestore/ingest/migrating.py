"""One run of a migration: list both sides, copy, compare, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from cachestore.core import Core
from cachestore.errors import CacheStoreError
from cachestore.events import log
from cachestore.ingest.bringing import Brought, Conflict
from cachestore.ingest.crew import Crew
from cachestore.ingest.memory import Memory, Seen
from cachestore.ingest.origins import Entry, LocalOrigin, Origin
from cachestore.ingest.report import MigrateReport, Progress, TransferError, What
from cachestore.ingest.run import MEMORY
from cachestore.ingest.turns import Turns
from cachestore.ingest.verifying import Verdict
from cachestore.model import RemoteObject
from cachestore.store import CacheStore

_BATCH = 256
_FLUSH_SECONDS = 0.2
_VARIANT = "migrate"
Objects = dict[str, RemoteObject]


class Target(Protocol):
    """Where a migration brings files to."""

    name: str

    def listed(self) -> Objects:
        """What is there, by key. Raises what listing raises."""
        ...

    def bringing(self, there: Objects, rows: Iterable[Seen]) -> Callable[[Entry], Brought]:
        """What brings one file. `rows`: what earlier runs brought."""
        ...

    def verifying(self, there: Objects) -> Callable[[Entry], Verdict]:
        """What compares one file; it raises where it differs."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for, checked."""

    verify: bool
    dry_run: bool
    patience: float
    workers: int


class Migrating:
    """Files on their way from one place to another. All but the workers' part is for one thread."""

    def __init__(
        self, store: CacheStore, core: Core, turns: Turns, origin: Origin, target: Target,
        order: Order, tell: Callable[[Progress], None],
    ) -> None:  # fmt: skip
        self._store = store
        self._core = core
        self._order = order
        self._tell = tell
        self._start = time.monotonic()
        self.turns = turns
        self._origin = origin
        self._target = target
        self._memory = Memory(
            core.cache.root / MEMORY, self._origin.id, f"{_VARIANT} {target.name}"
        )
        self._entries: list[Entry] = []
        self._there: Objects = {}
        self._ignored: list[TransferError] = []
        self._errors: list[TransferError] = []
        self._conflicts: list[str] = []
        self._left: set[str] = set()
        self._proven = 0
        self._unproven: list[str] = []
        self._counts = dict.fromkeys(("copied", "skipped", "failed", "left", "gone"), 0)
        self._rows: list[Seen] = []
        self._rows_at = self._start
        self._bytes = self._bytes_done = self._bytes_total = 0

    # -- the steps ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """List both sides. Raises what the remotes raise."""
        if isinstance(self._origin, LocalOrigin) and not self._order.dry_run:
            self._store.flush(self._order.patience)  # what local mode put is on its way already
        faults: list[Entry] = []
        for entry in self._ask(lambda: list(self._origin.entries())):
            if self._takes_part(entry):
                self._entries.append(entry)
            else:
                faults.append(entry)
        for entry in faults:
            why = entry.fault or "LOCAL_ONLY_PREFIXES keep it here"
            told = TransferError(entry.key, entry.shown, why)
            if entry.passing or not entry.fault:
                self._ignored.append(told)
            else:
                self._counts["failed"] += 1
                self._errors.append(told)
        self._there = self._ask(self._target.listed)
        self._bytes_total = sum(entry.size for entry in self._entries)
        self._step("planned", None)

    def _takes_part(self, entry: Entry) -> bool:
        return not entry.fault and not entry.key.startswith(self._core.options.local_only_prefixes)

    def _ask(self, request: Callable[[], Any]) -> Any:
        return self.turns.ask(lambda tries: request(), self.turns.deadline())

    def work(self) -> None:
        """Copy, then compare."""
        order = self._order
        rows = self._memory.all().values()
        crew = Crew(
            self.turns, order.workers, "cachestore-migrate",
            work=self._target.bringing(self._there, rows), take=self._take, tick=self._flush,
        )  # fmt: skip
        try:
            crew.run(self._entries)
        finally:
            crew.close()
            self._flush()
        if not self.turns.stopped and not order.dry_run and self._counts["copied"]:
            self._there = self._ask(self._target.listed)
        if order.verify and not self.turns.stopped:
            self._verify()

    def _verify(self) -> None:
        out = self._left | set(self._conflicts)
        both = [each for each in self._entries if each.key in self._there and each.key not in out]
        crew = Crew(
            self.turns, self._order.workers, "cachestore-verify",
            work=self._target.verifying(self._there), take=self._judge,
        )  # fmt: skip
        try:
            crew.run(both)
        finally:
            crew.close()

    def close(self) -> None:
        """Remember what arrived."""
        self._flush()
        self._memory.close()

    # -- what comes back ---------------------------------------------------------------------------

    def _take(self, entry: Entry, end: Brought | Exception | None) -> None:
        if end is None:
            self._counts["left"] += 1
            return
        self._bytes_done += entry.size
        if isinstance(end, Exception):
            self._fail(entry, end)
            return
        self._counts[end.outcome] += 1
        if end.outcome == "left":
            self._left.add(entry.key)
        self._bytes += end.size
        if end.seen is not None and not self._order.dry_run:
            self._rows.append(end.seen)
        if end.outcome in ("copied", "skipped"):
            self._step("copied" if end.outcome == "copied" else "skipped", entry)
        if len(self._rows) >= _BATCH or time.monotonic() - self._rows_at > _FLUSH_SECONDS:
            self._flush()

    def _fail(self, entry: Entry, error: Exception) -> None:
        self._counts["failed"] += 1
        if isinstance(error, Conflict):
            self._conflicts.append(entry.key)
        words = (
            str(error)
            if isinstance(error, CacheStoreError)
            else (f"{type(error).__name__}: {error}")
        )
        self._errors.append(TransferError(entry.key, entry.shown, words))
        log.warning("cachestore: migration of %s failed: %s", ascii(entry.key), words)
        self._step("failed", entry, error=words)

    def _judge(self, entry: Entry, verdict: Verdict | Exception | None) -> None:
        if verdict == "same":
            self._proven += 1
        elif verdict == "unproven":
            self._unproven.append(entry.key)
        elif isinstance(verdict, Exception):
            self._fail(entry, verdict)

    def _flush(self) -> None:
        self._memory.add(self._rows)
        self._rows, self._rows_at = [], time.monotonic()

    # -- what is told ------------------------------------------------------------------------------

    def _step(self, what: What, entry: Entry | None, error: str = "") -> None:
        path, key, size = ("", "", 0) if entry is None else (entry.shown, entry.key, entry.size)
        done, total = sum(self._counts.values()), len(self._entries)
        total += sum(1 for each in self._errors if not each.key)
        self._tell(
            Progress(what, path, key, size, done, total, self._bytes_done, self._bytes_total, error)
        )

    def report(self) -> MigrateReport:
        """The sums; what had no end is left."""
        counts, order = self._counts, self._order
        unkeyed = sum(1 for each in self._errors if not each.key)
        left = max(0, len(self._entries) + unkeyed - sum(counts.values())) + counts["left"]
        ours = {entry.key for entry in self._entries}
        log.info(
            "cachestore: migration of %s: copied=%d, failed=%d, skipped=%d",
            self._origin.name, counts["copied"], counts["failed"], counts["skipped"],
        )  # fmt: skip
        return MigrateReport(
            copied=counts["copied"], skipped=counts["skipped"], failed=counts["failed"],
            left=left, bytes=self._bytes, seconds=time.monotonic() - self._start,
            errors=tuple(self._errors), conflicts=tuple(sorted(self._conflicts)),
            ignored=tuple(self._ignored), only_source=tuple(sorted(ours - self._there.keys())),
            only_target=tuple(sorted(self._there.keys() - ours)),
            verified=self._proven if order.verify else None, unproven=tuple(self._unproven),
            dry_run=order.dry_run, stopped=self.turns.reason,
        )  # fmt: skip
