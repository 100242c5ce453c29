"""Cache-first file storage: local disk in front, Cloudflare R2 or any S3 behind.

Names are loaded when first used, so that `import cachestore` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "open_store": "cachestore.open",
    "open_async_store": "cachestore.open",
    "Settings": "cachestore.settings",
    "CacheStore": "cachestore.store",
    "AsyncCacheStore": "cachestore.aio",
    "Receipt": "cachestore.receipts",
    "ObjectInfo": "cachestore.model",
    "PendingItem": "cachestore.model",
    "PresignedUpload": "cachestore.model",
    "FlushReport": "cachestore.model",
    "Tally": "cachestore.model",
}
_ERRORS = (
    "CacheFull",
    "CacheStoreError",
    "ConfigError",
    "ConfirmFailed",
    "Corrupt",
    "InvalidKey",
    "NotFound",
    "PreconditionFailed",
    "Rejected",
    "RemoteError",
    "RemoteRefused",
    "RemoteUnavailable",
    "SourceError",
    "SpoolBusy",
    "SpoolError",
    "SpoolFull",
    "StoreClosed",
    "Throttled",
    "TimedOut",
    "Unsupported",
)
_HOME.update(dict.fromkeys(_ERRORS, "cachestore.errors"))

if TYPE_CHECKING:
    from cachestore.aio import AsyncCacheStore as AsyncCacheStore
    from cachestore.errors import CacheFull as CacheFull
    from cachestore.errors import CacheStoreError as CacheStoreError
    from cachestore.errors import ConfigError as ConfigError
    from cachestore.errors import ConfirmFailed as ConfirmFailed
    from cachestore.errors import Corrupt as Corrupt
    from cachestore.errors import InvalidKey as InvalidKey
    from cachestore.errors import NotFound as NotFound
    from cachestore.errors import PreconditionFailed as PreconditionFailed
    from cachestore.errors import Rejected as Rejected
    from cachestore.errors import RemoteError as RemoteError
    from cachestore.errors import RemoteRefused as RemoteRefused
    from cachestore.errors import RemoteUnavailable as RemoteUnavailable
    from cachestore.errors import SourceError as SourceError
    from cachestore.errors import SpoolBusy as SpoolBusy
    from cachestore.errors import SpoolError as SpoolError
    from cachestore.errors import SpoolFull as SpoolFull
    from cachestore.errors import StoreClosed as StoreClosed
    from cachestore.errors import Throttled as Throttled
    from cachestore.errors import TimedOut as TimedOut
    from cachestore.errors import Unsupported as Unsupported
    from cachestore.model import FlushReport as FlushReport
    from cachestore.model import ObjectInfo as ObjectInfo
    from cachestore.model import PendingItem as PendingItem
    from cachestore.model import PresignedUpload as PresignedUpload
    from cachestore.model import Tally as Tally
    from cachestore.open import open_async_store as open_async_store
    from cachestore.open import open_store as open_store
    from cachestore.receipts import Receipt as Receipt
    from cachestore.settings import Settings as Settings
    from cachestore.store import CacheStore as CacheStore

__all__ = [*_HOME, "__version__"]  # noqa: PLE0604  built from the table above


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'cachestore' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
