"""How commands on many files tell what they do: a bar for people, JSON lines for machines."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from cachestore.cli.output import Exit, code_of, err
from cachestore.errors import CacheStoreError
from cachestore.ingest import Progress as Step

_SHOWN = 20

Tell = Callable[[Step], None]


def refuse(error: Exception, as_json: bool) -> NoReturn:
    """Nothing was begun: say why, and leave."""
    wrong = isinstance(error, ValueError) and not isinstance(error, CacheStoreError)
    code = Exit.USAGE if wrong else code_of(error)
    if as_json:
        line({"error": str(error), "type": type(error).__name__, "exit": int(code)})
    else:
        err.print("error:", style="red", end=" ")
        err.print(str(error))
    raise typer.Exit(int(code))


def end(report: Any, as_json: bool, code: Exit, say: Callable[[Any], None]) -> None:
    """The sums, by `say` or as the last line of JSON, and the exit code."""
    if as_json:
        sums = dataclasses.asdict(report) | {"complete": report.complete, "exit": int(code)}
        line(sums)
    else:
        say(report)
    if code is Exit.INTERRUPTED and not as_json:
        err.print("stopped; what arrived is remembered: the same command goes on from here")
    if code is not Exit.OK:
        raise typer.Exit(int(code))


def code_for(report: Any) -> Exit:
    """The exit code of a run that ended by itself."""
    if report.complete:
        return Exit.OK
    if report.stopped:
        return Exit.REMOTE
    if report.failed:
        return Exit.FAILED
    return Exit.PENDING


def say_errors(failed: Sequence[str], stopped: str) -> None:
    """The first of what failed, and why a run ended early."""
    for each in failed[:_SHOWN]:
        err.print(f"failed: {each}", style="red")
    if len(failed) > _SHOWN:
        err.print(f"... and {len(failed) - _SHOWN} more; --json lists all")
    if stopped and stopped != "interrupted":
        err.print(f"stopped: {stopped}", style="red")


def line(value: Any) -> None:
    """One JSON object on one line."""
    sys.stdout.write(json.dumps(value, default=str, ensure_ascii=False) + "\n")
    sys.stdout.flush()


@contextmanager
def telling_steps(as_json: bool, what: str) -> Iterator[Tell]:
    """JSON lines for machines, a bar for people at a terminal, nothing for anybody else."""
    if as_json:
        yield lines
    elif not err.is_terminal:
        yield lambda step: None
    else:
        columns = (
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            TextColumn("{task.fields[files]}"), TransferSpeedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=err, transient=True) as bar:
            task = bar.add_task(what, total=None, files="")

            def tell(step: Step) -> None:
                files = f"{step.done:,} of {step.total:,} files"
                # A byte for each file: empty ones are work, too.
                total, done = step.bytes_total + step.total, step.bytes_done + step.done
                bar.update(task, total=total, completed=done, files=files)

            yield tell


def lines(step: Step) -> None:
    """A step for machines."""
    if step.what == "part":
        return
    if step.what == "planned":
        line({"event": "planned", "files": step.total, "there": step.done,
              "bytes": step.bytes_total})  # fmt: skip
        return
    shown = {"event": step.what, "path": step.path, "key": step.key, "size": step.size}
    line(shown | ({"error": step.error} if step.error else {}))
