"""URLs for clients: presigned reads and uploads, and the confirmation of what was uploaded."""

from __future__ import annotations

from urllib.parse import quote

from cachestore.core import Core, info_of_remote
from cachestore.errors import (
    CacheStoreError,
    ConfirmFailed,
    NotFound,
    RemoteUnavailable,
    TimedOut,
    Unsupported,
)
from cachestore.finding import Finder
from cachestore.keys import Place, check_key
from cachestore.links import Announced, Links
from cachestore.local.media import guess_type
from cachestore.local.records import Record
from cachestore.model import ObjectInfo, PresignedUpload, RemoteObject
from cachestore.remote.base import SupportsPresign
from cachestore.writing import Writer

MAX_EXPIRES = 604_800


class Presigner:
    """The room for URLs."""

    def __init__(self, core: Core, finder: Finder, links: Links) -> None:
        self._core = core
        self._finder = finder
        self._links = links

    def url(self, key: str) -> str:
        """See `CacheStore.url`."""
        core = self._core
        core.check_open()
        key = check_key(key)
        public = core.options.remote.public_url if core.options.remote else None
        if self._links.possible and (core.options.own_urls or not self._is_sent(key)):
            return self._links.get(key, 3600)
        if public is None or core.is_local(key):
            return self.get(key, 3600, reuse=True)
        key = self._in_the_bucket(key)
        return f"{public.rstrip('/')}/{quote(key, safe='/')}"

    def _is_sent(self, key: str) -> bool:
        """False for what the bucket does not have yet, or never will. Raises `NotFound`."""
        newest = self._core.newest(key, self._core.spool.place(key))
        if newest is not None and newest.operation == "delete":
            self._finder.absent(key, negative=True)
        return newest is None and not self._core.is_local(key)

    def get(self, key: str, expires_in: int, *, reuse: bool) -> str:
        """See `CacheStore.presign_get`."""
        core = self._core
        core.check_open()
        self._check_expiry(expires_in)
        key = check_key(key)
        if self._by_link(key):
            self._is_sent(key)
            return self._links.get(key, expires_in)
        signer = self._signer()
        key = self._in_the_bucket(key)
        if not reuse:
            return signer.presign_get(key, expires_in)
        place = core.spool.place(key)
        name = str(expires_in)
        known = core.facts.get(place, "url", name)
        if isinstance(known, str):
            return known
        token = core.board.token(place.slot)
        url = signer.presign_get(key, expires_in)
        core.facts.put(place, "url", name, url, expires_in / 2, token)
        return url

    def put(
        self,
        key: str,
        *,
        content_type: str | None,
        size: int | None,
        max_size: int | None,
        sha256: str | None,
        expires_in: int,
    ) -> PresignedUpload:
        """See `CacheStore.presign_put`."""
        self._core.check_open()
        self._check_expiry(expires_in)
        key = check_key(key)
        limit = self._core.options.upload_max_bytes if max_size is None else max_size
        if size is not None and not 0 <= size <= limit:
            raise ValueError(f"size is {size} bytes; at most {limit} may be uploaded")
        content_type = content_type or guess_type(key)
        if self._by_link(key):
            announced = Announced(key, content_type, size, limit, sha256)
            return self._links.put(announced, expires_in)
        return self._signer().presign_put(
            key, content_type=content_type, expires_in=expires_in, size=size, sha256=sha256
        )

    def confirm(
        self, key: str, *, size: int | None, sha256: str | None, content_type: str | None,
        writer: Writer,
    ) -> ObjectInfo:  # fmt: skip
        """See `CacheStore.confirm_upload`."""
        core = self._core
        core.check_open()
        key = check_key(key)
        place = core.spool.place(key)
        try:
            obj = self._uploaded(key)
        except NotFound:
            if not self._by_link(key):
                self._forget_older(key, place, None)
            raise ConfirmFailed(f"{key!r} was not uploaded") from None
        wrong = _difference(
            ("size", size, obj.size),
            ("content type", content_type, obj.content_type),
            ("SHA-256", sha256, obj.sha256 if obj.sha256 or sha256 is None else "unknown"),
        )
        if wrong:
            writer.delete(key)
            raise ConfirmFailed(f"the upload of {key!r} is not what was announced: {wrong}")
        if isinstance(obj, ObjectInfo):
            return obj
        self._forget_older(key, place, obj.etag)
        return info_of_remote(obj, key)

    def _uploaded(self, key: str) -> ObjectInfo | RemoteObject:
        """What a direct upload left: in LOCAL_DIR, or in the bucket. Raises `NotFound`."""
        core = self._core
        if self._by_link(key):
            return self._finder.find(key).info
        if core.remote is None:
            raise Unsupported("direct uploads need a remote, which is switched off")
        return core.remote.head(key, timeout=core.options.miss_deadline)

    # -- helpers -------------------------------------------------------------------------------

    def _forget_older(self, key: str, place: Place, etag: str | None) -> None:
        """The bucket has this version now (None: none): no other one may be served."""
        core = self._core
        row = core.catalog.get(key)
        if row is None or row.etag != etag:
            gone = core.catalog.remove(key)
            core.cache.discard([] if gone is None else [gone])
            if not core.catalog.lacks(key):
                raise CacheStoreError(
                    f"the catalog is busy; it may have an older copy of {key!r}: confirm again"
                )
        core.board.change(place.slot)
        core.hot.forget(key)

    def _check_expiry(self, expires_in: int) -> None:
        if not 1 <= expires_in <= MAX_EXPIRES:
            raise ValueError(f"expires_in is {expires_in} seconds; 1 to {MAX_EXPIRES} are allowed")

    def _by_link(self, key: str) -> bool:
        """True for what clients can only reach through the app."""
        core = self._core
        return core.is_local(key) or (core.remote is not None and core.remote.presigner is None)

    def _signer(self) -> SupportsPresign:
        remote = self._core.remote
        if remote is None:
            raise Unsupported("URLs need a remote, which is switched off")
        assert remote.presigner is not None, "it goes by link"
        return remote.presigner

    def _in_the_bucket(self, key: str) -> str:
        """A URL is given only for what the bucket has; a pending upload is waited for."""
        core = self._core
        newest = core.newest(key, core.spool.place(key))
        if newest is None:
            return key
        if newest.operation == "delete":
            self._finder.absent(key, negative=True)
        if isinstance(newest, Record):
            raise RemoteUnavailable(f"{key!r} waits in LOCAL_DIR for its upload; flush first")
        try:
            core.uploader.wait(key, newest.id, core.options.miss_deadline)
        except TimedOut as error:
            raise RemoteUnavailable(
                f"{key!r} is not in the bucket yet, so there is no URL that works: {error}"
            ) from error
        return key


def _difference(*rows: tuple[str, object, object]) -> str:
    """In words: what was announced and what is there, where they differ."""
    return ", ".join(
        f"{what} is {found}, {wanted} was announced"
        for what, wanted, found in rows
        if wanted is not None and wanted != found
    )
