"""Labels: an entry of metadata put on an object that is there already."""

from __future__ import annotations

from cachestore.errors import PreconditionFailed, RemoteUnavailable
from cachestore.store import CacheStore

_PATIENCE = 60.0


def label(store: CacheStore, key: str, name: str, value: str = "true") -> bool:
    """Give an object one more entry of metadata; False if it has just that already.

    Its bytes are put again under the key, the one way that every S3 has; it counts as modified
    then. Where the remote honours conditions, as R2 does, nothing newer is ever replaced. Raises
    `PreconditionFailed` if it changes meanwhile, and what `head`, `open` and `put` raise.
    """
    try:
        return _label(store, key, name.lower(), value)
    except PreconditionFailed:
        store.invalidate(key)  # the copy here was of an older version
        return _label(store, key, name.lower(), value)


def _label(store: CacheStore, key: str, name: str, value: str) -> bool:
    remote = store.core.remote
    guarded = remote is not None and remote.conditional and not store.core.is_local(key)
    known = store.head(key)
    if known.metadata.get(name) == value:
        return False
    if guarded and not known.etag:
        store.flush(_PATIENCE)
    with store.open(key) as file:
        info = file.info
        if info.metadata.get(name) == value:
            return False
        if guarded and not info.etag:
            raise RemoteUnavailable(f"cannot label {key!r}: it is not in the bucket yet")
        store.put(
            key, file, content_type=info.content_type, cache_control=info.cache_control,
            metadata={**info.metadata, name: value}, if_match=info.etag if guarded else None,
        )  # fmt: skip
    return True
