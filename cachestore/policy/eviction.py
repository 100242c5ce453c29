"""Eviction: which clean, unpinned copies leave when room is needed. Pure: it cannot lose data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """A clean, unpinned copy. `allocated` in bytes on disk, `used` in wall seconds."""

    @property
    def key(self) -> str: ...
    @property
    def allocated(self) -> int: ...
    @property
    def used(self) -> float: ...
    @property
    def uses(self) -> int: ...


C = TypeVar("C", bound=Candidate)


@dataclass(frozen=True, slots=True)
class Need:
    """How much has to go: bytes on disk, and entries. Values of 0 or below ask for nothing."""

    bytes: int = 0
    entries: int = 0

    @property
    def nothing(self) -> bool:
        return self.bytes <= 0 and self.entries <= 0

    def without(self, copy: Candidate) -> Need:
        """What is still needed once `copy` has left."""
        return Need(self.bytes - copy.allocated, self.entries - 1)


class EvictionPolicy(Protocol):
    """Chooses victims.

    `candidates` come longest unread first and are read from disk as they are asked for: a policy
    that looks at all of them makes every admission slow. The answer holds each candidate at most
    once, and satisfies `need` if the candidates can; where it does not, nothing is evicted.
    """

    def victims(self, candidates: Iterable[C], need: Need) -> list[C]: ...


class LeastRecentlyUsed:
    """The longest unread ones, and no more than needed."""

    def victims(self, candidates: Iterable[C], need: Need) -> list[C]:
        chosen: list[C] = []
        if need.nothing:
            return chosen
        for copy in candidates:
            chosen.append(copy)
            need = need.without(copy)
            if need.nothing:
                break
        return chosen
