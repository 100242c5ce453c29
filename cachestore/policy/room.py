"""Room in the cache: what is kept at all, and how much has to leave for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from cachestore.policy.eviction import Need


@dataclass(frozen=True, slots=True)
class Admission:
    """Which files are kept. Patterns as in `fnmatch`; `max_bytes` 0: any size.

    `min_uses`: how often a file must have been asked for, this time included.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_bytes: int = 0
    min_uses: int = 1

    def refusal(self, key: str, size: int, uses: int) -> str:
        """Why a file is not kept: pattern, size or uses; "" if it may be."""
        if self.include and not any(fnmatchcase(key, each) for each in self.include):
            return "pattern"
        if any(fnmatchcase(key, each) for each in self.exclude):
            return "pattern"
        if 0 < self.max_bytes < size:
            return "size"
        return "uses" if uses < self.min_uses else ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes on disk, and numbers of files. What is announced counts as if it were here.

    `copies`, `entries`: clean copies. `cache`: other files that count to the cache's limit;
    `arriving`: how many of them become copies. `transit`: files that pass through. `announced`:
    bytes of both areas that are still to come.
    """

    copies: int
    entries: int
    cache: int = 0
    arriving: int = 0
    transit: int = 0
    announced: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What there may be: bytes on disk, entries (0: no limit), bytes that pass through.

    `lacking`: bytes that the disk misses to its free share; below 0: what it has to spare.
    """

    bytes: int
    entries: int = 0
    transit: int = 0
    lacking: int | None = None


def shortfall(size: int, usage: Usage, limits: Limits, going: int) -> Need:
    """What has to leave before `size` bytes come in. `going`: bytes that leave anyway."""
    need = usage.copies + usage.cache + size - limits.bytes
    if limits.lacking is not None:
        need = max(need, limits.lacking + usage.announced + size - going)
    surplus = usage.entries + usage.arriving + 1 - limits.entries if limits.entries else 0
    return Need(need, surplus)


def for_files(limit: int, bookkeeping: int) -> int:
    """What files may take of a limit, after the catalog and the folders.

    A limit so small that these would take more than half of it counts files alone.
    """
    return limit - bookkeeping if 2 * bookkeeping <= limit else limit


def background(usage: Usage, limits: Limits, high: float, low: float) -> Need:
    """What the janitor evicts: above the high watermark, all down to the low one."""
    used = usage.copies + usage.cache
    need = used - int(limits.bytes * low) if used > limits.bytes * high else 0
    entries = 0
    if limits.entries and usage.entries > limits.entries * high:
        entries = usage.entries - int(limits.entries * low)
    return Need(need, entries)


def free_wanted(least: float, total: int) -> int:
    """Bytes of a disk of `total` bytes to be left free: a share below 1, else bytes."""
    return int(total * least) if least < 1 else int(least)


def on_disk(size: int) -> int:
    """Bytes that a file of `size` bytes takes at most: whole blocks, and some for its map."""
    blocks = -(-size // _BLOCK)
    return (blocks + (0 if size < _MAPPED else 1 + size // (16 << 20))) * _BLOCK


_BLOCK = 4096
_MAPPED = 1 << 20
