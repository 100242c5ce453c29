"""The uploader in one process: what is pending reaches the remote, once, newest last."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from upload_rig import Held, Rig, Scripted, fail, until

from cachestore import errors, events
from cachestore.local.tickets import TicketState
from cachestore.remote.sending import SendCancelled
from cachestore.uploader import NoChanges, Uploader

KEY = "a/b.wav"
MakeRig = Callable[..., Rig]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeRig]:
    rigs: list[Rig] = []

    def build(*steps: Any, conditional: bool = True, **fields: Any) -> Rig:
        rig = Rig(tmp_path, Scripted(*steps, conditional=conditional), **fields)
        rigs.append(rig)
        return rig

    yield build
    for rig in rigs:
        rig.uploader.stop(5.0)


def until_caught_up(rig: Rig) -> None:
    """The leader has seen all that is in the spool now."""
    until(lambda: rig.uploader._leader is not None and rig.uploader._leader.caught_up)


def test_a_put_reaches_the_remote_with_all_that_belongs_to_it(
    make: MakeRig, caplog: pytest.LogCaptureFixture
) -> None:
    rig = make()
    with caplog.at_level(logging.INFO, "cachestore"):
        ticket = rig.put(KEY, b"sound", content_type="audio/wav", metadata={"who": "Jürgen"})
        assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    found = rig.remote.head(KEY)
    assert (found.size, found.sha256, found.content_type) == (5, ticket.sha256, "audio/wav")
    assert found.metadata == {"who": "Jürgen"}
    assert rig.uploader.pending() == []
    # The ticket is gone first: the body and its state follow.
    until(lambda: not list(rig.spool.root.glob("??/*")))
    until(lambda: rig.of(events.Uploaded))
    [event] = rig.of(events.Uploaded)
    assert (event.key, event.size, event.operation, event.tries) == (KEY, 5, "put", 1)
    until(lambda: f"Uploaded {KEY} to R2 (5 bytes" in caplog.text)


def test_a_delete_reaches_the_remote(make: MakeRig) -> None:
    rig = make()
    rig.put(KEY, b"x")
    assert rig.uploader.flush(30).done
    ticket = rig.delete(KEY)
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    assert rig.remote.bytes_of(KEY) is None


def test_what_an_earlier_run_left_is_sent_oldest_first(make: MakeRig) -> None:
    held = Held()
    rig = make(held, workers=1)
    tickets = [rig.put(f"k{n}", b"x", wake=False) for n in range(12)]
    assert rig.remote.log == []
    rig.uploader.start()
    # The first to be found goes at once; what is oldest is known when all was found.
    assert held.reached.wait(30)
    until_caught_up(rig)
    held.release.set()
    assert rig.uploader.flush(30).done
    first, *rest = rig.remote.log
    assert rest == [("put", t.key) for t in tickets if ("put", t.key) != first]


def test_only_the_newest_of_many_puts_is_sent(make: MakeRig) -> None:
    rig = make()
    for number in range(20):
        ticket = rig.put(KEY, str(number).encode(), wake=False)
    rig.uploader.start()
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    assert rig.remote.bytes_of(KEY) == b"19"
    assert rig.remote.count("put") == 1


def test_writes_of_one_key_keep_their_distance(make: MakeRig) -> None:
    rig = make(key_interval=0.5)
    times: list[float] = []

    def note(remote: Any, name: str, request: Any) -> Any:
        times.append(time.monotonic())
        return request()

    rig.remote.steps = [note] * 3
    for number in range(3):
        ticket = rig.put(KEY, str(number).encode())
        assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(gap >= 0.5 for gap in gaps), gaps


def test_another_key_does_not_wait_for_the_distance(make: MakeRig) -> None:
    rig = make(key_interval=3600.0)
    first = rig.put(KEY, b"1")
    assert rig.uploader.wait(KEY, first.id, 30) == "uploaded"
    second = rig.put(KEY, b"2")
    other = rig.put("other", b"3")
    assert rig.uploader.wait("other", other.id, 30) == "uploaded"
    with pytest.raises(errors.TimedOut, match="pending"):
        rig.uploader.wait(KEY, second.id, 0.2)


def test_a_failure_that_passes_is_tried_again(make: MakeRig) -> None:
    rig = make(*[fail(errors.RemoteUnavailable("busy", status=503))] * 3)
    ticket = rig.put(KEY, b"x")
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    until(lambda: rig.of(events.Uploaded))
    assert rig.of(events.Uploaded)[0].tries == 4
    assert [e.tries for e in rig.of(events.UploadFailed)] == [1, 2, 3]


def test_a_throttled_key_rests_as_long_as_the_remote_asks(make: MakeRig) -> None:
    rig = make(fail(errors.Throttled("slow", status=429, retry_after=3600.0)))
    ticket = rig.put(KEY, b"x")
    until(lambda: rig.of(events.UploadFailed))
    assert rig.of(events.UploadFailed)[0].retry_in == 3600.0
    other = rig.put("other", b"y")
    assert rig.uploader.wait("other", other.id, 30) == "uploaded"
    # Not even a flush is a reason to ask before.
    report = rig.uploader.flush(0.3)
    assert not report.done
    assert [item.key for item in report.left] == [KEY]
    assert "slow" in report.reason
    assert rig.remote.count("put") == 2
    assert rig.spool.read(rig.spool.place(KEY)) == ticket


def test_what_cannot_succeed_is_parked_until_retry(make: MakeRig) -> None:
    rig = make(fail(errors.Rejected("too large", status=400)))
    ticket = rig.put(KEY, b"x")
    assert rig.uploader.wait(KEY, ticket.id, 30) == "parked"
    [item] = rig.uploader.pending()
    assert (item.state, item.tries) == ("parked", 1)
    assert "too large" in str(item.last_error)
    report = rig.uploader.flush(30)
    assert report.done
    assert [parked.key for parked in report.parked] == [KEY]
    until(lambda: rig.of(events.Parked))
    assert rig.remote.count("put") == 1
    assert rig.uploader.retry("no/such/key") == 0
    assert rig.uploader.retry(KEY) == 1
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"


def test_a_newer_put_of_a_parked_key_is_sent(make: MakeRig) -> None:
    rig = make(fail(errors.Rejected("no", status=400)))
    first = rig.put(KEY, b"x")
    assert rig.uploader.wait(KEY, first.id, 30) == "parked"
    second = rig.put(KEY, b"y")
    assert rig.uploader.wait(KEY, second.id, 30) == "uploaded"
    assert rig.uploader.wait(KEY, first.id, 1) == "superseded"
    assert rig.uploader.health()["parked"] == 0


def test_a_body_that_was_altered_is_parked_and_never_sent(make: MakeRig) -> None:
    rig = make()
    ticket = rig.put(KEY, b"right", wake=False)
    body = rig.spool.body(ticket)
    body.chmod(0o600)
    body.write_bytes(b"wrong")
    rig.uploader.start()
    assert rig.uploader.wait(KEY, ticket.id, 30) == "parked"
    [item] = rig.uploader.pending()
    assert "changed" in str(item.last_error)
    assert rig.remote.bytes_of(KEY) is None
    assert body.exists()


def test_a_missing_body_is_parked_with_the_reason(make: MakeRig) -> None:
    rig = make()
    ticket = rig.put(KEY, b"x", wake=False)
    rig.spool.body(ticket).unlink()
    rig.uploader.start()
    assert rig.uploader.wait(KEY, ticket.id, 30) == "parked"
    assert "cannot be read" in str(rig.uploader.pending()[0].last_error)


def test_refused_credentials_park_nothing_and_are_not_hammered(make: MakeRig) -> None:
    rig = make(retry_base=0.2, retry_cap=60.0)
    allowed = threading.Event()

    def refuse(remote: Any, name: str, request: Any) -> Any:
        if allowed.is_set():
            return request()
        raise errors.RemoteRefused("bad key", status=403)

    rig.remote.steps = [refuse] * 1000
    for number in range(30):
        rig.put(f"k{number}", b"x")
    until(lambda: rig.uploader.health()["paused"])
    # With four workers and backoff of each key alone there would be dozens of requests by now.
    until(lambda: rig.remote.count("put") >= 6)
    assert rig.remote.count("put") < 30
    assert {item.state for item in rig.uploader.pending()} <= {"waiting", "retrying", "uploading"}
    allowed.set()
    report = rig.uploader.flush(60)
    assert report.done, report
    assert rig.uploader.health()["paused"] is None


def test_after_an_outage_everything_goes_without_waiting_for_its_own_backoff(
    make: MakeRig,
) -> None:
    """Each key failed once and would wait for an hour; the first success makes them all due."""
    rig = make(retry_base=0.05, retry_cap=3600.0)
    rig.uploader._parts = type(rig.uploader._parts)(
        *[getattr(rig.uploader._parts, name) for name in rig.uploader._parts.__slots__[:-1]],
        dice=lambda: 1.0,
    )
    for number in range(5):
        ticket = rig.put(f"k{number}", b"x", wake=False)
        rig.spool.save_state(ticket, TicketState(tries=16))
    rig.remote.steps = [fail(errors.NotSent("no route"))] * 5
    rig.uploader.start()
    until(lambda: len(rig.of(events.UploadFailed)) == 5)
    probe = rig.put("probe", b"y")
    assert rig.uploader.wait("probe", probe.id, 60) == "uploaded"
    until(lambda: not rig.uploader.pending())


def test_never_two_requests_of_one_key_at_a_time(make: MakeRig) -> None:
    held = [Held() for _ in range(3)]
    rig = make(*held, workers=8)
    for number in range(3):
        rig.put(f"k{number}", b"old")
    for each in held:
        assert each.reached.wait(30)
    for number in range(3):
        rig.put(f"k{number}", f"new {number}".encode())
    # The idle workers send all that came later, so they had every chance to take these too.
    for number in range(20):
        ticket = rig.put(f"other{number}", b"x")
        assert rig.uploader.wait(ticket.key, ticket.id, 30) == "uploaded"
    assert rig.remote.overlaps == []
    for each in held:
        each.release.set()
    assert rig.uploader.flush(60).done
    assert rig.remote.overlaps == []
    assert [rig.remote.bytes_of(f"k{n}") for n in range(3)] == [b"new 0", b"new 1", b"new 2"]


@pytest.mark.parametrize("before", [True, False], ids=["before it was sent", "when it was"])
def test_a_put_during_the_upload_wins(make: MakeRig, before: bool) -> None:
    held = Held(before=before)
    rig = make(held)
    first = rig.put(KEY, b"old")
    assert held.reached.wait(30)
    second = rig.put(KEY, b"new")
    held.release.set()
    assert rig.uploader.wait(KEY, second.id, 30) == "uploaded"
    assert rig.uploader.wait(KEY, first.id, 1) == "superseded"
    assert rig.remote.bytes_of(KEY) == b"new"
    assert rig.uploader.pending() == []


def test_a_delete_during_the_upload_wins(make: MakeRig) -> None:
    held = Held(before=False)
    rig = make(held)
    rig.put(KEY, b"old")
    assert held.reached.wait(30)
    gone = rig.delete(KEY)
    held.release.set()
    assert rig.uploader.wait(KEY, gone.id, 30) == "uploaded"
    assert rig.remote.bytes_of(KEY) is None


def test_a_put_during_the_delete_wins(make: MakeRig) -> None:
    rig = make()
    rig.put(KEY, b"first")
    assert rig.uploader.flush(30).done
    held = Held(before=False)
    rig.remote.steps = [held]
    rig.delete(KEY)
    assert held.reached.wait(30)
    again = rig.put(KEY, b"second")
    held.release.set()
    assert rig.uploader.wait(KEY, again.id, 30) == "uploaded"
    assert rig.remote.bytes_of(KEY) == b"second"


@pytest.mark.parametrize(
    "error",
    [
        errors.Rejected("no", status=400),
        errors.Throttled("slow", retry_after=3600.0),
        errors.RemoteUnavailable("busy", status=503),
    ],
)
def test_a_put_during_an_upload_that_fails_does_not_share_its_fate(
    make: MakeRig, error: Exception
) -> None:
    reached, going = threading.Event(), threading.Event()

    def hold_and_fail(remote: Any, name: str, request: Any) -> Any:
        reached.set()
        assert going.wait(60)
        raise error

    rig = make(hold_and_fail, retry_base=3600.0, retry_cap=3600.0)
    rig.put(KEY, b"old")
    assert reached.wait(30)
    second = rig.put(KEY, b"new")
    until_caught_up(rig)
    going.set()
    assert rig.uploader.wait(KEY, second.id, 30) == "uploaded"
    assert rig.remote.bytes_of(KEY) == b"new"


def test_a_superseded_upload_is_broken_off(make: MakeRig) -> None:
    """The body is read piece by piece; a newer version ends it before it is whole."""
    rig = make()
    reading, going = threading.Event(), threading.Event()
    broken_off: list[str] = []

    def slow(remote: Any, name: str, request: Any) -> Any:
        reading.set()
        assert going.wait(60)
        try:
            return request()
        except SendCancelled:
            broken_off.append(name)
            raise

    rig.remote.steps = [slow]
    rig.put(KEY, b"old" * 1000)
    assert reading.wait(30)
    second = rig.put(KEY, b"new")
    going.set()
    assert rig.uploader.wait(KEY, second.id, 30) == "uploaded"
    assert rig.remote.bytes_of(KEY) == b"new"
    assert broken_off == ["put"]
    assert rig.of(events.UploadFailed) == []


def test_many_deletes_share_requests(make: MakeRig) -> None:
    rig = make(workers=1)
    for number in range(100):
        rig.put(f"k{number}", b"x", wake=False)
    rig.uploader.start()
    assert rig.uploader.flush(60).done
    failed = {"k7": errors.RemoteUnavailable("try again", status=503)}

    def partly(remote: Any, name: str, request: Any) -> Any:
        assert name == "delete_many"
        stays = remote._objects["k7"]
        request()
        remote._objects["k7"] = stays
        return failed

    held = Held()
    rig.remote.steps = [held, partly]
    rig.put("first", b"x")
    assert held.reached.wait(30)
    for number in range(100):
        rig.delete(f"k{number}")
    held.release.set()
    assert rig.uploader.flush(60).done
    assert rig.remote.count("delete_many") + rig.remote.count("delete") < 20
    assert [event.key for event in rig.of(events.UploadFailed)] == ["k7"]
    assert rig.uploader.pending() == []
    assert [rig.remote.bytes_of(f"k{n}") for n in range(100)] == [None] * 100


@pytest.mark.parametrize("death", [RuntimeError("bug"), SystemExit(1), MemoryError()])
def test_a_worker_that_dies_is_replaced_and_its_key_not_forgotten(
    make: MakeRig, death: BaseException
) -> None:
    def die(remote: Any, name: str, request: Any) -> Any:
        raise death

    rig = make(die, die, workers=1)
    tickets = [rig.put(f"k{number}", b"x") for number in range(4)]
    for ticket in tickets:
        assert rig.uploader.wait(ticket.key, ticket.id, 60) == "uploaded"
    assert type(death).__name__ in rig.of(events.Trouble)[0].error


@pytest.mark.parametrize("before", [True, False])
def test_a_hanging_remote_does_not_hold_up_stop(make: MakeRig, before: bool) -> None:
    held = Held(before=before)
    rig = make(held)
    ticket = rig.put(KEY, b"x")
    assert held.reached.wait(30)
    leader = rig.uploader._leader
    assert leader is not None
    start = time.monotonic()
    assert not rig.uploader.stop(0.2)
    assert time.monotonic() - start < 20
    assert rig.spool.state(ticket).on_wire
    assert [item.state for item in rig.uploader.pending()] == ["uploading"]
    rig.put("later", b"y")
    assert not rig.uploader.started
    held.release.set()
    until(lambda: not any(worker.is_alive() for worker in leader._workers))
    # The abandoned worker acknowledges nothing: another process may lead by now.
    assert rig.spool.read(rig.spool.place(KEY)) == ticket


def test_after_stop_only_start_begins_anew(make: MakeRig) -> None:
    rig = make()
    rig.put(KEY, b"x")
    assert rig.uploader.flush(30).done
    assert rig.uploader.stop(5.0)
    ticket = rig.put(KEY, b"y")
    assert not rig.uploader.started
    report = rig.uploader.flush(0.1)
    assert not report.done
    assert "stopped" in report.reason
    rig.uploader.start()
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"


def test_a_second_store_on_the_same_folder_stands_by_and_takes_over(make: MakeRig) -> None:
    rig = make()
    rig.uploader.start()
    until(lambda: rig.uploader.health()["leading"])
    second = rig.another()
    try:
        second.start()
        ticket = rig.put(KEY, b"x", wake=False)
        assert second.wait(KEY, ticket.id, 30) == "uploaded"
        assert not second.health()["leading"]
        called: list[str] = []
        ticket = rig.put(KEY, b"y", wake=False)
        second.when_done(KEY, ticket.id, called.append)
        assert second.flush(30).done
        until(lambda: called == ["uploaded"])
        rig.uploader.stop(5.0)
        until(lambda: second.health()["leading"])
        ticket = rig.put(KEY, b"z", wake=False)
        assert second.wait(KEY, ticket.id, 30) == "uploaded"
    finally:
        second.stop(5.0)


def test_retry_and_flush_of_a_store_that_does_not_lead(make: MakeRig) -> None:
    rig = make(fail(errors.Rejected("no", status=400)), retry_base=3600.0, retry_cap=3600.0)
    rig.uploader.start()
    until(lambda: rig.uploader.health()["leading"])
    second = rig.another()
    try:
        ticket = rig.put(KEY, b"x")
        assert second.wait(KEY, ticket.id, 30) == "parked"
        until_caught_up(rig)
        assert second.retry() == 1
        assert second.wait(KEY, ticket.id, 30) == "uploaded"
        rig.remote.steps = [fail(errors.RemoteUnavailable("busy", status=503))]
        rig.put("late", b"y", wake=False)
        until(lambda: rig.of(events.UploadFailed))
        until_caught_up(rig)
        assert second.flush(60).done
        assert rig.remote.bytes_of("late") == b"y"
    finally:
        second.stop(5.0)


def test_callbacks_are_called_once_and_may_fail(make: MakeRig) -> None:
    rig = make()
    called: list[str] = []

    def bad(state: str) -> None:
        called.append(state)
        raise SystemExit(3)

    ticket = rig.put(KEY, b"x")
    rig.uploader.when_done(KEY, ticket.id, bad)
    rig.uploader.when_done(KEY, ticket.id, called.append)
    until(lambda: len(called) == 2)
    rig.uploader.when_done(KEY, ticket.id, called.append)
    until(lambda: called == ["uploaded"] * 3)


def test_an_operation_that_somebody_withdrew_is_waited_for_no_more(make: MakeRig) -> None:
    """Local mode in another process makes a ticket void, for example."""
    rig = make(fail(errors.Throttled("slow", retry_after=3600.0)))
    ticket = rig.put(KEY, b"x")
    until(lambda: rig.of(events.UploadFailed))
    assert not rig.uploader.flush(0.1).done
    assert rig.spool.retire(ticket)
    assert rig.uploader.flush(60).done
    assert rig.uploader.health()["queue"] == 0


def test_foreign_and_unreadable_tickets_are_named_and_left_alone(make: MakeRig) -> None:
    rig = make()
    from spool_rig import make_spool, put

    theirs = put(make_spool(rig.spool.root, remote_id="e" * 16), KEY, b"theirs")
    rig.put("torn", b"x", wake=False)
    path = rig.spool.ticket_path(rig.spool.place("torn"))
    path.write_bytes(b"junk")
    rig.put(KEY, b"ours")
    assert rig.uploader.flush(30).done
    states = {item.state: item for item in rig.uploader.pending()}
    assert set(states) == {"foreign", "unreadable"}
    assert (states["foreign"].key, states["foreign"].remote_id) == (KEY, "e" * 16)
    assert states["foreign"].id == theirs.id
    assert states["unreadable"].path == path
    assert rig.remote.bytes_of(KEY) == b"ours"


def test_without_a_remote_nothing_starts(make: MakeRig) -> None:
    rig = make()
    local = rig.another(remote=None)
    ticket = rig.put(KEY, b"x", wake=False)
    local.wake(ticket)
    local.start()
    assert not local.started
    with pytest.raises(errors.TimedOut, match="no remote"):
        local.wait(KEY, ticket.id, 0.0)
    assert not local.flush(0.0).done
    assert [item.state for item in local.pending()] == ["waiting"]


@pytest.mark.parametrize("replaced", [True, False])
def test_losing_the_lock_file_ends_the_leadership(make: MakeRig, replaced: bool) -> None:
    rig = make()
    rig.uploader.start()
    until(lambda: rig.uploader.health()["leading"])
    leader = rig.uploader._leader
    assert leader is not None
    since = leader.journal.since
    lock = rig.spool.root / "leader.lock"
    lock.unlink()
    if replaced:
        lock.touch()
    until(lambda: leader.journal.held and leader.journal.since > since)
    ticket = rig.put(KEY, b"x")
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"


def test_the_acknowledgement_is_in_order(make: MakeRig) -> None:
    """A copy, what LOCAL_DIR knows, then the ticket; and the copy is taken back if it lost."""
    rig = make()
    done: list[str] = []

    class Copies:
        lose = False

        def admit(self, ticket: Any, body: Path, found: Any) -> str:
            hidden = rig.spool.read(rig.spool.place(KEY)).id == ticket.id
            ours = found.etag == rig.remote.head(KEY).etag
            done.append(f"admit {body.read_text()}" if hidden and ours else "admit too late")
            if self.lose:
                self.lose = False
                rig.put(KEY, b"two", wake=False)
            return ticket.id

        def withdraw(self, admitted: Any) -> None:
            done.append("withdraw")

        def forget(self, key: str) -> None:
            done.append("forget")

    class Changes(NoChanges):
        def settle(self, ticket: Any, etag: str) -> None:
            hidden = rig.spool.read(rig.spool.place(KEY)) is not None
            done.append("settle" if hidden else "settle too late")

    copies = Copies()
    copies.lose = True
    uploader: Uploader = rig.another(copies=copies, changes=Changes())
    try:
        rig.put(KEY, b"one", wake=False)
        assert uploader.flush(30).done
        assert done == ["admit one", "settle", "withdraw", "admit two", "settle"]
        done.clear()
        rig.delete(KEY, wake=False)
        assert uploader.flush(30).done
        assert done == ["forget", "settle"]
    finally:
        uploader.stop(5.0)


@pytest.mark.parametrize("where", ["forget", "settle"])
def test_the_ticket_stays_until_nothing_older_can_come_to_light(make: MakeRig, where: str) -> None:
    rig = make()
    tries: list[str] = []

    class Stubborn:
        def __getattr__(self, name: str) -> Any:
            def method(*_: Any) -> Any:
                if name == "admit":
                    raise OSError("cache is full")
                if name == where:
                    tries.append(name)
                    if len(tries) < 3:
                        raise errors.SpoolError("not yet")
                return [] if name in ("unsent", "foreign", "unreadable") else None

            return method

    uploader = rig.another(copies=Stubborn(), changes=Stubborn())
    try:
        rig.put(KEY, b"x", wake=False)
        assert uploader.flush(60).done
        assert len(tries) == 3
        assert rig.remote.count("put") == 1
    finally:
        uploader.stop(5.0)
