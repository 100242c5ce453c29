"""Remotes around remotes, to see how an app fares: failing, slow, and counted ones."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from cachestore.errors import RemoteUnavailable
from cachestore.model import ListPage, RemoteObject

Call = Callable[[], Any]


class _Wrapped:
    """Passes everything on; subclasses step in at `_around`."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    @property
    def remote_id(self) -> str:
        return str(self.inner.remote_id)

    @property
    def name(self) -> str:
        return f"{type(self).__name__}({self.inner.name})"

    @property
    def conditional(self) -> bool:
        return bool(self.inner.conditional)

    def _around(self, operation: str, key: str, call: Call) -> Any:
        return call()

    def head(self, key: str, **options: Any) -> RemoteObject:
        found: RemoteObject = self._around("head", key, lambda: self.inner.head(key, **options))
        return found

    def get(self, key: str, **options: Any) -> Any:
        return self._around("get", key, lambda: self.inner.get(key, **options))

    def put(self, key: str, body: Any, **options: Any) -> RemoteObject:
        stored: RemoteObject = self._around(
            "put", key, lambda: self.inner.put(key, body, **options)
        )
        return stored

    def delete(self, key: str) -> None:
        self._around("delete", key, lambda: self.inner.delete(key))

    def delete_many(self, keys: Iterable[str]) -> dict[str, Exception]:
        wanted = list(keys)
        failed: dict[str, Exception] = self._around(
            "delete_many", "", lambda: self.inner.delete_many(wanted)
        )
        return failed

    def list(self, prefix: str = "", **options: Any) -> Iterator[ListPage]:
        pages: Iterator[ListPage] = self._around(
            "list", prefix, lambda: iter(list(self.inner.list(prefix, **options)))
        )
        return pages

    def close(self) -> None:
        self.inner.close()


class FaultyRemote(_Wrapped):
    """Fails as told: `fail("put", "*.wav", times=3)`, `down()`, `up()`.

    A fault happens before the request takes effect, or with `after=True` behind it, as when the
    answer is lost.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self._rules: list[dict[str, Any]] = []
        self._down = False

    def fail(
        self,
        operation: str = "*",
        key: str = "*",
        *,
        times: int = 1,
        error: Callable[[], Exception] | None = None,
        after: bool = False,
    ) -> None:
        """Let the next `times` matching calls fail with `error()`."""
        rule = {"operation": operation, "key": key, "left": times, "error": error, "after": after}
        with self._lock:
            self._rules.append(rule)

    def down(self) -> None:
        """Not reachable from now on."""
        self._down = True

    def up(self) -> None:
        """Reachable again, and all rules forgotten."""
        with self._lock:
            self._down = False
            self._rules.clear()

    def _take(self, operation: str, key: str) -> dict[str, Any] | None:
        with self._lock:
            for rule in self._rules:
                if (
                    rule["left"] > 0
                    and fnmatchcase(operation, rule["operation"])
                    and fnmatchcase(key, rule["key"])
                ):
                    rule["left"] -= 1
                    return rule
        return None

    def _around(self, operation: str, key: str, call: Call) -> Any:
        if self._down:
            raise RemoteUnavailable(f"{operation} {key!r}: the remote is down (as the test said)")
        rule = self._take(operation, key)
        if rule is None:
            return call()
        if rule["after"]:
            call()
        make = rule["error"]
        raise make() if make else RemoteUnavailable(f"{operation} {key!r}: fault of the test")


class LatencyRemote(_Wrapped):
    """Every call takes `seconds` longer."""

    def __init__(self, inner: Any, seconds: float) -> None:
        super().__init__(inner)
        self.seconds = seconds

    def _around(self, operation: str, key: str, call: Call) -> Any:
        time.sleep(self.seconds)
        return call()


class CountingRemote(_Wrapped):
    """Counts calls: `calls["get"]`, and `keys[("get", "a.wav")]`."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.keys: Counter[tuple[str, str]] = Counter()

    def _around(self, operation: str, key: str, call: Call) -> Any:
        with self._lock:
            self.calls[operation] += 1
            self.keys[(operation, key)] += 1
        return call()
