"""What is old enough to go, what keeps it, and which one of many stays as a sample. Pure."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from cachestore.errors import ConfigError
from cachestore.policy.templates import split_suffix

SIDECAR = ".json"


@dataclass(frozen=True, slots=True)
class Label:
    """An entry of metadata that keeps an object. `value` None: whatever it says."""

    name: str
    value: str | None = None

    @classmethod
    def parse(cls, text: str) -> Label:
        """`NAME` or `NAME=VALUE`. Raises `ConfigError`."""
        name, equals, value = text.partition("=")
        if not name.strip():
            raise ConfigError(f"the label {text!r} has no name; write NAME or NAME=VALUE")
        return cls(name.strip().lower(), value if equals else None)

    def is_on(self, metadata: Mapping[str, str]) -> bool:
        """True if an object with this metadata has it."""
        found = metadata.get(self.name)
        return found is not None and self.value in (None, found)


KEEP = Label("keep")
"""This label keeps an object from every pruning that looks at labels."""


@dataclass(frozen=True, slots=True)
class Dated:
    """An object and its own time, which knows its zone."""

    key: str
    time: datetime


def owners_of(keys: Collection[str]) -> dict[str, list[str]]:
    """Sidecars among `keys`, each with its files: `x.json` or `x.jpg.json` for `x.jpg`."""
    known = set(keys)
    stems: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        if not key.endswith(SIDECAR):
            stems[_stem(key)].append(key)
    found: dict[str, list[str]] = {}
    for key in keys:
        if key.endswith(SIDECAR):
            whole = key.removesuffix(SIDECAR)
            owners = [whole] if whole in known else stems.get(whole, [])
            if owners:
                found[key] = owners
    return found


def _stem(key: str) -> str:
    folder, slash, name = key.rpartition("/")
    return folder + slash + split_suffix(name)[0]


def spared_with_owners(owners: Mapping[str, Iterable[str]], going: Collection[str]) -> list[str]:
    """Sidecars that stay because a file of theirs does; `going`: the keys that go."""
    return [key for key, files in owners.items() if key in going and set(files) - set(going)]


Week = tuple[str, int, int]
"""A group (such as a camera), and a week by its ISO year and number."""


def weekly_samples(
    files: Iterable[Dated],
    *,
    group: Callable[[str], str],
    inside: Callable[[datetime], bool] | None = None,
    seed: str = "",
) -> dict[Week, str]:
    """One file for each group and week, at random, but the same one in every run.

    `group` names a key's group, as its camera. `inside`: only files whose time it accepts, as
    active hours do. The choice depends on `seed`, the group, the week and the keys that there
    are, and not on their order: it is final once the week is over.
    """
    best: dict[Week, tuple[bytes, str]] = {}
    for each in files:
        if inside is not None and not inside(each.time):
            continue
        year, number, _ = each.time.isocalendar()
        week = (group(each.key), year, number)
        drawn = (_lot(seed, week, each.key), each.key)
        if week not in best or drawn < best[week]:
            best[week] = drawn
    return {week: key for week, (_, key) in sorted(best.items())}


def _lot(seed: str, week: Week, key: str) -> bytes:
    return hashlib.sha256("\n".join((seed, *map(str, week), key)).encode()).digest()
