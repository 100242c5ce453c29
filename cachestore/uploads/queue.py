"""What is due when: one entry for each key, in memory, built from the spool."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Literal

from cachestore.local.board import SHARDS

BATCH = 8
"""So many due deletes go in one request."""

BATCH_MAX = 500
NEVER = float("-inf")
_PACED = 1024


class Entry:
    """A key with pending work. Times in monotonic seconds.

    `id` is the operation last seen; the worker reads the ticket anew. `soft`: it waits because
    the remote did not work, not for a reason of its own. `rest`: not before this, whatever.
    `file`: which ticket file was read, 0 for unknown. `hurries`: how often all had been made due
    when a worker took it.
    """

    __slots__ = (
        "again", "busy", "digest", "due", "file", "hurries", "id", "key", "operation", "parked",
        "rest", "soft", "stamp", "tries",
    )  # fmt: skip

    def __init__(self, key: str, digest: str) -> None:
        self.key = key
        self.digest = digest
        self.id = ""
        self.operation: Literal["put", "delete"] = "put"
        self.due = 0.0
        self.rest = NEVER
        self.tries = 0
        self.stamp = 0
        self.file = 0
        self.hurries = 0
        self.parked = self.busy = self.again = self.soft = False


class Queue:
    """Entries by due time. Safe to share by threads; never two workers on one key.

    `admit` is asked before anything is handed out (see `Gate.admit`). `interval`: seconds
    between the end of a key's write and the start of its next one.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        interval: float,
        admit: Callable[[], tuple[bool, float]],
    ) -> None:
        self._monotonic = monotonic
        self._interval = interval
        self._admit = admit
        self._changed = threading.Condition()
        self._shards: list[dict[str, Entry]] = [{} for _ in range(SHARDS)]
        self._heaps: dict[str, list[tuple[float, int, Entry]]] = {"put": [], "delete": []}
        self._stamps = itertools.count(1)
        self._paced: dict[str, float] = {}
        self._open = 0
        self._parked = 0
        self._hurries = 0
        self._closed = False

    # -- counts ----------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Keys with work that is not parked, the ones being sent included."""
        return self._open

    @property
    def parked(self) -> int:
        return self._parked

    # -- what is pending -------------------------------------------------------------------------

    def offer(
        self, key: str, digest: str, id: str, operation: Literal["put", "delete"], *,
        due: float, tries: int = 0, parked: bool = False, file: int = 0,
    ) -> None:  # fmt: skip
        """A pending operation was seen; the newest of a key replaces what was known of it."""
        with self._changed:
            shard = self._shards[int(digest[:2], 16)]
            entry = shard.get(digest)
            if entry is None:
                entry = shard[digest] = Entry(key, digest)
                self._open += 1
            elif entry.id == id:
                # A state file may be older than what we know, if writing it failed.
                entry.file = file or entry.file
                known = entry.busy or tries < entry.tries
                if known or (due >= entry.due and parked == entry.parked):
                    return
            else:
                entry.again = entry.busy
                entry.rest, entry.soft = NEVER, False
            entry.id, entry.operation, entry.tries, entry.file = id, operation, tries, file
            self._set_parked(entry, parked)
            self._schedule(entry, due)

    def drop_missing(self, shard: int, present: set[str], since: int) -> None:
        """Forget entries of a shard whose place is not in `present`.

        `since`: `mark()` from before the shard was read; what was offered later stays.
        """
        with self._changed:
            for digest, entry in list(self._shards[shard].items()):
                if digest not in present and not entry.busy and entry.stamp < since:
                    self._remove(entry)
            self._changed.notify_all()

    def file_of(self, digest: str) -> int:
        """Which ticket file the entry of a place was read from; 0 for none."""
        entry = self._shards[int(digest[:2], 16)].get(digest)
        return 0 if entry is None else entry.file

    def mark(self) -> int:
        """A point in the order of offers."""
        return next(self._stamps)

    def _set_parked(self, entry: Entry, parked: bool) -> None:
        if entry.parked != parked:
            entry.parked = parked
            self._parked += 1 if parked else -1
            self._open += -1 if parked else 1

    def _schedule(self, entry: Entry, due: float) -> None:
        entry.due = max(due, entry.rest, self._paced.get(entry.digest, NEVER))
        entry.stamp = next(self._stamps)
        if not entry.parked and not entry.busy:
            heapq.heappush(self._heaps[entry.operation], (entry.due, entry.stamp, entry))
        self._changed.notify()

    def _remove(self, entry: Entry) -> None:
        if self._shards[int(entry.digest[:2], 16)].pop(entry.digest, None) is not None:
            if entry.parked:
                self._parked -= 1
            else:
                self._open -= 1
            entry.stamp = 0

    # -- for workers -----------------------------------------------------------------------------

    def claim(self, seconds: float) -> list[Entry]:
        """One due entry, or a batch of due deletes; empty after `seconds`, or when closed."""
        end = self._monotonic() + seconds
        with self._changed:
            while not self._closed:
                now = self._monotonic()
                head = self._head()
                pause = end - now
                if head is not None and head.due <= now:
                    admitted, later = self._admit()
                    if admitted:
                        return self._take(head, now)
                    pause = min(pause, later)
                elif head is not None:
                    pause = min(pause, head.due - now)
                if now >= end:
                    return []
                self._changed.wait(max(0.0, pause))
            return []

    def _head(self) -> Entry | None:
        """The entry that is due first, of both operations."""
        best: Entry | None = None
        for heap in self._heaps.values():
            while heap and (heap[0][2].stamp != heap[0][1] or heap[0][2].busy):
                heapq.heappop(heap)
            if heap and (best is None or heap[0][0] < best.due):
                best = heap[0][2]
        return best

    def _take(self, head: Entry, now: float) -> list[Entry]:
        heap = self._heaps[head.operation]
        heapq.heappop(heap)
        self._mark_busy(head)
        taken = [head]
        while head.operation == "delete" and heap and len(taken) < BATCH_MAX:
            due, stamp, entry = heap[0]
            if due > now:
                break
            heapq.heappop(heap)
            if entry.stamp == stamp and not entry.busy:
                self._mark_busy(entry)
                taken.append(entry)
        if 1 < len(taken) < BATCH:
            for entry in taken[1:]:
                entry.busy = False
                self._schedule(entry, entry.due)
            del taken[1:]
        return taken

    def _mark_busy(self, entry: Entry) -> None:
        entry.busy, entry.again, entry.hurries = True, False, self._hurries

    def done(
        self, entry: Entry, *, due: float | None, tries: int = 0, parked: bool = False,
        wrote: bool = False, soft: bool = False, rest: bool = False,
    ) -> None:  # fmt: skip
        """A worker ended with an entry. `due` None: nothing is left of what it saw.

        `wrote`: the remote was written, so the key rests for the interval. `rest`: nobody may
        make it due earlier.
        """
        with self._changed:
            entry.busy = False
            now = self._monotonic()
            if wrote and self._interval > 0:
                self._paced[entry.digest] = now + self._interval
                if len(self._paced) > _PACED:
                    self._paced = {d: t for d, t in self._paced.items() if t > now}
            if due is None and not entry.again:
                self._remove(entry)
            elif entry.again:
                entry.again, entry.tries, entry.rest = False, 0, NEVER
                self._set_parked(entry, False)
                self._schedule(entry, now)
            else:
                if soft and entry.hurries != self._hurries:
                    due = now  # the remote came back while this failed
                entry.tries, entry.soft = tries, soft
                entry.rest = (due or NEVER) if rest else NEVER
                self._set_parked(entry, parked)
                self._schedule(entry, due or 0.0)
            self._changed.notify_all()

    # -- hurrying --------------------------------------------------------------------------------

    def hurry(self, *, soft_only: bool = False) -> None:
        """Make waiting entries due now, except parked and resting ones."""
        with self._changed:
            now = self._monotonic()
            self._hurries += 1
            for shard in self._shards:
                for entry in shard.values():
                    later = entry.due > now and not entry.busy and not entry.parked
                    if later and (entry.soft or not soft_only):
                        self._schedule(entry, now)
            self._changed.notify_all()

    def promote(self, digest: str) -> None:
        """Somebody waits for this key: it goes before all that is due."""
        with self._changed:
            entry = self._shards[int(digest[:2], 16)].get(digest)
            now = self._monotonic()
            if entry is None or entry.busy or entry.parked or entry.due > now:
                return
            if entry.due > NEVER:
                self._schedule(entry, NEVER)

    def poke(self) -> None:
        """Let workers ask the gate again."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Hand out nothing any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
