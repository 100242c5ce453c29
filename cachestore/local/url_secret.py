"""The secret that signs our own URLs: from the settings, or one made once and kept in the spool.

All processes on one spool share it; it outlives restarts and the removal of the cache.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cachestore.errors import SpoolError
from cachestore.files import Files, read_file

NAME = "url.secret"
_LEAST = 32


def url_secret(files: Files, spool_dir: Path, configured: str | None) -> bytes:
    """The secret's bytes. Raises `SpoolError` when it can be neither read nor made."""
    if configured:
        return configured.encode()
    return kept_random(files, spool_dir / NAME)


def kept_random(files: Files, path: Path) -> bytes:
    """64 random hex digits, made by the first who asks and the same for all after.

    Raises `SpoolError` when they can be neither read nor made.
    """
    try:
        try:
            return _kept(files, path)
        except FileNotFoundError:
            return _made(files, path)
    except OSError as error:
        raise SpoolError(f"cannot use {path}: {error.strerror or error}") from error


def _kept(files: Files, path: Path) -> bytes:
    secret = read_file(files, path, 4096)
    if len(secret) < _LEAST:
        raise SpoolError(f"{path} is damaged; remove it, and all URLs given so far are void")
    return secret


def _made(files: Files, path: Path) -> bytes:
    """A new one, whole before it has its name; whoever comes second takes the first one's."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    fd = files.create(temporary)
    try:
        try:
            files.write(fd, secrets.token_hex(32).encode())
            files.fsync(fd)
        finally:
            files.close(fd)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
    finally:
        files.unlink(temporary)
    files.fsync_dir(path.parent)
    return _kept(files, path)
