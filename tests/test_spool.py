"""The spool: publishing, acknowledging, falling back, and what happens when the disk says no."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from spool_rig import REMOTE, delete, make_spool, names, put

from cachestore.errors import SourceError, SpoolBusy, SpoolError, SpoolFull
from cachestore.files import Files
from cachestore.keys import place_of
from cachestore.local import spool_reader
from cachestore.local.spool import new_id
from cachestore.local.spool_batch import publish_deletes
from cachestore.local.tickets import Ticket, UnreadableTicket, decode, encode

KEY = "a/b.wav"


def test_a_put_is_one_body_and_one_ticket(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    before = spool.board.token(spool.place(KEY).slot)
    ticket = put(spool, KEY, b"one", content_type="audio/wav", metadata={"x": "ü"})
    assert spool.read(spool.place(KEY)) == ticket
    assert spool.body(ticket).read_bytes() == b"one"
    assert spool.body(ticket).suffix == ".wav"
    assert spool.body(ticket).stat().st_mode & 0o777 == 0o444
    assert len(names(spool)) == 2
    assert spool.board.token(spool.place(KEY).slot) != before
    assert spool.board.pending() == (1, 3)


def test_a_newer_put_replaces_and_the_older_body_goes(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    first = put(spool, KEY, b"one")
    second = put(spool, KEY, b"two!")
    present = spool.read(spool.place(KEY))
    assert present is not None
    assert present.alone() == second
    assert present.prev == first
    assert not spool.body(first).exists()
    assert spool.board.pending() == (1, 4)


def test_acknowledging_the_older_operation_leaves_the_newer_ticket(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    first = put(spool, KEY, b"one")
    second = put(spool, KEY, b"two")
    assert not spool.retire(first)
    present = spool.read(spool.place(KEY))
    assert present is not None
    assert present.id == second.id
    assert spool.retire(second)
    assert spool.read(spool.place(KEY)) is None
    assert names(spool) == []
    assert spool.board.pending() == (0, 0)


def test_a_delete_is_a_ticket_without_a_body(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    put(spool, KEY, b"one")
    delete(spool, KEY)
    present = spool.read(spool.place(KEY))
    assert present is not None
    assert present.operation == "delete"
    assert len(names(spool)) == 1


def test_many_deletes_at_once(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    keys = [f"k{n}" for n in range(300)]
    old = put(spool, "k7", b"x")
    tickets = [Ticket(REMOTE, key, new_id(), "delete", 0.0) for key in keys]
    done = publish_deletes(spool, tickets)
    assert sorted(ticket.key for ticket, _ in done) == sorted(keys)
    assert [replaced for _, replaced in done if replaced] == [old]
    for key in keys:
        present = spool.read(spool.place(key))
        assert present is not None
        assert present.operation == "delete"
    assert spool.board.pending() == (300, 0)


def test_a_ticket_without_its_body_falls_back_to_the_one_it_replaced(tmp_path: Path) -> None:
    """A power cut may keep the rename of a ticket and lose the name of its body."""
    spool = make_spool(tmp_path)
    first = put(spool, KEY, b"one")
    kept = spool.body(first).read_bytes()
    second = put(spool, KEY, b"two")
    spool.body(first).write_bytes(kept)
    spool.body(second).unlink()
    assert spool.read(spool.place(KEY)) == first


@pytest.mark.parametrize("damage", ["empty", "torn", "junk", "flipped", "deep"])
def test_a_damaged_ticket_is_an_error_and_a_new_put_mends_it(tmp_path: Path, damage: str) -> None:
    spool = make_spool(tmp_path)
    ticket = put(spool, KEY, b"one")
    path = spool.ticket_path(spool.place(KEY))
    data = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "torn": data[: len(data) // 2],
            "junk": b"\0\xff junk",
            "flipped": data.replace(b'"size":3', b'"size":2'),
            "deep": b"[" * 100_000,
        }[damage]
    )
    with pytest.raises(SpoolError, match="cannot be read"):
        spool.read(spool.place(KEY))
    assert not spool.retire(ticket)
    newer = put(spool, KEY, b"two")
    present = spool.read(spool.place(KEY))
    assert present is not None
    assert present.id == newer.id
    assert any(name.endswith(".bad") for name in names(spool))


def test_a_ticket_of_a_newer_version_is_left_untouched(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    put(spool, KEY, b"one")
    path = spool.ticket_path(spool.place(KEY))
    data = path.read_bytes().replace(b'"format":1', b'"format":2')
    path.write_bytes(data)
    with pytest.raises(SpoolError, match="format 2"):
        spool.read(spool.place(KEY))
    with pytest.raises(SpoolError, match="format 2"):
        put(spool, KEY, b"two")
    assert path.read_bytes() == data
    assert len(names(spool)) == 2


def test_a_planted_ticket_cannot_name_a_file_elsewhere() -> None:
    ticket = Ticket(REMOTE, KEY, new_id(), "put", 0.0, "../../etc/passwd", 1, "0" * 64)
    with pytest.raises(UnreadableTicket):
        decode(encode(ticket))


def test_a_ticket_of_another_key_is_refused(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    put(spool, KEY, b"one")
    other = spool.place("other")
    spool.folder(other.shard).mkdir(exist_ok=True)
    os.rename(spool.ticket_path(spool.place(KEY)), spool.ticket_path(other))
    with pytest.raises(SpoolError, match="another key"):
        spool.read(other)


def test_remotes_do_not_see_each_other(tmp_path: Path) -> None:
    one, two = make_spool(tmp_path), make_spool(tmp_path, remote_id="f" * 16)
    put(one, KEY, b"one")
    assert two.read(two.place(KEY)) is None
    put(two, KEY, b"two")
    assert one.read(one.place(KEY)) is not None


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    spool = make_spool(tmp_path, lock_timeout=0.05)
    with spool.lock(spool.place(KEY)), pytest.raises(SpoolBusy, match=str(os.getpid())):
        put(spool, KEY, b"one")
    assert [name for name in names(spool) if not name.endswith(".state")] == []


class Breaking(Files):
    """Fails the nth call of one kind."""

    def __init__(self, name: str, nth: int, code: int) -> None:
        self._name, self._left, self._code = name, nth, code

    def _hit(self, name: str) -> None:
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                raise OSError(self._code, os.strerror(self._code))

    def create(self, path: str | Path, mode: int = 0o600) -> int:
        self._hit("create")
        return super().create(path, mode)

    def write(self, fd: int, data: bytes | memoryview) -> None:
        self._hit("write")
        super().write(fd, data)

    def fsync(self, fd: int) -> None:
        self._hit("fsync")
        super().fsync(fd)

    def rename(self, source: str | Path, target: str | Path) -> None:
        self._hit("rename")
        super().rename(source, target)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize(
    ("call", "nth"),
    [("create", 1), ("create", 2), ("write", 1), ("write", 2), ("fsync", 1), ("fsync", 2),
     ("fsync", 3), ("rename", 1)],
)  # fmt: skip
def test_a_put_that_cannot_be_durable_raises_and_leaves_what_was(
    tmp_path: Path, call: str, nth: int, code: int
) -> None:
    good = make_spool(tmp_path)
    first = put(good, KEY, b"one")
    there = names(good)
    spool = make_spool(tmp_path, Breaking(call, nth, code))
    kind = SpoolFull if code in (errno.ENOSPC, errno.EDQUOT) else SpoolError
    with pytest.raises(kind):
        put(spool, KEY, b"two")
    assert names(good) == there
    present = good.read(good.place(KEY))
    assert present is not None
    assert present.id == first.id
    assert good.body(first).read_bytes() == b"one"
    assert good.board.pending() == (1, 3)


def test_an_unreadable_source_leaves_nothing(tmp_path: Path) -> None:
    spool = make_spool(tmp_path / "spool")
    with pytest.raises(SourceError):
        put(spool, KEY, tmp_path / "missing")
    assert names(spool) == []


def test_states_survive_and_bad_ones_are_fresh(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    ticket = put(spool, KEY, b"one")
    assert spool.state(ticket).tries == 0
    from dataclasses import replace

    state = replace(spool.state(ticket), tries=3, last_error="x", next_attempt=1.5)
    spool.save_state(ticket, state)
    assert spool.state(ticket) == state
    place = place_of(REMOTE, KEY)
    (spool.folder(place.shard) / f"{place.digest}.{ticket.id}.state").write_bytes(b"{")
    assert spool.state(ticket).tries == 0


@pytest.mark.parametrize("older", ["delete", "put"])
def test_an_acknowledgement_while_a_ticket_is_read_brings_nothing_older_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: str
) -> None:
    """The body goes after its ticket: its absence alone does not say that a power cut took it."""
    spool = make_spool(tmp_path)
    delete(spool, KEY) if older == "delete" else put(spool, KEY, b"older")
    newest = put(spool, KEY, b"newest")
    look = spool_reader._is_there

    def slow(path: Path) -> bool:
        monkeypatch.setattr(spool_reader, "_is_there", look)
        assert spool.retire(newest)
        return look(path)

    monkeypatch.setattr(spool_reader, "_is_there", slow)
    assert spool.read(spool.place(KEY)) is None
