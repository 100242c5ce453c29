"""An uploader on a real spool and a scripted remote, for tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from spool_rig import make_spool

from cachestore.clock import SystemClock
from cachestore.events import Event, Events
from cachestore.files import Files
from cachestore.local.spool import Spool, new_id
from cachestore.local.tickets import Ticket
from cachestore.model import RemoteObject
from cachestore.options import Options
from cachestore.remote.budget import Budget
from cachestore.remote.memory import MemoryRemote
from cachestore.uploader import Uploader

Step = Callable[["Scripted", str, Callable[[], Any]], Any]


def upload_options(root: Path, **fields: Any) -> Options:
    """Options below `root` with quick retries."""
    values: dict[str, Any] = {
        "cache_dir": root / "cache", "spool_dir": root / "spool", "local_dir": root / "output",
        "mode": "remote", "retry_base": 0.02, "retry_cap": 0.2, "key_interval": 0.0,
        "doubt_wait": 0.3, "leader_interval": 0.1,
    }  # fmt: skip
    return Options(**(values | fields))


class Scripted(MemoryRemote):
    """A remote in memory that does what `steps` say: the first for the first request, and so on.

    A step gets the operation's name and the real request as a function; it may raise, wait, or
    do both in any order. Without a step left, requests just work. `log` has every request.
    """

    def __init__(self, *steps: Step, conditional: bool = True, remote_id: str = "") -> None:
        super().__init__()
        self.conditional = conditional
        if remote_id:
            self.remote_id = remote_id
        self.steps: list[Step] = list(steps)
        self.log: list[tuple[str, str]] = []
        self.guard = threading.Lock()
        self.active: dict[str, int] = {}
        self.overlaps: list[str] = []

    def _do(self, name: str, key: str, request: Callable[[], Any]) -> Any:
        with self.guard:
            self.log.append((name, key))
            step = self.steps.pop(0) if self.steps and name != "head" else None
            if name != "head":
                self.active[key] = self.active.get(key, 0) + 1
                if self.active[key] > 1:
                    self.overlaps.append(key)
        try:
            return request() if step is None else step(self, name, request)
        finally:
            if name != "head":
                with self.guard:
                    self.active[key] -= 1

    def head(self, key: str, *, timeout: float | None = None) -> RemoteObject:
        found: RemoteObject = self._do("head", key, lambda: MemoryRemote.head(self, key))
        return found

    def put(self, key: str, body: Any, **fields: Any) -> RemoteObject:
        found: RemoteObject = self._do(
            "put", key, lambda: MemoryRemote.put(self, key, body, **fields)
        )
        return found

    def delete(self, key: str) -> None:
        self._do("delete", key, lambda: MemoryRemote.delete(self, key))

    def delete_many(self, keys: Iterable[str]) -> dict[str, Exception]:
        wanted = list(keys)

        def request() -> dict[str, Exception]:
            for key in wanted:
                MemoryRemote.delete(self, key)
            return {}

        answer: dict[str, Exception] = self._do("delete_many", "", request)
        return answer

    def count(self, name: str) -> int:
        with self.guard:
            return sum(1 for each, _ in self.log if each == name)

    def bytes_of(self, key: str) -> bytes | None:
        found = self._objects.get(key)
        return None if found is None else found[1]


def fail(error: Exception, *, after: bool = False) -> Step:
    """A request that raises; with `after`, once it has taken effect (a lost answer)."""

    def step(remote: Scripted, name: str, request: Callable[[], Any]) -> Any:
        if after:
            request()
        raise error

    return step


class Held:
    """A request that waits: `reached` when it is there, it goes on after `release`."""

    def __init__(self, *, before: bool = True) -> None:
        self.reached = threading.Event()
        self.release = threading.Event()
        self._before = before

    def __call__(self, remote: Scripted, name: str, request: Callable[[], Any]) -> Any:
        if not self._before:
            answer = request()
            self._hold()
            return answer
        self._hold()
        return request()

    def _hold(self) -> None:
        self.reached.set()
        assert self.release.wait(60)


class Rig:
    """A spool, an uploader and what they said."""

    def __init__(
        self, root: Path, remote: Any, *, files: Files | None = None, spool: Spool | None = None,
        **fields: Any,
    ) -> None:  # fmt: skip
        self.remote = remote
        self.options = upload_options(root, **fields)
        self.files = files or Files()
        self.spool = spool or make_spool(root / "spool", self.files, remote.remote_id)
        self.events = Events()
        self.seen: list[Event] = []
        self.events.subscribe(self.seen.append)
        self.copies = fields.pop("copies", None)
        self.uploader = self.another()

    def another(self, **parts: Any) -> Uploader:
        """A second uploader on the same spool, as another store has it."""
        values: dict[str, Any] = {
            "spool": self.spool, "files": self.files, "clock": SystemClock(),
            "events": self.events, "options": self.options, "budget": Budget(64 << 20),
        }  # fmt: skip
        return Uploader(parts.pop("remote", self.remote), **(values | parts))

    def put(self, key: str, data: bytes, *, wake: bool = True, **fields: Any) -> Ticket:
        staged = self.spool.stage(key, data)
        ticket = Ticket(
            self.spool.remote_id, key, staged.id, "put", SystemClock().now(), staged.name,
            staged.size, staged.sha256, **fields,
        )  # fmt: skip
        self._publish(ticket, staged, wake)
        return ticket

    def delete(self, key: str, *, wake: bool = True, announced: str | None = None) -> Ticket:
        ticket = Ticket(
            self.spool.remote_id, key, new_id(), "delete", SystemClock().now(), announced=announced
        )
        self._publish(ticket, None, wake)
        return ticket

    def _publish(self, ticket: Ticket, staged: Any, wake: bool) -> None:
        from cachestore.events import Superseded

        replaced = self.spool.publish(ticket, staged)
        if replaced is not None:
            self.events.emit(Superseded(ticket.key, replaced.id))
        if wake:
            self.uploader.wake(ticket)

    def of(self, kind: type) -> list[Any]:
        """The events of one kind."""
        return [event for event in list(self.seen) if isinstance(event, kind)]


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Poll until `condition()` is true, and return its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)
    return value
