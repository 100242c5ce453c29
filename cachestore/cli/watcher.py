"""`cachestore watch`: a folder is followed until somebody stops it."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.live import Live

from cachestore.cli.folders import (
    Exclude,
    Include,
    JsonLines,
    KeyOption,
    Patience,
    Sidecars,
    SidecarTemplate,
    Text,
    TimeField,
    TimePattern,
    Workers,
    Zone,
)
from cachestore.cli.output import Exit, err, out, size
from cachestore.cli.progress import line as write_line
from cachestore.cli.progress import lines, refuse
from cachestore.cli.stores import opened
from cachestore.errors import CacheStoreError
from cachestore.ingest import Progress, SyncReport, Watcher, WatchStatus
from cachestore.ingest import watch as watch_folder
from cachestore.settings.units import parse_seconds

_LOOK = 1.0
_SHOWN = 20


def watch(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The folder whose files are taken.")],
    prefix: Annotated[str, typer.Option(help="What every key begins with.")] = "",
    every: Annotated[
        str, typer.Option(help="Sync everything so often, whatever was heard; `none`: never.")
    ] = "15m",
    settle: Annotated[
        str, typer.Option(help="For so long a file must not change that nobody was heard to close.")
    ] = "2s",
    ingest_hours: Annotated[
        Text, typer.Option(metavar="20:00-06:00", help="Only files whose own time is in these.")
    ] = None,
    upload_hours: Annotated[
        Text, typer.Option(metavar="20:00-06:00", help="When they are sent.")
    ] = None,
    include: Include = None,
    exclude: Exclude = None,
    key: KeyOption = "{path}",
    time_pattern: TimePattern = None,
    time_field: TimeField = "timestamp",
    timezone: Zone = None,
    sidecars: Sidecars = True,
    sidecar_template: SidecarTemplate = None,
    workers: Workers = None,
    patience: Patience = 60.0,
    as_json: JsonLines = False,
) -> None:
    """Upload a folder's files as they appear, each when it is whole, until Ctrl-C."""
    try:
        with opened(context) as store, _told() as stop:
            watcher = watch_folder(
                store, folder, prefix=prefix, template=key, settle=parse_seconds(settle),
                every=None if every == "none" else parse_seconds(every),
                ingest_hours=ingest_hours, upload_hours=upload_hours,
                include=include or (), exclude=exclude or (), time_pattern=time_pattern,
                time_field=time_field, timezone=timezone, sidecars=sidecars,
                write_sidecar=sidecar_template.read_text("utf-8") if sidecar_template else None,
                workers=workers, patience=patience,
                progress=_steps if as_json else _failures,
                reported=None if as_json or err.is_terminal else _say,
            )  # fmt: skip
            try:
                _follow(watcher, stop, as_json)
            finally:
                watcher.close()
            _end(watcher.status(), as_json)
    except (CacheStoreError, ValueError, OSError) as error:
        refuse(error, as_json)


@contextmanager
def _told() -> Iterator[threading.Event]:
    """Set by Ctrl-C, or by whoever ends services; a second Ctrl-C does not wait."""
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {which: signal.signal(which, end) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


def _follow(watcher: Watcher, stop: threading.Event, as_json: bool) -> None:
    """Until it is told to stop: one line that changes at a terminal, or lines."""
    if as_json:
        write_line({"event": "watching", **_plain(watcher.status())})
    elif not err.is_terminal:
        err.print(f"watching {watcher.status().folder}")
    live = not as_json and err.is_terminal
    with Live("", console=err, auto_refresh=False, transient=True) if live else nullcontext() as at:
        while not stop.wait(_LOOK):
            if at is not None:
                at.update(_line(watcher.status()), refresh=True)


def _line(status: WatchStatus) -> str:
    """What it does, in one line."""
    parts = [f"{status.current_time:%H:%M:%S} {status.folder}: {status.uploaded:,} uploaded"]
    if status.failed:
        parts.append(f"{status.failed:,} failed")
    if status.waiting:
        parts.append(f"{len(status.waiting):,} waiting")
    if not status.is_active_hours:
        parts.append("outside of the active hours")
    return ", ".join(parts) + (f" ({status.problem})" if status.problem else "")


def _steps(step: Progress) -> None:
    if step.what != "planned":  # of each of many small syncs
        lines(step)


def _failures(step: Progress) -> None:
    if step.what == "failed":
        err.print(f"failed: {step.path}: {step.error}", style="red")


def _say(report: SyncReport) -> None:
    failed = f", {report.failed} failed" if report.failed else ""
    stopped = f"; stopped: {report.stopped}" if report.stopped else ""
    err.print(f"{report.uploaded} uploaded ({size(report.bytes)}){failed}{stopped}")


def _end(status: WatchStatus, as_json: bool) -> None:
    """What is left, and the exit code."""
    code = Exit.PENDING if status.waiting else Exit.OK
    if as_json:
        write_line({"event": "stopped", **_plain(status), "exit": int(code)})
    else:
        for path in status.waiting[:_SHOWN]:
            err.print(f"left: {path}")
        left = f", {len(status.waiting)} left: the same command goes on" if status.waiting else ""
        out.print(f"{status.uploaded} uploaded, {status.failed} failed{left}")
    if code is not Exit.OK:
        raise typer.Exit(int(code))


def _plain(status: WatchStatus) -> dict[str, object]:
    made = dataclasses.asdict(status)
    times = {"last_sync_at": status.last_sync_at, "current_time": status.current_time}
    return made | {name: time and time.isoformat() for name, time in times.items()}


COMMANDS = (watch,)
