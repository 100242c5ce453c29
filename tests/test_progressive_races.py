"""Files that are read while they come, and what happens to them at the wrong moment."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from disk_rig import open_below
from fault_rig import opened, seed
from process_rig import finish, load_options, save_options, say, start
from progressive_rig import BLOCK, KEY, MIB, PAGE, SIZE, Rig, content
from store_rig import Shifted, store_of, until

from cachestore import events
from cachestore.errors import NotFound, RemoteError, RemoteUnavailable, StoreClosed
from cachestore.files import Files
from cachestore.local.partials import _byte
from cachestore.progressive.file import PartialFile
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.r2 import R2Double

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="locks and /proc of Linux")
LONG = 30.0


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with R2Double() as double:
        yield Rig(tmp_path, double)


def beside(work: Callable[[], Any]) -> Future[Any]:
    """Do it on a thread that the test's end does not wait for."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def only_file(store: CacheStore) -> PartialFile:
    assert store.core.progressive is not None
    [file] = store.core.progressive._open.values()
    return file


@contextmanager
def landing_elsewhere(rig: Rig) -> Iterator[None]:
    """As if another process were making a copy of the only partial copy, and stood still."""
    [part] = rig.parts()
    fd = os.open(part.parent / "lock", os.O_RDWR | os.O_CREAT)
    try:
        name = f"partial/{part.name}"
        assert Files().try_lock_byte(fd, _byte(name, -(-SIZE // BLOCK)))
        yield
    finally:
        os.close(fd)


def whole_but_partial(rig: Rig, store: CacheStore) -> None:
    """All blocks are here, and nobody made them a copy."""
    assert store.read(KEY, 0, 10) == rig.data[:10]
    with landing_elsewhere(rig):
        assert store.read(KEY, 0, SIZE - 1) == rig.data[:-1]
        file = store.core.progressive._tools.partials  # type: ignore[union-attr]  # there is a remote
        row = file.find(KEY, store.core.board.token(store.core.spool.place(KEY).slot))
        assert row is not None
        until(lambda: file.whole_blocks(row) == -(-SIZE // BLOCK))
        until(lambda: not store.core.progressive._open)  # type: ignore[union-attr]  # the same
    assert rig.parts()


# -- another version ------------------------------------------------------------------------------


def test_what_others_replaced_is_read_anew_and_not_refused_until_the_ttl_is_over(rig: Rig) -> None:
    newer = content(SIZE, 9)
    with rig.store(ttl=None) as store:
        assert store.read(KEY, 0, 10) == rig.data[:10]
        rig.put(KEY, newer)
        at = 5 * BLOCK
        assert store.read(KEY, at, at + 10) == newer[at : at + 10]
        assert store.read(KEY, 0, 10) == newer[:10]
        with store.open(KEY) as file:
            assert file.read_at(0, 10) == newer[:10]
            rig.put(KEY, rig.data)
            for _ in range(2):
                with pytest.raises(RemoteUnavailable, match="open it again"):
                    file.read_at(9 * BLOCK, 10)
                assert file.read_at(0, 10) == newer[:10], "what is here of its own version stays"
        with store.open(KEY) as file:
            assert file.read() == rig.data


def test_a_whole_that_others_replaced_is_fetched_anew(rig: Rig) -> None:
    newer = content(SIZE, 9)
    with rig.store(ttl=None) as store:
        assert store.read(KEY, 0, 10) == rig.data[:10]
        rig.put(KEY, newer)
        assert beside(lambda: store.get(KEY)).result(LONG).read_bytes() == newer
        assert rig.ranges() < 20


def test_what_others_deleted_is_not_found(rig: Rig) -> None:
    with rig.store(ttl=None) as store:
        assert store.read(KEY, 0, 10) == rig.data[:10]
        rig.client.delete_object(Bucket=rig.bucket, Key=KEY)
        with pytest.raises(NotFound):
            store.read(KEY, 5 * BLOCK, 5 * BLOCK + 10)


def test_a_server_that_ignores_conditions_mixes_no_versions(tmp_path: Path) -> None:
    class Ignoring(MemoryRemote):
        def get(self, key: str, **fields: Any) -> Any:
            return super().get(key, **{**fields, "if_match": None})

    remote, old, new = Ignoring(), content(), content(SIZE, 9)
    seed(remote, KEY, old)
    with opened(tmp_path, Files(), remote, block_bytes=BLOCK, read_ahead_bytes=0) as store:
        with store.open(KEY) as file:
            assert file.read_at(0, 10) == old[:10]
            seed(remote, KEY, new)
            with pytest.raises(RemoteUnavailable):
                file.read_at(5 * BLOCK, 10)
            with pytest.raises(RemoteUnavailable):
                file.read_at(6 * BLOCK, 10)  # past the cache, too
        assert store.read(KEY, 0, SIZE - 1) == new[:-1]


@LINUX
def test_who_wants_nothing_old_is_not_given_a_partial_copy_unasked(rig: Rig) -> None:
    newer = content(SIZE, 9)
    with rig.store(flight_patience=60.0) as store:
        whole_but_partial(rig, store)
        rig.put(KEY, newer)
        assert store.get(KEY, max_age=0).read_bytes() == newer


def test_a_newer_version_that_is_read_by_blocks_is_not_asked_about_each_time(rig: Rig) -> None:
    clock = Shifted(0.0)
    rig.put(KEY, rig.data[:10])
    with store_of(rig.options(ttl=3600.0), clock=clock) as store:
        assert store.get(KEY).read_bytes() == rig.data[:10]
        newer = content(SIZE, 9)
        rig.put(KEY, newer)
        clock._offset = 4000.0
        assert store.read(KEY, 20, 30) == newer[20:30]
        before = rig.ranges()
        assert store.read(KEY, 30, 40) == newer[30:40]
        assert rig.ranges() == before


# -- the bucket is away ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["down", "refuses"])
def test_the_rest_of_a_file_is_an_error_while_the_bucket_is_away(rig: Rig, how: str) -> None:
    with rig.store(miss_deadline=20.0) as store:
        assert store.read(KEY, 0, 10) == rig.data[:10]
        until(lambda: rig.sent() == BLOCK)
        if how == "down":
            rig.double.down()
        else:
            rig.double.rules.add("status", method="GET", key=KEY, count=10_000, status=403)
        with pytest.raises(Exception) as caught:
            beside(lambda: store.get(KEY)).result(LONG)
        assert not isinstance(caught.value, TimeoutError)
        assert rig.ranges() < 100


def test_the_rest_of_a_file_is_an_error_at_once_where_the_bucket_refuses_at_once(
    tmp_path: Path,
) -> None:
    class Refusing(MemoryRemote):
        asked = 0
        refuses = False

        def get(self, key: str, **fields: Any) -> Any:
            if self.refuses:
                self.asked += 1
                raise RemoteError("refused")
            return super().get(key, **fields)

    remote, data = Refusing(), content()
    seed(remote, KEY, data)
    fields = {"block_bytes": BLOCK, "read_ahead_bytes": 0, "download_parts": 1}
    with opened(tmp_path, Files(), remote, **fields) as store:
        assert store.read(KEY, 0, 10) == data[:10]
        remote.refuses = True
        with pytest.raises(RemoteError, match="refused"):
            beside(lambda: store.get(KEY)).result(LONG)
        assert remote.asked < 20


# -- the end of a reader --------------------------------------------------------------------------


def test_a_file_that_is_closed_while_it_is_read_is_written_to_no_more(rig: Rig) -> None:
    """Its descriptor's number may be another file's by then."""
    block, data = 4 * MIB, content(9 * MIB, 4)
    rig.put("long", data)
    rig.double.rules.add("slow_body", method="GET", key="long", nth=2, rate=3 * MIB)
    troubles: list[events.Event] = []
    with rig.store(block_bytes=block) as store:
        store.core.events.subscribe(troubles.append)
        one, two = store.open("long"), store.open("long")
        until(lambda: rig.sent("long") == block)
        assert one.read_at(block + MIB, 10) == data[block + MIB : block + MIB + 10]
        job = only_file(store)._flying[1]
        back = beside(lambda: two.read_at(block, 1))
        until(lambda: len(job.readers) == 2)
        one.close()
        two.close()
        with pytest.raises(ValueError, match="closed"):
            back.result(LONG)
        until(lambda: not store.core.progressive._open)  # type: ignore[union-attr]  # there is a remote
        until(lambda: job.done)
    assert rig.ranges("long") == 2
    assert not [each for each in troubles if isinstance(each, events.Trouble)]


def test_an_answer_for_a_file_that_was_closed_meanwhile_is_put_away(rig: Rig) -> None:
    with rig.store() as store:
        progressive = store.core.progressive
        assert progressive is not None
        place = store.core.spool.place(KEY)
        token = store.core.board.token(place.slot)
        assert store.core.remote is not None
        answer = store.core.remote.get(KEY, start=0, end=BLOCK)
        assert answer is not None
        body = answer.__enter__()
        made = progressive._tools.partials.begin(KEY, place, token, body.info, BLOCK)
        assert made is not None
        file = progressive._kept(PartialFile(*made, place, progressive._tools, progressive._closed))
        reader = file.reader()
        assert reader is not None
        reader.close()
        file.begin(0, body)
        assert not file._flying
        assert store.read(KEY, 0, SIZE - 1) == rig.data[:-1]


@LINUX
def test_work_that_waits_when_the_store_closes_holds_no_file(rig: Rig) -> None:
    data = content(40 * BLOCK, 3)
    rig.put("long", data)
    store = rig.store()
    with store.open("long") as first:
        assert first.read_at(0, 10) == data[:10]
        until(lambda: rig.sent("long") == BLOCK)
        rig.double.rules.add("stall", method="GET", key="long", count=100, at=0)
        file = only_file(store)
        reads = [beside(lambda n=n: first.read_at(n * BLOCK, 1)) for n in range(1, 36)]  # type: ignore[misc]  # mypy: a default
        until(lambda: len(file._flying) == 35 and rig.ranges("long") == 25)
        store.close()
        for read in reads:
            with pytest.raises(StoreClosed):
                read.result(LONG)
        rig.double.rules.end()
    until(lambda: not open_below(store.options.cache_dir))


@LINUX
def test_a_block_that_one_process_fetches_is_waited_for_by_another(rig: Rig) -> None:
    """Two stores lock bytes of one file like two processes."""
    rig.double.rules.add("slow_body", method="GET", key=KEY, nth=2, rate=BLOCK // 2)
    with rig.store() as one, rig.store() as two:
        assert one.read(KEY, 0, 10) == rig.data[:10]
        until(lambda: rig.sent() == BLOCK)
        with one.open(KEY) as here, two.open(KEY) as there:
            reads = [beside(lambda: here.read_at(3 * BLOCK, 10))]
            until(lambda: rig.ranges() == 2)
            assert not reads[0].done()
            reads.append(beside(lambda: there.read_at(3 * BLOCK, 10)))
            for read in reads:
                assert read.result(LONG) == rig.data[3 * BLOCK : 3 * BLOCK + 10]
        assert rig.ranges() == 2


# -- becoming a copy ------------------------------------------------------------------------------


@LINUX
def test_blocks_that_nobody_made_a_copy_become_one_when_they_are_read(rig: Rig) -> None:
    clock = Shifted(0.0)
    with store_of(rig.options(ttl=3600.0), clock=clock) as store:
        whole_but_partial(rig, store)
    clock._offset = 3000.0
    gets = rig.ranges()
    with store_of(rig.options(ttl=3600.0), clock=clock) as store:
        assert store.read(KEY, 0, 10) == rig.data[:10]
        row = until(lambda: store.core.catalog.get(KEY))
        assert not rig.parts()
        assert rig.ranges() == gets
        assert row.validated < clock.now() - 2000.0, "the bucket was not asked since"


@LINUX
def test_who_makes_a_copy_and_stands_still_is_not_waited_for_for_ever(rig: Rig) -> None:
    with rig.store(flight_patience=0.5) as store:
        assert store.read(KEY, 0, 10) == rig.data[:10]
        with landing_elsewhere(rig):
            assert beside(lambda: store.get(KEY)).result(LONG).read_bytes() == rig.data


@LINUX
def test_who_waits_for_the_whole_is_told_that_the_store_closed(rig: Rig) -> None:
    store = rig.store(flight_patience=600.0)
    assert store.read(KEY, 0, 10) == rig.data[:10]
    with landing_elsewhere(rig):
        got = beside(lambda: store.get(KEY))
        until(lambda: rig.sent() == SIZE)
        file = only_file(store)
        until(lambda: not file._flying)
        store.close()
        with pytest.raises(StoreClosed):
            got.result(LONG)
    until(lambda: not open_below(store.options.cache_dir))


def test_a_put_of_a_neighbour_does_not_cost_the_whole_file(rig: Rig) -> None:
    with rig.store(flight_patience=60.0) as store:
        with store.core.spool.lock(store.core.spool.place(KEY)), store.open(KEY) as file:
            assert file.read() == rig.data
            until(lambda: not only_file(store)._flying and not only_file(store)._landing)
            assert rig.parts()
        assert store.read(KEY, 0, 10) == rig.data[:10]
        until(lambda: store.core.catalog.get(KEY))
        assert rig.sent() == SIZE


def test_two_that_make_the_same_copy_without_locks_both_have_it(rig: Rig) -> None:
    """On systems without locks on bytes both verify the whole, and one is first."""

    class Slow(Files):
        def __init__(self, gate: threading.Event) -> None:
            self.gate, self.came = gate, threading.Event()

        def try_lock_byte(self, fd: int, at: int) -> bool:
            return True

        def chmod(self, fd: int, mode: int) -> None:
            self.came.set()
            self.gate.wait(LONG)
            super().chmod(fd, mode)

    gate, free = threading.Event(), threading.Event()
    free.set()
    slow, quick = Slow(gate), Slow(free)
    troubles: list[events.Event] = []
    with store_of(rig.options(), files=slow) as one, store_of(rig.options(), files=quick) as two:
        one.core.events.subscribe(troubles.append)
        with one.open(KEY) as file:
            assert file.read() == rig.data
            assert slow.came.wait(LONG)
            with two.open(KEY) as other:
                assert other.read() == rig.data
            assert two.get(KEY).read_bytes() == rig.data
            gate.set()
            landed = only_file(one)
            until(lambda: not landed._landing)
            gets = rig.ranges()
            file.seek(0)
            assert file.read() == rig.data
            assert rig.ranges() == gets
    assert not [each for each in troubles if isinstance(each, events.Trouble)]


# -- room and files -------------------------------------------------------------------------------


def test_room_of_one_who_died_before_the_row_is_free_again(rig: Rig) -> None:
    with rig.store() as store:
        core = store.core
        place = core.spool.place("gone")
        gone, alive = core.cache.partial_path(place), core.cache.partial_path(place)
        assert core.room.try_fill(core.room.grant("gone", place, gone), 2 * BLOCK)
        fd = core.cache.open_part(alive)
        with closing(os.fdopen(fd)):
            assert core.files.try_lock(fd, shared=True)
            assert core.room.try_fill(core.room.grant("alive", place, alive), 3 * BLOCK)
            store.clean()
            assert core.room.usage().cache == 3 * BLOCK
        store.clean()
        assert core.room.usage().cache == 0
        assert not rig.parts()


def test_what_is_being_read_is_not_given_up_for_others(rig: Rig) -> None:
    rig.put("other", content(10 * BLOCK, 5))
    with rig.store(cache_max_bytes=16 * BLOCK, handout_grace=0.0) as store:
        with store.open(KEY) as file:
            assert file.read(8 * BLOCK) == rig.data[: 8 * BLOCK]
            assert store.read("other") == content(10 * BLOCK, 5)
            until(lambda: not only_file(store)._flying)
            before = rig.sent()
        assert store.read(KEY, 0, 8 * BLOCK) == rig.data[: 8 * BLOCK]
        assert rig.sent() == before, "its row is still there, too"


def test_cleaning_leaves_old_partial_copies_that_have_a_row(rig: Rig) -> None:
    clock = Shifted(0.0)
    with store_of(rig.options(), clock=clock) as store:
        assert store.read(KEY, 0, 10) == rig.data[:10]
        [part] = rig.parts()
        stray = part.with_name("0" * 64 + "-" + "1" * 16 + ".part")
        stray.write_bytes(b"?")
        clock._offset = 1000.0
        store.clean()
        assert rig.parts() == [part]
        clock._offset = 2 * 86400.0
        store.clean()
        assert not rig.parts(), "nobody read it for a day"


def test_each_reader_past_the_cache_has_its_own_window(rig: Rig) -> None:
    with (
        rig.store(cache_max_bytes=12 * BLOCK, cache_transit_bytes=0) as store,
        store.open(KEY) as one,
        store.open(KEY) as two,
    ):
        assert one.read() == rig.data
        before = rig.ranges()
        for page in range(16):
            for file, block in ((one, 14), (two, 18)):
                at = block * BLOCK + page * PAGE
                assert file.read_at(at, PAGE) == rig.data[at : at + PAGE]
        assert rig.ranges() - before <= 4


def test_blocks_for_which_there_was_no_room_do_not_count(rig: Rig) -> None:
    with rig.store(cache_max_bytes=12 * BLOCK, cache_transit_bytes=0) as store:
        for _ in range(2):
            with store.open(KEY) as file:
                assert file.read() == rig.data
        sql = "SELECT count(*), count(CASE WHEN pages = x'' THEN 1 END) FROM blocks"
        here, empty = store.core.catalog.ask(lambda db: db.execute(sql).fetchone(), (0, 0))
        assert here > 5
        assert empty == 0


def test_a_file_that_is_too_large_to_be_kept_takes_no_room(rig: Rig) -> None:
    with rig.store(admit_max_bytes=4 * BLOCK) as store:
        with store.open(KEY) as file:
            assert file.read() == rig.data
        assert store.core.room.usage().cache == 0
        assert not rig.parts()


def test_a_partial_copy_that_somebody_cut_short_is_read_past(rig: Rig) -> None:
    with rig.store() as store, store.open(KEY) as file:
        assert file.read(BLOCK) == rig.data[:BLOCK]
        [part] = rig.parts()
        os.truncate(part, 100)
        got = beside(lambda: store.read(KEY, 0, 2 * BLOCK)).result(LONG)
        assert got == rig.data[: 2 * BLOCK]
        assert beside(lambda: file.read_at(200, 10)).result(LONG) == rig.data[200:210]


# -- forks ----------------------------------------------------------------------------------------


def child_forks(options: str) -> None:
    """A forked child closes what it inherited, and reads on its own; the parent's lock stays."""
    with store_of(load_options(options)) as store:
        file = store.open(KEY)
        first = file.read_at(0, 10)
        child = os.fork()
        if child == 0:
            with store.open(KEY) as own:
                right = own.read_at(3 * BLOCK, 10) == content()[3 * BLOCK : 3 * BLOCK + 10]
            file.close()
            os._exit(0 if right and first == content()[:10] else 1)
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        [part] = store.options.cache_dir.glob("*/partial/*.part")
        say(store.core.cache.is_idle(f"partial/{part.name}"))
        file.close()


@LINUX
def test_a_forked_child_takes_no_lock_away(rig: Rig) -> None:
    options = save_options(rig.options(), rig.root / "options")
    assert finish(start("test_progressive_races:child_forks", options)).split() == ["0", "False"]
