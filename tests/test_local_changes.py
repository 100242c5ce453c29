"""Local changes as tickets: in every order with tickets, over switched flags, kills and races."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from local_rig import Quick, content, hidden, idle, keys, local, look, remote
from process_rig import finish, load_options, save_options, say, start
from store_rig import make_options, on_server, store_of

from cachestore.errors import NotFound, SpoolError
from cachestore.model import RemoteObject
from cachestore.options import Options
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore

KEY = "a/b.txt"


class Meanwhile(MemoryRemote):
    """Something happens while a request for the key is out, once for each entry."""

    def __init__(self, **todo: Any) -> None:
        super().__init__()
        self._todo = todo

    def _do(self, name: str) -> None:
        todo = self._todo.pop(name, None)
        if todo is not None:
            todo()

    def put(self, key: str, body: Any, *args: Any, **fields: Any) -> RemoteObject:
        found = super().put(key, body, *args, **fields)
        self._do("put")
        return found

    def delete(self, key: str) -> None:
        super().delete(key)
        self._do("delete")

    def get(self, key: str, *args: Any, **fields: Any) -> Any:
        try:
            return super().get(key, *args, **fields)
        finally:
            self._do("get")


# -- every order --------------------------------------------------------------------------------

STEPS = ("local put", "local delete", "remote put", "remote delete", "flush")


@pytest.mark.parametrize("first", STEPS[:4])
def test_every_order_of_changes(tmp_path: Path, first: str) -> None:
    """Both stores stay open, as in two processes whose flags differ."""
    for number, rest in enumerate(itertools.product(STEPS, repeat=2)):
        root, bucket, newest = tmp_path / str(number), MemoryRemote(), None
        with idle(root, bucket) as sender, local(root) as here:
            for turn, step in enumerate((first, *rest)):
                store = here if step.startswith("local") else sender
                if step.endswith("put"):
                    newest = f"{turn} {step}".encode()
                    store.put(KEY, newest)
                elif step.endswith("delete"):
                    newest = None
                    store.delete(KEY)
                else:
                    flush(root, bucket)
                for each in (here, sender):
                    assert look(each, KEY) == newest, (first, *rest)
            sender.close(drain=0.0)
        flush(root, bucket)
        assert content(bucket) == ({} if newest is None else {KEY: newest}), (first, *rest)
        with local(root) as here:
            assert look(here, KEY) == newest
        assert hidden(root) == []


def flush(root: Path, bucket: MemoryRemote) -> None:
    with remote(root, bucket) as store:
        report = store.flush(30)
        assert report.done, report
        assert store.pending() == []


# -- while a request is out ---------------------------------------------------------------------


@pytest.mark.parametrize("changes", [1, 2])
@pytest.mark.parametrize("first", ["put", "delete"])
@pytest.mark.parametrize("by", ["ticket", "record"])
def test_an_acknowledgement_hides_no_local_change_that_came_meanwhile(
    tmp_path: Path, by: str, first: str, changes: int
) -> None:
    """With two changes nothing tells any more that the ticket was pending before them."""

    def change() -> None:
        for number in range(changes):
            here.put(KEY, b"while it was sent %d" % number)

    bucket = Meanwhile(**{first: change})
    with idle(tmp_path, bucket) as store:
        store.close(drain=0.0)
    with local(tmp_path) as here, remote(tmp_path, bucket) as sender:
        store = here if by == "record" else sender
        if first == "put":
            store.put(KEY, b"old")
        else:
            store.delete(KEY)
        sender.flush(30)
        expected = b"while it was sent %d" % (changes - 1)
        assert look(here, KEY) == look(sender, KEY) == expected
    flush(tmp_path, bucket)
    assert content(bucket) == {KEY: expected}


def test_a_put_in_remote_mode_while_a_local_change_is_sent(tmp_path: Path) -> None:
    bucket = Meanwhile(put=lambda: sender.put(KEY, b"new"))
    with idle(tmp_path, bucket) as store:
        store.close(drain=0.0)
    with local(tmp_path) as here:
        here.put(KEY, b"old")
        with remote(tmp_path, bucket) as sender:
            assert sender.flush(30).done
        assert look(here, KEY) == b"new"
    flush(tmp_path, bucket)
    assert content(bucket) == {KEY: b"new"}


# -- files that somebody else changed -------------------------------------------------------------


def test_an_edited_unsent_file_is_sent_as_it_is(tmp_path: Path) -> None:
    bucket = MemoryRemote()
    with idle(tmp_path, bucket):
        pass
    with local(tmp_path) as store:
        store.put(KEY, b"ours", content_type="text/x", metadata={"a": "b"})
        store.get(KEY).write_bytes(b"edited by hand")
    flush(tmp_path, bucket)
    assert content(bucket) == {KEY: b"edited by hand"}
    assert bucket.head(KEY).content_type == "text/x"
    with remote(tmp_path, bucket) as store:
        assert look(store, KEY) == b"edited by hand"


def test_a_file_removed_before_it_was_sent_is_an_error_of_its_key_alone(tmp_path: Path) -> None:
    bucket = MemoryRemote()
    with idle(tmp_path, bucket):
        pass
    with local(tmp_path) as store:
        store.put(KEY, b"ours")
        store.put("other", b"other")
        store.get(KEY).unlink()
    with idle(tmp_path, bucket) as store:
        assert store.core.uploader.pending()
        with pytest.raises(SpoolError, match="gone before it was uploaded"):
            changes_of(store).newest(KEY, None)
        store.close(drain=0.0)
    with remote(tmp_path, bucket) as store:
        assert store.flush(30).done
        assert content(bucket) == {"other": b"other"}
        store.put(KEY, b"again")
        assert store.flush(30).done
        assert look(store, KEY) == b"again"


def changes_of(store: CacheStore) -> Any:
    return store.core.uploader._parts.changes


# -- legacy files -------------------------------------------------------------------------------


def legacy(root: Path, data: bytes = b"legacy") -> Path:
    path = root / "output" / KEY
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_asking_about_a_legacy_file_does_not_hide_it(tmp_path: Path) -> None:
    """A remembered not-found answer is about the bucket."""
    legacy(tmp_path)
    bucket = MemoryRemote()
    with remote(tmp_path, bucket) as store:
        for _ in range(2):
            assert store.exists(KEY)
            assert store.head(KEY).size == 6
        assert store.get(KEY).read_bytes() == b"legacy"
        assert store.flush(30).done
    assert content(bucket) == {KEY: b"legacy"}


def test_nothing_is_adopted_while_the_bucket_cannot_be_asked(tmp_path: Path) -> None:
    class Down(MemoryRemote):
        def get(self, key: str, *args: Any, **fields: Any) -> Any:
            from cachestore.errors import RemoteUnavailable

            raise RemoteUnavailable("no route")

    legacy(tmp_path)
    with remote(tmp_path, Down()) as store:
        with pytest.raises(Exception, match="no route"):
            store.get(KEY)
        assert store.pending() == []


@pytest.mark.parametrize("mode", ["local", "remote"])
@pytest.mark.parametrize("change", ["put", "delete"])
def test_a_change_during_the_question_is_not_replaced_by_the_legacy_file(
    tmp_path: Path, change: str, mode: str
) -> None:
    def meanwhile() -> None:
        store = here if mode == "local" else other
        if change == "put":
            store.put(KEY, b"acknowledged meanwhile")
        else:
            store.delete(KEY)

    bucket = Meanwhile(get=meanwhile)
    legacy(tmp_path)
    expected = b"acknowledged meanwhile" if change == "put" else None
    with (
        idle(tmp_path, bucket) as store,
        idle(tmp_path, bucket) as other,
        local(tmp_path) as here,
    ):
        if expected is None:
            with pytest.raises(NotFound):
                store.get(KEY)
        else:
            assert store.get(KEY).read_bytes() == expected
        assert look(store, KEY) == look(here, KEY) == expected
        for each in (store, other):
            each.close(drain=0.0)
    flush(tmp_path, bucket)
    assert content(bucket) == ({} if expected is None else {KEY: expected})


# -- keys that stay here --------------------------------------------------------------------------


def test_local_only_keys_are_sent_once_the_prefix_is_taken_away(tmp_path: Path) -> None:
    bucket = MemoryRemote()
    with remote(tmp_path, bucket, local_only_prefixes=("samples/",)) as store:
        store.put("samples/a", b"here")
        legacy(tmp_path).rename(tmp_path / "output/samples/dropped")
        assert store.flush(30).done
        assert keys(store) == keys(store, "samples/") == ["samples/a", "samples/dropped"]
        assert look(store, "samples/dropped") == b"legacy"
        assert store.pending() == []
    assert content(bucket) == {}
    flush(tmp_path, bucket)
    assert content(bucket) == {"samples/a": b"here"}


# -- switched flags and killed processes ----------------------------------------------------------


def child_change(options: str, run: str) -> None:
    """Change keys until killed; each line says what was acknowledged, or is about to be."""
    rng = random.Random(run)
    with store_of(load_options(options), files=Quick()) as store:
        for turn in itertools.count():
            key, data = f"k/{rng.randrange(6)}", f"{run} {turn}"
            delete = rng.random() < 0.3
            say("try", key, "-" if delete else data)
            if delete:
                store.delete(key)
            else:
                store.put(key, data.encode())
            say("done", key)


def killed(options: Path, run: int, model: dict[str, set[bytes | None]]) -> None:
    """Run a child, kill it after some changes, and note what each key may be now."""
    with start("test_local_changes:child_change", options, run) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(2 * random.Random(run).randint(2, 14) + 1)]
        os.kill(child.pid, signal.SIGKILL)
        lines += child.stdout.read().splitlines(keepends=True)
    tried: bytes | None = None
    for line in lines:
        assert line.startswith(("try ", "done ")), "".join(lines)
        word, key, *data = line.split()
        if word == "try":
            tried = None if data == ["-"] else " ".join(data).encode()
            model[key] = model.get(key, {None}) | {tried}
        else:
            model[key] = {tried}


def test_flags_switched_with_a_kill_each_time(moto_server: Any, tmp_path: Path) -> None:
    there = on_server(tmp_path, moto_server, moto_server.new_bucket())
    here = make_options(tmp_path, mode="local", remote=there.remote)
    saved = [save_options(options, tmp_path / options.mode) for options in (here, there)]
    model: dict[str, set[bytes | None]] = {}
    for run in range(10):
        killed(saved[run % 2], run, model)
        with store_of((here, there)[(run + 1) // 2 % 2], files=Quick()) as store:
            for key, possible in model.items():
                found = look(store, key)
                assert found in possible, (run, key)
                model[key] = {found}
            store.close(drain=0.0)
    with store_of(there) as store:
        assert store.flush(60).done
        for key in model:
            store.invalidate(key)
            assert {look(store, key)} == model[key]


def child_work(options: str, number: str) -> None:
    """Put versions that name their writer and turn, then delete or not."""
    with store_of(load_options(options), files=Quick()) as store:
        for turn in range(12):
            store.put(KEY, f"{number} {turn}".encode())
            store.put(f"own/{number}", f"{turn}".encode())
        if number == "1":
            store.delete(f"own/{number}")
        store.close(drain=0.0)


def test_processes_in_both_modes_at_once(moto_server: Any, tmp_path: Path) -> None:
    """All agree on one last version in the end, and it is one of the last ones."""
    there = on_server(tmp_path, moto_server, moto_server.new_bucket())
    here = make_options(tmp_path, mode="local", remote=there.remote)
    saved = [save_options(options, tmp_path / options.mode) for options in (here, there)]
    children = [start("test_local_changes:child_work", saved[n % 2], n) for n in range(4)]
    for child in children:
        finish(child)
    expected = {"own/0": b"11", "own/1": None, "own/2": b"11", "own/3": b"11"}
    last = agreed(here, expected)
    assert last in {f"{n} 11".encode() for n in range(4)}
    with store_of(there) as store:
        assert store.flush(60).done
    assert agreed(there, expected) == last
    assert agreed(here, expected) == last


def agreed(options: Options, expected: dict[str, bytes | None]) -> bytes | None:
    with store_of(options) as store:
        for key, data in expected.items():
            assert look(store, key) == data, key
        return look(store, KEY)


def test_threads_of_both_modes_at_once(tmp_path: Path) -> None:
    """A reader never sees a version older than one it saw before."""
    bucket = MemoryRemote()
    with idle(tmp_path, bucket) as sender, local(tmp_path) as here:
        lock, last = threading.Lock(), [0]

        def write(store: CacheStore) -> None:
            for _ in range(15):
                with lock:
                    last[0] += 1
                    store.put(KEY, b"%d" % last[0])

        threads = [threading.Thread(target=write, args=(store,)) for store in (sender, here)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            before = last[0] - 1
            for store in (sender, here):
                try:
                    seen = int(store.read(KEY))
                except NotFound:
                    seen = 0
                assert seen >= before
        assert look(sender, KEY) == look(here, KEY) == b"30"
        sender.close(drain=0.0)
