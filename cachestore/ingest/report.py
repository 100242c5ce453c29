"""What a sync tells: while it runs, and at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

What = Literal["planned", "uploaded", "exported", "copied", "skipped", "failed", "part"]


@dataclass(frozen=True, slots=True)
class SyncError:
    """A file that did not arrive. `path` is relative to the folder, `key` "" if it has none."""

    path: str
    key: str
    error: str


@dataclass(frozen=True, slots=True)
class Progress:
    """One step. `planned` comes first and counts what is skipped without a look at the bucket.

    `done` and `total` count files, `bytes_done` and `bytes_total` what is sent. `part`: more
    bytes of a large file are there. `size` in bytes; `error` only when it failed.
    """

    what: What
    path: str
    key: str
    size: int
    done: int
    total: int
    bytes_done: int
    bytes_total: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What became of a folder's files.

    `uploaded`, `skipped` (the storage has them already) and `failed` count files, sidecars too;
    `left` those that `limit`, an interruption or a remote that does not work kept back. `bytes`
    were sent, in `seconds`. With `dry_run` nothing was sent: `uploaded` and `bytes` say what would
    have been. `stopped`: why a run ended early, else "".
    """

    uploaded: int = 0
    skipped: int = 0
    failed: int = 0
    left: int = 0
    bytes: int = 0
    seconds: float = 0.0
    errors: tuple[SyncError, ...] = ()
    dry_run: bool = False
    stopped: str = ""

    @property
    def complete(self) -> bool:
        """True when the storage has every file that was asked for."""
        return not (self.failed or self.left or self.stopped or (self.dry_run and self.uploaded))


class SyncInterrupted(KeyboardInterrupt):
    """Ctrl-C: what arrived is remembered, the same call goes on from there."""

    def __init__(self, report: SyncReport) -> None:
        super().__init__("the sync was interrupted; the same call goes on where it stopped")
        self.report = report


class Interrupted(KeyboardInterrupt):
    """Ctrl-C: what arrived stays, the same call goes on from there. `report`: how far it came."""

    def __init__(self, report: ExportReport | MigrateReport) -> None:
        super().__init__("interrupted; the same call goes on where it stopped")
        self.report = report


@dataclass(frozen=True, slots=True)
class TransferError:
    """A key that did not arrive, and why. `path`: the file's, relative to its folder, or ""."""

    key: str
    path: str
    error: str


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What became of a prefix's keys.

    `exported`, `skipped` (the folder has them already) and `failed` count files; `left` those that
    an interruption, a full disk or a remote that does not work kept back; `gone` those that were
    deleted meanwhile. `bytes` were written, in `seconds`. With `dry_run` nothing was written.
    `stopped`: why a run ended early, else "".
    """

    exported: int = 0
    skipped: int = 0
    failed: int = 0
    left: int = 0
    gone: int = 0
    bytes: int = 0
    seconds: float = 0.0
    errors: tuple[TransferError, ...] = ()
    dry_run: bool = False
    stopped: str = ""

    @property
    def complete(self) -> bool:
        """True when the folder has every file that was asked for."""
        return not (self.failed or self.left or self.stopped or (self.dry_run and self.exported))


@dataclass(frozen=True, slots=True)
class MigrateReport:
    """What a migration did, and how both sides compare at its end.

    `copied`, `skipped` (there already) and `failed` count files; `left` those that an interruption
    or a remote that does not work kept back; `bytes` were copied, in `seconds`. `conflicts`: keys
    that hold something else in the target, which was not replaced; they count as failed.
    `ignored`: keys that do not take part, and why. `only_source` and `only_target`: orphans.
    `verified`: how many files are the same on both sides by size and digest, None if that was not
    asked for; `unproven`: those of them of which only the size could be compared. With `dry_run`
    nothing was copied. `stopped`: why a run ended early, else "".
    """

    copied: int = 0
    skipped: int = 0
    failed: int = 0
    left: int = 0
    bytes: int = 0
    seconds: float = 0.0
    errors: tuple[TransferError, ...] = ()
    conflicts: tuple[str, ...] = ()
    ignored: tuple[TransferError, ...] = ()
    only_source: tuple[str, ...] = ()
    only_target: tuple[str, ...] = ()
    verified: int | None = None
    unproven: tuple[str, ...] = ()
    dry_run: bool = False
    stopped: str = ""

    @property
    def complete(self) -> bool:
        """True when the target has all that the source has."""
        return not (self.failed or self.left or self.stopped or (self.dry_run and self.copied))
