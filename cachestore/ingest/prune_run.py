"""One pruning: list, date, choose, look, and only then delete."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import partial
from itertools import groupby

from cachestore.core import Core
from cachestore.errors import CacheStoreError, ConfigError, NotFound
from cachestore.events import log
from cachestore.flight import Pool
from cachestore.ingest.prune_report import PruneReport, PruneStep, Reason
from cachestore.ingest.turns import Stopped, Turns
from cachestore.keys import Place
from cachestore.model import ObjectInfo, RemoteObject
from cachestore.policy.filetimes import NamePattern, file_time, time_in
from cachestore.policy.retention import Dated, Label, owners_of, spared_with_owners
from cachestore.remote.base import RemoteStore
from cachestore.store import CacheStore

_BATCH = 500
_LARGEST = 1 << 20

Spare = Callable[[list[Dated]], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Rules:
    """What was asked for, checked. `older_than` and `patience` in seconds."""

    prefix: str
    older_than: float
    labels: tuple[Label, ...]
    keep_prefixes: tuple[str, ...]
    spare: Spare | None
    pattern: NamePattern | None
    time_field: str | None
    zone: tzinfo
    dry_run: bool
    workers: int
    patience: float

    def __post_init__(self) -> None:
        if not self.older_than >= 0:
            raise ConfigError(f"older_than is {self.older_than} seconds; it cannot be negative")
        if self.workers < 1:
            raise ConfigError(f"workers is {self.workers}; it must be at least 1")


class PruneRun:
    """One pruning: list, date, choose, look, delete."""

    def __init__(
        self, store: CacheStore, core: Core, rules: Rules, tell: Callable[[PruneStep], None]
    ) -> None:
        self._store = store
        self._core = core
        self._rules = rules
        self._tell = tell
        self._start = time.monotonic()
        # Before the listing: a key whose token is another one later may be a newer object.
        self._tokens = core.board.tokens.tolist()
        self.turns = Turns(core.options, core.clock, rules.patience, None)
        self._pool = Pool(rules.workers, "cachestore-prune")
        self._there: dict[str, ObjectInfo] = {}
        self._owners: dict[str, list[str]] = {}
        self._going: dict[str, int] = {}
        self._kept: dict[Reason, int] = {}
        self._old = self._looks = self._deleted = self._bytes = 0

    def work(self) -> None:
        """All steps. Nothing is deleted before the last one."""
        for item in self._store.list(self._rules.prefix):
            if isinstance(item, ObjectInfo):
                self._there[item.key] = item
        self._owners = owners_of(self._there)
        dated = self._dated()
        self._choose(dated)
        self._tell(PruneStep("listed", "", 0, len(self._there), self._old))
        self._keep(self._pins(), "pinned")
        if self._rules.spare is not None:
            self._keep(self._rules.spare(dated), "spared")
        self._keep(spared_with_owners(self._owners, self._going), "file")
        if self._rules.labels:
            # Files first: a sidecar of one that stays need not be asked for.
            self._look([key for key in self._going if key not in self._owners])
            self._keep(spared_with_owners(self._owners, self._going), "file")
            self._look([key for key in self._going if key in self._owners])
            self._keep(self._pins(), "pinned")
            self._keep(spared_with_owners(self._owners, self._going), "file")
        self._delete()

    def close(self) -> None:
        self._pool.close()

    def report(self) -> PruneReport:
        """The sums so far."""
        report = PruneReport(
            len(self._there), self._old, self._deleted, self._bytes, dict(self._kept), self._looks,
            time.monotonic() - self._start, self._rules.dry_run, self.turns.reason,
        )  # fmt: skip
        log.info(
            "cachestore: prune %r: %d of %d old, %d %s (%d bytes)", self._rules.prefix, report.old,
            report.listed, report.deleted, "would go" if report.dry_run else "deleted",
            report.bytes,
        )  # fmt: skip
        return report

    # -- times -------------------------------------------------------------------------------------

    def _dated(self) -> list[Dated]:
        """Every object but sidecars, with its time."""
        told = self._told()
        return [
            Dated(key, self._time(item, told.get(key)))
            for key, item in self._there.items()
            if key not in self._owners
        ]

    def _time(self, item: ObjectInfo, told: datetime | None) -> datetime:
        rules, stored = self._rules, item.last_modified
        if rules.pattern is None or told is not None:
            return (told or stored).astimezone(rules.zone)
        name = item.key.rpartition("/")[2]
        nanoseconds = int(stored.timestamp() * 1e9)
        return file_time(
            name, nanoseconds, pattern=rules.pattern, document=None, field="", zone=rules.zone
        )

    def _told(self) -> dict[str, datetime]:
        """Times that sidecars tell, by file, of those whose names have none."""
        name, found = self._rules.time_field, {}
        if name is None:
            return {}
        asked = [
            (files, self._pool.submit(partial(self._time_in, sidecar, name)))
            for sidecar, files in self._owners.items()
            if not all(map(self._is_named, files))
        ]
        for files, future in asked:
            when = future.result()
            self._looks += 1
            if when is not None:
                zoned = when if when.tzinfo else when.replace(tzinfo=self._rules.zone)
                found.update({key: zoned for key in files if not self._is_named(key)})
        return found

    def _is_named(self, key: str) -> bool:
        """True if the time is in the key's last part."""
        pattern = self._rules.pattern
        return pattern is not None and pattern.find(key.rpartition("/")[2]) is not None

    def _time_in(self, sidecar: str, name: str) -> datetime | None:
        """What a sidecar says; None if it holds no such thing."""
        if self._there[sidecar].size > _LARGEST:
            return None
        try:
            document = json.loads(self._store.read(sidecar))
        except (NotFound, ValueError, RecursionError):
            return None
        return time_in(document, name) if isinstance(document, dict) else None

    def _choose(self, dated: list[Dated]) -> None:
        """What is old enough, and is not kept by what is known already."""
        before = datetime.fromtimestamp(self._core.clock.now() - self._rules.older_than, UTC)
        times = {each.key: each.time for each in dated}
        for key, item in self._there.items():
            own = [times[each] for each in self._owners.get(key, [key])]
            if max(own) > before:
                continue
            self._old += 1
            self._going[key] = self._tokens[self._core.spool.place(key).slot]
            if key.startswith(self._rules.keep_prefixes):
                self._keep([key], "prefix")
            elif self._is_pending(item):
                self._keep([key], "pending")

    def _is_pending(self, item: ObjectInfo) -> bool:
        """True while the bucket does not have what the key holds."""
        local = item.storage == "local" and not self._core.is_local(item.key)
        return item.storage == "pending" or local

    def _pins(self) -> list[str]:
        pins = self._core.catalog.known_pins()
        if pins is None:
            raise CacheStoreError("it cannot be known now which keys are pinned; try again")
        return pins

    def _keep(self, keys: Iterable[str], reason: Reason) -> None:
        for key in keys:
            if self._going.pop(key, None) is not None:
                count = self._kept[reason] = self._kept.get(reason, 0) + 1
                size = self._there[key].size
                self._tell(PruneStep("kept", key, size, count, self._old, reason))

    # -- labels ------------------------------------------------------------------------------------

    def _look(self, keys: list[str]) -> None:
        """Keep what has a label, what is another version than listed, and what nobody can tell."""
        asked = [(key, self._pool.submit(partial(self._judge, key))) for key in keys]
        for done, (key, future) in enumerate(asked, 1):
            try:
                reason = future.result()
            except (CacheStoreError, ValueError, Stopped) as error:
                log.debug("cachestore: the labels of %r are not known: %s", key, error)
                reason = "unknown"
            self._looks += not self._core.is_local(key)
            if reason is not None:
                self._keep([key], reason)
            self._tell(PruneStep("looked", key, 0, done, len(asked)))

    def _judge(self, key: str) -> Reason | None:
        """Why an object stays; None if it may go. Runs on a worker."""
        core, item = self._core, self._there[key]
        remote = core.remote
        if remote is None or core.is_local(key):
            return self._labelled(item.metadata)
        place = core.spool.place(key)
        token = core.board.token(place.slot)
        if core.newest(key, place) is not None:
            return "pending"
        found = self.turns.ask(lambda _: self._head(remote, key), self.turns.deadline())
        if found is None or found.etag != item.etag:
            return "changed"
        self._going[key] = token
        return self._labelled(found.metadata)

    def _head(self, remote: RemoteStore, key: str) -> RemoteObject | None:
        try:
            return remote.head(key)
        except NotFound:
            return None

    def _labelled(self, metadata: Mapping[str, str]) -> Reason | None:
        return "labelled" if any(each.is_on(metadata) for each in self._rules.labels) else None

    # -- the end -----------------------------------------------------------------------------------

    def _delete(self) -> None:
        """Shard by shard: one lock and one fsync for all keys of a shard."""
        total = len(self._going)
        for batch in self._batches():
            gone = list(batch)
            if not self._rules.dry_run:
                gone = self._store.delete_unchanged(batch)
            for key in gone:
                size = self._there[key].size
                self._deleted += 1
                self._bytes += size
                self._tell(PruneStep("deleted", key, size, self._deleted, total))
            for key in gone:
                del self._going[key]
            self._keep([key for key in batch if key in self._going], "changed")

    def _batches(self) -> Iterator[dict[str, int]]:
        """Keys and tokens; the keys of one shard are never in two batches."""
        place = self._core.spool.place
        shards = groupby(sorted(self._going, key=lambda key: place(key).digest), _shard_by(place))
        batch: dict[str, int] = {}
        for _, keys in shards:
            batch |= {key: self._going[key] for key in keys}
            if len(batch) >= _BATCH:
                yield batch
                batch = {}
        if batch:
            yield batch


def _shard_by(place: Callable[[str], Place]) -> Callable[[str], int]:
    return lambda key: place(key).shard
