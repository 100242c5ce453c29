"""The dashboard of this folder's store, for who started it. Needs the extra `web`."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress
from typing import Annotated

import typer

from cachestore.cli.output import Exit, err, out, telling
from cachestore.cli.stores import opened

_HOSTS = ["127.0.0.1", "localhost"]


def dashboard(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="Port on this machine; 0: a free one.")] = 0,
) -> None:
    """Show the store in a browser, to nobody but you; Ctrl+C ends it."""
    try:
        import uvicorn

        from cachestore.web.dashboard import page_of
    except ModuleNotFoundError as error:
        err.print(f"The dashboard needs {error.name}: pip install 'cachestore-r2[cli,web]'")
        raise typer.Exit(int(Exit.USAGE)) from None
    with telling(False), opened(context) as store, _listening(port) as listener:
        # Other users of this machine can reach the port, but do not know the path.
        secret = secrets.token_urlsafe(16)
        app = page_of(store, f"/{secret}", _HOSTS)
        out.print(f"http://127.0.0.1:{listener.getsockname()[1]}/{secret}/dashboard")
        with suppress(KeyboardInterrupt):
            uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listener])


def _listening(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


COMMANDS = (dashboard,)
