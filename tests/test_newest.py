"""The rule that tells which of a ticket and a local record is the newer one."""

from __future__ import annotations

import itertools

import pytest

from cachestore.policy.newest import RecordFacts, State, local_readable, newest

STATES: list[State] = ["unsent", "sent", "superseded"]


def test_nothing_is_pending_without_either() -> None:
    assert newest(None, None) is None


@pytest.mark.parametrize("replaces", [None, "t0"])
def test_an_unsent_record_alone_is_the_newest(replaces: str | None) -> None:
    assert newest(None, RecordFacts("r", "unsent", replaces)) == "record"


@pytest.mark.parametrize("state", ["sent", "superseded"])
def test_what_was_sent_is_not_pending(state: State) -> None:
    assert newest(None, RecordFacts("r", state, None)) is None


@pytest.mark.parametrize("facts", [None, RecordFacts("r", "sent", "t"),
                                   RecordFacts("r", "superseded", "t")])  # fmt: skip
def test_a_ticket_is_newer_than_what_was_sent(facts: RecordFacts | None) -> None:
    assert newest("t", facts) == "ticket"


def test_a_record_is_newer_than_the_ticket_that_it_names_and_older_than_any_other() -> None:
    assert newest("t", RecordFacts("r", "unsent", "t")) == "record"
    assert newest("t", RecordFacts("r", "unsent", "t0")) == "ticket"
    assert newest("t", RecordFacts("r", "unsent", None)) == "ticket"


class Model:
    """A key as local and remote mode change it; a ticket may outlive its record by a crash."""

    def __init__(self) -> None:
        self.ticket: str | None = None
        self.record: RecordFacts | None = None
        self.last: str | None = None
        self.count = 0

    def step(self, name: str) -> None:
        self.count += 1
        id_ = f"{name}{self.count}"
        if name == "remote":
            self.ticket, self.last = id_, "ticket"
        elif name in ("local", "local, then a crash"):
            self.record, self.last = RecordFacts(id_, "unsent", self.ticket), "record"
            if name == "local":
                self.ticket = None
        elif self.last is not None:
            self._acknowledge()

    def _acknowledge(self) -> None:
        """The uploader sent the newest; an older one of the other kind goes first."""
        if self.record is not None:
            state: State = "sent" if self.last == "record" else "superseded"
            self.record = RecordFacts(self.record.id, state, self.record.replaces)
        self.ticket = self.last = None


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
def test_the_rule_finds_the_last_change_after_any_sequence(length: int) -> None:
    steps = ("remote", "local", "local, then a crash", "acknowledged")
    for sequence in itertools.product(steps, repeat=length):
        model = Model()
        for name in sequence:
            model.step(name)
            assert newest(model.ticket, model.record) == model.last, sequence


@pytest.mark.parametrize(
    ("state", "newer_known", "expected"),
    [
        (None, False, True), (None, True, True), ("unsent", True, True), ("sent", False, True),
        ("sent", True, False), ("superseded", False, False), ("superseded", True, False),
    ],
)  # fmt: skip
def test_which_files_local_mode_may_serve(
    state: State | None, newer_known: bool, expected: bool
) -> None:
    assert local_readable(state, newer_known=newer_known) is expected
