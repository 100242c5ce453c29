"""Tickets torn, junk, newer, without their bodies; bodies without tickets: named, never guessed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from local_rig import content
from loss_rig import Rig
from store_rig import until

from cachestore.errors import NotFound, SpoolError
from cachestore.local.tickets import UnreadableTicket, decode, encode
from cachestore.store import CacheStore


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


# -- tickets ---------------------------------------------------------------------------------------


def _torn(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flipped(data: bytes) -> bytes:
    at = data.index(b"pending")
    return data[:at] + b"P" + data[at + 1 :]


TICKET_DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "torn": _torn, "empty": lambda data: b"", "zeros": lambda data: bytes(len(data)),
    "junk": lambda data: os.urandom(len(data)), "flipped": _flipped,
    "other json": lambda data: b"[1, 2]", "deep": lambda data: b"[" * 100_000,
}  # fmt: skip


def ticket_of(store: CacheStore, key: str) -> Path:
    return store.core.spool.ticket_path(store.core.spool.place(key))


def found(store: CacheStore, **options: bool) -> set[tuple[str, str]]:
    return {(each.what, each.where) for each in store.fsck(**options).findings}


def every_read_raises(store: CacheStore, key: str) -> None:
    store.core.hot.clear()
    for read in (store.get, store.read, store.head, store.exists, store.open):
        with pytest.raises(SpoolError, match="ticket"):
            read(key)
    with pytest.raises(SpoolError), store.lease(key):
        pass
    with pytest.raises(SpoolError):
        list(store.list())


@pytest.mark.parametrize("how", TICKET_DAMAGES)
@pytest.mark.parametrize("mend", ["put", "delete"])
def test_a_damaged_ticket_is_named_never_guessed_and_mended(rig: Rig, how: str, mend: str) -> None:
    with rig.open() as store:
        path = ticket_of(store, "both.wav")
        junk = TICKET_DAMAGES[how](path.read_bytes().replace(b"both.wav", b"pending."))
        path.write_bytes(junk)
        body = next(path.parent.glob(f"{path.stem}.*.wav"))
        every_read_raises(store, "both.wav")
        assert ("unreadable ticket", str(path)) in found(store, repair=True)
        [item] = [item for item in store.pending() if item.state == "unreadable"]
        assert item.path == path
        store.clean()
        store.start()
        until(lambda: "pending.wav" in content(rig.bucket.inner), "the other uploads")
        assert content(rig.bucket.inner)["both.wav"] == b"both 1"
        assert path.read_bytes() == junk
        assert body.read_bytes() == b"both 2"

        if mend == "put":
            store.put("both.wav", b"both 3")
            assert store.read("both.wav") == b"both 3"
        else:
            store.delete("both.wav")
            assert not store.exists("both.wav")
        [aside] = path.parent.glob("*.bad")
        assert aside.read_bytes() == junk
        assert store.flush(60).done
        assert content(rig.bucket.inner).get("both.wav") == (b"both 3" if mend == "put" else None)

        rig.clock.advance(120)
        store.clean()
        kept = {p.read_bytes() for p in (rig.root / "spool" / "quarantine").iterdir()}
        assert kept == {junk, b"both 2"}
        rig.clock.advance(6 * 86400)
        store.fsck(repair=True)
        assert len(list((rig.root / "spool" / "quarantine").iterdir())) == 2


def test_a_ticket_of_a_newer_version_is_left_as_it_is(rig: Rig) -> None:
    with rig.open() as store:
        path = ticket_of(store, "both.wav")
        outer = json.loads(path.read_bytes())
        outer["ticket"]["format"] = 99
        newer = json.dumps(outer).encode()
        path.write_bytes(newer)
        beside = path.with_name(f"{path.stem}.{'e' * 32}.wav")
        beside.write_bytes(b"something of the newer version")
        names = sorted(p.name for p in path.parent.glob(f"{path.stem}.*"))
        every_read_raises(store, "both.wav")
        with pytest.raises(SpoolError):
            store.put("both.wav", b"both 3")
        with pytest.raises(SpoolError):
            store.delete("both.wav")
        rig.clock.advance(30 * 86400)
        assert ("unreadable ticket", str(path)) in found(store, repair=True)
        store.clean()
        store.retry()
        store.flush(0.2)
        assert path.read_bytes() == newer
        # Not those of other keys that are sent from the same folder.
        assert sorted(p.name for p in path.parent.glob(f"{path.stem}.*")) == names
        until(lambda: "pending.wav" in content(rig.bucket.inner), "the other uploads")
        assert content(rig.bucket.inner)["both.wav"] == b"both 1"


def test_a_body_without_a_ticket_is_set_aside_and_never_served(rig: Rig) -> None:
    with rig.open(idle=True) as store:
        path = ticket_of(store, "pending.wav")
        body = next(path.parent.glob(f"{path.stem}.*.wav"))
        path.unlink()
        with pytest.raises(NotFound):
            store.get("pending.wav")
        assert body.exists(), "a body may be young: its ticket is perhaps still to come"
        rig.clock.advance(120)
        aside = rig.root / "spool" / "quarantine" / body.name
        assert ("body without ticket", str(aside)) in found(store)
        assert aside.read_bytes() == b"pending"
        rig.clock.advance(6 * 86400)
        store.fsck(repair=True)
        store.clean()
        assert aside.read_bytes() == b"pending"
        rig.clock.advance(2 * 86400)
        assert ("quarantined", str(aside)) in found(store)
        store.clean()
        assert aside.exists(), "only a repair removes it"
        store.fsck(repair=True)
        assert not aside.exists()
        store.close(drain=0)


def test_a_ticket_without_its_body_is_said_and_hides_what_is_older(rig: Rig) -> None:
    with rig.open() as store:
        path = ticket_of(store, "both.wav")
        next(path.parent.glob(f"{path.stem}.*.wav")).unlink()
        store.core.hot.clear()
        for read in (store.get, store.read, store.open):
            with pytest.raises(SpoolError, match="missing"):
                read("both.wav")
        with pytest.raises(SpoolError, match="missing"), store.lease("both.wav"):
            pass
        assert ("ticket without body", "both.wav") in found(store, repair=True)
        store.start()
        until(lambda: "pending.wav" in content(rig.bucket.inner), "the other uploads")
        parked = lambda: [i for i in store.pending() if i.state == "parked"]  # noqa: E731
        [item] = until(parked, "it is parked")
        assert item.key == "both.wav"
        assert item.last_error
        assert content(rig.bucket.inner)["both.wav"] == b"both 1"
        store.put("both.wav", b"both 3")
        assert store.flush(60).done
        assert content(rig.bucket.inner)["both.wav"] == store.read("both.wav") == b"both 3"


def test_a_ticket_that_was_moved_to_another_key_is_not_believed(rig: Rig) -> None:
    with rig.open(idle=True) as store:
        source, target = ticket_of(store, "pending.wav"), ticket_of(store, "clean.wav")
        target.parent.mkdir(exist_ok=True, mode=0o700)
        moved = source.read_bytes()
        source.rename(target)
        every_read_raises(store, "clean.wav")
        assert ("unreadable ticket", str(target)) in found(store)
        store.put("clean.wav", b"newer")
        assert store.read("clean.wav") == b"newer"
        assert [p.read_bytes() for p in target.parent.glob("*.bad")] == [moved]
        store.close(drain=0)


def test_every_bit_of_a_ticket_matters(rig: Rig) -> None:
    """A flipped bit makes it unreadable, or changes nothing: never another operation."""
    with rig.open(idle=True) as store:
        path = ticket_of(store, "both.wav")
        data = path.read_bytes()
        ticket = decode(data)
        assert encode(ticket) == data
        for at in range(len(data)):
            for bit in (1, 16):
                changed = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
                with contextlib.suppress(UnreadableTicket):
                    assert decode(changed) == ticket, at
        store.close(drain=0)
