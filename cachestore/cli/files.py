"""Commands on files: put, get, cat, ls, stat, rm, url."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import wrap_file

from cachestore.cli.output import Json, err, fail, out, rows, show_json, size, table, telling
from cachestore.cli.stores import opened
from cachestore.errors import NotFound, TimedOut
from cachestore.model import ObjectInfo, Prefix
from cachestore.receipts import Receipt

Key = Annotated[str, typer.Argument(help="The key: a relative path such as songs/a.wav.")]
_BIG = 256_000_000


def put(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="The file to store; - for standard input.")],
    key: Annotated[str | None, typer.Argument(help="Its key; the file's name if left out.")] = None,
    content_type: Annotated[str | None, typer.Option(help="By the key's name if left out.")] = None,
    meta: Annotated[list[str] | None, typer.Option(help="Metadata as NAME=VALUE.")] = None,
    cache_control: Annotated[str | None, typer.Option(help="Cache-Control for browsers.")] = None,
    wait: Annotated[bool, typer.Option(help="Return when the bucket has it.")] = False,
    drain: Annotated[float, typer.Option(help="Seconds to wait for the upload.")] = 5.0,
    as_json: Json = False,
) -> None:
    """Store a file: durable here at once, in the bucket soon."""
    with telling(as_json), opened(context) as store:
        receipt = _put(
            store, source, key, content_type=content_type, metadata=_metadata(meta or []),
            cache_control=cache_control, durability="remote" if wait else "spooled",
        )  # fmt: skip
        state = _state(receipt, drain)
        if as_json:
            show_json({"key": receipt.key, "id": receipt.id, "size": receipt.size,
                       "sha256": receipt.sha256, "state": state})  # fmt: skip
            return
        out.print(f"{receipt.key}  {size(receipt.size)}  {state}")
        if state == "pending":
            err.print(
                "durable here; the upload goes on with the next command, or: cachestore flush"
            )


def _put(store: Any, source: Path, key: str | None, **given: Any) -> Receipt:
    if str(source) == "-":
        if key is None:
            raise ValueError("standard input has no name: give a key")
        made: Receipt = store.put(key, sys.stdin.buffer, **given)
        return made
    if source.is_file() and source.stat().st_size > _BIG:
        with source.open("rb") as raw:
            total = source.stat().st_size
            with wrap_file(raw, total=total, description=source.name, console=err) as shown:
                made = store.put(key or source.name, shown, **given)
                return made
    made = store.put(key or source.name, source, **given)
    return made


def _metadata(entries: list[str]) -> dict[str, str]:
    found = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals:
            raise ValueError(f"--meta {entry!r}: write NAME=VALUE")
        found[name] = value
    return found


def _state(receipt: Receipt, drain: float) -> str:
    try:
        return receipt.wait(drain)
    except TimedOut:
        return "pending"


def get(
    context: typer.Context,
    key: Key,
    destination: Annotated[Path | None, typer.Argument(help="Copy it there.")] = None,
    max_age: Annotated[float | None, typer.Option(help="Seconds since it was validated.")] = None,
    as_json: Json = False,
) -> None:
    """Print the path of the newest version's file here, or copy it to a place of yours."""
    with telling(as_json), opened(context) as store:
        with err.status(f"reading {key}"):
            if destination is None:
                path = store.get(key, max_age=max_age)
            else:
                if destination.is_dir():
                    destination = destination / key.rsplit("/", 1)[-1]
                path = store.download(key, destination)
        if as_json:
            show_json({"key": key, "path": path, "size": path.stat().st_size})
        else:
            out.print(str(path))


def cat(context: typer.Context, key: Key) -> None:
    """Write a file's bytes to standard output."""
    with telling(False), opened(context) as store, store.open(key) as file:
        shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
        sys.stdout.buffer.flush()


def ls(
    context: typer.Context,
    prefix: Annotated[str, typer.Argument(help="Keys that start so; all if left out.")] = "",
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Every key, not one level.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List keys: what is in the bucket, with what is pending here laid over it."""
    with telling(as_json), opened(context) as store:
        found = list(store.list(prefix, delimiter=None if recursive else "/"))
        rows(
            found,
            as_json,
            lambda: table("size", "modified", "where", "key", right=("size",)),
            _listed,
        )


def _listed(item: ObjectInfo | Prefix) -> tuple[str, str, str, str]:
    if isinstance(item, Prefix):
        return "", "", "", item.key
    modified = item.last_modified.astimezone().strftime("%Y-%m-%d %H:%M")
    return size(item.size), modified, item.storage, item.key


def stat(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Show what is known of a key."""
    with telling(as_json), opened(context) as store:
        info = store.head(key)
        if as_json:
            show_json(info)
            return
        made = table("", "")
        for name in ("key", "size", "content_type", "storage", "last_modified", "etag", "sha256",
                     "cache_control"):  # fmt: skip
            made.add_row(name.replace("_", " "), str(getattr(info, name) or "-"))
        for name, value in info.metadata.items():
            made.add_row(f"meta {name}", value)
        out.print(made)


def rm(
    context: typer.Context,
    keys: Annotated[list[str], typer.Argument(help="Keys, or with -r prefixes.")],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Everything below each prefix.")
    ] = False,
    drain: Annotated[float, typer.Option(help="Seconds to wait for the bucket.")] = 5.0,
    as_json: Json = False,
) -> None:
    """Delete keys: gone here at once, in the bucket soon."""
    with telling(as_json), opened(context, drain) as store:
        if recursive:
            gone = sum(store.delete_prefix(prefix) for prefix in keys)
        else:
            missing = [key for key in keys if not store.exists(key)]
            if missing:
                fail(NotFound(f"no such key: {', '.join(map(repr, missing))}"), as_json)
            for key in keys:
                store.delete(key)
            gone = len(keys)
        if as_json:
            show_json({"deleted": gone})
        else:
            out.print(f"{gone} deleted")


def url(
    context: typer.Context,
    key: Key,
    expires: Annotated[int, typer.Option(help="Seconds that a presigned URL is valid.")] = 3600,
    presign: Annotated[bool, typer.Option(help="Presign, even with a public URL.")] = False,
    as_json: Json = False,
) -> None:
    """Print a URL of a key: the bucket's public one, else a presigned one."""
    with telling(as_json), opened(context) as store:
        public = store.options.remote is not None and store.options.remote.public_url
        made = store.url(key) if public and not presign else store.presign_get(key, expires)
        if as_json:
            show_json({"key": key, "url": made})
        else:
            out.print(made)


COMMANDS = (put, get, cat, ls, stat, rm, url)
