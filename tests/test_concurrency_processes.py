"""The same with real processes: killed, stopped, forked, at their end, and many on one key."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from concurrency_rig import bury, in_bucket, line, on_double, tell
from fault_rig import seed
from process_rig import finish, load_options, save_options, say, start
from store_rig import store_of, until

from cachestore import uploader as uploader_module
from cachestore.locks import NO_FORKS, ForkLock
from cachestore.options import Options
from cachestore.store import CacheStore
from cachestore.testing.clock import ShiftedClock
from cachestore.testing.r2 import R2Double

KEY = "a/b.wav"
HERE = "test_concurrency_processes"


@pytest.fixture
def double() -> Iterator[R2Double]:
    with R2Double() as double:
        yield double


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    bury(started)


def forked(work: Any) -> int:
    """Fork a child that does `work` and ends; its process id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            print(f"child: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    return pid


# -- one key from several processes --------------------------------------------------------------


def child_put_one_key(options: str, name: str, count: str) -> None:
    with store_of(load_options(options)) as store:
        say("ready")
        input()
        for number in range(int(count)):
            store.put(KEY, f"{name} {number}".encode() * 100)
        say("done")
        input()


@pytest.mark.parametrize("up", [True, False], ids=["uploading meanwhile", "remote down"])
def test_the_last_ticket_wins(
    tmp_path: Path, double: R2Double, children: list[subprocess.Popen[str]], up: bool
) -> None:
    options = on_double(tmp_path, double)
    if not up:
        double.down()
    saved = save_options(options, tmp_path / "options")
    children += [start(f"{HERE}:child_put_one_key", saved, name, 15) for name in "abc"]
    for child in children:
        assert line(child) == ["ready"]
    for child in children:
        tell(child)
    for child in children:
        assert line(child) == ["done"]
    with store_of(options) as store:
        newest = store.get(KEY).read_bytes()
        # Whoever put last put this, so it is the last of one of them.
        assert newest in {f"{name} 14".encode() * 100 for name in "abc"}
        double.up()
        report = until(lambda: (r := store.flush(5)).done and r)
        assert report.done
        assert store.get(KEY).read_bytes() == newest
        assert in_bucket(double, KEY) == newest
        assert store.pending() == []
    for child in children:
        tell(child)
        finish(child)


# -- a leader that is killed or stopped ----------------------------------------------------------


def child_put(options: str, data: str) -> None:
    """Put, and go on living."""
    store = store_of(load_options(options))
    store.put(KEY, data.encode())
    until(lambda: store.health()["uploader"]["leading"])
    say("put")
    threading.Event().wait(3600)


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("what", ["put", "delete"])
def test_a_killed_leaders_request_takes_effect_late(
    tmp_path: Path,
    double: R2Double,
    children: list[subprocess.Popen[str]],
    what: str,
    conditional: bool,
) -> None:
    """The server commits it after the newer change that another process has sent meanwhile."""
    options = on_double(tmp_path, double, conditional=conditional, doubt_wait=3600.0)
    clock = ShiftedClock()
    double.rules.add("late_commit", method="PUT", key=KEY, count=1)
    saved = save_options(options, tmp_path / "options")
    children.append(start(f"{HERE}:child_put", saved, "old"))
    assert line(children[0]) == ["put"]
    until(lambda: double.log.bytes_received(KEY) == len(b"old"), "the whole request")
    with store_of(options, clock=clock) as store:
        assert store.get(KEY).read_bytes() == b"old"
        children[0].kill()
        children[0].wait(30)
        if what == "put":
            store.put(KEY, b"new")
            double.log.wait_for(1, "PUT", KEY, status=200)
        else:
            store.delete(KEY)
            double.log.wait_for(1, "DELETE", KEY)
        # The newer request was answered, and is not yet believed.
        assert [item.key for item in store.pending()] == [KEY]
        double.rules.release()
        until(lambda: in_bucket(double, KEY) == b"old", "the late effect")
        clock.advance(3600.0)
        until(lambda: store.flush(5).done, "the end of the doubt")
        store.invalidate(KEY)
        wanted = b"new" if what == "put" else None
        assert in_bucket(double, KEY) == wanted
        assert store.exists(KEY) == (wanted is not None)
        if wanted is not None:
            assert store.get(KEY).read_bytes() == wanted


def test_a_stopped_leader_is_named_and_goes_on(
    tmp_path: Path,
    double: R2Double,
    children: list[subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uploader_module, "STALLED", 1.0)
    options = on_double(tmp_path, double)
    saved = save_options(options, tmp_path / "options")
    children.append(start(f"{HERE}:child_put", saved, "old"))
    assert line(children[0]) == ["put"]
    pid = children[0].pid
    with store_of(options) as store:
        assert store.flush(60).done
        os.kill(pid, signal.SIGSTOP)
        store.put(KEY, b"new")
        store.put("other", b"x")
        health = until(lambda: (h := store.health()["uploader"])["stalled"] and h)
        assert (health["leader_pid"], health["state"]) == (pid, "stalled")
        report = store.flush(0.2)
        assert not report.done
        assert f"process {pid} has not moved" in report.reason
        assert store.get(KEY).read_bytes() == b"new"
        assert store.get("other").read_bytes() == b"x"
        os.kill(pid, signal.SIGCONT)
        assert store.flush(60).done
        assert in_bucket(double, KEY) == b"new"


# -- a download whose process stops --------------------------------------------------------------


def child_get(options: str) -> None:
    with store_of(load_options(options)) as store:
        say("read", len(store.get(KEY).read_bytes()))


def test_nobody_waits_for_a_stopped_process_that_downloads(
    tmp_path: Path, double: R2Double, children: list[subprocess.Popen[str]]
) -> None:
    """Nor does it write into the file of whoever went on alone, when it is continued."""
    data, newer = os.urandom(300_000), os.urandom(300_000)
    options = on_double(tmp_path, double, flight_patience=1.0)
    with store_of(options) as store:
        store.put(KEY, data, durability="remote")
        store.invalidate(KEY)
        double.rules.add("stall", method="GET", key=KEY, at=100_000, count=1)
        children.append(start(f"{HERE}:child_get", save_options(options, tmp_path / "options")))
        double.log.wait_for(1, "GET", KEY)
        os.kill(children[0].pid, signal.SIGSTOP)
        assert store.core.remote is not None
        seed(store.core.remote, KEY, newer)
        path = store.get(KEY)
        assert path.read_bytes() == newer
        double.rules.release()
        os.kill(children[0].pid, signal.SIGCONT)
        assert line(children[0]) == ["read", str(len(data))]
        finish(children[0])
        assert path.read_bytes() == newer
        assert store.get(KEY).read_bytes() in (data, newer)


def test_another_processs_slow_download_is_waited_for(
    tmp_path: Path, double: R2Double, children: list[subprocess.Popen[str]]
) -> None:
    """It takes longer than the miss deadline, but its bytes arrive."""
    data = os.urandom(1_500_000)
    options = on_double(tmp_path, double, miss_deadline=5.0)
    with store_of(options) as store:
        store.put(KEY, data, durability="remote")
        store.invalidate(KEY)
        double.rules.add("slow_body", method="GET", key=KEY, rate=200_000)
        children.append(start(f"{HERE}:child_get", save_options(options, tmp_path / "options")))
        double.log.wait_for(1, "GET", KEY)
        assert store.get(KEY).read_bytes() == data
        assert line(children[0]) == ["read", str(len(data))]
        finish(children[0])
        assert double.log.count("GET", KEY) == 1


# -- forks ---------------------------------------------------------------------------------------


def use(store: CacheStore, name: str) -> None:
    """What a worker does: all kinds of things, from several threads at once."""
    wrong: list[BaseException] = []

    def work(number: int) -> None:
        try:
            key = f"{name}/{number}.txt"
            store.put(key, key.encode())
            assert store.get(key).read_bytes() == key.encode()
            assert store.get("shared").read_bytes() == b"shared"
            assert store.head(key).size == len(key)
            assert key in {item.key for item in store.list(f"{name}/")}
            store.invalidate("shared")
            assert store.read("shared", 1, 3) == b"ha"
            store.put(f"gone/{name}{number}", b"x")
            store.delete(f"gone/{name}{number}")
        except BaseException as error:
            wrong.append(error)

    crowd = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join(90)
        assert not thread.is_alive(), "a thread hangs"
    assert not wrong, wrong
    store.stats()
    store.clean()
    assert store.flush(60).done
    store.health()


def child_preload(options: str, workers: str) -> None:
    """As gunicorn does with --preload: the app is loaded and used, then forked, and is used."""
    store = store_of(load_options(options))
    store.put("shared", b"shared")
    store.flush(60)
    use(store, "parent")
    stop = threading.Event()

    def busy() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            store.put(f"busy/{number % 7}", b"x" * 5000)
            store.get(f"busy/{number % 7}")

    thread = threading.Thread(target=busy)
    thread.start()
    pids = [forked(lambda n=n: use(store, f"worker{n}")) for n in range(int(workers))]
    ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    stop.set()
    thread.join()
    assert ends == [0] * len(pids), ends
    use(store, "later")
    store.close(drain=30)
    say("ended")


def test_a_store_is_used_before_and_after_a_fork(tmp_path: Path, double: R2Double) -> None:
    options = on_double(tmp_path, double)
    saved = save_options(options, tmp_path / "options")
    assert "ended" in finish(start(f"{HERE}:child_preload", saved, 3))
    for name in ("parent", "later", "worker0", "worker2"):
        assert in_bucket(double, f"{name}/3.txt") == f"{name}/3.txt".encode()
    with store_of(options) as store:
        assert [item.key for item in store.list("gone/")] == []
        assert store.fsck().clean


def locks_below(root: object) -> list[Any]:
    """Every lock that a store keeps in its parts."""
    found: dict[int, Any] = {}
    seen: set[int] = set()
    todo: list[object] = [root]
    kinds = (type(threading.Lock()), threading.Condition)
    while todo:
        part = todo.pop()
        if id(part) in seen or isinstance(part, type):
            continue
        seen.add(id(part))
        if isinstance(part, ForkLock):
            part = part._lock
        if isinstance(part, kinds):
            found[id(part)] = part
        elif type(part).__module__.startswith("cachestore"):
            names = [*getattr(part, "__dict__", {}), *getattr(type(part), "__slots__", ())]
            todo += [getattr(part, name, None) for name in names]
        elif isinstance(part, dict):
            todo += part.values()
        elif isinstance(part, list | tuple | set):
            todo += part
    return list(found.values())


def child_locked(options: str) -> None:
    """Another thread holds every lock of the store at the moment of the fork."""
    store = store_of(load_options(options))
    store.put("shared", b"shared", durability="remote")
    use(store, "parent")
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        locks = [lock for lock in locks_below(store) if lock.acquire(timeout=5)]
        say(len(locks))
        held.set()
        release.wait()
        for lock in locks:
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    pid = forked(lambda: use(store, "worker"))
    release.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    use(store, "later")
    store.close(drain=30)
    say("ended")


def test_no_lock_that_was_held_at_the_fork_stops_the_child(
    tmp_path: Path, double: R2Double
) -> None:
    saved = save_options(on_double(tmp_path, double), tmp_path / "options")
    out = finish(start(f"{HERE}:child_locked", saved))
    assert "ended" in out
    assert int(out.split()[0]) > 10


def child_forking_meanwhile() -> None:
    """The fork comes while another thread is where none must happen, as during an import."""
    inside, ended = threading.Event(), threading.Event()

    def half_made() -> None:
        with NO_FORKS:
            inside.set()
            threading.Event().wait(0.5)
            ended.set()

    thread = threading.Thread(target=half_made)
    thread.start()
    assert inside.wait(60)

    def child() -> None:
        assert ended.is_set()
        with NO_FORKS:
            pass

    assert os.waitstatus_to_exitcode(os.waitpid(forked(child), 0)[1]) == 0
    thread.join()
    say("ended")


def test_a_fork_waits_for_the_end_of_an_import() -> None:
    """Else the child has half a module for ever."""
    assert "ended" in finish(start(f"{HERE}:child_forking_meanwhile"))


def child_outlived(options: str) -> None:
    """The leader forks two workers and is killed; they have what it had not sent."""
    store = store_of(load_options(options))
    store.put("parent", b"parent")
    until(lambda: store.health()["uploader"]["leading"])
    say("leads")
    input()

    def worker(name: str) -> None:
        store.put(name, name.encode())
        input_ = os.read(0, 1)
        assert input_ in (b"g", b"o", b"\n")
        assert store.flush(90).done
        say("sent", name)

    pids = [forked(lambda name=name: worker(name)) for name in ("one", "two")]
    say("forked", *pids)
    threading.Event().wait(3600)


def test_forked_children_outlive_the_leader(
    tmp_path: Path, double: R2Double, children: list[subprocess.Popen[str]]
) -> None:
    double.rules.add("hang", method="PUT")
    options = on_double(tmp_path, double)
    children.append(start(f"{HERE}:child_outlived", save_options(options, tmp_path / "options")))
    assert line(children[0]) == ["leads"]
    double.log.wait_for(1, "PUT")
    tell(children[0])
    _, *pids = line(children[0])
    try:
        children[0].kill()
        children[0].wait(30)
        double.rules.clear()
        tell(children[0], "go")
        assert sorted([line(children[0]), line(children[0])]) == [["sent", "one"], ["sent", "two"]]
        for name in ("parent", "one", "two"):
            assert in_bucket(double, name) == name.encode()
    finally:
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass


# -- the end of the interpreter ------------------------------------------------------------------


def child_exit(options: str, way: str) -> None:
    store = store_of(load_options(options))
    for number in range(8):
        store.put(f"k{number}", str(number).encode())
    store.put(KEY, b"x").add_done_callback(lambda outcome: None)
    until(lambda: any(item.state == "uploading" for item in store.pending()))
    say("put")
    if way == "close":
        store.close(drain=0.2)
    elif way == "exit":
        sys.exit(0)


@pytest.mark.parametrize("way", ["nothing", "close", "exit"])
def test_the_interpreter_ends_with_uploads_on_the_wire(
    tmp_path: Path, double: R2Double, children: list[subprocess.Popen[str]], way: str
) -> None:
    """Every request hangs for good: an end that waited for one would not come."""
    double.rules.add("hang")
    options: Options = on_double(tmp_path, double)
    children.append(start(f"{HERE}:child_exit", save_options(options, tmp_path / "options"), way))
    finish(children[0], 45)
    double.rules.clear()
    with store_of(options) as store:
        assert store.get(KEY).read_bytes() == b"x"
        assert store.flush(60).done
        assert in_bucket(double, KEY) == b"x"
        assert [in_bucket(double, f"k{n}") for n in range(8)] == [b"%d" % n for n in range(8)]
