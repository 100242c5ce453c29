"""Statistics: one hook over the events, and no counter anywhere else."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from cachestore import events
from cachestore.locks import ForkLock


@dataclass(slots=True)
class Counts:
    """Sums since the store was opened. Sizes in bytes, times in seconds."""

    hits: int = 0
    hit_bytes: int = 0
    stale_hits: int = 0
    pending_hits: int = 0
    local_hits: int = 0
    misses: int = 0
    miss_bytes: int = 0
    miss_seconds: float = 0.0
    absent: int = 0
    absent_negative: int = 0
    revalidations: int = 0
    puts: int = 0
    put_bytes: int = 0
    deletes: int = 0
    uploads: int = 0
    upload_bytes: int = 0
    upload_seconds: float = 0.0
    upload_failures: int = 0
    parked: int = 0
    superseded: int = 0
    evictions: int = 0
    evicted_bytes: int = 0
    refused: int = 0
    remote_calls: int = 0
    remote_failures: int = 0
    troubles: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of reads answered from here, 0 to 1; 0 when nothing was read."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else 0.0

    @property
    def byte_hit_rate(self) -> float:
        """The same by bytes."""
        total = self.hit_bytes + self.miss_bytes
        return self.hit_bytes / total if total else 0.0

    def as_dict(self) -> dict[str, float]:
        """All sums and both rates by name."""
        plain: dict[str, float] = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**plain, "hit_rate": self.hit_rate, "byte_hit_rate": self.byte_hit_rate}


class Stats:
    """The hook; subscribe `Stats().take`."""

    def __init__(self) -> None:
        self._lock = ForkLock()
        self._counts = Counts()
        self._before: list[Stats] = []

    def take(self, event: events.Event) -> None:
        with self._lock:
            self._take_read(self._counts, event)
            self._take_write(self._counts, event)

    def _take_read(self, counts: Counts, event: events.Event) -> None:
        match event:
            case events.Hit(size=size, kind=kind, count=count):
                counts.hits += count
                counts.hit_bytes += size * count
                counts.stale_hits += count if kind.startswith("stale") else 0
                counts.pending_hits += count if kind == "pending" else 0
                counts.local_hits += count if kind == "local" else 0
            case events.Miss(size=size, seconds=seconds):
                counts.misses += 1
                counts.miss_bytes += size
                counts.miss_seconds += seconds
            case events.Fetched(size=size, seconds=seconds):
                counts.miss_bytes += size
                counts.miss_seconds += seconds
            case events.Absent(negative=negative):
                counts.absent += 1
                counts.absent_negative += negative
            case events.Revalidated():
                counts.revalidations += 1
            case events.Evicted(size=size):
                counts.evictions += 1
                counts.evicted_bytes += size
            case events.Refused():
                counts.refused += 1
            case events.RemoteCall(status=status):
                counts.remote_calls += 1
                counts.remote_failures += status not in (
                    "ok",
                    "NotFound",
                    "PreconditionFailed",
                )

    def _take_write(self, counts: Counts, event: events.Event) -> None:
        match event:
            case events.Spooled(size=size, operation=operation):
                counts.puts += operation == "put"
                counts.deletes += operation == "delete"
                counts.put_bytes += size
            case events.Uploaded(size=size, seconds=seconds):
                counts.uploads += 1
                counts.upload_bytes += size
                counts.upload_seconds += seconds
            case events.UploadFailed():
                counts.upload_failures += 1
            case events.Parked():
                counts.parked += 1
            case events.Superseded():
                counts.superseded += 1
            case events.Trouble():
                counts.troubles += 1

    def snapshot(self) -> Counts:
        """The sums so far."""
        with self._lock:
            sums, before = replace(self._counts), list(self._before)
        for each in before:
            _add(sums, each.snapshot())
        return sums

    def follow(self, before: Stats) -> None:
        """Count on from others, to whom something may still happen."""
        with self._lock:
            self._before.append(before)

    def fold(self, before: Stats) -> None:
        """Nothing happens to those any more: keep their sums only."""
        counts = before.snapshot()
        with self._lock:
            if before in self._before:
                self._before.remove(before)
                _add(self._counts, counts)
                return
            later = list(self._before)
        for each in later:  # they came before somebody who came before us
            each.fold(before)


def _add(sums: Counts, more: Counts) -> None:
    for each in fields(Counts):
        setattr(sums, each.name, getattr(sums, each.name) + getattr(more, each.name))
