"""Small helpers for tests of the spool."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from cachestore.files import Files
from cachestore.local.board import Board
from cachestore.local.spool import Spool, new_id
from cachestore.local.tickets import Ticket

REMOTE = "0123456789abcdef"


def make_spool(
    root: Path, files: Files | None = None, remote_id: str = REMOTE, lock_timeout: float = 30.0
) -> Spool:
    files = files or Files()
    root.mkdir(parents=True, exist_ok=True)
    return Spool(root, remote_id, files, Board(root, Files()), lock_timeout)


def put(spool: Spool, key: str, data: Any, **fields: Any) -> Ticket:
    staged = spool.stage(key, data)
    ticket = Ticket(
        spool.remote_id, key, staged.id, "put", time.time(), staged.name, staged.size,
        staged.sha256, **fields,
    )  # fmt: skip
    spool.publish(ticket, staged)
    return ticket


def delete(spool: Spool, key: str) -> Ticket:
    ticket = Ticket(spool.remote_id, key, new_id(), "delete", time.time())
    spool.publish(ticket, None)
    return ticket


def names(spool: Spool) -> list[str]:
    """All file names in the shard folders."""
    return sorted(p.name for p in spool.root.glob("??/*"))
