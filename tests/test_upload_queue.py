"""The queue of due uploads: what hurries, what rests, what a second look changes."""

from __future__ import annotations

from cachestore.testing.clock import FakeClock
from cachestore.uploads.queue import Queue

DIGEST = "ab" * 32
HOUR = 3600.0


def make() -> tuple[Queue, FakeClock]:
    clock = FakeClock()
    return Queue(clock.monotonic, 0.0, lambda: (True, 0.0)), clock


def offer(queue: Queue, due: float, id: str = "one", tries: int = 0) -> None:
    queue.offer("key", DIGEST, id, "put", due=due, tries=tries)


def failed(queue: Queue, clock: FakeClock) -> None:
    """The operation was tried, and waits an hour for the remote to come back."""
    offer(queue, clock.monotonic())
    [entry] = queue.claim(0.0)
    queue.done(entry, due=clock.monotonic() + HOUR, tries=1, soft=True)
    assert queue.claim(0.0) == []


def test_the_end_of_an_outage_makes_what_waited_for_it_due() -> None:
    queue, clock = make()
    failed(queue, clock)
    queue.hurry(soft_only=True)
    assert [entry.key for entry in queue.claim(0.0)] == ["key"]


def test_reading_the_shard_again_does_not_hide_that_an_entry_waits_for_the_remote() -> None:
    queue, clock = make()
    failed(queue, clock)
    # The time in the state file is a wall time, and never quite the queue's own.
    offer(queue, clock.monotonic() + HOUR - 0.001, tries=1)
    queue.hurry(soft_only=True)
    assert [entry.key for entry in queue.claim(0.0)] == ["key"]


def test_a_newer_operation_is_due_at_once_and_waits_for_nothing() -> None:
    queue, clock = make()
    failed(queue, clock)
    offer(queue, clock.monotonic(), id="two")
    [entry] = queue.claim(0.0)
    assert (entry.id, entry.soft) == ("two", False)


def test_the_remote_came_back_while_an_attempt_was_failing() -> None:
    queue, clock = make()
    offer(queue, clock.monotonic())
    [entry] = queue.claim(0.0)
    queue.hurry(soft_only=True)
    queue.done(entry, due=clock.monotonic() + HOUR, tries=1, soft=True)
    assert queue.claim(0.0) == [entry]


def test_what_rests_is_not_hurried() -> None:
    queue, clock = make()
    offer(queue, clock.monotonic())
    [entry] = queue.claim(0.0)
    queue.done(entry, due=clock.monotonic() + HOUR, tries=1, rest=True)
    queue.hurry()
    assert queue.claim(0.0) == []
