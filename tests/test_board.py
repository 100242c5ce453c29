"""The board: shared by processes, never 0 after a change, never a value that returns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cachestore.errors import SpoolError
from cachestore.files import Files
from cachestore.local.board import Board


def test_a_change_is_seen_by_another_process(tmp_path: Path) -> None:
    board = Board(tmp_path, Files())
    before = board.token(4711), board.sequence(4711 >> 8), board.token(4712)
    code = (
        "import sys; from pathlib import Path; from cachestore.files import Files;"
        "from cachestore.local.board import Board;"
        f"b = Board(Path({str(tmp_path)!r}), Files()); b.change(4711); b.hand_out(9, 77.5)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert board.token(4711) != before[0]
    assert board.sequence(4711 >> 8) != before[1]
    assert board.token(4712) == before[2]
    assert board.handed_out(9) == 77.0


def test_tokens_do_not_return(tmp_path: Path) -> None:
    board = Board(tmp_path, Files())
    seen = set()
    for _ in range(10_000):
        board.change(1)
        seen.add(board.token(1))
    assert len(seen) == 10_000
    assert 0 not in seen


def test_two_changes_at_once_never_cancel_out(tmp_path: Path) -> None:
    """With counters, two processes that read 5 both write 6: a reader who saw 6 is misled."""
    one, two = Board(tmp_path, Files()), Board(tmp_path, Files())
    one.change(3)
    first = one.token(3)
    two.change(3)
    assert two.token(3) != first
    assert one.token(3) == two.token(3)


def test_a_strange_file_is_refused_with_advice(tmp_path: Path) -> None:
    board = Board(tmp_path, Files())
    board.close()
    board.path.write_bytes(b"junk")
    with pytest.raises(SpoolError, match="remove it"):
        Board(tmp_path, Files())


def test_pending_sums(tmp_path: Path) -> None:
    board = Board(tmp_path, Files())
    board.add_pending(0, 1, 100)
    board.add_pending(255, 2, 50)
    board.add_pending(0, -1, -100)
    assert board.pending() == (2, 50)
    board.add_pending(0, -5, -500)
    assert board.pending() == (2, 50)
