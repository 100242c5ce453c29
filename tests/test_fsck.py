"""`fsck` names everything that is not as it should be, repairs copies, and removes no only copy."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from store_rig import Shifted, make_options, on_server, store_of, until

from cachestore.store import CacheStore
from cachestore.testing.r2 import R2Double

DATA = b"x" * 3000


@pytest.fixture
def store(r2_double: R2Double, tmp_path: Path) -> Iterator[CacheStore]:
    """A store with two clean copies and a pending put that cannot be sent."""
    options = on_server(tmp_path, r2_double, r2_double.bucket, retry_base=300.0, retry_cap=300.0)
    with store_of(options) as opened:
        opened.put("a", DATA, durability="remote")
        opened.put("b", DATA, durability="remote")
        r2_double.rules.add("status", method="PUT", status=503)
        opened.put("pending", DATA)
        until(lambda: [item for item in opened.pending() if item.state == "retrying"])
        yield opened
        opened.close(drain=0.0)


def found(store: CacheStore, **options: Any) -> list[tuple[str, str]]:
    return sorted((each.what, each.where) for each in store.fsck(**options).findings)


def rewrite(path: Path, data: bytes) -> None:
    """Other bytes, but the times as they were."""
    stat = path.stat()
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def body_of(store: CacheStore, key: str) -> Path:
    ticket = store.core.spool.read(store.core.spool.place(key))
    assert ticket is not None
    return store.core.spool.body(ticket)


def test_nothing_to_find(store: CacheStore) -> None:
    report = store.fsck(deep=True, bucket=True)
    assert report.findings == []
    assert (report.tickets, report.copies) == (1, 2)
    assert report.objects == 2


def test_tickets_and_bodies(store: CacheStore) -> None:
    body = body_of(store, "pending")
    rewrite(body, b"y" * len(DATA))
    assert found(store) == []
    assert found(store, deep=True) == [("altered body", "pending")]
    rewrite(body, b"short")
    assert found(store) == [("altered body", "pending")]
    body.unlink()
    assert found(store, repair=True) == [("ticket without body", "pending")]
    ticket = store.core.spool.ticket_path(store.core.spool.place("pending"))
    ticket.write_bytes(b"junk")
    assert found(store, repair=True) == [("unreadable ticket", str(ticket))]
    assert ticket.read_bytes() == b"junk"


def test_a_body_that_goes_while_it_is_looked_at_is_no_finding(
    store: CacheStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, spool, stat = body_of(store, "pending"), store.core.spool, store.core.files.stat
    ticket = spool.read(spool.place("pending"))
    assert ticket is not None

    def meanwhile_acknowledged(path: Path) -> os.stat_result:
        if path == body:
            assert spool.retire(ticket)
        return stat(path)

    monkeypatch.setattr(store.core.files, "stat", meanwhile_acknowledged)
    assert found(store) == []
    assert not body.exists()


def test_a_body_without_ticket_is_set_aside_and_only_removed_after_a_week(
    store: CacheStore, tmp_path: Path
) -> None:
    body = body_of(store, "pending")
    stray = body.with_name(f"{body.name[:64]}.{'0' * 32}.bin")
    stray.write_bytes(b"somebody's only copy")
    assert found(store, repair=True) == []  # it may be about to get its ticket
    with store_of(store.options, clock=Shifted(2 * 3600.0)) as later:
        [(what, where)] = found(later)
        assert what == "body without ticket"
        kept = Path(where)
        assert kept.parent == tmp_path / "spool" / "quarantine"
        assert kept.read_bytes() == b"somebody's only copy"
        assert found(later, repair=True) == [("quarantined", str(kept))]
        assert kept.exists()
        later.close(drain=0.0)
    with store_of(store.options, clock=Shifted(8 * 86400.0)) as much_later:
        assert ("quarantined", str(kept)) in found(much_later, repair=True)
        much_later.close(drain=0.0)
    assert not kept.exists()
    assert body.exists()


def test_copies(store: CacheStore) -> None:
    path = store.get("a")
    rewrite(path, b"y" * len(DATA))
    assert found(store) == []
    assert found(store, deep=True) == [("damaged copy", "a")]
    assert found(store, deep=True, repair=True) == [("damaged copy", "a")]
    assert found(store, deep=True) == []
    assert store.read("a") == DATA
    store.get("b").unlink()
    assert found(store, repair=True) == [("damaged copy", "b")]
    assert store.read("b") == DATA


def test_a_copy_without_row(store: CacheStore) -> None:
    row = store.core.catalog.get("a")
    assert row is not None
    store.core.catalog.remove("a", row.file)
    path = store.core.cache.path(row)
    assert path.exists()
    assert found(store, repair=True) == []  # it may be about to be admitted
    assert path.exists()
    with store_of(store.options, clock=Shifted(2 * 3600.0)) as later:
        assert found(later) == [("copy without row", str(path))]
        assert path.exists()
        assert found(later, repair=True) == [("copy without row", str(path))]
        assert not path.exists()
        assert found(later) == []
        later.close(drain=0.0)


def test_a_copy_that_leaves_while_it_is_looked_at_is_not_damaged(
    store: CacheStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    matches = store.core.cache.matches

    def leaves(row: Any) -> bool:
        if row.key == "a":
            store.invalidate("a")
        return matches(row)

    monkeypatch.setattr(store.core.cache, "matches", leaves)
    assert found(store) == []
    assert found(store, repair=True) == []


def test_the_bucket(store: CacheStore, r2_double: R2Double) -> None:
    remote = store.core.remote
    assert remote is not None
    remote.delete("a")
    r2_double.rules.clear()
    other = on_server(Path(store.options.cache_dir).parent / "other", r2_double, r2_double.bucket)
    with store_of(other) as elsewhere:
        elsewhere.put("b", b"newer", durability="remote")
        elsewhere.put("c", b"of others", durability="remote")
    assert found(store, bucket=True) == [("not in the bucket", "a"), ("old copy", "b")]
    found(store, bucket=True, repair=True)
    assert found(store, bucket=True) == [("not in the bucket", "a")]
    assert store.read("b") == b"newer"
    assert store.read("a") == DATA
    r2_double.rules.add("status", operation="ListObjects*", status=503)
    assert [what for what, _ in found(store, bucket=True)] == ["bucket not compared"]


def test_a_copy_with_a_newer_change_is_not_compared_with_the_bucket(store: CacheStore) -> None:
    assert store.core.remote is not None
    store.core.remote.delete("a")
    assert found(store, bucket=True) == [("not in the bucket", "a")]
    store.put("a", b"newer")
    assert found(store, bucket=True) == []


def test_local_changes_that_cannot_be_sent(store: CacheStore, tmp_path: Path) -> None:
    remote = store.options.remote
    local = make_options(tmp_path, remote=remote)
    with store_of(local) as off:
        off.put("gone.bin", DATA)
        off.put("torn.bin", DATA)
    (tmp_path / "output" / "gone.bin").unlink()
    records = {path: path.read_bytes() for path in tmp_path.glob("output/.cachestore/**/*.json")}
    [torn] = [path for path, data in records.items() if b"torn.bin" in data]
    torn.write_bytes(b"{")
    kinds = found(store)
    assert ("local change without file", "gone.bin") in kinds
    assert ("unreadable record", str(torn)) in kinds
    states = sorted((item.key, item.state) for item in store.pending())
    assert ("gone.bin", "unreadable") in states
    assert ("", "unreadable") in states


def test_beside_live_work(r2_double: R2Double, tmp_path: Path) -> None:
    """Puts, deletes and reads go on; nothing that is well is found, and nothing is lost."""
    options = on_server(tmp_path, r2_double, r2_double.bucket)
    with store_of(options) as store, store_of(options) as checker:
        end = threading.Event()
        wrong: list[BaseException] = []

        def work() -> None:
            try:
                for number in range(100_000):
                    if end.is_set():
                        return
                    store.put(f"k{number % 7}", f"{number}".encode())
                    assert store.read(f"k{number % 7}") == f"{number}".encode()
                    if number % 5 == 0:
                        store.delete(f"k{number % 7}")
            except BaseException as error:
                wrong.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            reports = [checker.fsck(repair=True, deep=True, bucket=True) for _ in range(5)]
        finally:
            end.set()
            thread.join()
        assert not wrong
        assert [each for report in reports for each in report.findings] == []
        assert store.flush(60).done
        assert store.fsck(deep=True, bucket=True).clean
