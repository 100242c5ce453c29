"""What a pruning tells: while it runs, and at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Reason = Literal["prefix", "pending", "pinned", "spared", "labelled", "changed", "unknown", "file"]
What = Literal["listed", "looked", "kept", "deleted"]


@dataclass(frozen=True, slots=True)
class PruneStep:
    """One step. `listed`: so many objects are there and `total` of them are old.

    `looked`: labels were asked for. `kept`: an old one stays, `reason` says why. `deleted` (or
    would be, in a dry run). `done` and `total` count objects of this kind of step; `size` in bytes.
    """

    what: What
    key: str
    size: int
    done: int
    total: int
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What became of a prefix. Numbers of objects, and bytes.

    `listed` are there, `old` of them old enough; `deleted` of these went (would go, in a dry run)
    with `bytes`, `kept` says how many stayed for which reason: `prefix` (of `keep_prefixes`),
    `pending`, `pinned`, `spared` (by the caller's choice), `labelled`, `changed` (meanwhile),
    `unknown` (labels could not be read), `file` (a sidecar whose file stays). `looks`: requests
    made for labels and times. `stopped`: why it ended early, else "".
    """

    listed: int = 0
    old: int = 0
    deleted: int = 0
    bytes: int = 0
    kept: Mapping[Reason, int] = field(default_factory=dict)
    looks: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    stopped: str = ""

    @property
    def complete(self) -> bool:
        """True when labels of all that is old could be asked for."""
        return not (self.stopped or self.kept.get("unknown"))


class PruneInterrupted(KeyboardInterrupt):
    """Ctrl-C: what was deleted until then is in the report; the same call goes on from there."""

    def __init__(self, report: PruneReport) -> None:
        super().__init__("the pruning was interrupted; the same call goes on")
        self.report = report
