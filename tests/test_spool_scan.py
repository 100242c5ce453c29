"""Scanning and tidying shard folders: nothing pending is touched, nothing foreign, no links."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from spool_rig import delete, make_spool, names, put

from cachestore.errors import SpoolError
from cachestore.files import Files
from cachestore.keys import place_of
from cachestore.local.spool import Spool
from cachestore.local.spool_scan import (
    STALE_AGE,
    Unreadable,
    recount_shard,
    scan_shard,
    tidy_shard,
)
from cachestore.local.tickets import Ticket, TicketState, decode, encode

KEY = "a/b.wav"
LATER = 10 * STALE_AGE


def shard_of(spool: Spool, key: str = KEY) -> int:
    return spool.place(key).shard


def later(path: Path) -> float:
    """A time at which `path` is old."""
    return path.stat().st_ctime + LATER


def test_every_ticket_is_found_whoever_it_belongs_to(tmp_path: Path) -> None:
    ours = make_spool(tmp_path)
    theirs = make_spool(tmp_path, remote_id="f" * 16)
    wanted = {(t.remote_id, t.key, t.id) for t in (put(ours, KEY, b"x"), delete(ours, "gone"))}
    wanted |= {(t.remote_id, t.key, t.id) for t in [put(theirs, KEY, b"y")]}
    found = [item for shard in range(256) for item in scan_shard(ours, shard)]
    assert all(isinstance(item, Ticket) for item in found)
    assert {(t.remote_id, t.key, t.id) for t in found if isinstance(t, Ticket)} == wanted


def test_an_unreadable_ticket_is_named_and_hides_no_other(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    put(spool, KEY, b"x")
    path = spool.ticket_path(spool.place(KEY))
    path.write_bytes(b"junk")
    [item] = scan_shard(spool, shard_of(spool))
    assert isinstance(item, Unreadable)
    assert item.path == path
    assert "not a ticket" in item.reason


def test_a_ticket_under_another_keys_name_is_not_believed(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    ticket = put(spool, KEY, b"x")
    wrong = "00" + spool.place(KEY).digest[2:]
    folder = spool.folder(0)
    folder.mkdir(exist_ok=True)
    (folder / f"{wrong}.ticket").write_bytes(encode(ticket))
    [item] = scan_shard(spool, 0)
    assert isinstance(item, Unreadable)
    assert "another key" in item.reason


def test_a_ticket_acknowledged_while_it_is_read_never_shows_what_it_replaced(
    tmp_path: Path,
) -> None:
    """Its body goes after the ticket; seen in between it looks like a body lost to a power cut."""
    spool = make_spool(tmp_path)
    delete(spool, KEY)
    newer = put(spool, KEY, b"x")

    class Between(Files):
        armed = True

        def open_read(self, path: str | Path) -> int:
            fd = super().open_read(path)
            if self.armed and str(path).endswith(".ticket"):
                self.armed = False
                assert spool.retire(newer)
            return fd

    reader = make_spool(tmp_path, Between())
    assert list(scan_shard(reader, shard_of(spool))) == []


def test_recount_mends_the_sums(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    put(spool, KEY, b"12345")
    spool.board.set_pending(shard_of(spool), 77, 7777)
    assert recount_shard(spool, shard_of(spool))
    assert spool.board.pending() == (1, 5)
    spool.board.set_pending(3, 9, 9)
    assert recount_shard(spool, 3)
    assert spool.board.pending() == (1, 5)


def test_recount_and_tidy_never_wait_for_the_lock(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    put(spool, KEY, b"x")
    stray = spool.body(put(spool, KEY, b"y"))
    with spool.lock(spool.place(KEY)):
        assert not recount_shard(spool, shard_of(spool))
        assert tidy_shard(spool, shard_of(spool), later(stray)) == []


def stray_body(spool: Spool, key: str = KEY) -> Path:
    """A body whose putter died before its ticket was there."""
    staged = spool.stage(key, b"lost")
    os.close(staged.fd)
    return staged.path


def test_a_body_without_a_ticket_is_put_aside_after_a_minute(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    body = stray_body(spool)
    assert tidy_shard(spool, shard_of(spool), body.stat().st_ctime + 30) == []
    [moved] = tidy_shard(spool, shard_of(spool), body.stat().st_ctime + 61)
    assert moved == tmp_path / "quarantine" / body.name
    assert moved.read_bytes() == b"lost"
    assert not body.exists()


def test_a_body_being_staged_is_left_alone(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    staged = spool.stage(KEY, b"soon")
    assert tidy_shard(spool, shard_of(spool), later(staged.path)) == []
    assert staged.path.exists()
    spool.drop(staged)


def test_what_a_ticket_or_its_predecessor_needs_is_left_alone(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    first = put(spool, KEY, b"one")
    kept = spool.body(first).read_bytes()
    second = put(spool, KEY, b"two")
    spool.body(first).write_bytes(kept)  # as if the condemned body came back with a power cut
    spool.save_state(second, TicketState(tries=3))
    before = names(spool)
    assert tidy_shard(spool, shard_of(spool), later(spool.body(second))) == []
    assert names(spool) == before


@pytest.mark.parametrize("damage", [b"junk", b'{"check":"x","ticket":{"format":99}}'])
def test_nothing_beside_a_ticket_that_cannot_be_read_is_touched(
    tmp_path: Path, damage: bytes
) -> None:
    spool = make_spool(tmp_path)
    ticket = put(spool, KEY, b"only copy")
    spool.ticket_path(spool.place(KEY)).write_bytes(damage)
    before = names(spool)
    assert tidy_shard(spool, shard_of(spool), later(spool.body(ticket))) == []
    assert names(spool) == before


def test_leftovers_of_ended_operations_go(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    ticket = put(spool, KEY, b"x")
    spool.save_state(ticket, TicketState(tries=1))
    folder, digest = spool.folder(shard_of(spool)), spool.place(KEY).digest
    other = "1" * 32
    left = [
        f"{digest}.{other}.wav.condemned",
        f"{digest}.{other}.state",
        f"{digest}.{other}.ticket.tmp",
        f"{digest}.ticket.{other}b.tmp",
        f"{digest}.{other}.state.0123456789ab.tmp",
    ]
    for name in left:
        (folder / name).write_bytes(b"x")
    fresh = (folder / left[1]).stat().st_ctime + 30
    tidy_shard(spool, shard_of(spool), fresh)
    assert not (folder / left[0]).exists()
    assert all((folder / name).exists() for name in left[1:])
    assert tidy_shard(spool, shard_of(spool), fresh + LATER) == []
    assert not any((folder / name).exists() for name in left)
    assert spool.state(ticket).tries == 1
    assert spool.body(ticket).exists()


def test_names_that_are_not_ours_and_links_are_never_touched(tmp_path: Path) -> None:
    spool = make_spool(tmp_path / "spool")
    put(spool, KEY, b"x")
    folder, digest = spool.folder(shard_of(spool)), spool.place(KEY).digest
    outside = tmp_path / "outside.txt"
    outside.write_text("precious")
    theirs = ["notes.txt", "metadata.json", f"{digest}.cache", f"{digest}.{'z' * 32}.wav", "x.tmp"]
    for name in theirs:
        (folder / name).write_text("theirs")
    links = [f"{digest}.{'2' * 32}.wav", f"{digest}.{'2' * 32}.wav.condemned"]
    for name in links:
        (folder / name).symlink_to(outside)
    (folder / f"{digest}.{'3' * 32}").mkdir()
    before = names(spool)
    assert tidy_shard(spool, shard_of(spool), later(outside)) == []
    assert names(spool) == before
    assert outside.read_text() == "precious"


def test_a_shard_that_is_a_link_is_not_entered(tmp_path: Path) -> None:
    spool = make_spool(tmp_path / "spool")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    digest = place_of(spool.remote_id, KEY).digest
    body = elsewhere / f"{digest}.{'4' * 32}.wav"
    body.write_bytes(b"x")
    spool.folder(shard_of(spool)).symlink_to(elsewhere)
    assert tidy_shard(spool, shard_of(spool), later(body)) == []
    assert body.exists()


@pytest.mark.parametrize("ending", ["state", "STATE", "condemned", "bad", "ticket", "tmp"])
def test_a_key_whose_extension_is_one_of_ours_is_as_safe_as_any(
    tmp_path: Path, ending: str
) -> None:
    """A body named like a state file would be replaced by it, one like a condemned body removed."""
    spool = make_spool(tmp_path)
    key = f"a/file.{ending}"
    ticket = put(spool, key, b"precious")
    spool.save_state(ticket, TicketState(tries=2))
    assert tidy_shard(spool, shard_of(spool, key), later(spool.body(ticket))) == []
    assert spool.body(ticket).read_bytes() == b"precious"
    assert decode(spool.ticket_path(spool.place(key)).read_bytes()).id == ticket.id


def test_tidying_beside_putters_loses_nothing(tmp_path: Path) -> None:
    """A cleaner whose clock is wrong may make a put fail, but never one that was acknowledged."""
    spool, stop = make_spool(tmp_path), threading.Event()

    def clean() -> None:
        while not stop.is_set():
            tidy_shard(make_spool(tmp_path), shard_of(spool), time.time() + 120)

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    acknowledged = 0
    try:
        while acknowledged < 40:
            try:
                ticket = put(spool, KEY, str(acknowledged).encode())
            except SpoolError:
                continue
            assert spool.body(ticket).read_bytes() == str(acknowledged).encode()
            acknowledged += 1
    finally:
        stop.set()
        cleaner.join(60)
