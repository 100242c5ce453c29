"""Which rows of the catalog nobody needs any more, as SQL: the same TTLs as `policy.freshness`."""

from __future__ import annotations

from math import inf

from cachestore.options import Options

Values = tuple[str | float, ...]


def unused_before(when: float, options: Options) -> tuple[str, Values]:
    """A condition, and its values, for unpinned copies whose TTL was over at `when`.

    It counts from the last read or validation.
    """
    ttl, values = _ttl(options)
    condition = f"pinned = 0 AND used <= ? AND max(used, validated) + {ttl} <= ?"
    return condition, (when, *values, when)


def _ttl(options: Options) -> tuple[str, Values]:
    """The TTL of a row as an expression: infinite for what never expires."""
    cases = [_case(prefix, None) for prefix in options.immutable_prefixes]
    cases.append(("WHEN ttl IS NOT NULL THEN ttl", ()))
    for prefix, ttl in sorted(options.ttl_by_prefix, key=lambda each: -len(each[0])):
        cases.append(_case(prefix, ttl))
    text = " ".join(case for case, _ in cases)
    return f"(CASE {text} ELSE ? END)", (
        *(v for _, values in cases for v in values),
        _seconds(options.ttl),
    )


def _case(prefix: str, ttl: float | None) -> tuple[str, Values]:
    return "WHEN substr(key, 1, ?) = ? THEN ?", (len(prefix), prefix, _seconds(ttl))


def _seconds(ttl: float | None) -> float:
    return inf if ttl is None else ttl
