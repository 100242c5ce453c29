"""What a double does wrong, and to which requests. May be changed while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

ACTIONS = {
    "status": "answers `status` and `code`; the request has no effect",
    "reset": "resets the connection without effect, or behind `at` bytes of the answer's body",
    "cut": "ends the connection behind `at` bytes of the answer's body",
    "corrupt": "turns the bits of byte `at` of the answer's body",
    "stall": "sends nothing for `seconds` behind `at` bytes of the answer's body",
    "slow_headers": "the request takes effect, its answer starts after `seconds`",
    "slow_body": "sends `rate` bytes of the answer's body a second",
    "hang": "neither reads nor answers for `seconds`, then resets; no effect",
    "drop_answer": "the request takes effect, then the connection is reset",
    "late_commit": "the request takes effect after `seconds`, though the client may be gone",
}


@dataclass(frozen=True)
class Rule:
    """A fault and the requests it befalls.

    `method`, `key` and `operation` are patterns (`*`, `?`, `[...]`); an operation is named as S3
    does, for example `UploadPart`. Of the requests that match, it befalls `count` (None: all)
    from the `nth` on, the first being 1. Without `seconds` it waits until `Rules.release()`.
    """

    action: str
    method: str = "*"
    key: str = "*"
    operation: str = "*"
    nth: int = 1
    count: int | None = None
    status: int = 503
    code: str = "ServiceUnavailable"
    message: str = "This is a fault of the test."
    retry_after: float | None = None
    at: int | None = None
    seconds: float | None = None
    rate: int = 65536

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"unknown action {self.action!r}; there are {', '.join(ACTIONS)}")
        if self.action in ("cut", "corrupt", "stall") and (self.at is None or self.at < 0):
            raise ValueError(f"{self.action} needs the byte `at` which it happens")
        if self.nth < 1 or self.rate < 1:
            raise ValueError("`nth` and `rate` start at 1")

    def matches(self, method: str, key: str, operation: str) -> bool:
        """Whether a request is one of those that this rule counts."""
        return (
            fnmatchcase(method, self.method)
            and fnmatchcase(key, self.key)
            and fnmatchcase(operation, self.operation)
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Rule:
        """A rule from a JSON object. Raises ValueError for a field that there is not."""
        known = {field.name for field in fields(cls)}
        unknown = set(values) - known
        if unknown:
            raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}")
        if "action" not in values:
            raise ValueError("a rule needs an action")
        return cls(**values)


class Rules:
    """Rules in order: each counts the requests that reach it, the first that applies wins."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rules: list[Rule] = []
        self._seen: dict[int, int] = {}
        self._released = 0
        self._ended = False

    def add(self, action: str, **details: Any) -> Rule:
        """Add a rule behind the others; `details` are the fields of `Rule`."""
        return self.append(Rule(action, **details))

    def append(self, rule: Rule) -> Rule:
        """Add a rule behind the others."""
        with self._changed:
            self._rules.append(rule)
        return rule

    def replace(self, rules: list[Rule]) -> None:
        """Put these rules in the place of all others; counting starts anew."""
        with self._changed:
            self._rules = list(rules)
            self._seen.clear()

    def clear(self) -> None:
        """No faults from now on, and whoever waits goes on."""
        self.replace([])
        self.release()

    def release(self) -> None:
        """Let every request that has arrived go on now, without its `seconds`."""
        with self._changed:
            self._released += 1
            self._changed.notify_all()

    def end(self) -> None:
        """Nobody waits any more: the double closes."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def releases(self) -> int:
        """How often `release()` was called."""
        with self._changed:
            return self._released

    def take(self, method: str, key: str, operation: str) -> Rule | None:
        """The rule that befalls this request, if any; counts it."""
        with self._changed:
            for index, rule in enumerate(self._rules):
                if not rule.matches(method, key, operation):
                    continue
                seen = self._seen[index] = self._seen.get(index, 0) + 1
                if seen >= rule.nth and (rule.count is None or seen < rule.nth + rule.count):
                    return rule
        return None

    def wait(self, seconds: float | None, since: int) -> None:
        """Wait so long, or until there were more than `since` releases."""
        with self._changed:
            end = None if seconds is None else time.monotonic() + seconds
            while not self._ended and self._released <= since:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return
                self._changed.wait(left)

    def to_json(self) -> list[dict[str, Any]]:
        """All rules, as JSON objects that `Rule.from_json` takes."""
        with self._changed:
            return [asdict(rule) for rule in self._rules]
