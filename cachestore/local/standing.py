"""Which copies are the largest, and which are read most. Every row is looked at for that."""

from __future__ import annotations

from dataclasses import dataclass

from cachestore.local.catalog import Catalog


@dataclass(frozen=True, slots=True)
class Standing:
    """A clean copy: its size in bytes, its reads, and when it was last read (wall seconds)."""

    key: str
    size: int
    uses: int
    used: float


def largest(catalog: Catalog, count: int) -> list[Standing]:
    """The copies that take most."""
    return _first(catalog, "size", count)


def hottest(catalog: Catalog, count: int) -> list[Standing]:
    """The copies that were read most often since they came."""
    return _first(catalog, "uses", count)


def _first(catalog: Catalog, column: str, count: int) -> list[Standing]:
    sql = f"SELECT key, size, uses, used FROM entries ORDER BY {column} DESC, key LIMIT ?"
    return catalog.ask(lambda db: [Standing(*row) for row in db.execute(sql, (count,))], [])
