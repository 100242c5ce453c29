"""The store that a command works on: from the environment, `.env` and the global options."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from cachestore.open import open_store
from cachestore.store import CacheStore


def overrides(context: typer.Context) -> dict[str, Any]:
    """Settings that were given as global options."""
    given: dict[str, Any] = context.find_root().obj or {}
    return given


@contextmanager
def opened(context: typer.Context, drain: float = 0.0) -> Iterator[CacheStore]:
    """A store for one command; closed with a drain of so many seconds."""
    store = open_store(**overrides(context))
    try:
        yield store
    finally:
        store.close(drain=drain)


def log_to_stderr(level: int) -> None:
    """The library's own lines, each as it is."""
    logging.basicConfig(level=level, format="%(message)s")
