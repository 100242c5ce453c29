"""What a worker does with a key: send its newest operation, and decide what comes of it."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from dataclasses import dataclass, replace

from cachestore import events
from cachestore.errors import (
    CacheStoreError,
    NotFound,
    PreconditionFailed,
    SourceError,
    SpoolError,
)
from cachestore.events import log
from cachestore.model import RemoteObject
from cachestore.policy import retry
from cachestore.policy.upload import condition_reason, is_ambiguous, kind_of, same_content
from cachestore.remote.sending import SendCancelled
from cachestore.uploads.acknowledge import OwnChange, acknowledge
from cachestore.uploads.gate import Gate
from cachestore.uploads.journal import Journal
from cachestore.uploads.outcomes import Failed, Outcomes
from cachestore.uploads.parts import Parts
from cachestore.uploads.queue import Entry, Queue
from cachestore.uploads.request import Abandoned, Job, Request, to_delete

_KNOWN = 4096
_CLAIMED = 0.1
_LONGEST_ERROR = 500


@dataclass(frozen=True, slots=True)
class End:
    """How an entry goes back to the queue; see `Queue.done`. `due` in monotonic seconds."""

    due: float | None = None
    tries: int = 0
    parked: bool = False
    wrote: bool = False
    soft: bool = False
    rest: bool = False


class Work:
    """The operations of one leadership. `abandon()` makes every worker leave things as they are."""

    def __init__(
        self, parts: Parts, queue: Queue, gate: Gate, journal: Journal, outcomes: Outcomes
    ) -> None:
        self._parts = parts
        self._queue = queue
        self._gate = gate
        self._journal = journal
        self._outcomes = outcomes
        self._known: OrderedDict[str, str] = OrderedDict()
        self._requests = Request(parts, self._known, self._is_abandoned)
        self._abandoned = False
        self.on_own_change: OwnChange = lambda shard, before, after: None
        self.last_error: str | None = None

    def abandon(self) -> None:
        """The time to stop is over: nothing is acknowledged or noted any more."""
        self._abandoned = True

    def _is_abandoned(self) -> bool:
        return self._abandoned

    # -- entries ---------------------------------------------------------------------------------

    def run(self, entries: list[Entry]) -> None:
        """Handle what was claimed, and give it back to the queue, whatever happens."""
        held = set(entries)
        try:
            alone = self._run_deletes(entries, held) if len(entries) > 1 else entries
            for entry in alone:
                try:
                    end = self._one(entry)
                except Exception as error:  # a fault of ours must not lose the worker or the key
                    self._check_abandoned()
                    end = self._fault(entry, error)
                self._give_back(entry, end, held)
        except Abandoned:
            pass
        finally:
            self._gate.withdraw()
            for entry in held:
                self._queue.done(entry, due=self._monotonic() + self._parts.options.retry_base)

    def _give_back(self, entry: Entry, end: End, held: set[Entry]) -> None:
        held.discard(entry)
        self._queue.done(
            entry, due=end.due, tries=end.tries, parked=end.parked, wrote=end.wrote,
            soft=end.soft, rest=end.rest,
        )  # fmt: skip

    def _fault(self, entry: Entry, error: Exception) -> End:
        tries = entry.tries + 1
        delay = max(1.0, self._backoff(tries))
        self.last_error = f"{type(error).__name__}: {error}"
        self._parts.events.emit(events.Trouble(entry.key, "uploader", self.last_error))
        log.exception("cachestore: a fault while uploading %s", entry.key)
        return End(self._monotonic() + delay, tries, soft=True)

    def _one(self, entry: Entry) -> End:
        job = self._current(entry)
        if job is None:
            return End()
        if job.state.parked is not None:
            return End(self._monotonic(), job.state.tries, parked=True)
        if self._requests.is_claimed(job, self._journal.suspect):
            return End(self._monotonic() + _CLAIMED, job.state.tries)
        if job.state.on_wire:
            # Only the leader before us, or a worker that died, can have left it so.
            self._journal.suspect(job.digest, self._journal.since)
        if job.state.doubt is not None:
            self._journal.suspect(job.digest, job.state.doubt)
        job.doubted = self._journal.doubt(job.digest) is not None
        if job.state.sent_etag is not None:
            return self._confirm(job)
        return self._send(job)

    def _current(self, entry: Entry) -> Job | None:
        """The newest operation of a key, None if there is none; `SpoolError`: not readable now."""
        parts = self._parts
        place = parts.spool.place(entry.key)
        token = parts.spool.board.token(place.slot)
        try:
            ticket = parts.spool.read(place)
        except SpoolError as error:
            if isinstance(error.__cause__, OSError):
                raise
            parts.events.emit(events.Trouble(entry.key, "spool", str(error)))
            return None
        change = parts.changes.newest(entry.key, ticket)
        if change is not None:
            state = parts.spool.state(change.ticket)
            return Job(change.ticket, change.path, change, place, token, state)
        if ticket is None:
            return None
        path = parts.spool.body(ticket) if ticket.operation == "put" else None
        return Job(ticket, path, None, place, token, parts.spool.state(ticket))

    # -- sending ---------------------------------------------------------------------------------

    def _send(self, job: Job) -> End:
        job.state = replace(job.state, tries=job.state.tries + 1, on_wire=True, sent_etag=None)
        self._save(job)
        self._journal.enter([job.digest])
        start = self._monotonic()
        try:
            etag = self._requests.make(job)
        except BaseException as error:
            self._check_abandoned()
            # Who knows what an error that is not the remote's own left on the wire.
            unknown = not isinstance(error, (CacheStoreError, ValueError))
            doubt = job.writing and (unknown or is_ambiguous(error))
            self._journal.leave([job.digest], doubt=doubt)
            job.state = replace(job.state, on_wire=False)
            if doubt:
                job.state = replace(job.state, doubt=self._parts.clock.now())
            if isinstance(error, (CacheStoreError, ValueError)):
                return self._failed(job, error)
            self._save(job)
            raise
        self._check_abandoned()
        self._journal.leave([job.digest])
        self._works()
        return self._sent(job, etag, self._monotonic() - start)

    def _check_abandoned(self) -> None:
        if self._abandoned:
            raise Abandoned

    def _works(self) -> None:
        if self._gate.ended(None):
            self._queue.hurry(soft_only=True)

    def _sent(self, job: Job, etag: str, seconds: float) -> End:
        """The remote took it: acknowledge, or look again later if an earlier try is in doubt."""
        self._remember(job.digest, etag)
        doubt = self._journal.doubt(job.digest)
        if doubt is None:
            return self._acknowledge(job, etag, seconds)
        until = doubt + self._parts.options.doubt_wait
        job.state = replace(
            job.state, on_wire=False, sent_etag=etag, doubt=doubt, next_attempt=until
        )
        self._save(job)
        return self._confirm(job)

    def _remember(self, digest: str, etag: str) -> None:
        self._known[digest] = etag
        self._known.move_to_end(digest)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)

    def _confirm(self, job: Job) -> End:
        """Look whether the remote still has what we sent, once nothing late can arrive."""
        options, now = self._parts.options, self._parts.clock.now()
        doubt = self._journal.doubt(job.digest)
        # A clock that was set back must not make this wait for ever.
        left = 0.0 if doubt is None else min(doubt + options.doubt_wait - now, options.doubt_wait)
        if left > 0:
            return End(self._monotonic() + left, job.state.tries, wrote=True, rest=True)
        start = self._monotonic()
        try:
            found: RemoteObject | None = self._parts.remote.head(job.ticket.key)
        except NotFound:
            found = None
        except CacheStoreError as error:
            self._check_abandoned()
            return self._failed(job, error)
        self._check_abandoned()
        self._works()
        if self._is_ours(job, found):
            self._journal.settle(job.digest)
            etag = "" if found is None else found.etag
            return self._acknowledge(job, etag, self._monotonic() - start)
        log.warning(
            "cachestore: %s in the remote is not what we sent; sending again", job.ticket.key
        )
        self._remember(job.digest, "" if found is None else found.etag)
        job.state = replace(job.state, sent_etag=None, next_attempt=0.0)
        self._save(job)
        return End(self._monotonic(), job.state.tries, wrote=True)

    def _is_ours(self, job: Job, found: RemoteObject | None) -> bool:
        ticket = job.ticket
        if ticket.operation == "delete" or found is None:
            return ticket.operation == "delete" and not to_delete(ticket, found)
        same = same_content(found, ticket.size, ticket.sha256, job.state.sent_etag)
        return same and found.content_type == ticket.content_type

    def _acknowledge(self, job: Job, etag: str, seconds: float) -> End:
        ticket = job.ticket
        try:
            gone = acknowledge(self._parts, job, etag, self.on_own_change)
        except Exception as error:
            # The remote has it; only our own part is left to do, and is tried again.
            job.state = replace(job.state, on_wire=False, sent_etag=etag)
            self._parts.events.emit(events.Trouble(ticket.key, "spool", str(error)))
            return self._later(job, error, self._backoff(job.state.tries))
        self._outcomes.set(ticket.id, "uploaded" if gone else "superseded")
        if not gone:
            return End(self._monotonic(), wrote=True)
        size, tries = ticket.size, max(1, job.state.tries)
        self._parts.events.emit(
            events.Uploaded(ticket.key, size, ticket.operation, ticket.id, seconds, tries)
        )
        if ticket.operation == "put":
            log.info("Uploaded %s to R2 (%d bytes, %.2f s)", ticket.key, size, seconds)
        else:
            log.info("Deleted %s in R2 (%.2f s)", ticket.key, seconds)
        return End(wrote=True)

    # -- failures --------------------------------------------------------------------------------

    def _failed(self, job: Job, error: CacheStoreError | ValueError, *, alone: bool = True) -> End:
        """A try failed. `alone`: the error says something of the remote, not yet heard."""
        if isinstance(error, SendCancelled):
            self._save(job)
            return End(self._monotonic(), job.state.tries)
        kind = kind_of(error)
        if isinstance(error, SourceError):
            if not self._requests.is_current(job):
                return End(self._monotonic())
        elif alone and self._gate.ended(kind, str(error)):
            self._queue.hurry(soft_only=True)
        if kind == "permanent":
            return self._park(job, f"{type(error).__name__}: {error}")
        if isinstance(error, PreconditionFailed) and job.ticket.conditional:
            return self._veto(job, error)
        options, tries = self._parts.options, max(1, job.state.tries)
        delay = self._backoff(tries)
        if kind == "throttled":
            asked = getattr(error, "retry_after", None)
            delay = retry.throttled(
                asked, tries, options.retry_base, options.retry_cap, self._parts.dice
            )
        return self._later(
            job, error, delay, soft=kind in ("transport", "refused"), rest=kind == "throttled"
        )

    def _later(
        self, job: Job, error: Exception, delay: float, *, soft: bool = False, rest: bool = False
    ) -> End:
        text = f"{type(error).__name__}: {error}"[:_LONGEST_ERROR]
        self.last_error = text
        ticket, tries = job.ticket, job.state.tries
        job.state = replace(
            job.state, last_error=text, next_attempt=self._parts.clock.now() + delay
        )
        self._save(job)
        self._parts.events.emit(events.UploadFailed(ticket.key, ticket.id, text, tries, delay))
        log.warning(
            "cachestore: %s of %s failed (try %d), again in %.1f s: %s",
            ticket.operation, ticket.key, tries, delay, text,
        )  # fmt: skip
        self._outcomes.tell()
        return End(self._monotonic() + delay, tries, wrote=True, soft=soft, rest=rest)

    def _park(self, job: Job, reason: str) -> End:
        """It needs a person: keep it, and do not try again until `retry`."""
        reason = reason[:_LONGEST_ERROR]
        self.last_error = reason
        ticket = job.ticket
        job.state = replace(job.state, parked=reason, last_error=reason, on_wire=False)
        self._save(job)
        self._parts.spool.board.change(job.place.slot)  # wakes waiters in other processes
        self._outcomes.set(ticket.id, "parked")
        self._parts.events.emit(events.Parked(ticket.key, ticket.id, reason))
        log.warning("cachestore: parked the %s of %s: %s", ticket.operation, ticket.key, reason)
        return End(self._monotonic(), job.state.tries, parked=True, wrote=True)

    def _veto(self, job: Job, error: PreconditionFailed) -> End:
        """The caller's condition did not hold: tell the caller, or park if there is none."""
        ticket = job.ticket
        reason = condition_reason(ticket.if_match, error.found)
        if not self._outcomes.is_owned(ticket.id):
            return self._park(job, reason)
        with self._outcomes.withdrawing(ticket.id):
            try:
                self._parts.spool.retire(ticket)
            except (CacheStoreError, OSError):
                return self._park(job, reason)
            failed = Failed(str(error), ticket.if_match, error.found)
            self._outcomes.set(ticket.id, failed)
        return End(self._monotonic(), wrote=True)

    # -- many deletes ----------------------------------------------------------------------------

    def _run_deletes(self, entries: list[Entry], held: set[Entry]) -> list[Entry]:
        """Send due deletes in one request; returns the entries that have to go one by one."""
        jobs: list[tuple[Entry, Job]] = []
        alone: list[Entry] = []
        for entry in entries:
            job = None
            with contextlib.suppress(SpoolError):
                job = self._current(entry)
            plain = job is not None and job.is_plain_delete
            if job and plain and not self._requests.is_claimed(job, self._journal.suspect):
                jobs.append((entry, job))
            else:
                alone.append(entry)
        if len(jobs) < 2:
            return entries
        failed = self._delete_many([job for _, job in jobs])
        for entry, job in jobs:
            error = failed.get(job.ticket.key)
            if error is None:
                end = self._sent(job, "", 0.0)
            elif isinstance(error, (CacheStoreError, ValueError)):
                end = self._failed(job, error, alone=False)
            else:
                end = self._fault(entry, error)
            self._give_back(entry, end, held)
        return alone

    def _delete_many(self, jobs: list[Job]) -> dict[str, Exception]:
        """One request for all; the failures by key."""
        digests = [job.digest for job in jobs]
        self._journal.enter(digests)
        for job in jobs:
            job.state = replace(job.state, tries=job.state.tries + 1)
        doubt = False
        try:
            failed = self._parts.remote.delete_many([job.ticket.key for job in jobs])
            self._check_abandoned()
            self._works()
            return failed
        except CacheStoreError as error:
            self._check_abandoned()
            self._gate.ended(kind_of(error), str(error))
            doubt = is_ambiguous(error)
            if doubt:
                for job in jobs:
                    job.state = replace(job.state, doubt=self._parts.clock.now())
            return dict.fromkeys((job.ticket.key for job in jobs), error)
        finally:
            if not self._abandoned:
                self._journal.leave(digests, doubt=doubt)

    # -- small things ----------------------------------------------------------------------------

    def _save(self, job: Job) -> None:
        self._parts.spool.save_state(job.ticket, job.state)

    def _monotonic(self) -> float:
        return self._parts.clock.monotonic()

    def _backoff(self, tries: int) -> float:
        options = self._parts.options
        return retry.backoff(tries, options.retry_base, options.retry_cap, self._parts.dice)
