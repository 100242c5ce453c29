"""Commands on pending work and upkeep: queue, flush, retry, stats, clean, fsck."""

from __future__ import annotations

from typing import Annotated

import typer

from cachestore.cli.output import (
    Exit,
    Json,
    err,
    out,
    rows,
    show_json,
    size,
    span,
    table,
    telling,
)
from cachestore.cli.rates import tables
from cachestore.cli.stores import opened
from cachestore.model import PendingItem
from cachestore.policy.rates import summary


def queue(context: typer.Context, as_json: Json = False) -> None:
    """List every operation that the bucket does not have yet."""
    with telling(as_json), opened(context) as store:
        items = store.pending()
        if not items and not as_json:
            out.print("nothing is pending")
            return
        rows(
            items,
            as_json,
            lambda: table("op", "state", "size", "age", "tries", "next", "key", "last error",
                          right=("size", "age", "tries", "next")),
            _pending,
        )  # fmt: skip


def _pending(item: PendingItem) -> tuple[str, ...]:
    due = "" if item.next_attempt is None else span(item.next_attempt)
    return (
        item.operation, item.state, size(item.size), span(item.age), str(item.tries), due,
        item.key or str(item.path), item.last_error or "",
    )  # fmt: skip


def flush(
    context: typer.Context,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = 300.0,
    as_json: Json = False,
) -> None:
    """Upload all that is due, now, and wait for it. Exit code 5 if something is left."""
    with telling(as_json), opened(context) as store:
        waiting = len(store.pending())
        with err.status(f"uploading {waiting} pending operations"):
            report = store.flush(timeout)
        if as_json:
            show_json(report)
        else:
            out.print(f"{report.uploaded} uploaded, {len(report.left)} left,"
                      f" {len(report.parked)} parked")  # fmt: skip
            if report.reason:
                err.print(report.reason)
        if not report.done or report.parked:
            raise typer.Exit(int(Exit.PENDING))


def retry(
    context: typer.Context,
    key: Annotated[str | None, typer.Argument(help="One key; all if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Make parked and waiting operations due now; `flush` then waits for them."""
    with telling(as_json), opened(context) as store:
        count = store.retry(key)
        if as_json:
            show_json({"due": count})
        else:
            out.print(f"{count} made due")


def stats(
    context: typer.Context,
    days: Annotated[int, typer.Option(min=1, help="Hit rates of so many days.")] = 7,
    as_json: Json = False,
) -> None:
    """Show the store as it is on disk, and the hit rates of the last days."""
    with telling(as_json), opened(context) as store:
        health, history = store.health(), store.history(days)
        if as_json:
            show_json({**health, "history": summary(history)})
            return
        cache, pending = health["cache"], health["pending"]
        made = table("", "")
        made.add_row("status", health["status"])
        made.add_row("mode", f"{health['mode']}: {health['reason']}")
        if health["remote"]:
            made.add_row("remote", health["remote"]["name"])
        made.add_row(
            "cache",
            f"{size(cache['bytes'])} of {size(cache['max_bytes'])} in {cache['entries']} copies,"
            f" {cache['pinned']} pinned",
        )
        made.add_row(
            "besides",
            f"{size(cache['transit'])} of {size(cache['transit_max_bytes'])} pass through,"
            f" {size(cache['arriving'])} arrive, {size(cache['other'])} leave,"
            f" {size(cache['bookkeeping'])} bookkeeping",
        )
        made.add_row("pending", f"{pending['count']} operations, {size(pending['bytes'])}")
        made.add_row("uploader", str(health["uploader"]["state"]))
        for name, folder in health["folders"].items():
            made.add_row(f"{name} folder", folder)
        for remote_id, count in health.get("foreign", {}).items():
            made.add_row("foreign", f"{count} operations wait for remote {remote_id}")
        for alert in health["alerts"]:
            made.add_row("alert", alert)
        out.print(made)
        for each in tables(history):
            out.print()
            out.print(each)


def clean(context: typer.Context, as_json: Json = False) -> None:
    """Remove what expired unused, and what crashes left; pending work is never touched."""
    with telling(as_json), opened(context) as store:
        with err.status("cleaning"):
            done = store.clean()
        if as_json:
            show_json(done)
            return
        made = table("removed", "", right=("removed",))
        for what, count in done.items():
            made.add_row(str(count), f"{what}: {_CLEANED[what]}")
        out.print(made)


_CLEANED = {
    "expired": "copies that nobody asked for",
    "evicted": "copies, for the limits",
    "freed": "copies, for the disk's free share",
    "condemned": "files that had left the cache and were in use until now",
    "orphaned": "files that looked like copies and were known to nobody",
    "unfinished": "what processes that died had begun",
    "files": "other files of ours that were left over",
    "bodies": "of the spool: what has no ticket went to quarantine",
    "unconfirmed": "uploads by URL that nobody confirmed in time",
}


def fsck(
    context: typer.Context,
    repair: Annotated[bool, typer.Option(help="Forget damaged copies; empty old quarantine.")]
    = False,
    deep: Annotated[bool, typer.Option(help="Hash every body and copy.")] = False,
    bucket: Annotated[bool, typer.Option(help="Compare copies with the bucket's listing.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Check tickets, bodies and copies. Exit code 1 if something was found."""
    with telling(as_json), opened(context) as store:
        with err.status("checking"):
            report = store.fsck(repair, deep=deep, bucket=bucket)
        if as_json:
            show_json(report)
        else:
            made = table("found", "where", "detail", "repaired")
            for each in report.findings:
                made.add_row(each.what, each.where, each.detail, each.repaired)
            if report.findings:
                out.print(made)
            seen = f", {report.objects} objects in the bucket" if bucket else ""
            out.print(f"{report.tickets} tickets and {report.copies} copies{seen} checked,"
                      f" {len(report.findings)} findings")  # fmt: skip
        if report.findings:
            raise typer.Exit(int(Exit.FAILED))


COMMANDS = (queue, flush, retry, stats, clean, fsck)
