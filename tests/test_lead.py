"""One process looks after a cache folder: who, for how long, and what a fork changes."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from process_rig import say, start

from cachestore.files import Files
from cachestore.local.lead import Lead


def test_one_at_a_time(tmp_path: Path) -> None:
    one, two = (Lead(Files(), tmp_path / "lock") for _ in range(2))
    assert one.held()
    assert not two.held()
    assert one.held()
    one.close()
    assert two.held()
    assert not one.held()
    two.close()
    two.close()


def test_a_removed_folder_gets_a_new_leader(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    one, two = (Lead(Files(), folder / "lock") for _ in range(2))
    assert one.held()
    shutil.rmtree(folder)
    folder.mkdir()
    assert two.held()
    assert not one.held(), "its file is nobody's any more"
    two.close()
    assert one.held()
    one.close()


def test_where_there_is_no_lock_everybody_leads(tmp_path: Path) -> None:
    class Broken(Files):
        def try_lock(self, fd: int, *, shared: bool = False) -> bool:
            raise OSError("no locks here")

    before = len(os.listdir("/proc/self/fd"))
    for files in (Broken(), Files()):
        path = tmp_path / ("lock" if type(files) is Broken else "none/lock")
        for lead in (Lead(files, path), Lead(files, path)):
            assert lead.held()
            lead.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_forked_child_neither_leads_nor_ends_the_lead(tmp_path: Path) -> None:
    lead, other = (Lead(Files(), tmp_path / "lock") for _ in range(2))
    assert lead.held()
    child = os.fork()
    if child == 0:
        lead.close()
        os._exit(int(lead.held()))
    assert os.waitpid(child, 0)[1] == 0
    assert not other.held()
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    lead.close()
    try:
        assert other.held(), "a child that lives on must not keep it"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        other.close()


def child_lead(path: str) -> None:
    assert Lead(Files(), Path(path)).held()
    say("leads")
    input()  # until it is killed


def test_the_lead_ends_with_its_process(tmp_path: Path) -> None:
    lead = Lead(Files(), tmp_path / "lock")
    with start("test_lead:child_lead", tmp_path / "lock") as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "leads\n"
        assert not lead.held()
        os.kill(child.pid, signal.SIGSTOP)
        assert not lead.held()
        child.kill()
    assert lead.held()
    lead.close()
