"""The uploader's front room: starts the leader, and answers what became of operations.

The rooms behind it are in `uploads`: one process at a time leads for a spool folder, and sends
what is pending (L4). This part works in every process, whoever leads.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from typing import Any

from cachestore import events
from cachestore.clock import Clock, Deadline
from cachestore.errors import TimedOut
from cachestore.events import Event, Events
from cachestore.files import Files
from cachestore.keys import Place
from cachestore.local.claims import Claims
from cachestore.local.forks import watch_forks
from cachestore.local.spool import Spool
from cachestore.local.tickets import Ticket
from cachestore.model import FlushReport, PendingItem
from cachestore.options import Options
from cachestore.policy.upload import parse_condition
from cachestore.remote.base import RemoteStore
from cachestore.remote.budget import Budget
from cachestore.uploads.callbacks import Callbacks
from cachestore.uploads.journal import LeaderInfo, leading_pid, read_leader
from cachestore.uploads.leader import Leader
from cachestore.uploads.outcomes import Failed, Outcome, Outcomes, State
from cachestore.uploads.outside import Outside
from cachestore.uploads.parts import CleanCopies, LocalChanges, NoChanges, NoCopies, Parts
from cachestore.uploads.view import View

__all__ = ["CleanCopies", "LocalChanges", "NoChanges", "NoCopies", "State", "Uploader"]

POLL = 0.03
"""Seconds between looks at the board for what another process does."""

STALLED = 5.0
"""Seconds without a heartbeat after which a leader is reported as stopped."""

_GIVE_UP = 30.0
_PAUSED = "uploads are paused (UPLOAD_PAUSE)"


class Uploader:
    """Sends pending operations in the background; one for each store. `remote` None: never.

    Threads are started by the first put, wait, flush or `start`, and again in a forked child.
    """

    def __init__(
        self,
        remote: RemoteStore | None,
        *,
        spool: Spool,
        copies: CleanCopies | None = None,
        changes: LocalChanges | None = None,
        files: Files,
        clock: Clock,
        events: Events,
        options: Options,
        budget: Budget,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._parts = Parts(
            remote, spool, copies or NoCopies(), changes or NoChanges(), files, clock, events,
            options, budget, Claims(spool.root, files, clock), dice,
        )  # fmt: skip
        self.outside = Outside(self._parts)
        self._stopped = False
        self._renew()
        events.subscribe(self._hear)
        watch_forks(self)

    def before_fork(self) -> None:
        """Nothing: the parent's threads go on."""

    def after_fork(self, *, child: bool) -> None:
        if child:
            if self._leader is not None:
                self._leader.journal.forked()  # it goes now, and would not hear of the fork
            self._renew()

    def _renew(self) -> None:
        """A process starts with no threads, and without the locks of the one it was forked from."""
        self._lock = threading.Lock()
        self._leader: Leader | None = None
        self._outcomes = Outcomes()
        self._calls = Callbacks(self._parts, self._outcomes, self._look)

    def _hear(self, event: Event) -> None:
        if isinstance(event, events.Superseded):
            self._outcomes.set(event.id, "superseded")

    # -- running ---------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """True after the first use in this process, until `stop`."""
        return self._leader is not None

    def start(self) -> None:
        """Begin to upload, or stand by while another process does; nothing if that is so already.

        After `stop` this is the only thing that begins anew.
        """
        self._stopped = False
        self._begin()

    def _begin(self) -> Leader | None:
        if self._leader is not None or self._stopped or not self._parts.can_send:
            return self._leader
        with self._lock:
            if self._leader is None:
                leader = Leader(self._parts, self._outcomes)
                if leader.start():
                    self._leader = leader
        return self._leader

    def stop(self, deadline: float) -> bool:
        """Stop within `deadline` seconds; what is pending stays on disk.

        False if a request still hangs: its thread is left alone, and the next leader treats its
        key with doubt.
        """
        self._stopped = True
        with self._lock:
            leader, self._leader = self._leader, None
        done = True if leader is None else leader.stop(deadline)
        self._parts.claims.close()
        self._outcomes.tell()
        return done

    def look_again(self) -> None:
        """Others changed something on this disk: see it soon."""
        leader = self._leader
        if leader is not None:
            leader.look_again()

    def wake(self, ticket: Ticket) -> None:
        """A ticket was published by this process: upload it now."""
        if ticket.conditional:
            self._outcomes.own(ticket.id)
        leader = self._begin()
        if leader is not None:
            leader.offer(ticket)

    def changed_here(self) -> None:
        """LOCAL_DIR was changed by this process, and the remote is to have that too."""
        leader = self._begin()
        if leader is not None:
            leader.look_again()

    # -- what became of an operation -------------------------------------------------------------

    def wait(self, key: str, id: str, timeout: float | None = None) -> State:
        """Wait until an operation has ended: `uploaded`, `superseded` or `parked`.

        Works whoever leads. Raises `TimedOut` after `timeout` seconds (it stays pending then),
        `PreconditionFailed` when the condition of a put of this process did not hold (it is
        withdrawn then), and `SpoolError` when the key's ticket cannot be read.
        """
        outcomes, deadline = self._outcomes, Deadline(self._parts.clock, timeout)
        place = self._parts.spool.place(key)
        seen: int | None = None
        with outcomes.waiting(id) as event:
            while True:
                sequence = self._parts.spool.board.sequence(place.shard)
                known = outcomes.get(id)
                if known is None and sequence != seen:
                    known = self._look(place, key, id)
                if known is not None:
                    return self._answer(place, id, known)
                if deadline.passed():
                    raise TimedOut(f"the upload of {key!r} is pending: {self.why()}")
                self._urge(place, first=seen is None)
                seen = sequence
                self._parts.clock.wait(event, min(POLL, deadline.left()))

    def _urge(self, place: Place, *, first: bool) -> None:
        """Somebody waits, so the key goes first."""
        leader = self._begin()
        if first and leader is not None:
            leader.queue.promote(place.digest)

    def _look(self, place: Place, key: str, id: str) -> Outcome | None:
        """What the disk says of an operation; None while it is pending."""
        spool, changes = self._parts.spool, self._parts.changes
        ticket = spool.read(place)
        change = changes.newest(key, ticket)
        newest = ticket if change is None else change.ticket
        if newest is not None and newest.id == id:
            return None if spool.state(newest).parked is None else "parked"
        if self._outcomes.is_leaving(id):
            return None
        return self._outcomes.get(id) or ("uploaded" if newest is None else "superseded")

    def _answer(self, place: Place, id: str, known: Outcome) -> State:
        if isinstance(known, Failed):
            raise known.error()
        if known == "parked" and self._outcomes.is_owned(id):
            failed = self._withdraw(place, id)
            if failed is not None:
                raise failed.error()
        return known

    def _withdraw(self, place: Place, id: str) -> Failed | None:
        """The leader, in another process, parked our conditional put: take it back."""
        spool = self._parts.spool
        ticket = spool.read(place)
        if ticket is None or ticket.id != id:
            return None
        etags = parse_condition(spool.state(ticket).parked)
        if etags is None:
            return None
        failed = Failed(f"put {ticket.key!r}: the condition did not hold", *etags)
        with self._outcomes.withdrawing(id):
            spool.retire(ticket)
            self._outcomes.set(id, failed)
        return failed

    def when_done(self, key: str, id: str, call: Callable[[State], None]) -> None:
        """Call `call(outcome)` once, from a background thread, when the operation has ended.

        Of a put whose condition failed nothing is called: its caller gets the error.
        """
        self._calls.add(key, id, call)
        self._begin()

    add_done_callback = when_done

    def wait_for_change(self, seconds: float) -> None:
        """Return when something was uploaded here, or after `seconds`."""
        self._begin()
        self._outcomes.wait_for_any(seconds)

    # -- pending work ----------------------------------------------------------------------------

    def pending(self) -> list[PendingItem]:
        """Every operation that a remote does not have, read from the disk, oldest first."""
        return sorted(View(self._parts).items(), key=lambda item: -item.age)

    def retry(self, key: str | None = None) -> int:
        """Make parked and waiting operations of this remote (of one key) due now; how many.

        Raises `SpoolError` when the ticket of `key` cannot be read.
        """
        ids = View(self._parts).hurry(key, parked=True)
        for id_ in ids:
            self._outcomes.revive(id_)
        leader = self._begin()
        if leader is not None:
            leader.gate.hurry()
            leader.look_again()
        return len(ids)

    def flush(self, timeout: float | None = None) -> FlushReport:
        """Make waiting retries due now, and wait until nothing is left, at most `timeout` seconds.

        Works whoever leads. Parked and foreign operations are not waited for. Without a timeout
        it ends early when the leading process is stopped. `uploaded` counts what this process
        sent, or saw leaving the spool.
        """
        outcomes, deadline = self._outcomes, Deadline(self._parts.clock, timeout)
        before, first = outcomes.uploaded, None
        leader = self._begin()
        view = View(self._parts)
        if leader is not None:
            leader.wait_decided(min(1.0, deadline.left()))
            leader.look_again()
        self._hurry(leader, view)
        while True:
            left = self._left(leader, view)
            first = left if first is None else first
            if not left or deadline.passed() or leader is None or self._is_stuck(timeout):
                break
            outcomes.wait_for_any(min(POLL, deadline.left()))
        return self._report(max(outcomes.uploaded - before, first - left), left)

    def _hurry(self, leader: Leader | None, view: View) -> None:
        if leader is not None and leader.leading:
            leader.gate.hurry()
            leader.queue.hurry()
        else:
            view.hurry(parked=False)

    def _left(self, leader: Leader | None, view: View) -> int:
        if leader is None or not leader.leading:
            return view.left()
        waiting = leader.queue.waiting
        return waiting if leader.caught_up else max(1, waiting)

    def _report(self, uploaded: int, left: int) -> FlushReport:
        items = self.pending()
        parked = tuple(item for item in items if item.state == "parked")
        rest = tuple(item for item in items if item.state in ("waiting", "uploading", "retrying"))
        reason = self.why() if left or rest else ""
        return FlushReport(not left, max(0, uploaded), rest if left else (), parked, reason)

    # -- who leads, and how it is ------------------------------------------------------------------

    def why(self) -> str:
        """In words: why pending operations wait."""
        if not self._parts.can_send:
            return _PAUSED if self._parts.paused else "there is no remote in this mode"
        if self._stopped:
            return "the uploader was stopped"
        leader, info = self._leader, self._other()
        if leader is None or not leader.leading:
            if info is None:
                return "no process uploads at the moment"
            return self._of_other(info)
        if leader.gate.reason is not None:
            return f"the remote does not work: {leader.gate.reason}"
        if leader.journal.doubts:
            return f"{leader.journal.doubts} uploads await a confirming look"
        return leader.work.last_error or "it is being uploaded"

    def _of_other(self, info: LeaderInfo) -> str:
        age = self._parts.clock.now() - info.beat
        if age > self._stall():
            return f"the uploading process {info.pid} has not moved for {age:.0f} s; is it stopped?"
        if info.remote_id != self._parts.spool.remote_id:
            return f"process {info.pid} uploads to another remote ({info.remote}) from this spool"
        return f"process {info.pid} uploads"

    def _stall(self) -> float:
        return max(STALLED, 5 * self._parts.options.leader_interval)

    def _other(self) -> LeaderInfo | None:
        """The leader in another place, if there is one."""
        spool, files = self._parts.spool, self._parts.files
        if leading_pid(files, spool.root) is None:
            return None
        return read_leader(files, spool.root)

    def _is_stuck(self, timeout: float | None) -> bool:
        """Without a timeout nobody waits for a stopped process."""
        leader = self._leader
        if timeout is not None or (leader is not None and leader.leading):
            return False
        info = self._other()
        return info is not None and self._parts.clock.now() - info.beat > _GIVE_UP

    def health(self) -> dict[str, Any]:
        """For people: who uploads, whether it moves, how much waits, and the last error."""
        leader = self._leader
        leading = leader is not None and leader.leading
        info = None if leading else self._other()
        now = self._parts.clock.now()
        age = None if info is None else max(0.0, now - info.beat)
        moved = None if info is None else info.moved
        if leader is not None and leading:
            moved = leader.journal.moved
        report: dict[str, Any] = {
            "started": leader is not None,
            "leading": leading,
            "leader_pid": os.getpid() if leading else None if info is None else info.pid,
            "beat_age": 0.0 if leading else age,
            "progress_age": None if moved is None else max(0.0, now - moved),
            "stalled": age is not None and age > self._stall(),
            "queue": self._parts.spool.board.pending()[0],
            "parked": None,
            "in_doubt": None,
            "paused": _PAUSED if self._parts.paused else None,
            "last_error": None,
        }
        if leader is not None and leading:
            report["queue"] = leader.queue.waiting
            report["parked"] = leader.queue.parked
            report["in_doubt"] = leader.journal.doubts
            report["paused"] = leader.gate.reason
            report["last_error"] = leader.work.last_error
        report["state"] = self._word(leader is not None, leading, report)
        return report

    def _word(self, started: bool, leading: bool, report: dict[str, Any]) -> str:
        if not self._parts.can_send:
            return "paused" if self._parts.paused else "off"
        if leading:
            return "paused" if report["paused"] else "uploading"
        if report["stalled"]:
            return "stalled"
        if report["leader_pid"] is not None:
            return "standby"
        return "starting" if started else "idle"
