"""Which remote was used last: local mode without remote settings belongs to it."""

from __future__ import annotations

import json
import os
from pathlib import Path


def remember_remote(spool_dir: Path, remote_id: str, name: str) -> None:
    """Note the last remote used, for local mode without remote settings."""
    path = spool_dir / "last_remote.json"
    text = json.dumps({"id": remote_id, "name": name})
    if path.exists() and path.read_text() == text:
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def last_remote(spool_dir: Path) -> str:
    """The last remote's id, "" if none was ever used."""
    try:
        return str(json.loads((spool_dir / "last_remote.json").read_text())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
