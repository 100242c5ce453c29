"""Large objects read block by block: what is fetched, shared, kept, verified and given up."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from process_rig import finish, save_options, start
from progressive_rig import BLOCK, KEY, MIB, PAGE, SIZE, Rig, content
from store_rig import until

from cachestore import events
from cachestore.errors import Corrupt, NotFound, RemoteUnavailable, StoreClosed
from cachestore.testing.r2 import R2Double


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with R2Double() as double:
        yield Rig(tmp_path, double)


def is_copy(rig: Rig, key: str = KEY) -> bool:
    """A whole copy is here, and no partial one."""
    return not rig.parts() and len(list((rig.root / "cache").glob("*/[0-9a-f][0-9a-f]/*"))) > 0


# -- what is fetched ------------------------------------------------------------------------------


def test_only_the_blocks_that_are_read_are_fetched(rig: Rig) -> None:
    with rig.store() as store, store.open(KEY) as file:
        assert file.info.size == SIZE
        assert file.info.etag == rig.etag
        assert file.read(100) == rig.data[:100]
        file.seek(10 * BLOCK)
        assert file.read(100) == rig.data[10 * BLOCK : 10 * BLOCK + 100]
        until(lambda: rig.sent() == 2 * BLOCK)
        assert rig.ranges() == 2
        assert rig.double.log.count("HEAD") == 0


def test_the_first_request_brings_what_is_read_first(rig: Rig) -> None:
    """No HEAD, and nothing before the page of the first byte."""
    middle = 10 * BLOCK + 5 * PAGE + 7
    with rig.store() as store:
        assert store.read(KEY, middle, middle + 10) == rig.data[middle : middle + 10]
        until(lambda: rig.sent() == 11 * PAGE)
        assert rig.ranges() == 1
        # What lies before it in the block comes when it is wanted.
        assert store.read(KEY, 10 * BLOCK, 11 * BLOCK) == rig.data[10 * BLOCK : 11 * BLOCK]
        assert rig.sent() == BLOCK


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK])
def test_a_file_of_one_block_comes_as_a_whole_by_one_request(rig: Rig, size: int) -> None:
    data = content(size, 2)
    rig.put("small", data)
    with rig.store() as store:
        with store.open("small") as file:
            assert file.fileno() >= 0
            assert file.read() == data
        assert store.read("small", 1, 5) == data[1:5]
        assert rig.ranges("small") == (1 if size else 2)  # an empty one refuses any range


def test_reads_anywhere_are_right(rig: Rig) -> None:
    edges = (0, 1, PAGE - 1, PAGE, BLOCK - 1, BLOCK, 3 * BLOCK + 5, SIZE - 1, SIZE, SIZE + 9)
    with rig.store() as store, store.open(KEY) as file:
        for start in edges:
            for end in edges:
                if start <= end:
                    assert store.read(KEY, start, end) == rig.data[start:end], (start, end)
                    file.seek(start)
                    assert file.read(end - start) == rig.data[start:end]
        assert file.read_at(SIZE, 5) == b""
        file.seek(-10, io.SEEK_END)
        assert file.read() == rig.data[-10:]


def test_reading_on_fetches_ahead_and_a_jump_does_not(rig: Rig) -> None:
    with rig.store(read_ahead_bytes=4 * BLOCK) as store, store.open(KEY) as file:
        assert file.read_at(0, PAGE) == rig.data[:PAGE]
        until(lambda: rig.sent() == BLOCK)
        file.read_at(PAGE, PAGE)
        until(lambda: rig.sent() == 2 * BLOCK)
        file.read_at(2 * PAGE, BLOCK)
        file.read_at(BLOCK, PAGE)
        until(lambda: rig.sent() == 4 * BLOCK)
        file.read_at(15 * BLOCK, PAGE)
        until(lambda: rig.sent() == 5 * BLOCK)


def test_a_reader_that_goes_away_stops_its_read_ahead(rig: Rig) -> None:
    data = content(6 * MIB, 4)
    rig.put("long", data)
    rig.double.rules.add("slow_body", method="GET", key="long", nth=2, rate=MIB // 2)
    with rig.store(block_bytes=MIB, read_ahead_bytes=4 * MIB) as store:
        with store.open("long") as file:
            file.read_at(0, 100)
            file.read_at(100, 100)
            until(lambda: rig.sent("long") > MIB)
        until(lambda: all(entry.done for entry in rig.double.log.entries("GET", "long")))
        assert rig.sent("long") < 2 * MIB
        with store.open("long") as file:
            assert file.read() == data


def test_the_ends_come_first_where_that_is_asked_for(rig: Rig) -> None:
    with (
        rig.store(prefetch_tail_bytes=BLOCK, prefetch_head_bytes=BLOCK) as store,
        store.open(KEY, 10 * BLOCK) as file,
    ):
        until(lambda: rig.ranges() == 3)
        file.read_at(10 * BLOCK, 10)
        file.read_at(SIZE - 10, 10)
        file.read_at(0, 10)
        assert rig.ranges() == 3


# -- readers share --------------------------------------------------------------------------------


def test_many_readers_of_one_file_fetch_each_byte_once(rig: Rig) -> None:
    def reads(number: int) -> bytes:
        with store.open(KEY, number * BLOCK) as file:
            file.seek(number % 7 * BLOCK)
            rest = file.read()
            file.seek(0)
            return file.read(number % 7 * BLOCK) + rest

    with rig.store(read_ahead_bytes=4 * BLOCK) as store, ThreadPoolExecutor(16) as pool:
        assert all(data == rig.data for data in pool.map(reads, range(16)))
        until(lambda: is_copy(rig))
        assert rig.sent() == SIZE


def test_processes_share_what_comes(rig: Rig) -> None:
    options = save_options(rig.options(read_ahead_bytes=2 * BLOCK), rig.root / "options")
    children = [start("progressive_rig:child_reads", options, seed, 12) for seed in range(4)]
    for child in children:
        first, *lines, last = finish(child).splitlines()
        assert (first, last) == ("open", "done")
        for line in lines:
            at, count, digest = line.split()
            data = rig.data[int(at) : int(at) + int(count)]
            assert len(data) == int(count)
            assert hashlib.sha256(data).hexdigest() == digest
    # What was on its way to a process when it closed its store may come again.
    assert rig.sent() < SIZE + len(children) * BLOCK


def test_a_whole_that_is_wanted_takes_over_what_is_here(rig: Rig) -> None:
    with rig.store() as store:
        assert store.read(KEY, 5 * BLOCK, 6 * BLOCK) == rig.data[5 * BLOCK : 6 * BLOCK]
        with store.open(KEY) as file:
            assert store.get(KEY).read_bytes() == rig.data
            assert file.read() == rig.data  # the same file
        assert rig.sent() == SIZE
        assert is_copy(rig)
        assert store.stats().miss_bytes == SIZE


def test_when_all_blocks_are_here_it_is_an_ordinary_copy(rig: Rig) -> None:
    with rig.store() as store:
        with store.open(KEY) as file:
            assert file.read() == rig.data
        until(lambda: is_copy(rig))
        rig.double.down()
        assert store.get(KEY).read_bytes() == rig.data
        with store.lease(KEY) as path:
            assert path.read_bytes() == rig.data
        assert store.core.catalog.get(KEY).etag == rig.etag  # type: ignore[union-attr]  # it is there


# -- it stays -------------------------------------------------------------------------------------


def test_blocks_survive_a_restart_and_a_kill(rig: Rig) -> None:
    options = save_options(rig.options(), rig.root / "options")
    child = start("progressive_rig:child_reads_on", options)
    assert child.stdout is not None
    for _ in range(5 * 16 + 3):  # five blocks and a little
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    before = rig.sent()
    with rig.store() as store:
        assert store.read(KEY, 0, 5 * BLOCK) == rig.data[: 5 * BLOCK]
        assert rig.sent() == before
        assert store.read(KEY, 0, SIZE - 1) == rig.data[:-1]
        until(lambda: is_copy(rig))
    # The block that the kill cut off comes again.
    assert rig.sent() <= SIZE + 2 * BLOCK


def test_pages_that_a_power_cut_lost_come_again(rig: Rig) -> None:
    with rig.store() as store:
        assert store.read(KEY, 0, 3 * BLOCK) == rig.data[: 3 * BLOCK]
    [part] = rig.parts()
    with part.open("r+b") as file:
        file.seek(BLOCK + PAGE)
        file.write(bytes(PAGE))
    with rig.store() as store:
        assert store.read(KEY, 0, 3 * BLOCK) == rig.data[: 3 * BLOCK]
    assert rig.sent() == 3 * BLOCK + PAGE


def test_a_lost_catalog_costs_the_blocks_and_nothing_else(rig: Rig) -> None:
    with rig.store() as store:
        with store.open(KEY) as file:
            assert file.read(BLOCK) == rig.data[:BLOCK]
            for path in (rig.root / "cache").glob("*/catalog/*"):
                path.unlink()
            assert file.read() == rig.data[BLOCK:]
        assert store.read(KEY, 0, BLOCK) == rig.data[:BLOCK]
        assert store.get(KEY).read_bytes() == rig.data


# -- versions -------------------------------------------------------------------------------------


def test_two_versions_are_never_mixed(rig: Rig) -> None:
    newer = content(SIZE, 9)
    with rig.store() as store:
        with store.open(KEY) as file:
            assert file.read(10) == rig.data[:10]
            rig.put(KEY, newer)
            file.seek(5 * BLOCK)
            with pytest.raises(RemoteUnavailable, match="replaced"):
                file.read(10)
            file.seek(0)
            assert file.read(10) == rig.data[:10]  # of its own version
        store.invalidate(KEY)
        with store.open(KEY) as file:
            assert file.read() == newer


def test_our_own_put_is_seen_at_once(rig: Rig) -> None:
    with rig.store() as store:
        assert store.read(KEY, 0, 10) == rig.data[:10]
        receipt = store.put(KEY, b"x" * SIZE)
        assert store.read(KEY, 0, 10) == b"x" * 10
        receipt.wait(60)
        assert store.read(KEY, 5 * BLOCK, 5 * BLOCK + 4) == b"xxxx"
        store.delete(KEY)
        with pytest.raises(NotFound):
            store.open(KEY)
        assert store.flush(60).done  # type: ignore[attr-defined]  # a report


def test_an_old_partial_copy_is_asked_about_once_and_stays_when_it_is_current(rig: Rig) -> None:
    with rig.store(ttl=0.0) as store:
        assert store.read(KEY, 0, 10) == rig.data[:10]
        assert store.read(KEY, 20, 30) == rig.data[20:30]
        assert rig.double.log.count("HEAD", KEY) == 1
        assert rig.ranges() == 1
        newer = content(SIZE, 9)
        rig.put(KEY, newer)
        assert store.read(KEY, 20, 30) == newer[20:30]


def test_what_is_here_of_an_old_one_is_served_while_the_bucket_is_away(rig: Rig) -> None:
    with rig.store(ttl=0.0, miss_deadline=5.0, revalidate_deadline=5.0) as store:
        assert store.read(KEY, 0, BLOCK) == rig.data[:BLOCK]
        rig.double.down()
        assert store.read(KEY, 20, 30) == rig.data[20:30]
        with pytest.raises(RemoteUnavailable):
            store.read(KEY, 9 * BLOCK, 9 * BLOCK + 10)


def test_a_damaged_whole_is_never_an_entry(rig: Rig) -> None:
    rig.double.rules.add("corrupt", method="GET", key=KEY, nth=3, count=1, at=100)
    seen: list[events.Event] = []
    with rig.store() as store:
        store.core.events.subscribe(seen.append)
        with store.open(KEY) as file:
            for at in range(0, SIZE, BLOCK):
                file.read_at(at, BLOCK)
            until(lambda: any(isinstance(event, events.Trouble) for event in seen))
            with pytest.raises(Corrupt):
                file.read_at(0, 10)
        assert not list((rig.root / "cache").glob("*/[0-9a-f][0-9a-f]/*"))
        assert store.read(KEY, 0, SIZE - 1) == rig.data[:-1]


# -- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_a_connection_that_breaks_is_resumed_where_it_broke(rig: Rig, fault: str) -> None:
    rig.double.rules.add(fault, method="GET", key=KEY, nth=2, count=3, at=PAGE + 100)
    with rig.store() as store:
        assert store.read(KEY, 0, 8 * BLOCK) == rig.data[: 8 * BLOCK]


def test_an_error_is_the_readers_and_the_next_read_tries_again(rig: Rig) -> None:
    with rig.store() as store, store.open(KEY) as file:
        until(lambda: rig.sent() == BLOCK)
        rig.double.rules.add("status", method="GET", key=KEY, count=9, status=503)
        with pytest.raises(RemoteUnavailable):
            file.read_at(3 * BLOCK, 10)
        rig.double.rules.clear()
        assert (
            until(lambda: _tried(lambda: file.read_at(3 * BLOCK, 10)))
            == rig.data[3 * BLOCK : 3 * BLOCK + 10]
        )


def _tried(read: object) -> bytes | None:
    try:
        return read()  # type: ignore[operator,no-any-return]  # a function of the test
    except RemoteUnavailable:
        return None


def test_a_silent_server_is_given_up(rig: Rig) -> None:
    with rig.store(miss_deadline=4.0) as store, store.open(KEY) as file:
        until(lambda: rig.sent() == BLOCK)
        rig.double.rules.add("stall", method="GET", key=KEY, at=0)
        with pytest.raises(RemoteUnavailable, match="arrived"):
            file.read_at(3 * BLOCK, 10)
        rig.double.rules.end()


def test_two_hundred_readers_of_twenty_files_while_one_connection_in_ten_breaks(
    rig: Rig,
) -> None:
    size, keys = 5 * BLOCK + 99, [f"clips/{n}.mp4" for n in range(20)]
    all_of = {key: content(size, number) for number, key in enumerate(keys)}
    for key, data in all_of.items():
        rig.put(key, data)
    for nth in range(10, 2000, 10):
        rig.double.rules.add("cut", method="GET", key="clips/*", nth=nth, count=1, at=3000)
    wrong: list[str] = []

    def reads(number: int) -> None:
        key = keys[number % len(keys)]
        start = number * 7919 % size
        with store.open(key, start) as file:
            file.seek(start)
            if file.read() != all_of[key][start:]:
                wrong.append(key)

    with rig.store(read_ahead_bytes=2 * BLOCK) as store:
        threads = [threading.Thread(target=reads, args=(n,)) for n in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    cuts = [entry for entry in rig.double.log.entries("GET", "clips/*") if entry.fault]
    assert cuts


# -- room -----------------------------------------------------------------------------------------


def test_blocks_count_and_idle_ones_leave_before_copies(rig: Rig) -> None:
    rig.put("other", content(10 * BLOCK, 5))
    small = {f"s{n}": content(BLOCK // 2, n) for n in range(4)}
    for key, data in small.items():
        rig.put(key, data)
    limit = 16 * BLOCK
    with rig.store(cache_max_bytes=limit, handout_grace=0.0) as store:
        for key in small:
            store.read(key)
        assert store.read(KEY, 0, 8 * BLOCK) == rig.data[: 8 * BLOCK]
        used = store.core.room.usage()
        assert 8 * BLOCK <= used.cache <= 9 * BLOCK
        assert store.get("other").stat().st_size == 10 * BLOCK
        assert not rig.parts()
        gets = rig.ranges("s*")
        assert all(store.read(key) == data for key, data in small.items())
        assert rig.ranges("s*") == gets


def test_a_partial_copy_that_is_read_stays(rig: Rig) -> None:
    rig.put("other", content(10 * BLOCK, 5))
    with rig.store(cache_max_bytes=16 * BLOCK, handout_grace=0.0) as store, store.open(KEY) as file:
        assert file.read(8 * BLOCK) == rig.data[: 8 * BLOCK]
        assert store.read("other") == content(10 * BLOCK, 5)
        assert len(rig.parts()) == 1
        file.seek(0)
        before = rig.sent()
        assert file.read(8 * BLOCK) == rig.data[: 8 * BLOCK]
        assert rig.sent() == before


@pytest.mark.parametrize("limit", [4 * BLOCK, 12 * BLOCK])
def test_a_file_larger_than_the_cache_is_read_past_it(rig: Rig, limit: int) -> None:
    with rig.store(cache_max_bytes=limit, cache_transit_bytes=0) as store:
        with store.open(KEY) as file:
            assert file.read() == rig.data
            file.seek(7 * BLOCK)
            assert file.read(10) == rig.data[7 * BLOCK : 7 * BLOCK + 10]
        assert store.core.room.usage().cache <= limit


def test_files_of_partial_copies_nobody_knows_are_removed(rig: Rig) -> None:
    with rig.store() as store:
        store.read(KEY, 0, 10)
        [part] = rig.parts()
        stray = part.with_name("0" * 64 + "-" + "1" * 16 + ".part")
        other = part.with_name("theirs.part")
        for path in (stray, other):
            path.write_bytes(b"?")
            os.utime(path, (0, 0))
        store.clean()
        assert part.exists()
        assert other.exists()


def test_a_closed_store_says_so_and_what_is_here_can_be_read(rig: Rig) -> None:
    store = rig.store()
    file = store.open(KEY)
    assert file.read_at(0, 10) == rig.data[:10]
    store.close()
    assert file.read_at(0, 10) == rig.data[:10]
    with pytest.raises(StoreClosed):
        file.read_at(9 * BLOCK, 10)
    file.close()


def test_off_means_whole_files(rig: Rig) -> None:
    with rig.store(block_bytes=0) as store, store.open(KEY) as file:
        assert file.fileno() >= 0
        assert rig.sent() == SIZE
