"""The breaker: when it opens, who may probe, and what others are told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from store_rig import until

from cachestore import events
from cachestore.errors import (
    Corrupt,
    NotFound,
    PreconditionFailed,
    Rejected,
    RemoteRefused,
    RemoteUnavailable,
    SourceError,
    Throttled,
)
from cachestore.events import Event, Events
from cachestore.model import RemoteObject
from cachestore.remote.breaker import GuardedRemote
from cachestore.remote.memory import MemoryBody, MemoryRemote
from cachestore.testing.contract import put, read

THERE = RemoteObject("k", 0, "e")


class HandClock:
    """Stands still until told; a waiter wakes by its event or when time moves."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.waiting = 0
        self._lock = threading.Lock()

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def wait(self, event: threading.Event, seconds: float) -> bool:
        end = self.time + seconds
        with self._lock:
            self.waiting += 1
        try:
            while self.time < end and not event.wait(0.001):
                pass
            return event.is_set()
        finally:
            with self._lock:
                self.waiting -= 1


class Scripted(MemoryRemote):
    """`head` does what it is told."""

    def __init__(self) -> None:
        super().__init__("the bucket")
        self.answer: Callable[[], RemoteObject] = lambda: THERE
        self.calls = 0

    def head(self, key: str, *, timeout: float | None = None) -> RemoteObject:
        self.calls += 1
        return self.answer()

    def fail(self, error: Exception) -> None:
        def answer() -> RemoteObject:
            raise error

        self.answer = answer


class Rig:
    def __init__(self) -> None:
        self.inner = Scripted()
        self.clock = HandClock()
        self.seen: list[Event] = []
        hooks = Events()
        hooks.subscribe(self.seen.append)
        self.remote = GuardedRemote(self.inner, self.clock, hooks)

    def head(self, times: int = 1, **options: Any) -> None:
        for _ in range(times):
            self.remote.head("k", **options)

    def broken(self, error: Exception | None = None) -> None:
        """Open the breaker."""
        self.inner.fail(error or RemoteRefused("no", status=403))
        for _ in range(5):
            with pytest.raises((RemoteRefused, RemoteUnavailable)):
                self.head(patience=0)
        assert self.remote.state == "open"


@pytest.fixture
def rig() -> Rig:
    return Rig()


def in_background(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    result: list[object] = []

    def run() -> None:
        try:
            result.append(work())
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, result


def test_a_refusal_opens_it_at_once(rig: Rig) -> None:
    rig.inner.fail(RemoteRefused("wrong key", status=403))
    with pytest.raises(RemoteRefused):
        rig.head()
    assert rig.remote.state == "open"
    assert rig.remote.opened_at == 1000.0
    assert rig.remote.last_error == "wrong key"


def test_five_failures_in_a_row_open_it(rig: Rig) -> None:
    rig.inner.fail(RemoteUnavailable("down"))
    for _ in range(4):
        with pytest.raises(RemoteUnavailable):
            rig.head()
    rig.inner.answer = lambda: THERE
    rig.head()
    rig.inner.fail(RemoteUnavailable("down"))
    for _ in range(4):
        with pytest.raises(RemoteUnavailable):
            rig.head()
    assert rig.remote.state == "closed"
    with pytest.raises(RemoteUnavailable):
        rig.head()
    assert rig.remote.state == "open"


@pytest.mark.parametrize(
    "error",
    [
        NotFound("no"),
        PreconditionFailed("no"),
        Rejected("no"),
        Throttled("slow down", status=429),
        Corrupt("damaged"),
    ],
)
def test_answers_of_a_remote_that_works(rig: Rig, error: Exception) -> None:
    for failing in (RemoteUnavailable("down"), error) * 20:
        rig.inner.fail(failing)
        with pytest.raises(type(failing)):
            rig.head()
    assert rig.remote.state == "closed"


def test_errors_of_our_own_say_nothing(rig: Rig) -> None:
    for _ in range(4):
        rig.inner.fail(RemoteUnavailable("down"))
        with pytest.raises(RemoteUnavailable):
            rig.head()
        rig.inner.fail(SourceError("unreadable"))
        with pytest.raises(SourceError):
            rig.head()
    rig.inner.fail(RemoteUnavailable("down"))
    with pytest.raises(RemoteUnavailable):
        rig.head()
    assert rig.remote.state == "open"


def test_while_open_the_impatient_fail_at_once(rig: Rig) -> None:
    rig.broken(RemoteRefused("wrong key", status=403))
    calls = rig.inner.calls
    rig.clock.time += 100
    with pytest.raises(RemoteUnavailable, match=r"head 'k'.*the bucket.*wrong key"):
        rig.head(patience=0)
    assert rig.inner.calls == calls


def test_the_next_patient_call_probes_and_closes_it(rig: Rig) -> None:
    rig.broken()
    rig.clock.time += 1
    rig.inner.answer = lambda: THERE
    rig.head()
    assert rig.remote.state == "closed"
    assert rig.remote.opened_at is None
    assert rig.remote.last_error is None
    rig.head(patience=0)


def test_one_probe_a_second(rig: Rig) -> None:
    rig.broken()
    calls = rig.inner.calls
    waiters = [in_background(rig.head) for _ in range(6)]
    until(lambda: rig.clock.waiting == 6)
    assert rig.inner.calls == calls
    rig.clock.time += 1
    for thread, result in waiters:
        thread.join(30)
        assert isinstance(result[0], (RemoteRefused, RemoteUnavailable))
    assert rig.inner.calls == calls + 1


def test_waiters_go_on_when_the_probe_succeeds(rig: Rig) -> None:
    rig.broken()
    rig.inner.answer = lambda: THERE
    waiters = [in_background(rig.head) for _ in range(6)]
    until(lambda: rig.clock.waiting == 6)
    rig.clock.time += 1
    for thread, result in waiters:
        thread.join(30)
        assert result == [None]
    assert rig.remote.state == "closed"


def test_a_waiter_gives_up_when_its_patience_ends(rig: Rig) -> None:
    rig.broken()
    calls = rig.inner.calls
    thread, result = in_background(lambda: rig.head(patience=0.5))
    until(lambda: rig.clock.waiting == 1)
    rig.clock.time += 0.5
    thread.join(30)
    assert isinstance(result[0], RemoteUnavailable)
    assert rig.inner.calls == calls


def test_a_probe_that_hangs_keeps_nobody_else_from_probing(rig: Rig) -> None:
    rig.broken()
    hanging = threading.Event()
    rig.inner.answer = lambda: (hanging.wait(60), THERE)[1]
    rig.clock.time += 1
    calls = rig.inner.calls
    first, _ = in_background(rig.head)
    until(lambda: rig.inner.calls == calls + 1)
    second, result = in_background(rig.head)
    until(lambda: rig.clock.waiting == 1)
    rig.inner.answer = lambda: THERE
    rig.clock.time += 1
    second.join(30)
    assert result == [None]
    assert rig.remote.state == "closed"
    hanging.set()
    first.join(30)


def test_every_request_is_an_event(rig: Rig) -> None:
    put(rig.remote, "a", b"12345")
    read(rig.remote, "a")
    list(rig.remote.list())
    rig.inner.fail(NotFound("no"))
    with pytest.raises(NotFound):
        rig.head()
    calls = [event for event in rig.seen if isinstance(event, events.RemoteCall)]
    assert [(call.operation, call.status, call.key, call.size) for call in calls] == [
        ("put", "ok", "a", 5),
        ("get", "ok", "a", 5),
        ("list", "ok", "", 0),
        ("head", "NotFound", "k", 0),
    ]


class Breaking(MemoryBody):
    """The connection goes after the first bytes."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"1"
        raise RemoteUnavailable("connection reset")


def test_an_answer_that_breaks_counts(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    info = put(rig.inner, "a", b"12345")
    monkeypatch.setattr(rig.inner, "get", lambda key, **_: Breaking(info, memoryview(b"12345")))
    answer = rig.remote.get("a")
    assert answer is not None
    rig.inner.fail(RemoteUnavailable("down"))
    for _ in range(4):
        with pytest.raises(RemoteUnavailable):
            rig.head()
    assert rig.remote.state == "closed"
    with answer as body, pytest.raises(RemoteUnavailable, match="reset"):
        list(body)
    assert rig.remote.state == "open"
    assert rig.remote.last_error == "connection reset"


def test_there_is_no_presigner_where_the_remote_has_none(rig: Rig) -> None:
    assert rig.remote.presigner is None
