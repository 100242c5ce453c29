"""The command `prune`: what is old leaves the storage."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cachestore.cli.output import Exit, code_of, err, fail, out, seconds_of, size, span
from cachestore.cli.stores import opened
from cachestore.errors import CacheStoreError
from cachestore.ingest import PruneInterrupted, PruneReport, PruneStep
from cachestore.ingest import prune as prune_prefix
from cachestore.store import CacheStore

_KEPT = {
    "prefix": "under a prefix that is kept",
    "pending": "not in the bucket yet",
    "pinned": "pinned",
    "spared": "chosen to stay",
    "labelled": "labelled",
    "changed": "changed meanwhile",
    "unknown": "labels could not be read",
    "file": "sidecars of files that stay",
}


def prune(
    context: typer.Context,
    prefix: Annotated[str, typer.Argument(help="Keys that start so; '' needs --everything.")],
    older_than: Annotated[str, typer.Option(help="Only what is older than 30d, 12h, 90m ...")],
    keep_tagged: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=VALUE]", help="Metadata that keeps an object, besides 'keep'."),
    ] = None,
    keep_prefix: Annotated[
        list[str] | None, typer.Option(help="What starts so stays, without a request.")
    ] = None,
    labels: Annotated[bool, typer.Option(help="Ask for labels: a HEAD for each old one.")] = True,
    time_pattern: Annotated[
        str | None, typer.Option(help="Where the time is in a name: '%Y%m%d_%H%M%S'.")
    ] = None,
    time_field: Annotated[
        str | None, typer.Option(help="Which field of a sidecar holds it; each is read.")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Its zone, as Europe/Berlin; UTC if left out.")
    ] = None,
    everything: Annotated[bool, typer.Option("--everything", help="Mean an empty prefix.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go; delete nothing.")
    ] = False,
    drain: Annotated[float, typer.Option(help="Seconds to wait for the bucket.")] = 60.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON object a line; the sums are the last.")
    ] = False,
) -> None:
    """Delete what is old under a prefix, but nothing pinned, pending or labelled."""
    code, left = Exit.OK, 0
    with _telling_errors(as_json), opened(context) as store:
        age = seconds_of("--older-than", older_than)
        try:
            with _telling(as_json, dry_run) as tell:
                report = prune_prefix(
                    store, prefix, older_than=age, keep=keep_tagged or (),
                    keep_prefixes=keep_prefix or (), labels=labels, time_pattern=time_pattern,
                    time_field=time_field, timezone=timezone, everything=everything,
                    dry_run=dry_run, progress=tell,
                )  # fmt: skip
            left = _drain(store, prefix, report, drain)
        except PruneInterrupted as error:
            report, code = error.report, Exit.INTERRUPTED
        if code is Exit.OK:
            code = _code(report, left)
        _end(report, left, as_json, code)


def _drain(store: CacheStore, prefix: str, report: PruneReport, seconds: float) -> int:
    """Wait for the bucket; how many deletes it does not have yet."""
    if report.dry_run or not report.deleted or store.core.remote is None:
        return 0
    with err.status("deleting in the bucket"):
        left = store.flush(seconds).left
    return sum(each.operation == "delete" and each.key.startswith(prefix) for each in left)


def _code(report: PruneReport, left: int) -> Exit:
    if report.stopped:
        return Exit.REMOTE
    if not report.complete:
        return Exit.FAILED
    return Exit.PENDING if left else Exit.OK


def _end(report: PruneReport, left: int, as_json: bool, code: Exit) -> None:
    """The sums, and the exit code."""
    if as_json:
        _line(dataclasses.asdict(report) | {"pending": left, "exit": int(code)})
    else:
        for reason, count in report.kept.items():
            out.print(f"{count} kept: {_KEPT[reason]}")
        if report.stopped and code is not Exit.INTERRUPTED:
            err.print(f"stopped: {report.stopped}", style="red")
        gone = "would be deleted" if report.dry_run else "deleted"
        out.print(
            f"{report.deleted} {gone} ({size(report.bytes)}) of {report.old} old ones among"
            f" {report.listed}, in {span(report.seconds)}"
        )
        if left:
            err.print(f"{left} are gone here and still in the bucket; later: cachestore flush")
        if code is Exit.INTERRUPTED:
            err.print("stopped; the same command goes on from here")
    if code is not Exit.OK:
        raise typer.Exit(int(code))


@contextmanager
def _telling_errors(as_json: bool) -> Iterator[None]:
    """Like everywhere, but JSON on one line."""
    try:
        yield
    except (CacheStoreError, ValueError, OSError) as error:
        if not as_json:
            fail(error, False)
        code = int(code_of(error))
        _line({"error": str(error), "type": type(error).__name__, "exit": code})
        raise typer.Exit(code) from None


def _line(value: Any) -> None:
    """One JSON object on one line."""
    sys.stdout.write(json.dumps(value, default=str, ensure_ascii=False) + "\n")
    sys.stdout.flush()


@contextmanager
def _telling(as_json: bool, dry_run: bool) -> Iterator[Callable[[PruneStep], None]]:
    """JSON lines for machines, a bar for people; a dry run names what would go."""
    if as_json:
        yield _lines
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    # Where there is no terminal the bar is not drawn.
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("listing", total=None)

        def tell(step: PruneStep) -> None:
            if step.what == "deleted" and dry_run:
                out.print(f"would delete {step.key} ({size(step.size)})")
            if step.what in ("looked", "deleted"):
                what = "asking for labels" if step.what == "looked" else "deleting"
                bar.update(task, description=what, completed=step.done, total=step.total)

        yield tell


def _lines(step: PruneStep) -> None:
    if step.what == "listed":
        _line({"event": "listed", "objects": step.done, "old": step.total})
    elif step.what != "looked":
        line = {"event": step.what, "key": step.key, "size": step.size}
        _line(line | ({"reason": step.reason} if step.reason else {}))


COMMANDS = (prune,)
