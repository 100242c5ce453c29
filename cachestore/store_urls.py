"""The methods of a store that give URLs to clients, and take what they uploaded."""

from __future__ import annotations

import builtins
from collections.abc import Iterable

from cachestore.model import ObjectInfo, PresignedUpload, PutRequest
from cachestore.presigning import Presigner


class StoreUrls:
    """A part of `CacheStore`."""

    _presigner: Presigner

    def url(self, key: str) -> str:
        """A URL for the key: below `R2_PUBLIC_URL` if that is set, else presigned for an hour."""
        return self._presigner.url(key)

    def presign_get(self, key: str, expires_in: int = 3600, *, reuse: bool = True) -> str:
        """A URL that reads the key for at most `expires_in` seconds, at least half of that.

        `reuse`: give the same URL again for half its time, so that clients can cache. Waits for
        a pending upload. Raises `NotFound` (deleted here), `RemoteUnavailable`, `Unsupported`.
        """
        return self._presigner.get(key, expires_in, reuse=reuse)

    def presign_put(
        self,
        key: str,
        content_type: str | None = None,
        size: int | None = None,
        max_size: int | None = None,
        sha256: str | None = None,
        expires_in: int = 3600,
    ) -> PresignedUpload:
        """How a client uploads directly; call `confirm_upload` afterwards.

        `size` (bytes) is exact and signed; `max_size` (None: UPLOAD_MAX_BYTES) is checked by
        `confirm_upload`. `sha256` (64 hex digits) binds the bytes. What nobody confirms within
        UPLOAD_CONFIRM_WITHIN after the URL's end is deleted.
        """
        announced = self._presigner.announced(key, content_type, size, max_size, sha256)
        return self._presigner.put(announced, expires_in)

    def presign_puts(
        self, uploads: Iterable[PutRequest], expires_in: int = 3600
    ) -> builtins.list[PresignedUpload]:
        """`presign_put` for many, given as mappings of its arguments; all or none, in order."""
        return self._presigner.puts(uploads, expires_in)

    def presign_post(
        self,
        key: str,
        content_type: str | None = None,
        size: int | None = None,
        max_size: int | None = None,
        sha256: str | None = None,
        expires_in: int = 3600,
    ) -> PresignedUpload:
        """How an HTML form uploads directly, where the bucket itself keeps to `max_size`.

        Raises `Unsupported` on R2, which has no form uploads, and where there is no bucket.
        """
        announced = self._presigner.announced(key, content_type, size, max_size, sha256)
        return self._presigner.post(announced, expires_in)

    def confirm_upload(
        self,
        key: str,
        size: int | None = None,
        sha256: str | None = None,
        content_type: str | None = None,
    ) -> ObjectInfo:
        """Check a direct upload against what was announced.

        Raises `ConfirmFailed` (not a FileNotFoundError); the key does not exist afterwards,
        except where another machine announced it and may have confirmed it before.
        """
        return self._presigner.confirm(key, size=size, sha256=sha256, content_type=content_type)
