"""Commands on folders: sync."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cachestore.cli.output import Exit, out, size, span
from cachestore.cli.progress import code_for, end, refuse, say_errors, telling_steps
from cachestore.cli.stores import opened
from cachestore.errors import CacheStoreError
from cachestore.ingest import SyncInterrupted, SyncReport
from cachestore.ingest import sync as sync_folder
from cachestore.settings.units import parse_seconds

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
    what = "comparing" if dry_run else "uploading"
    try:
        with opened(context) as store, telling_steps(as_json, what) as tell:
            report = sync_folder(
                store, folder, prefix=prefix, template=key, limit=limit,
                since=None if since is None else parse_seconds(since),
                include=include or (), exclude=exclude or (), time_pattern=time_pattern,
                time_field=time_field, timezone=timezone, sidecars=sidecars,
                write_sidecar=sidecar_template.read_text("utf-8") if sidecar_template else None,
                check=check, dry_run=dry_run, workers=workers, patience=patience, progress=tell,
            )  # fmt: skip
    except SyncInterrupted as error:
        end(error.report, as_json, Exit.INTERRUPTED, _say)
    except (CacheStoreError, ValueError, OSError) as error:
        refuse(error, as_json)
    else:
        end(report, as_json, code_for(report), _say)


def _say(report: SyncReport) -> None:
    say_errors([f"{each.path}: {each.error}" for each in report.errors], report.stopped)
    sent = "would be uploaded" if report.dry_run else "uploaded"
    left = f", {report.left} left" if report.left else ""
    out.print(
        f"{report.uploaded} {sent} ({size(report.bytes)}), {report.skipped} there already,"
        f" {report.failed} failed{left}, in {span(report.seconds)}"
    )


COMMANDS = (sync,)
