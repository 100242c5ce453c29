"""Rules L2, L3 and L5, each with the hole that it closes, in real processes on a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from process_rig import finish, load_options, save_options, say, start
from store_rig import Shifted, on_server, store_of, until

from cachestore.local.board import Board
from cachestore.options import Options

KEY = "a/b.bin"
OLD, NEW = b"o" * 100_000, b"n" * 90_000


def options_of(root: Path, server: Any, **fields: Any) -> Options:
    return on_server(root, server, server.bucket, **fields)


# -- L2: what was read before a change is not published after it ---------------------------------


def child_get_twice(options: str, rule: str) -> None:
    """Read a key whose download is held up; then again. Without the rule, tokens never change."""
    if rule == "off":
        Board.token = lambda self, slot: 1  # type: ignore[method-assign]
    with store_of(load_options(options)) as store:
        say(store.read(KEY)[:1].decode())
        say(store.read(KEY)[:1].decode())


@pytest.mark.parametrize("rule", ["on", "off"])
def test_l2_a_slow_download_does_not_bring_back_an_older_version(
    r2_double: Any, tmp_path: Path, rule: str
) -> None:
    options = options_of(tmp_path, r2_double)
    with store_of(options) as store:
        store.put(KEY, OLD, durability="remote")
        store.invalidate(KEY)
        r2_double.rules.add("stall", method="GET", key=KEY, at=50_000, count=1)
        saved = save_options(options, tmp_path / "options")
        reader = start("test_rules_l2_l3_l5:child_get_twice", saved, rule)
        r2_double.log.wait_for(1, "GET", KEY, status=200)
        store.put(KEY, NEW, durability="remote")
        r2_double.rules.release()
        first, second = finish(reader).split()
        # The first may have either: it began before the put. The second began after it.
        assert first in "on"
        assert second == ("n" if rule == "on" else "o")
        if rule == "on":
            assert store.read(KEY) == NEW


# -- L3: ticket, unsent local change, clean copy, remote -----------------------------------------


def child_read(options: str) -> None:
    with store_of(load_options(options)) as store:
        say(store.read(KEY).decode())


def seen_by_another_process(options: Options, place: Path) -> str:
    return finish(start("test_rules_l2_l3_l5:child_read", save_options(options, place))).strip()


def test_l3_the_newest_version_is_served_wherever_it_is(r2_double: Any, tmp_path: Path) -> None:
    remote = options_of(tmp_path, r2_double, retry_base=300.0, retry_cap=300.0, key_interval=300.0)
    place = tmp_path / "options"
    with store_of(remote) as store:
        store.put(KEY, b"clean", durability="remote")
        store.get(KEY)
    assert seen_by_another_process(remote, place) == "clean"
    # From now on nothing can be sent: each version stays where it was made.
    r2_double.rules.add("status", method="PUT", status=503)
    local = options_of(tmp_path, r2_double, mode="local")
    with store_of(local) as store:
        store.put(KEY, b"unsent")
        store.close(drain=0.0)
    assert seen_by_another_process(local, place) == "unsent"
    assert seen_by_another_process(remote, place) == "unsent"
    with store_of(remote) as store:
        store.put(KEY, b"ticket")
        assert store.read(KEY) == b"ticket"
        store.close(drain=0.0)
    assert seen_by_another_process(remote, place) == "ticket"
    with store_of(local) as store:
        assert store.read(KEY) == b"ticket"
        store.put(KEY, b"unsent again")
        store.close(drain=0.0)
    assert seen_by_another_process(remote, place) == "unsent again"


# -- L5: no clock decides which version is newer -------------------------------------------------


def child_put(options: str, data: str, offset: str) -> None:
    with store_of(load_options(options), clock=Shifted(float(offset))) as store:
        store.put(KEY, data.encode())
        store.close(drain=0.0)


@pytest.mark.parametrize("offset", [-86_400.0, 86_400.0])
def test_l5_the_later_put_wins_however_wrong_its_clock_is(
    r2_double: Any, tmp_path: Path, offset: float
) -> None:
    options = options_of(tmp_path, r2_double)
    saved = save_options(options, tmp_path / "options")
    r2_double.rules.add("status", method="PUT", status=503)
    with store_of(options) as store:
        store.put(KEY, b"first")
        finish(start("test_rules_l2_l3_l5:child_put", saved, "second", -offset))
        assert store.read(KEY) == b"second"
        finish(start("test_rules_l2_l3_l5:child_put", saved, "third", offset))
        assert store.read(KEY) == b"third"
        r2_double.rules.clear()
        assert until(lambda: store.flush(5).done)
        assert store.core.remote is not None
        assert store.core.remote.head(KEY).size == len(b"third")
