"""The pending operations of one remote by key, read again only where a shard changed."""

from __future__ import annotations

from cachestore.errors import SpoolError
from cachestore.local.board import SHARDS
from cachestore.local.spool import Spool
from cachestore.local.spool_scan import Unreadable, scan_shard
from cachestore.local.tickets import Ticket
from cachestore.locks import ForkLock


class PendingIndex:
    """A snapshot that is exact for every operation acknowledged before it was asked for."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._lock = ForkLock()
        self._seen: list[int | None] = [None] * SHARDS
        self._shards: list[dict[str, Ticket]] = [{} for _ in range(SHARDS)]

    def below(self, prefix: str) -> dict[str, Ticket]:
        """Pending tickets of keys that start with `prefix`.

        Raises `SpoolError` when a ticket cannot be read: the truth is then unknown.
        """
        found: dict[str, Ticket] = {}
        with self._lock:
            for shard, sequence in enumerate(self._spool.board.sequences()):
                if self._seen[shard] != sequence:
                    self._shards[shard] = self._read(shard)
                    self._seen[shard] = sequence
                for key, ticket in self._shards[shard].items():
                    if key.startswith(prefix):
                        found[key] = ticket
        return found

    def _read(self, shard: int) -> dict[str, Ticket]:
        tickets: dict[str, Ticket] = {}
        for item in scan_shard(self._spool, shard):
            if isinstance(item, Unreadable):
                raise SpoolError(
                    f"the ticket {item.path} cannot be read ({item.reason}); what is pending"
                    " is unknown. See `cachestore fsck`"
                )
            if item.remote_id == self._spool.remote_id:
                tickets[item.key] = item
        return tickets
