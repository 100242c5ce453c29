"""Many deletes at once: one lock and one folder fsync for each shard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from cachestore.errors import SpoolError
from cachestore.local.spool import Spool
from cachestore.local.spool_reader import spool_error
from cachestore.local.tickets import Ticket


def publish_deletes(spool: Spool, tickets: Iterable[Ticket]) -> list[tuple[Ticket, Ticket | None]]:
    """Make delete tickets durable and visible; each with the pending ticket it replaced.

    Raises `SpoolError`, `SpoolFull` or `SpoolBusy`; shards done before stay done.
    """
    by_shard: dict[int, list[Ticket]] = defaultdict(list)
    for ticket in tickets:
        by_shard[spool.place(ticket.key).shard].append(ticket)
    done: list[tuple[Ticket, Ticket | None]] = []
    for group in by_shard.values():
        try:
            published = spool.publish_group([(ticket, None) for ticket in group])
        except OSError as error:
            if isinstance(error, SpoolError):
                raise
            raise spool_error(f"cannot delete {len(group)} keys", error) from error
        for _, replaced in published:
            if replaced is not None:
                spool.condemn(replaced)
        done.extend(published)
    return done
