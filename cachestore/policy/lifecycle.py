"""Rules that a bucket keeps itself: expiry, Infrequent Access, abandoned uploads. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cachestore.errors import ConfigError
from cachestore.policy.endpoints import is_r2

MOST_RULES = 1000
_OURS = "cachestore "
_ALL = "everything"

RawRule = Mapping[str, Any]
"""A rule as S3 has it: `ID`, `Status`, `Filter`, `Expiration` and so on."""


@dataclass(frozen=True, slots=True)
class LifecycleRule:
    """What happens to objects under a prefix, in days since they were stored; None: nothing.

    `abort_days`: since an upload in parts was begun that nobody finished.
    """

    prefix: str = ""
    expire_days: int | None = None
    infrequent_days: int | None = None
    abort_days: int | None = None

    def __post_init__(self) -> None:
        days = [d for d in (self.expire_days, self.infrequent_days, self.abort_days) if d]
        given = (self.expire_days, self.infrequent_days, self.abort_days)
        if not days or any(each is not None and each < 1 for each in given):
            raise ConfigError(f"a rule for {self.prefix!r} needs whole days, at least one")
        expire, move = self.expire_days, self.infrequent_days
        if expire is not None and move is not None and move >= expire:
            raise ConfigError(
                f"{self.prefix!r} would move to Infrequent Access after {move} days, but is gone"
                f" after {expire}"
            )

    @property
    def id(self) -> str:
        """Its name in the bucket, by which a later run finds it."""
        return id_of(self.prefix)

    def raw(self) -> dict[str, Any]:
        """The rule as S3 takes it."""
        made: dict[str, Any] = {
            "ID": self.id, "Status": "Enabled", "Filter": {"Prefix": self.prefix},
        }  # fmt: skip
        if self.expire_days is not None:
            made["Expiration"] = {"Days": self.expire_days}
        if self.infrequent_days is not None:
            made["Transitions"] = [{"Days": self.infrequent_days, "StorageClass": "STANDARD_IA"}]
        if self.abort_days is not None:
            made["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": self.abort_days}
        return made


def id_of(prefix: str) -> str:
    """The name that our rule for a prefix has in the bucket."""
    return _OURS + (prefix or _ALL)


def is_ours(rule: RawRule) -> bool:
    """True for a rule that `LifecycleRule` made."""
    return str(rule.get("ID", "")).startswith(_OURS)


def merged(
    present: Sequence[RawRule], wanted: Iterable[LifecycleRule], remove: Iterable[str] = ()
) -> list[RawRule]:
    """The bucket's rules with ours in them: those of others stay as they are, in their order.

    `remove`: prefixes whose rule of ours goes. Raises `ConfigError` when there are too many, or
    there is none to remove.
    """
    new = {rule.id: rule.raw() for rule in wanted}
    gone = {id_of(prefix): prefix for prefix in remove}
    missing = gone.keys() - {str(rule.get("ID", "")) for rule in present}
    if missing:
        raise ConfigError(f"there is no rule of ours for {gone[min(missing)]!r}")
    kept = [rule for rule in present if rule.get("ID") not in gone]
    rules = [_newer(rule, new.pop(str(rule.get("ID", "")), rule)) for rule in kept]
    rules += new.values()
    if len(rules) > MOST_RULES:
        raise ConfigError(f"{len(rules)} rules are too many; a bucket takes {MOST_RULES}")
    return rules


def _newer(present: RawRule, wanted: RawRule) -> RawRule:
    """The wanted rule, unless the one that is there says the same in a server's own words."""
    same = in_words(present) == in_words(wanted) and present.get("Status") == wanted.get("Status")
    return present if same else wanted


def commands(
    endpoint: str, bucket: str, wanted: Iterable[LifecycleRule], remove: Iterable[str] = ()
) -> list[str]:
    """What to type with rights of an administrator, where our key has none; [] if not on R2."""
    host = urlsplit(endpoint).hostname or ""
    if not is_r2(host):
        return []
    labels = host.split(".")
    place = ["--jurisdiction", labels[1]] if labels[1] in ("eu", "fedramp", "us") else []
    base = ["npx", "wrangler", "r2", "bucket", "lifecycle"]
    made = [[*base, "remove", bucket, "--name", id_of(prefix), *place] for prefix in remove]
    for rule in wanted:
        words = [*base, "add", bucket, rule.id, *([rule.prefix] if rule.prefix else [])]
        for option, days in (
            ("--expire-days", rule.expire_days),
            ("--ia-transition-days", rule.infrequent_days),
            ("--abort-multipart-days", rule.abort_days),
        ):
            words += [] if days is None else [option, str(days)]
        made.append(words + place)
    return [shlex.join(words) for words in made]


def in_words(rule: RawRule) -> tuple[str, str, str, str]:
    """Prefix, expiry, Infrequent Access and abandoned uploads of any rule, for people."""
    expiry = rule.get("Expiration") or {}
    moves = rule.get("Transitions") or []
    parts = rule.get("AbortIncompleteMultipartUpload") or {}
    return (
        _prefix(rule),
        _when(expiry.get("Days"), expiry.get("Date")),
        ", ".join(_when(move.get("Days"), move.get("Date")) for move in moves),
        _when(parts.get("DaysAfterInitiation"), None),
    )


def _prefix(rule: RawRule) -> str:
    where = rule.get("Filter") or {}
    inner = where.get("And") or {}
    return str(where.get("Prefix") or inner.get("Prefix") or rule.get("Prefix") or "")


def _when(days: Any, date: Any) -> str:
    if days is not None:
        return f"{days} d"
    return "" if date is None else str(date)[:10]
