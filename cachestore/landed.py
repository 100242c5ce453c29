"""What a download gives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cachestore.local.catalog_rows import Row
from cachestore.model import RemoteObject
from cachestore.remote.base import RemoteBody

T = TypeVar("T")
Answer = AbstractContextManager[RemoteBody]
Probe = Callable[[int], tuple[T | None, Answer | None]]
"""Asks the remote first, given the token: something to read from, or an answer with the whole."""


@dataclass(frozen=True, slots=True)
class Landed:
    """A whole, verified file. `row`: its catalog row, None when it was not admitted."""

    path: Path
    info: RemoteObject
    row: Row | None
