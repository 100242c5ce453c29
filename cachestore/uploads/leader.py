"""The leader: holds the lock, follows the spool, keeps the workers alive."""

from __future__ import annotations

import threading
import time

from cachestore import events
from cachestore.errors import CacheStoreError
from cachestore.events import log
from cachestore.local.board import SHARDS
from cachestore.local.spool_scan import (
    Unreadable,
    place_of_digest,
    read_item,
    state_stems,
    ticket_digests,
)
from cachestore.local.tickets import Ticket, TicketState
from cachestore.policy.routing import is_local
from cachestore.uploads.gate import Gate
from cachestore.uploads.journal import Journal
from cachestore.uploads.outcomes import Outcomes
from cachestore.uploads.parts import Parts
from cachestore.uploads.queue import Entry, Queue
from cachestore.uploads.work import Work

_SLICE = 0.0003
_REST = 0.0001
_LOCAL_EVERY = 60.0


class Pace:
    """A background thread lets others run after each 0.3 ms of its own work."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def step(self) -> None:
        if time.perf_counter() - self._since > _SLICE:
            time.sleep(_REST)
            self._since = time.perf_counter()


class Leader:
    """One attempt to lead, from `start` to `stop`; it leads once nobody else does."""

    def __init__(self, parts: Parts, outcomes: Outcomes) -> None:
        options, clock = parts.options, parts.clock
        self._parts = parts
        self._outcomes = outcomes
        self.journal = Journal(
            parts.spool.root, parts.files, clock, parts.spool.remote_id, parts.remote.name
        )
        self.gate = Gate(options.retry_base, options.retry_cap, parts.dice, clock.monotonic)
        self.queue = Queue(clock.monotonic, options.key_interval, self.gate.admit)
        self.work = Work(parts, self.queue, self.gate, self.journal, outcomes)
        self.work.on_own_change = self._own_change
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._tried = threading.Event()
        self._workers: list[threading.Thread] = []
        self._seen: list[int | None] = [None] * SHARDS
        self._local: list[set[str]] = [set() for _ in range(SHARDS)]
        self._local_at: float | None = None
        self._beat_at = 0.0
        self._supervisor = threading.Thread(target=self._run, name="cachestore-leader", daemon=True)

    # -- from outside ----------------------------------------------------------------------------

    def start(self) -> bool:
        """Begin; False if no thread can be started any more (the interpreter shuts down)."""
        try:
            self._supervisor.start()
        except RuntimeError:
            return False
        return True

    @property
    def leading(self) -> bool:
        """True while this is the one that uploads."""
        return self.journal.held and not self._stop.is_set()

    def wait_decided(self, seconds: float) -> None:
        """Wait until it is known whether this leads."""
        self._parts.clock.wait(self._tried, seconds)

    @property
    def caught_up(self) -> bool:
        """True when everything that is in the spool now was seen."""
        return self._local_at is not None and self._seen == self._parts.spool.board.sequences()

    def offer(self, ticket: Ticket) -> None:
        """A ticket was published in this process."""
        if self.leading:
            place = self._parts.spool.place(ticket.key)
            self.queue.offer(
                ticket.key, place.digest, ticket.id, ticket.operation,
                due=self._parts.clock.monotonic(),
            )  # fmt: skip
        else:
            self._wake.set()

    def look_again(self) -> None:
        """Read local changes anew, soon."""
        self._local_at = None
        self._wake.set()

    def stop(self, seconds: float) -> bool:
        """End within `seconds`; True if every worker was done. A hanging one is left alone."""
        clock = self._parts.clock
        end = clock.monotonic() + max(0.0, seconds)
        self._stop.set()
        self._wake.set()
        self.queue.close()
        for thread in (self._supervisor, *self._workers):
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(max(0.0, end - clock.monotonic()))
        done = not any(thread.is_alive() for thread in self._workers)
        self.work.abandon()
        self.journal.release()
        return done

    # -- the supervising thread ------------------------------------------------------------------

    def _run(self) -> None:
        interval = self._parts.options.leader_interval
        while not self._stop.is_set():
            pause = interval
            try:
                if self.journal.held or self._take():
                    start = time.perf_counter()
                    self._tick()
                    # A large backlog is not read over and over while it changes.
                    pause = min(interval, max(interval / 5, 3 * (time.perf_counter() - start)))
            except Exception as error:  # the leader must outlive anything
                self._trouble("the leader", error)
                pause = max(interval, 0.5)
            self._parts.clock.wait(self._wake, max(pause, 0.005))
            self._wake.clear()

    def _take(self) -> bool:
        try:
            taken = self.journal.take()
        finally:
            self._tried.set()
        if taken:
            log.debug("cachestore: this process uploads from %s", self._parts.spool.root)
        return taken

    def _tick(self) -> None:
        clock = self._parts.clock
        if not self._beat():
            return
        self._mend_workers()
        sequences = self._parts.spool.board.sequences()
        # Another process in shadow changes LOCAL_DIR, and has no ticket to show.
        changed = self._parts.options.shadow and sequences != self._seen
        late = self._local_at is None or clock.monotonic() - self._local_at > _LOCAL_EVERY
        if late or changed:
            self._scan_local()
        for shard, sequence in enumerate(sequences):
            if self._seen[shard] != sequence:
                # What could not be read now is looked for again.
                self._seen[shard] = sequence if self._scan(shard) else None
                self._beat()
                if self._stop.is_set():
                    return
        self._outcomes.tell()

    def _beat(self) -> bool:
        """Say once a second that this moves; False when the lock is no longer ours alone."""
        now = self._parts.clock.monotonic()
        if now - self._beat_at < min(1.0, self._parts.options.leader_interval):
            return True
        self._beat_at = now
        if self.journal.still_ours():
            self.journal.beat()
            self._mend_workers()
            return True
        log.warning("cachestore: the leader's lock in %s was removed", self._parts.spool.root)
        self.journal.release()
        return False

    # -- workers ---------------------------------------------------------------------------------

    def _mend_workers(self) -> None:
        """Start the workers, and replace those that died."""
        alive = [thread for thread in self._workers if thread.is_alive()]
        for number in range(len(alive), self._parts.options.workers):
            worker = threading.Thread(
                target=self._serve, name=f"cachestore-upload-{number}", daemon=True
            )
            # Known before it runs: `stop` must not overlook one that is sending already.
            self._workers = [*alive, worker]
            try:
                worker.start()
            except RuntimeError:
                break  # the interpreter shuts down; what is pending stays on disk
            alive.append(worker)
        self._workers = alive

    def _serve(self) -> None:
        try:
            while not self._stop.is_set():
                entries = self.queue.claim(1.0)
                if entries and self.journal.held:
                    self.work.run(entries)
                elif entries:
                    self._put_back(entries)
        except BaseException as error:
            self._trouble("an upload worker died and is replaced", error)
            self._wake.set()

    def _put_back(self, entries: list[Entry]) -> None:
        for entry in entries:
            self.queue.done(entry, due=self._parts.clock.monotonic() + 0.1)

    def _trouble(self, what: str, error: BaseException) -> None:
        text = f"{what}: {type(error).__name__}: {error}"
        self.work.last_error = text
        self._parts.events.emit(events.Trouble("", "uploader", text))
        log.error("cachestore: %s", text, exc_info=error)

    # -- what is pending -------------------------------------------------------------------------

    def _scan(self, shard: int) -> bool:
        """Bring the queue up to date with a shard whose sequence changed; False if not wholly."""
        spool, queue = self._parts.spool, self.queue
        mark, pace = queue.mark(), Pace()
        names = spool.files.list(spool.folder(shard))
        noted = {stem[:64] for stem in state_stems(names)}
        present, whole = set(self._local[shard]), True
        for digest in ticket_digests(names):
            present.add(digest)
            file = self._file(shard, digest)
            if file and digest not in noted and queue.file_of(digest) == file:
                continue
            whole &= self._offer_at(digest, file)
            pace.step()
            if self._stop.is_set():
                return False
        queue.drop_missing(shard, present, mark)
        return whole

    def _own_change(self, shard: int, before: int, after: int) -> None:
        """An acknowledgement of ours is no reason to read its shard again."""
        if self._seen[shard] == before:
            self._seen[shard] = after

    def _file(self, shard: int, digest: str) -> int:
        """Tells one version of a ticket's file from the next; 0 if it is gone."""
        spool = self._parts.spool
        try:
            info = spool.files.stat(spool.ticket_path(place_of_digest(digest)))
        except OSError:
            return 0
        return hash((info.st_ino, info.st_mtime_ns)) or 1

    def _offer_at(self, digest: str, file: int) -> bool:
        """False if the ticket could not be read now."""
        item = read_item(self._parts.spool, place_of_digest(digest))
        if isinstance(item, Unreadable):
            return not item.passing
        if item is not None and item.remote_id == self._parts.spool.remote_id:
            self._offer(item, digest, file)
        return True

    def _offer(self, ticket: Ticket, digest: str, file: int = 0) -> None:
        state = self._parts.spool.state(ticket)
        self.queue.offer(
            ticket.key, digest, ticket.id, ticket.operation, due=self._due(ticket, state),
            tries=state.tries, parked=state.parked is not None, file=file,
        )  # fmt: skip

    def _due(self, ticket: Ticket, state: TicketState) -> float:
        """When to send, in monotonic seconds: the oldest first, unless a try failed before."""
        clock, options = self._parts.clock, self._parts.options
        now = clock.now()
        if state.next_attempt > now:
            longest = max(options.retry_cap, options.doubt_wait)
            return clock.monotonic() + min(state.next_attempt - now, longest)
        return clock.monotonic() - max(0.0, now - ticket.time)

    def _scan_local(self) -> None:
        """Unsent changes of local mode count as tickets."""
        parts, options, pace = self._parts, self._parts.options, Pace()
        found: list[set[str]] = [set() for _ in range(SHARDS)]
        self._local_at = parts.clock.monotonic()
        for key in parts.changes.unsent():
            pace.step()
            if is_local(key, options.mode, options.local_only_prefixes):
                continue
            place = parts.spool.place(key)
            try:
                ticket = parts.spool.read(place)
                change = parts.changes.newest(key, ticket)
            except CacheStoreError as error:
                parts.events.emit(events.Trouble(key, "local", str(error)))
                continue
            if change is not None:
                found[place.shard].add(place.digest)
                self._offer(change.ticket, place.digest)
        self._local = found
