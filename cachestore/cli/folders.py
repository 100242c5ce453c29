"""Commands on folders: sync."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from cachestore.cli.output import Exit, code_of, err, out, size, span
from cachestore.cli.stores import opened
from cachestore.errors import CacheStoreError
from cachestore.ingest import Progress as Step
from cachestore.ingest import SyncInterrupted, SyncReport
from cachestore.ingest import sync as sync_folder
from cachestore.settings.units import parse_seconds

_SHOWN = 20

Tell = Callable[[Step], None]


Text = str | None
Since = Annotated[Text, typer.Option(help="Only files modified in the last 24h, 30m, 7d ...")]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Send at most so many files, the oldest first.")
]
Include = Annotated[list[str] | None, typer.Option(help="Only names or paths like this: '*.jpg'.")]
Exclude = Annotated[list[str] | None, typer.Option(help="None like this: '*.tmp', 'drafts/'.")]
KeyOption = Annotated[
    str, typer.Option(metavar="TEMPLATE", help="How keys are made; fields: docs/sync.md.")
]
TimePattern = Annotated[Text, typer.Option(help="Where the time is in a name: '%Y%m%d_%H%M%S'.")]
TimeField = Annotated[str, typer.Option(help="Which field of a sidecar holds it.")]
Zone = Annotated[Text, typer.Option(help="Its zone, as Europe/Berlin; UTC if left out.")]
Sidecars = Annotated[bool, typer.Option(help="x.json goes with x.jpg, behind it.")]
SidecarTemplate = Annotated[
    Path | None, typer.Option(help="A JSON file: the sidecar of files that have none.")
]
Check = Annotated[
    bool, typer.Option("--check", help="Ask the bucket for files that were sent before, too.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be sent; send nothing.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Files at a time.")]
Patience = Annotated[float, typer.Option(help="Seconds to try a file that fails.")]
JsonLines = Annotated[
    bool, typer.Option("--json", help="A JSON object a line; the sums are the last.")
]


def sync(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The folder whose files are taken.")],
    prefix: Annotated[str, typer.Option(help="What every key begins with.")] = "",
    since: Since = None,
    limit: Limit = None,
    include: Include = None,
    exclude: Exclude = None,
    key: KeyOption = "{path}",
    time_pattern: TimePattern = None,
    time_field: TimeField = "timestamp",
    timezone: Zone = None,
    sidecars: Sidecars = True,
    sidecar_template: SidecarTemplate = None,
    check: Check = False,
    dry_run: DryRun = False,
    workers: Workers = None,
    patience: Patience = 60.0,
    as_json: JsonLines = False,
) -> None:
    """Upload what is new or changed in a folder. Exit code 0: the bucket has everything."""
    try:
        with opened(context) as store, _telling(as_json, dry_run) as tell:
            report = sync_folder(
                store, folder, prefix=prefix, template=key, limit=limit,
                since=None if since is None else parse_seconds(since),
                include=include or (), exclude=exclude or (), time_pattern=time_pattern,
                time_field=time_field, timezone=timezone, sidecars=sidecars,
                write_sidecar=sidecar_template.read_text("utf-8") if sidecar_template else None,
                check=check, dry_run=dry_run, workers=workers, patience=patience, progress=tell,
            )  # fmt: skip
    except SyncInterrupted as error:
        _end(error.report, as_json, Exit.INTERRUPTED)
    except (CacheStoreError, ValueError, OSError) as error:
        _refuse(error, as_json)
    else:
        _end(report, as_json, _code(report))


def _code(report: SyncReport) -> Exit:
    if report.complete:
        return Exit.OK
    if report.stopped:
        return Exit.REMOTE
    if report.failed:
        return Exit.FAILED
    return Exit.PENDING


def _refuse(error: Exception, as_json: bool) -> None:
    """Nothing was begun."""
    wrong = isinstance(error, ValueError) and not isinstance(error, CacheStoreError)
    code = Exit.USAGE if wrong else code_of(error)
    if as_json:
        _line({"error": str(error), "type": type(error).__name__, "exit": int(code)})
    else:
        err.print("error:", style="red", end=" ")
        err.print(str(error))
    raise typer.Exit(int(code))


def _end(report: SyncReport, as_json: bool, code: Exit) -> None:
    """The sums, and the exit code."""
    if as_json:
        sums = dataclasses.asdict(report) | {"complete": report.complete, "exit": int(code)}
        _line(sums)
    else:
        _say(report)
    if code is Exit.INTERRUPTED and not as_json:
        err.print("stopped; what arrived is remembered: the same command goes on from here")
    if code is not Exit.OK:
        raise typer.Exit(int(code))


def _say(report: SyncReport) -> None:
    for each in report.errors[:_SHOWN]:
        err.print(f"failed: {each.path}: {each.error}", style="red")
    if len(report.errors) > _SHOWN:
        err.print(f"... and {len(report.errors) - _SHOWN} more; --json lists all")
    if report.stopped and report.stopped != "interrupted":
        err.print(f"stopped: {report.stopped}", style="red")
    sent = "would be uploaded" if report.dry_run else "uploaded"
    left = f", {report.left} left" if report.left else ""
    out.print(
        f"{report.uploaded} {sent} ({size(report.bytes)}), {report.skipped} there already,"
        f" {report.failed} failed{left}, in {span(report.seconds)}"
    )


def _line(value: Any) -> None:
    """One JSON object on one line."""
    sys.stdout.write(json.dumps(value, default=str, ensure_ascii=False) + "\n")
    sys.stdout.flush()


@contextmanager
def _telling(as_json: bool, dry_run: bool) -> Iterator[Tell]:
    """JSON lines for machines, a bar for people at a terminal, nothing for anybody else."""
    if as_json:
        yield _lines
    elif not err.is_terminal:
        yield lambda step: None
    else:
        columns = (
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            TextColumn("{task.fields[files]}"), TransferSpeedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=err, transient=True) as bar:
            task = bar.add_task("comparing" if dry_run else "uploading", total=None, files="")

            def tell(step: Step) -> None:
                files = f"{step.done:,} of {step.total:,} files"
                # A byte for each file: empty ones are work, too.
                total, done = step.bytes_total + step.total, step.bytes_done + step.done
                bar.update(task, total=total, completed=done, files=files)

            yield tell


def _lines(step: Step) -> None:
    if step.what == "part":
        return
    if step.what == "planned":
        _line({"event": "planned", "files": step.total, "there": step.done,
               "bytes": step.bytes_total})  # fmt: skip
        return
    line = {"event": step.what, "path": step.path, "key": step.key, "size": step.size}
    _line(line | ({"error": step.error} if step.error else {}))


COMMANDS = (sync,)
