"""A Hypothesis state machine of the whole store against a plain `dict` (needs `hypothesis`).

Three stores on the same folders, one of them in another process that gets killed, put, delete and
read the same few keys, while the remote goes down, answers get lost, time passes, the cache is
removed and local mode is switched on and off. After each step, what is read must be what the
dict says, or an error where the bytes cannot be here. In the end the bucket must equal the dict.

For tests of an app::

    from cachestore.testing.machine import StoreMachine, bounded

    TestStore = StoreMachine.TestCase
    TestStore.settings = bounded(examples=25)

A subclass may set `keys`, `sizes` and `fields` (of `Options`), and may add rules of its own, which
use `self.actor(number)`, `self.model` (key → bytes and metadata) and `self.expect_*`.
"""

from __future__ import annotations

import atexit
import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from cachestore.errors import NotFound, RemoteUnavailable, SpoolError
from cachestore.testing.actors import Actor, OtherProcess, bucket, put_into_bucket

ACTORS = st.integers(0, 2)
INDEX = st.integers(0, 1_000_000)
WAYS = ("get", "current", "opened", "leased")
_OTHER = OtherProcess()
atexit.register(_OTHER.crash)


def bounded(
    examples: int = 25, steps: int = 40, *, derandomize: bool = True, shrink: bool = False
) -> settings:
    """Settings for a test run: the same examples every time, unless told otherwise.

    `shrink`: look for a shorter example of a failure, which takes minutes.
    """
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=derandomize,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


class StoreMachine(RuleBasedStateMachine):
    """See the module. `sure`: keys whose newest change cannot have left this machine.

    `others`: keys last written by another machine, of which local mode may know less.
    """

    keys: ClassVar[Sequence[str]] = ("a", "a/b.wav", "a/ü 1.txt", "b/c/d.json", "z.bin")
    sizes: ClassVar[Sequence[int]] = (0, 1, 100, 5_000, 20_000)
    fields: ClassVar[dict[str, Any]] = {"cache_max_bytes": 64_000, "ttl": 3600.0}

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="cachestore-machine-"))
        self.model: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.sure: set[str] = set()
        self.others: set[str] = set()
        self.mode = "remote"
        self.is_up = True
        self.shift = 0.0
        self.number = 0
        self.steps = 0
        self._actors: list[Any] = [Actor(self.root, self.fields) for _ in range(2)]
        _OTHER.begin(self.root, self.fields)
        self._actors.append(_OTHER)

    @initialize()
    def begin(self) -> None:
        """Open all stores, and put something."""
        for actor in self._actors:
            actor.open(self.mode)
        for which in range(len(self.keys) - 1):
            self.put(which % len(self._actors), which, which, attached=bool(which % 2))

    def actor(self, number: int) -> Any:
        """One of the stores: 0 and 1 are in this process, 2 is not."""
        return self._actors[number]

    def key(self, index: int) -> str:
        """One of the keys."""
        return self.keys[index % len(self.keys)]

    # -- what may be read ------------------------------------------------------------------------

    @property
    def exact(self) -> bool:
        """True while every answer must be the newest truth: the bucket can be asked."""
        return self.mode == "remote" and self.is_up

    def expect(self, key: str, ask: Callable[[], Any], wanted: Callable[[bytes], Any]) -> None:
        """`ask` must give what `wanted` makes of the key's bytes, or the right error."""
        known = self.model.get(key)
        if self.mode == "local" and key in self.others:
            return
        if not self.is_up:
            self.pass_time(1.1)  # so long it may take until somebody looks whether it is back
        try:
            answer = ask()
        except NotFound:
            missing_here = self.mode == "local" and key not in self.sure
            assert known is None or missing_here, f"{key!r} is lost"
            return
        except RemoteUnavailable:
            assert not self.exact, f"{key!r} is in the bucket, which can be asked"
            assert key not in self.sure, f"{key!r} is pending here, and cannot be read"
            return
        assert known is not None, f"{key!r} was deleted, and is back"
        assert answer == wanted(known[0]), f"{key!r}: not the newest bytes"

    def expect_list(self, actor: Any, prefix: str) -> list[str] | None:
        """The keys that are listed, checked; None while the bucket cannot be asked."""
        truth = {k: len(d) for k, (d, _) in self.model.items() if k.startswith(prefix)}
        unknown = self.others if self.mode == "local" else set()
        try:
            listed: dict[str, int] = actor.listed(prefix)
        except RemoteUnavailable:
            assert not self.exact
            return None
        if self.mode == "remote":
            assert listed == truth
        else:
            assert {k: n for k, n in listed.items() if k not in unknown}.items() <= truth.items()
            assert {key for key in truth if key in self.sure} <= set(listed)
        return list(listed)

    def _changed(self, key: str, value: tuple[bytes, dict[str, str]] | None) -> None:
        self.others.discard(key)
        if value is None:
            self.model.pop(key, None)
        else:
            self.model[key] = value
        if not self.exact:
            self.sure.add(key)

    def _tried(self, change: Callable[[], Any]) -> None:
        """A cleaner whose clock jumped by days takes unfinished tickets: nothing is stored then."""
        for _ in range(5):
            with contextlib.suppress(SpoolError):
                change()
                return
        change()

    def _lost_sight(self) -> None:
        """The bucket cannot be asked from now on: what was put before may be there only."""
        if self.exact:
            self.sure.clear()

    # -- changes ---------------------------------------------------------------------------------

    @rule(who=ACTORS, which=INDEX, size=INDEX, attached=st.booleans())
    def put(self, who: int, which: int, size: int, attached: bool) -> None:
        """A new version, unlike every other."""
        self.number += 1
        data = random.Random(self.number).randbytes(self.sizes[size % len(self.sizes)])
        metadata = {"number": str(self.number), "name": "Jürgen"} if attached else {}
        self._tried(lambda: self.actor(who).put(self.key(which), data, metadata))
        self._changed(self.key(which), (data, metadata))

    @rule(who=ACTORS, other=ACTORS, which=INDEX)
    def overwrite(self, who: int, other: int, which: int) -> None:
        """Two versions in a row, perhaps by two stores; the first one is never uploaded late."""
        self.put(who, which, self.number, attached=True)
        self.put(other, which, self.number, attached=False)

    @rule(who=ACTORS, other=ACTORS, which=INDEX)
    def delete_and_put(self, who: int, other: int, which: int) -> None:
        """Gone and back, perhaps by two stores."""
        self.delete(who, which)
        self.put(other, which, self.number, attached=True)

    @rule(who=ACTORS, which=INDEX)
    def delete(self, who: int, which: int) -> None:
        """Gone, everywhere."""
        self._tried(lambda: self.actor(who).delete(self.key(which)))
        self._changed(self.key(which), None)

    @rule(who=ACTORS, prefix=st.sampled_from(["a/", "b", ""]))
    def delete_prefix(self, who: int, prefix: str) -> None:
        """All that is listed is gone; nothing if it cannot be listed."""
        listed = self.expect_list(self.actor(who), prefix)
        try:
            gone = self.actor(who).delete_prefix(prefix)
            assert listed is not None
            assert gone == len(listed)
        except RemoteUnavailable:
            assert not self.exact
            return
        except SpoolError:
            for key in listed or ():
                self._tried(partial(self.actor(who).delete, key))
        assert listed is not None
        for key in listed:
            self._changed(key, None)

    @rule(who=ACTORS, which=INDEX, other=INDEX)
    def copy(self, who: int, which: int, other: int) -> None:
        """The bytes of one key under another."""
        source = self.key(which)
        if source in self.others and self.mode == "local":
            return
        try:
            self._tried(lambda: self.actor(who).copy(source, self.key(other)))
        except (NotFound, RemoteUnavailable):
            assert source not in self.model or not (self.exact or source in self.sure)
            return
        self._changed(self.key(other), self.model[source])

    # -- reads -----------------------------------------------------------------------------------

    @invariant()
    def reads_are_right(self) -> None:
        """After each step: one key, by one store, in one of the ways to read it."""
        self.steps += 1
        who, way = self.steps % 3, WAYS[self.steps % len(WAYS)]
        key = self.key(self.steps)
        self.expect(key, lambda: getattr(self.actor(who), way)(key), lambda data: data)

    @rule(who=ACTORS)
    def read_all(self, who: int) -> None:
        """All keys, so that copies are there to be wrong."""
        for key in self.keys:
            self.expect(key, partial(self.actor(who).get, key), lambda data: data)

    @rule(who=ACTORS, which=INDEX, start=st.integers(0, 6000), length=st.integers(0, 6000))
    def read(self, who: int, which: int, start: int, length: int) -> None:
        """A range."""
        key, end = self.key(which), start + length
        self.expect(
            key, lambda: self.actor(who).read(key, start, end), lambda data: data[start:end]
        )

    @rule(who=ACTORS, which=INDEX)
    def head(self, who: int, which: int) -> None:
        """Size and metadata."""
        key = self.key(which)
        metadata = self.model.get(key, (b"", {}))[1]
        self.expect(key, lambda: self.actor(who).head(key), lambda data: (len(data), metadata))

    @rule(who=ACTORS, prefix=st.sampled_from(["", "a", "a/", "b/c/", "none"]))
    def list_keys(self, who: int, prefix: str) -> None:
        """Keys and sizes."""
        self.expect_list(self.actor(who), prefix)

    # -- what forgets, and what must not matter ----------------------------------------------------

    @rule(who=ACTORS, which=INDEX)
    def invalidate(self, who: int, which: int) -> None:
        """Forget the clean copy."""
        self.actor(who).invalidate(self.key(which))

    @rule(who=ACTORS)
    def clean(self, who: int) -> None:
        """What the janitor does."""
        self.actor(who).clean()

    @rule(who=ACTORS)
    def fsck(self, who: int) -> None:
        """No ticket is ever called broken; copies may be, while time jumps."""
        wrong = [text for text in self.actor(who).fsck() if "ticket" in text.split(":")[0]]
        assert not wrong, wrong

    @rule()
    def remove_cache(self) -> None:
        """`rm -rf cache/` while all work."""
        shutil.rmtree(self.root / "cache", ignore_errors=True)

    @rule(seconds=st.sampled_from([1.0, 90.0, 4000.0, 8 * 86400.0]))
    def pass_time(self, seconds: float) -> None:
        """Negative answers, hand-outs, copies and unread copies expire."""
        self.shift += seconds
        for actor in self._actors:
            actor.advance(seconds)

    @rule(who=ACTORS)
    def crash(self, who: int) -> None:
        """A store ends without a word, and another one opens; process 2 is killed."""
        self.actor(who).crash()
        if who == 2:
            self._reborn()
        self.actor(who).open(self.mode)

    def _reborn(self) -> None:
        self.actor(2).advance(self.shift)
        if not self.is_up:
            self.actor(2).down()

    @precondition(lambda self: self.is_up)
    @rule()
    def go_down(self) -> None:
        """The bucket cannot be reached."""
        self._lost_sight()
        self.is_up = False
        for actor in self._actors:
            actor.down()

    @precondition(lambda self: not self.is_up)
    @rule()
    def come_up(self) -> None:
        """It can, and a second later the stores try."""
        self.is_up = True
        for actor in self._actors:
            actor.up()
        self.pass_time(1.1)

    @precondition(lambda self: self.is_up)
    @rule(who=ACTORS, operation=st.sampled_from(["put", "delete"]), after=st.booleans())
    def fail_once(self, who: int, operation: str, after: bool) -> None:
        """A change fails on its way, or its answer gets lost."""
        self.actor(who).fail(operation, 1, after)

    @rule()
    def switch(self) -> None:
        """Local mode on or off, for all stores."""
        for actor in self._actors:
            actor.close()
        self._lost_sight()
        self.mode = "local" if self.mode == "remote" else "remote"
        for actor in self._actors:
            actor.open(self.mode)

    @precondition(lambda self: self.exact)
    @rule(who=ACTORS)
    def flush(self, who: int) -> None:
        """Whoever flushes: the bucket has what the dict has."""
        self.actor(who).flush()
        assert self.actor(who).pending() == []
        self._compare_bucket()

    @precondition(lambda self: self.exact)
    @rule(who=ACTORS, which=INDEX)
    def another_machine_puts(self, who: int, which: int) -> None:
        """Somebody else writes into the bucket; asked for anew, it is seen."""
        self.flush(who)
        self.number += 1
        data, key = random.Random(self.number).randbytes(50), self.key(which)
        put_into_bucket(self.root, key, data)
        self.model[key] = (data, {})
        self.others.add(key)
        self.actor(who).invalidate(key)

    # -- the end ---------------------------------------------------------------------------------

    def _compare_bucket(self) -> None:
        assert bucket(self.root) == {key: data for key, (data, _) in self.model.items()}

    def teardown(self) -> None:
        """All is sent in the end, and a store that knows nothing reads the same."""
        try:
            if self.mode == "local":
                self.switch()
            if not self.is_up:
                self.come_up()
            self.flush(0)
            shutil.rmtree(self.root / "cache", ignore_errors=True)
            for key in self.keys:
                self.expect(key, partial(self.actor(1).get, key), lambda data: data)
        finally:
            for actor in self._actors:
                with contextlib.suppress(Exception):
                    actor.close()
            shutil.rmtree(self.root, ignore_errors=True)
