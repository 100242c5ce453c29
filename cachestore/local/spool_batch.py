"""Many deletes at once: one lock and one folder fsync for each shard."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping

from cachestore.errors import SpoolError
from cachestore.local.spool import Overtaken, Spool
from cachestore.local.spool_reader import spool_error
from cachestore.local.tickets import Ticket


def publish_deletes(
    spool: Spool, tickets: Iterable[Ticket], tokens: Mapping[str, int] | None = None
) -> list[tuple[Ticket, Ticket | None]]:
    """Make delete tickets durable and visible; each with the pending ticket it replaced.

    With `tokens` (by key) those are left out whose token is another now, or that have something
    pending. Raises `SpoolError`, `SpoolFull` or `SpoolBusy`; shards done before stay done.
    """
    by_shard: dict[int, list[Ticket]] = defaultdict(list)
    for ticket in tickets:
        by_shard[spool.place(ticket.key).shard].append(ticket)
    done: list[tuple[Ticket, Ticket | None]] = []
    for group in by_shard.values():
        try:
            published = _publish(spool, group, tokens)
        except OSError as error:
            if isinstance(error, SpoolError):
                raise
            raise spool_error(f"cannot delete {len(group)} keys", error) from error
        for _, replaced in published:
            if replaced is not None:
                spool.condemn(replaced)
        done.extend(published)
    return done


def _publish(
    spool: Spool, group: list[Ticket], tokens: Mapping[str, int] | None
) -> list[tuple[Ticket, Ticket | None]]:
    """The tickets of one shard; of a group that changed each for itself."""
    if tokens is None:
        return spool.publish_group([(ticket, None) for ticket in group])
    with contextlib.suppress(Overtaken):
        return spool.publish_group([(ticket, None) for ticket in group], tokens)
    done: list[tuple[Ticket, Ticket | None]] = []
    for ticket in group:
        with contextlib.suppress(Overtaken):
            done += spool.publish_group([(ticket, None)], tokens)
    return done
