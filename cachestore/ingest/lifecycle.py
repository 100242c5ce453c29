"""The bucket's own rules: read, and ours put among those of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cachestore.errors import RemoteUnavailable, Unsupported
from cachestore.policy.lifecycle import LifecycleRule, RawRule, merged
from cachestore.remote.base import SupportsLifecycle
from cachestore.store import CacheStore


@dataclass(frozen=True, slots=True)
class LifecycleChange:
    """The bucket's rules `before` and `after`, as S3 has them."""

    before: Sequence[RawRule]
    after: Sequence[RawRule]

    @property
    def changed(self) -> bool:
        """True when there was something to write."""
        return list(self.before) != list(self.after)


def lifecycle_rules(store: CacheStore) -> list[RawRule]:
    """All rules of the bucket. Raises `Unsupported` and what remotes raise."""
    return _of(store).lifecycle()


def apply_lifecycle(
    store: CacheStore,
    rules: Iterable[LifecycleRule],
    *,
    remove: Iterable[str] = (),
    dry_run: bool = False,
) -> LifecycleChange:
    """Write our rules, one for each prefix, and keep those of others.

    `remove`: prefixes whose rule of ours goes. The bucket acts on its rules by itself: pins and
    labels do not keep what they expire. Needs a key with rights of an administrator; without,
    `RemoteRefused`. Two who write at the same moment: the last one's rules are there. Raises
    `ConfigError`, `Unsupported` and what remotes raise.
    """
    remote = _of(store)
    before = remote.lifecycle()
    after = merged(before, rules, remove)
    change = LifecycleChange(before, after)
    if change.changed and not dry_run:
        remote.set_lifecycle(after)
    return change


def _of(store: CacheStore) -> SupportsLifecycle:
    core = store.core
    core.check_open()
    if core.remote is None:
        raise RemoteUnavailable("the bucket is switched off, so its rules cannot be asked for")
    found = core.remote.lifecycle
    if found is None:
        raise Unsupported(f"{core.remote.name} keeps no rules of its own")
    return found
