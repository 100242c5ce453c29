"""Remote facts: void after a change, never a pickle, and any trouble with them is a miss."""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from process_rig import finish, say, start
from store_rig import until

from cachestore.files import Files
from cachestore.keys import place_of
from cachestore.local.board import Board
from cachestore.local.facts import Facts
from cachestore.local.facts_disk import text_disk

PLACE = place_of("0123456789abcdef", "a.wav")
OTHER = place_of("0123456789abcdef", "b.wav")


class Memo:
    """Facts about one key, with a board."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.board = Board(root, Files())
        self.folder = root / "cache" / "facts"
        self.facts = Facts(self.folder, self.board)

    def put(self, value: Any, ttl: float = 1000.0, token: int | None = None) -> None:
        token = self.board.token(PLACE.slot) if token is None else token
        self.facts.put(PLACE, "head", "", value, ttl, token)

    def get(self) -> Any:
        return self.facts.get(PLACE, "head", "")

    @property
    def database(self) -> Path:
        return self.folder / "cache.db"

    def plant(self, value: object, mode: int, *, raw: int = 1) -> None:
        """Replace the value in the database, as whoever can write the folder could."""
        db = sqlite3.connect(self.database, isolation_level=None)
        assert db.execute("UPDATE Cache SET value=?, mode=?, raw=?", (value, mode, raw)).rowcount
        db.close()


@pytest.fixture
def memo(tmp_path: Path) -> Iterator[Memo]:
    made = Memo(tmp_path / "spool")
    yield made
    made.facts.close()


# -- what is remembered -----------------------------------------------------------------------


@pytest.mark.parametrize("value", [True, 0, "ü", {"a": [1, None]}, "x" * 100_000])
def test_a_fact_comes_back(memo: Memo, value: object) -> None:
    memo.put(value)
    assert memo.get() == value
    assert memo.facts.get(PLACE, "absent", "") is None
    assert memo.facts.get(PLACE, "head", "x") is None
    assert memo.facts.get(OTHER, "head", "") is None


def test_a_change_of_the_key_makes_facts_void(memo: Memo) -> None:
    memo.put("old")
    memo.board.change(PLACE.slot)
    assert memo.get() is None
    memo.put("new")
    assert memo.get() == "new"


def test_a_fact_learned_before_a_change_is_not_remembered(memo: Memo) -> None:
    before = memo.board.token(PLACE.slot)
    memo.put("kept")
    memo.board.change(PLACE.slot)
    memo.put("old", token=before)
    assert not memo.get()
    # Nor does it push out what was learned afterwards.
    memo.put("new")
    memo.put("old", token=before)
    assert memo.get() == "new"


def test_a_fact_ends_with_its_time(memo: Memo, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    memo.put("x", ttl=5.0)
    now += 4.9
    assert memo.get() == "x"
    now += 0.2
    assert memo.get() is None


@pytest.mark.parametrize("ttl", [0.0, -1.0])
def test_no_time_is_not_for_ever(memo: Memo, ttl: float) -> None:
    memo.put("x", ttl=ttl)
    assert not memo.database.exists()
    assert memo.get() is None


def test_a_clock_that_goes_back_does_not_prolong_a_fact(
    memo: Memo, monkeypatch: pytest.MonkeyPatch
) -> None:
    memo.put("x", ttl=5.0)
    back = time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: back)
    assert memo.get() is None


def child_reads(root: str) -> None:
    memo = Memo(Path(root))
    say(memo.get())
    memo.put("from the child")


def test_facts_are_shared_by_processes(memo: Memo) -> None:
    memo.put("from the parent")
    assert finish(start("test_facts:child_reads", memo.root)).strip() == "from the parent"
    assert memo.get() == "from the child"


def test_nothing_is_imported_or_made_before_it_is_needed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cachestore.local.facts import Facts;"
        "Facts(Path('facts'), None); assert 'diskcache' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []


# -- no pickles -------------------------------------------------------------------------------


class Bomb:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_planted_pickle_is_never_read(memo: Memo, tmp_path: Path) -> None:
    from diskcache.core import MODE_PICKLE

    bomb = pickle.dumps(Bomb(tmp_path / "went off"))
    assert pickle.loads(bomb) is None
    (tmp_path / "went off").unlink()
    memo.put("x")
    memo.plant(bomb, MODE_PICKLE)
    assert memo.get() is None
    memo.facts.close()
    assert memo.get() is None
    assert not (tmp_path / "went off").exists()


def test_a_planted_pickled_key_is_never_read(memo: Memo, tmp_path: Path) -> None:
    memo.put("x")
    db = sqlite3.connect(memo.database, isolation_level=None)
    db.execute("UPDATE Cache SET key=?, raw=0", (pickle.dumps(Bomb(tmp_path / "went off")),))
    db.close()
    assert memo.get() is None
    memo.put("y")
    assert memo.get() == "y"
    assert not (tmp_path / "went off").exists()


@pytest.mark.parametrize("value", [b"bytes", None, 5, 1.5, ("a",), Bomb(Path("x"))])
def test_only_text_is_stored(tmp_path: Path, value: object) -> None:
    disk = text_disk()(str(tmp_path))
    with pytest.raises(TypeError):
        disk.store(value, False)
    with pytest.raises(TypeError):
        disk.store("text", True)
    with pytest.raises(TypeError):
        disk.put(value)
    with pytest.raises(TypeError):
        disk.get("key", False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "5", "null", '"abc"', "[]", "[1]", "[1,2,3,4]", '{"a":1,"b":2,"c":3}',
     '["token","when","value"]', "[[]," * 50_000],
)  # fmt: skip
def test_text_that_is_no_fact_is_a_miss(memo: Memo, text: str) -> None:
    memo.put("x")
    memo.plant(text, 1)
    assert memo.get() is None


# -- any trouble is a miss --------------------------------------------------------------------


def garbage(memo: Memo) -> None:
    memo.database.write_bytes(os.urandom(memo.database.stat().st_size))


def truncated(memo: Memo) -> None:
    db = sqlite3.connect(memo.database)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    os.truncate(memo.database, 0)


def removed(memo: Memo) -> None:
    shutil.rmtree(memo.folder)


def replaced_by_a_folder(memo: Memo) -> None:
    shutil.rmtree(memo.folder)
    memo.database.mkdir(parents=True)


def replaced_by_a_file(memo: Memo) -> None:
    shutil.rmtree(memo.folder)
    memo.folder.write_text("a file")


def without_table(memo: Memo) -> None:
    db = sqlite3.connect(memo.database)
    db.execute("DROP TABLE Cache")
    db.close()


HEALED = (garbage, truncated, removed)
HOPELESS = (replaced_by_a_folder, replaced_by_a_file, without_table)


@pytest.mark.parametrize("damage", HEALED + HOPELESS)
@pytest.mark.parametrize("while_open", [True, False])
def test_trouble_is_a_miss(memo: Memo, damage: Callable[[Memo], None], while_open: bool) -> None:
    memo.put("x")
    if not while_open:
        memo.facts.close()
    damage(memo)
    # What is in memory already may be answered; it is true.
    assert memo.get() in ((None, "x") if while_open and damage is garbage else (None,))
    for _ in range(3):
        memo.put("y")
        assert memo.get() in (None, "y")
    if damage in HEALED:
        memo.facts.close()  # as by another process, which has nothing in memory
        memo.get()
        memo.put("z")
        assert memo.get() == "z"


def test_a_removed_folder_is_shared_again(memo: Memo) -> None:
    other = Facts(memo.folder, memo.board)
    memo.put("x")
    assert other.get(PLACE, "head", "") == "x"
    removed(memo)
    memo.put("y")
    assert other.get(PLACE, "head", "") == "y"
    other.close()


def test_a_locked_database_delays_nobody_for_long(memo: Memo) -> None:
    memo.put("x")
    holder = sqlite3.connect(memo.database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    begin = time.monotonic()
    memo.put("y")
    fresh = Facts(memo.folder, memo.board)
    for _ in range(10):
        assert fresh.get(PLACE, "head", "") is None
    assert time.monotonic() - begin < 10, "diskcache waits a minute"
    holder.execute("ROLLBACK")
    holder.close()


# -- forks ------------------------------------------------------------------------------------


def knows(memo: Memo, number: int) -> bool:
    return bool(memo.get() == number)


def stored(memo: Memo, number: int) -> bool:
    memo.put(number)
    return knows(memo, number)


def child_forks(root: str) -> None:
    """Workers are forked while other threads are busy with facts."""
    memo = Memo(Path(root))
    memo.put("x")
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            memo.facts.put(OTHER, "head", "", "o", 1000.0, memo.board.token(OTHER.slot))

    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    for number in range(10):
        pid = os.fork()
        if pid == 0:
            # A busy database is a miss; one that an inherited lock keeps shut would stay one.
            until(lambda: memo.get() is not None, "a fact", 20)
            good = memo.get() in ("x", *range(10), None)
            until(partial(stored, memo, number), "a child's fact", 20)
            os._exit(0 if good else 1)
        assert os.waitpid(pid, 0)[1] == 0
        until(partial(knows, memo, number), "what the child stored", 20)
    stop.set()
    say("good")


def test_forks_with_an_open_database(memo: Memo) -> None:
    assert "good" in finish(start("test_facts:child_forks", memo.root), 50)
