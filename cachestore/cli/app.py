"""The commands, gathered."""

from __future__ import annotations

import logging
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated

import typer

from cachestore.cli import (
    dashboard,
    demo,
    doctor,
    files,
    flags,
    folders,
    lifecycle,
    prune,
    transfers,
    watcher,
    work,
)
from cachestore.cli.examples import example
from cachestore.cli.stores import log_to_stderr

app = typer.Typer(
    name="cachestore",
    help="Cache-first file storage: local disk in front, Cloudflare R2 or any S3 behind.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(version_of("cachestore-r2"))
        raise typer.Exit


@app.callback()
def _globals(
    context: typer.Context,
    env_file: Annotated[
        Path | None, typer.Option(help="Read settings from this file instead of .env.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    log_to_stderr(logging.INFO if verbose else logging.WARNING)
    context.obj = {} if env_file is None else {"env_file": str(env_file)}


MODULES = (
    demo, doctor, files, folders, watcher, transfers, prune, lifecycle, work, dashboard, flags,
)  # fmt: skip

for module in MODULES:
    for command in module.COMMANDS:
        app.command(epilog=example(command.__name__))(command)
