"""Fences, callers' conditions, and doubt: lost answers, late requests, somebody else's writes."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from upload_rig import Held, Rig, Scripted, fail, until

from cachestore import errors, events
from cachestore.local.tickets import Ticket, TicketState
from cachestore.model import Attributes
from cachestore.remote.memory import MemoryRemote
from cachestore.uploads.journal import read_leader

KEY = "a/b.wav"
MakeRig = Callable[..., Rig]
RESET = errors.RemoteUnavailable("connection reset")


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


def store(remote: Scripted, data: bytes, content_type: str = "text/plain") -> str:
    """Somebody else's write; its ETag."""
    found = MemoryRemote.put(
        remote,
        KEY,
        io.BytesIO(data),
        size=len(data),
        sha256="",
        attributes=Attributes(content_type),
    )
    return found.etag


# -- our own fence ------------------------------------------------------------------------------


def test_somebody_elses_change_is_seen_and_the_last_writer_wins(
    make: MakeRig, caplog: pytest.LogCaptureFixture
) -> None:
    rig = make()
    store(rig.remote, b"theirs")
    ticket = rig.put(KEY, b"ours", base_etag="an older one")
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    assert rig.remote.bytes_of(KEY) == b"ours"
    assert rig.remote.log == [("put", KEY), ("head", KEY), ("put", KEY)]
    assert "somebody else" in caplog.text


def test_what_vanished_is_put_anew(make: MakeRig) -> None:
    rig = make()
    ticket = rig.put(KEY, b"ours", base_etag="gone meanwhile")
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    assert rig.remote.bytes_of(KEY) == b"ours"


def test_the_fence_is_the_etag_of_our_own_last_write(make: MakeRig) -> None:
    """The second put was made while the first was pending: its base is older than the first."""
    rig = make()
    for number in range(4):
        ticket = rig.put(KEY, str(number).encode(), base_etag="")
        assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    assert rig.remote.count("head") == 0
    ticket = rig.delete(KEY)
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    ticket = rig.put(KEY, b"again", base_etag="old")
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    assert rig.remote.count("head") == 0


def test_without_conditions_a_look_precedes_the_put(
    make: MakeRig, caplog: pytest.LogCaptureFixture
) -> None:
    rig = make(conditional=False)
    store(rig.remote, b"theirs")
    ticket = rig.put(KEY, b"ours", base_etag="old")
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    assert rig.remote.log == [("head", KEY), ("put", KEY)]
    assert "somebody else" in caplog.text


def test_a_lost_answer_is_recognised(make: MakeRig) -> None:
    """The put took effect, so the next try meets our own object: that is a success."""
    rig = make(fail(RESET, after=True))
    ticket = rig.put(KEY, b"ours", base_etag="")
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    assert rig.remote.count("put") == 2
    assert rig.remote.bytes_of(KEY) == b"ours"


def test_the_same_bytes_with_other_attributes_are_not_taken_for_ours(make: MakeRig) -> None:
    rig = make()
    first = rig.put(KEY, b"bytes", content_type="text/plain", base_etag="")
    assert rig.uploader.wait(KEY, first.id, 30) == "uploaded"
    rig.uploader.stop(5.0)
    rig.uploader.start()
    second = rig.put(KEY, b"bytes", content_type="audio/wav", base_etag="")
    assert rig.uploader.wait(KEY, second.id, 30) == "uploaded"
    assert rig.remote.head(KEY).content_type == "audio/wav"


# -- a caller's condition -----------------------------------------------------------------------


def publish_and_wait(rig: Rig, **fields: Any) -> tuple[Ticket, Exception | str]:
    """What a conditional put does."""
    ticket = rig.put(KEY, b"ours", **fields)
    try:
        return ticket, rig.uploader.wait(KEY, ticket.id, 30)
    except errors.PreconditionFailed as error:
        return ticket, error


def test_a_condition_that_holds(make: MakeRig) -> None:
    rig = make()
    etag = store(rig.remote, b"theirs")
    assert publish_and_wait(rig, if_match=etag)[1] == "uploaded"
    assert rig.remote.bytes_of(KEY) == b"ours"


@pytest.mark.parametrize("condition", [{"if_match": "old"}, {"if_none_match": "*"}])
def test_a_condition_that_does_not_hold_is_a_veto(make: MakeRig, condition: dict[str, str]) -> None:
    rig = make()
    etag = store(rig.remote, b"theirs")
    _, error = publish_and_wait(rig, **condition)
    assert isinstance(error, errors.PreconditionFailed)
    assert (error.expected, error.found) == (condition.get("if_match"), etag)
    assert rig.remote.bytes_of(KEY) == b"theirs"
    assert rig.uploader.pending() == []
    assert rig.of(events.Parked) == []


def test_a_condition_whose_caller_is_gone_parks_with_both_etags(make: MakeRig) -> None:
    rig = make()
    etag = store(rig.remote, b"theirs")
    ticket = rig.put(KEY, b"ours", wake=False, if_match="old")
    rig.uploader.start()
    until(lambda: [item.state for item in rig.uploader.pending()] == ["parked"])
    reason = str(rig.uploader.pending()[0].last_error)
    assert '"old"' in reason
    assert etag in reason
    assert rig.spool.read(rig.spool.place(KEY)) == ticket
    # Whoever asks later, without being its caller, is told so and takes nothing back.
    assert rig.uploader.wait(KEY, ticket.id, 1) == "parked"
    assert rig.spool.read(rig.spool.place(KEY)) == ticket


def test_a_caller_in_another_process_than_the_leader_gets_the_veto_too(make: MakeRig) -> None:
    rig = make()
    store(rig.remote, b"theirs")
    leader = rig.another()
    try:
        leader.start()
        until(lambda: leader.health()["leading"])
        _, error = publish_and_wait(rig, if_match="old")
        assert isinstance(error, errors.PreconditionFailed)
        assert error.expected == "old"
        assert rig.uploader.pending() == []
    finally:
        leader.stop(5.0)


def test_our_own_lost_answer_explains_a_failed_condition(make: MakeRig) -> None:
    rig = make(fail(RESET, after=True))
    assert publish_and_wait(rig, if_none_match="*")[1] == "uploaded"
    assert rig.remote.bytes_of(KEY) == b"ours"


def test_the_same_object_by_somebody_else_does_not_make_a_condition_hold(make: MakeRig) -> None:
    rig = make()
    ticket = rig.put(KEY, b"ours")
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    _, error = publish_and_wait(rig, if_none_match="*")
    assert isinstance(error, errors.PreconditionFailed)


# -- doubt --------------------------------------------------------------------------------------


def test_an_ambiguous_try_is_confirmed_by_a_later_look(make: MakeRig) -> None:
    failed: list[float] = []

    def lose(remote: Any, name: str, request: Any) -> Any:
        failed.append(time.time())
        raise RESET

    rig = make(lose, conditional=False, doubt_wait=0.8)
    looks: list[tuple[float, Ticket | None]] = []
    ask = rig.remote.head

    def look(key: str, **options: Any) -> Any:
        looks.append((time.time(), rig.spool.read(rig.spool.place(key))))
        return ask(key, **options)

    rig.remote.head = look
    ticket = rig.put(KEY, b"x")
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    [(when, pending)] = looks
    assert when >= failed[0] + 0.8
    assert pending == ticket
    assert rig.remote.log == [("put", KEY), ("put", KEY), ("head", KEY)]


def test_a_doubt_holds_up_no_other_key(make: MakeRig) -> None:
    rig = make(fail(RESET), conditional=False, doubt_wait=3600.0)
    ticket = rig.put(KEY, b"x")
    until(lambda: rig.remote.bytes_of(KEY) == b"x")
    other = rig.put("other", b"y")
    assert rig.uploader.wait("other", other.id, 30) == "uploaded"
    assert rig.spool.read(rig.spool.place(KEY)) == ticket


@pytest.mark.parametrize(
    "error",
    [
        errors.NotSent("no route"),
        errors.RemoteUnavailable("busy", status=503),
        errors.Throttled("slow", retry_after=0.0),
        errors.RemoteRefused("key", status=403),
    ],
)
def test_a_definite_failure_leaves_no_doubt(make: MakeRig, error: Exception) -> None:
    rig = make(fail(error), conditional=False, doubt_wait=3600.0)
    ticket = rig.put(KEY, b"x")
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    assert rig.remote.count("head") == 0


def ghost(data: bytes) -> Callable[[Scripted, str, Any], Any]:
    """The request works, and right after it an older one, given up as lost, takes effect."""

    def step(remote: Scripted, name: str, request: Any) -> Any:
        answer = request()
        store(remote, data)
        return answer

    return step


def test_a_late_request_cannot_bring_back_the_older_version(make: MakeRig) -> None:
    rig = make(fail(RESET), ghost(b"old"), conditional=False, doubt_wait=0.5)
    rig.put(KEY, b"old")
    until(lambda: rig.of(events.UploadFailed))
    newer = rig.put(KEY, b"new")
    assert rig.uploader.wait(KEY, newer.id, 30) == "uploaded"
    assert rig.remote.bytes_of(KEY) == b"new"
    assert rig.uploader.pending() == []


def test_a_late_put_cannot_bring_back_a_deleted_key(make: MakeRig) -> None:
    rig = make(fail(RESET), ghost(b"old"), conditional=False, doubt_wait=0.5)
    rig.put(KEY, b"old")
    until(lambda: rig.of(events.UploadFailed))
    gone = rig.delete(KEY)
    assert rig.uploader.wait(KEY, gone.id, 30) == "uploaded"
    assert rig.remote.bytes_of(KEY) is None


def test_an_ambiguous_batch_of_deletes_is_confirmed(make: MakeRig) -> None:
    held = Held()
    rig = make(held, fail(RESET), workers=1, conditional=False, doubt_wait=0.3)
    rig.put("first", b"x")
    assert held.reached.wait(30)
    for number in range(10):
        rig.delete(f"k{number}")
    held.release.set()
    assert rig.uploader.flush(60).done
    assert rig.remote.log[1] == ("delete_many", "")
    assert rig.remote.count("head") == 10


def test_given_up_uploads_do_not_go_among_many_deletes(make: MakeRig) -> None:
    """Each is looked at first: what is there lacks their mark, so it was stored anew."""
    held = Held()
    rig = make(held, workers=1)
    for number in range(10):
        MemoryRemote.put(
            rig.remote, f"k{number}", io.BytesIO(b"new"), size=3,
            sha256=hashlib.sha256(b"new").hexdigest(), attributes=Attributes("text/plain"),
        )  # fmt: skip
    rig.put("first", b"x")
    assert held.reached.wait(30)
    for number in range(10):
        rig.delete(f"k{number}", announced="a mark")
    held.release.set()
    assert rig.uploader.flush(60).done
    assert [rig.remote.bytes_of(f"k{n}") for n in range(10)] == [b"new"] * 10
    assert rig.uploader.pending() == []


def test_the_doubt_of_a_key_outlives_its_ticket_and_its_leader(make: MakeRig) -> None:
    """Replaced by a newer put, the older ticket's own notes are gone."""
    rig = make(fail(RESET), conditional=False, doubt_wait=3600.0, retry_base=3600.0)
    rig.put(KEY, b"old")
    until(lambda: rig.of(events.UploadFailed))
    rig.uploader.stop(5.0)
    newer = rig.put(KEY, b"new", wake=False)
    rig.uploader.start()
    until(lambda: rig.remote.bytes_of(KEY) == b"new")
    with pytest.raises(errors.TimedOut, match="confirming"):
        rig.uploader.wait(KEY, newer.id, 0.5)
    report = rig.uploader.flush(0.2)
    assert [item.key for item in report.left] == [KEY]
    assert "confirming" in report.reason


def test_a_clean_close_leaves_no_doubt(make: MakeRig) -> None:
    rig = make(conditional=False, doubt_wait=3600.0)
    first = rig.put(KEY, b"one")
    assert rig.uploader.wait(KEY, first.id, 30) == "uploaded"
    rig.uploader.stop(5.0)
    info = read_leader(rig.files, rig.spool.root)
    assert info is not None
    assert info.clean
    assert not info.wire
    rig.uploader.start()
    second = rig.put(KEY, b"two")
    assert rig.uploader.wait(KEY, second.id, 30) == "uploaded"
    assert rig.remote.count("head") == 0


def test_a_request_that_hangs_over_a_stop_is_in_doubt(make: MakeRig) -> None:
    """The old request ends after the new one: the newer version is there in the end."""
    release = threading.Event()
    reached = threading.Event()

    def hang(remote: Scripted, name: str, request: Any) -> Any:
        reached.set()
        assert release.wait(60)
        store(remote, b"old")
        raise RESET

    def then(remote: Scripted, name: str, request: Any) -> Any:
        answer = request()
        release.set()
        until(lambda: remote.bytes_of(KEY) == b"old")
        return answer

    rig = make(hang, then, conditional=False, doubt_wait=0.3)
    rig.put(KEY, b"old")
    assert reached.wait(30)
    assert not rig.uploader.stop(0.0)
    rig.uploader.start()
    newer = rig.put(KEY, b"new")
    assert rig.uploader.wait(KEY, newer.id, 30) == "uploaded"
    assert rig.remote.bytes_of(KEY) == b"new"


def test_a_tickets_own_note_of_a_request_on_the_wire_is_doubt_enough(make: MakeRig) -> None:
    rig = make(conditional=False, doubt_wait=0.3)
    ticket = rig.put(KEY, b"x", wake=False)
    rig.spool.save_state(ticket, TicketState(tries=1, on_wire=True))
    rig.uploader.start()
    assert rig.uploader.wait(KEY, ticket.id, 30) == "uploaded"
    assert rig.remote.log[-1] == ("head", KEY)
