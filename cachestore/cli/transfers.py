"""Commands that move whole prefixes, and files with their versions: export, migrate, backup."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from cachestore.cli.output import Exit, Json, err, out, show_json, size, span, telling
from cachestore.cli.progress import code_for, end, refuse, say_errors, telling_steps
from cachestore.cli.stores import opened, overrides
from cachestore.errors import CacheStoreError, ConfigError
from cachestore.ingest import ExportReport, Interrupted, MigrateReport, migrate_back
from cachestore.ingest import backup as backup_file
from cachestore.ingest import export as export_prefix
from cachestore.ingest import migrate as migrate_into
from cachestore.remote.base import RemoteStore
from cachestore.remote.directory import DirectoryRemote
from cachestore.remote.s3 import S3Remote
from cachestore.settings.other import other_remote

_SHOWN = 10

Lines = Annotated[bool, typer.Option("--json", help="A JSON object a line; the sums are the last.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Files at a time.")]
Patience = Annotated[float, typer.Option(help="Seconds to try a file that fails.")]


class Every(Enum):
    """How often a backup is made."""

    daily = "daily"
    weekly = "weekly"


def export(
    context: typer.Context,
    prefix: Annotated[str, typer.Argument(help="Keys that start so; '' for all.")],
    folder: Annotated[Path, typer.Argument(help="The folder that they are brought into.")],
    past_cache: Annotated[
        bool, typer.Option("--past-cache", help="Keep no copies in the cache.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read files that are there already, too.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that no export wrote.")
    ] = False,
    encode: Annotated[
        bool, typer.Option("--encode", help="Write keys that are no file names with %XX.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be written; write nothing.")
    ] = False,
    workers: Workers = None,
    patience: Patience = 60.0,
    as_json: Lines = False,
) -> None:
    """Bring a prefix into a folder. Exit code 0: the folder has everything."""
    what = "comparing" if dry_run else "exporting"
    try:
        with opened(context) as store, telling_steps(as_json, what) as tell:
            report = export_prefix(
                store, prefix, folder, past_cache=past_cache, verify=verify, overwrite=overwrite,
                encode=encode, dry_run=dry_run, workers=workers, patience=patience, progress=tell,
            )  # fmt: skip
    except Interrupted as error:
        end(error.report, as_json, Exit.INTERRUPTED, _say_export)
    except (CacheStoreError, ValueError, OSError) as error:
        refuse(error, as_json)
    else:
        end(report, as_json, code_for(report), _say_export)


def _say_export(report: ExportReport) -> None:
    say_errors([f"{each.key!a}: {each.error}" for each in report.errors], report.stopped)
    written = "would be written" if report.dry_run else "written"
    left = f", {report.left} left" if report.left else ""
    out.print(
        f"{report.exported} {written} ({size(report.bytes)}), {report.skipped} there already,"
        f" {report.failed} failed{left}, in {span(report.seconds)}"
    )


def migrate(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Argument(help="A folder; LOCAL_DIR if nothing is named.")
    ] = None,
    from_bucket: Annotated[
        str | None, typer.Option(help="Copy from this bucket; FROM_R2_... say how to reach it.")
    ] = None,
    from_endpoint: Annotated[str | None, typer.Option(help="Its endpoint.")] = None,
    from_env: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="Its variables begin so, not with FROM_.")
    ] = None,
    from_mock: Annotated[
        Path | None, typer.Option(help="Copy from a folder that stood in for a bucket.")
    ] = None,
    back: Annotated[
        bool, typer.Option("--back", help="From the bucket into the folder, or LOCAL_DIR.")
    ] = False,
    prefix: Annotated[str, typer.Option(help="Only keys that start so.")] = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every file at the end, by its digest.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there and differs.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be copied; copy nothing.")
    ] = False,
    workers: Workers = None,
    patience: Patience = 60.0,
    as_json: Lines = False,
) -> None:
    """Bring a folder or another bucket into the bucket, or back. Exit code 0: all is there."""
    asked: dict[str, Any] = {
        "prefix": prefix, "verify": verify, "overwrite": overwrite, "dry_run": dry_run,
        "workers": workers, "patience": patience,
    }  # fmt: skip
    try:
        elsewhere = _elsewhere(context, from_bucket, from_endpoint, from_env, from_mock)
        report = _migrated(context, folder, elsewhere, asked, back=back, as_json=as_json)
    except Interrupted as error:
        end(error.report, as_json, Exit.INTERRUPTED, _say_migration)
    except (CacheStoreError, ValueError, OSError) as error:
        refuse(error, as_json)
    else:
        end(report, as_json, code_for(report), _say_migration)


def _migrated(
    context: typer.Context, folder: Path | None, elsewhere: RemoteStore | None,
    asked: dict[str, Any], *, back: bool, as_json: bool,
) -> MigrateReport:  # fmt: skip
    if elsewhere is not None and (back or folder is not None):
        raise ValueError("name one source: a folder, or another bucket; --back has its own")
    what = "comparing" if asked["dry_run"] else "migrating"
    with opened(context) as store, telling_steps(as_json, what) as tell:
        if back:
            return migrate_back(store, folder, progress=tell, **asked)
        try:
            return migrate_into(store, elsewhere or folder, progress=tell, **asked)
        finally:
            if elsewhere is not None:
                elsewhere.close()


def _elsewhere(
    context: typer.Context, bucket: str | None, endpoint: str | None, env: str | None,
    mock: Path | None,
) -> RemoteStore | None:  # fmt: skip
    """The other bucket, if one is named."""
    if mock is not None:
        if not mock.is_dir():
            raise ConfigError(f"{mock} is not a folder")
        return DirectoryRemote(mock)
    if bucket is None and endpoint is None and env is None:
        return None
    options = other_remote(
        env or "FROM_", bucket=bucket, endpoint=endpoint,
        env_file=overrides(context).get("env_file"),
    )  # fmt: skip
    return S3Remote(options)


def _say_migration(report: MigrateReport) -> None:
    say_errors([f"{each.path!a}: {each.error}" for each in report.errors], report.stopped)
    for what, keys in (("source", report.only_source), ("target", report.only_target)):
        for key in keys[:_SHOWN]:
            err.print(f"only in the {what}: {key!a}")
        if len(keys) > _SHOWN:
            err.print(f"... and {len(keys) - _SHOWN} more; --json lists all")
    copied = "would be copied" if report.dry_run else "copied"
    left = f", {report.left} left" if report.left else ""
    proven = "" if report.verified is None else f", {report.verified} verified"
    if report.unproven:
        proven += f" ({len(report.unproven)} by their size only)"
    out.print(
        f"{report.copied} {copied} ({size(report.bytes)}), {report.skipped} there already,"
        f" {report.failed} failed{left}{proven}; {len(report.only_source)} only in the source,"
        f" {len(report.only_target)} only in the target, in {span(report.seconds)}"
    )


def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="An SQLite database, or any file.")],
    prefix: Annotated[str, typer.Option(help="What the keys begin with.")] = "backups",
    keep: Annotated[int, typer.Option(min=0, help="So many stay; 0 for all.")] = 8,
    every: Annotated[
        Every | None, typer.Option(help="Do nothing while the last one is younger.")
    ] = None,
    drain: Annotated[float, typer.Option(help="Seconds to wait for the upload.")] = 60.0,
    patience: Annotated[
        float, typer.Option(help="Seconds to try a locked or changing file.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Store a consistent copy under a timestamped key, and keep the newest."""
    with telling(as_json), opened(context) as store, err.status(f"copying {file.name}"):
        report = backup_file(
            store, file, prefix=prefix, keep=keep or None, wait=drain, patience=patience,
            every=None if every is None else every.value,
        )  # fmt: skip
    if as_json:
        show_json(report)
    else:
        kind = "pending" if report.pending else report.state
        out.print(f"{report.key}  {size(report.size)}  {kind}")
        for key in report.pruned:
            out.print(f"pruned {key}")
        if report.problem:
            err.print(report.problem)
    if report.pending:
        if not as_json:
            err.print("durable here; the upload goes on with: cachestore flush")
        raise typer.Exit(int(Exit.PENDING))


COMMANDS = (export, migrate, backup)
