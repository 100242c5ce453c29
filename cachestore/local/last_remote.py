"""Which remote was used last: local mode without remote settings belongs to it."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from cachestore.files import Files, read_file, replace_file

_NAME = "last_remote.json"
_LIMIT = 1 << 16


def remember_remote(files: Files, spool_dir: Path, remote_id: str, name: str) -> None:
    """Note the last remote used, durably: local mode finds its files by it. Raises `OSError`."""
    data = json.dumps({"id": remote_id, "name": name}).encode()
    path = spool_dir / _NAME
    if _read(files, path) != data:
        replace_file(files, path, data, unique=secrets.token_hex(8))


def last_remote(files: Files, spool_dir: Path) -> str:
    """The last remote's id, "" if none was ever used."""
    try:
        return str(json.loads(_read(files, spool_dir / _NAME))["id"])
    except (ValueError, KeyError, TypeError):
        return ""


def _read(files: Files, path: Path) -> bytes:
    try:
        return read_file(files, path, _LIMIT)
    except OSError:
        return b""
