"""Freshness: may a copy be served, and must the remote be asked first? Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Protocol

from cachestore.options import Options

_SKEW = 60.0


class Copy(Protocol):
    """What is asked of a copy: when the remote last said that it is current (wall seconds)."""

    @property
    def validated(self) -> float: ...


class Freshness(Enum):
    """What to do with a copy."""

    FRESH = "serve it"
    STALE = "serve it and ask the remote behind"
    EXPIRED = "ask the remote first"
    MISS = "there is none"


@dataclass(frozen=True, slots=True)
class Rules:
    """Seconds. `ttl`: None never expires, 0 asks every time. `immutable`: nothing ever does."""

    ttl: float | None
    stale_while_revalidate: float
    stale_if_error: float
    immutable: bool = False


def rules_for(key: str, own_ttl: float | None, options: Options) -> Rules:
    """The rules for a key; `own_ttl` is what its put said, None for nothing.

    An immutable prefix comes first, then the put, then the longest prefix with a TTL, then the
    store.
    """
    immutable = key.startswith(options.immutable_prefixes)
    ttl = options.ttl
    if own_ttl is not None:
        ttl = own_ttl
    else:
        fitting = [each for each in options.ttl_by_prefix if key.startswith(each[0])]
        if fitting:
            ttl = max(fitting, key=lambda each: len(each[0]))[1]
    if immutable or ttl == inf:
        ttl = None
    return Rules(ttl, options.stale_while_revalidate, options.stale_if_error, immutable)


def age_of(copy: Copy, now: float) -> float:
    """Seconds since the last validation; infinite when that lies in the future (a clock jumped)."""
    age = now - copy.validated
    return inf if age < -_SKEW else max(0.0, age)


def decide(
    copy: Copy | None, now: float, rules: Rules, *, max_age: float | None = None
) -> Freshness:
    """What to do with a copy at `now`; `max_age` (seconds) only makes it stricter."""
    if copy is None:
        return Freshness.MISS
    if rules.immutable:
        return Freshness.FRESH
    age = age_of(copy, now)
    if max_age is not None and age >= max_age:
        return Freshness.EXPIRED
    if rules.ttl is None:
        return Freshness.FRESH
    if age < rules.ttl:
        return Freshness.FRESH
    if rules.ttl > 0 and age < rules.ttl + rules.stale_while_revalidate:
        return Freshness.STALE
    return Freshness.EXPIRED


def may_serve_on_error(copy: Copy, now: float, rules: Rules) -> bool:
    """May an expired copy be served because the remote does not answer?"""
    if rules.ttl is None:
        return True
    age = age_of(copy, now)
    if age == inf:
        age = 0.0  # the clock went back: how old it is cannot be known, and it is better than none
    return age < rules.ttl + max(rules.stale_if_error, rules.stale_while_revalidate)
