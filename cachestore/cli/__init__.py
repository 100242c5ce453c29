"""The command line: `cachestore`. Needs the extra `cli` (typer and rich)."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; exits with a code that docs/cli.md explains."""
    try:
        from cachestore.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        print("The command line needs: pip install 'cachestore-r2[cli]'", file=sys.stderr)
        sys.exit(2)
    app()
