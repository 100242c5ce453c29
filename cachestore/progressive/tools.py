"""What partial copies need of the rest of a store."""

from __future__ import annotations

from dataclasses import dataclass

from cachestore.clock import Clock
from cachestore.downloader import Downloader
from cachestore.events import Events
from cachestore.files import Files
from cachestore.flight import Pool
from cachestore.local.partials import Partials
from cachestore.options import Options
from cachestore.remote.base import RemoteStore
from cachestore.remote.budget import Budget


@dataclass(frozen=True, slots=True)
class Tools:
    """Handed to each partial copy. `pool`: where blocks are fetched."""

    remote: RemoteStore
    partials: Partials
    downloader: Downloader
    files: Files
    clock: Clock
    events: Events
    options: Options
    budget: Budget
    pool: Pool
