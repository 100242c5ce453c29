"""Which keys never leave this machine."""

from __future__ import annotations


def is_local(key: str, mode: str, local_only_prefixes: tuple[str, ...]) -> bool:
    """True when `key` is kept in LOCAL_DIR: always in local mode, else by its prefix."""
    return mode == "local" or key.startswith(local_only_prefixes)


def all_local(prefix: str, mode: str, local_only_prefixes: tuple[str, ...]) -> bool:
    """True when every key below `prefix` is kept in LOCAL_DIR."""
    return mode == "local" or prefix.startswith(local_only_prefixes)
