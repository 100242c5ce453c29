"""URLs for clients: presigned reads and uploads, and the confirmation of what was uploaded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import quote

from cachestore.announcing import MARGIN, Announcer
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
from cachestore.local.announcements import Mark, parse_mark
from cachestore.local.media import guess_type
from cachestore.local.records import Record
from cachestore.model import ObjectInfo, PresignedUpload, PutRequest, RemoteObject
from cachestore.reading import Reader
from cachestore.remote.base import SupportsForms, SupportsPresign
from cachestore.writing import Writer

MAX_EXPIRES = 604_800
_ROUNDS = 8
_DIGEST = re.compile("[0-9a-f]{64}")


class Presigner:
    """The room for URLs."""

    def __init__(
        self, core: Core, finder: Finder, reader: Reader, writer: Writer, links: Links,
        announcer: Announcer,
    ) -> None:  # fmt: skip
        self._core = core
        self._finder = finder
        self._reader = reader
        self._writer = writer
        self._links = links
        self._announcer = announcer

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

    # -- uploads -------------------------------------------------------------------------------

    def puts(self, wanted: Iterable[PutRequest], expires_in: int) -> list[PresignedUpload]:
        """See `CacheStore.presign_puts`."""
        self._core.check_open()
        self._check_expiry(expires_in)
        announced = [self.announced(**put) for put in wanted]
        keys = {each.key for each in announced}
        if len(keys) < len(announced):
            raise ValueError("the same key is there twice; one upload would replace the other")
        for key in keys:
            if self._by_link(key):
                self._links.check_possible(key)
        return [self.put(each, expires_in) for each in announced]

    def announced(
        self, key: str, content_type: str | None = None, size: int | None = None,
        max_size: int | None = None, sha256: str | None = None,
    ) -> Announced:  # fmt: skip
        """What a client may upload; raises `ValueError` for what cannot be."""
        key = check_key(key)
        limit = self._core.options.upload_max_bytes if max_size is None else max_size
        if size is not None and not 0 <= size <= limit:
            raise ValueError(f"size is {size} bytes; at most {limit} may be uploaded")
        if sha256 is not None and not _DIGEST.fullmatch(sha256):
            raise ValueError("sha256 is 64 lower-case hex digits")
        return Announced(key, content_type or guess_type(key), size, limit, sha256)

    def put(self, announced: Announced, expires_in: int) -> PresignedUpload:
        """See `CacheStore.presign_put`."""
        self._core.check_open()
        self._check_expiry(expires_in)
        key = announced.key
        if self._by_link(key):
            noted = self._core.is_local(key)
            note = self._announcer.note(key, expires_in) if noted else None
            return self._links.put(replace(announced, note=note), expires_in)
        return self._signer().presign_put(
            key, content_type=announced.content_type, expires_in=expires_in, size=announced.size,
            sha256=announced.sha256, announced=self._announcer.mark(announced, expires_in),
        )  # fmt: skip

    def post(self, announced: Announced, expires_in: int) -> PresignedUpload:
        """See `CacheStore.presign_post`."""
        core = self._core
        core.check_open()
        self._check_expiry(expires_in)
        key, size = announced.key, announced.size
        signer = core.remote.presigner if core.remote is not None else None
        if core.is_local(key) or not isinstance(signer, SupportsForms):
            raise Unsupported(
                f"{key!r} is in no bucket, and only a bucket takes forms: presign_put"
            )

        def make(mark: str | None) -> PresignedUpload:
            return signer.presign_post(
                key, content_type=announced.content_type, expires_in=expires_in,
                least=size or 0, most=announced.max_size if size is None else size,
                sha256=announced.sha256, announced=mark,
            )  # fmt: skip

        make(None)  # what is not supported is not noted
        return make(self._announcer.mark(announced, expires_in))

    def confirm(
        self, key: str, *, size: int | None, sha256: str | None, content_type: str | None
    ) -> ObjectInfo:
        """See `CacheStore.confirm_upload`."""
        core = self._core
        core.check_open()
        key = check_key(key)
        for _ in range(_ROUNDS):
            info = self._confirmed(key, size, sha256, content_type)
            if info is not None:
                return info
        raise RemoteUnavailable(f"{key!r} changed faster than it could be confirmed; try again")

    def _confirmed(
        self, key: str, size: int | None, sha256: str | None, content_type: str | None
    ) -> ObjectInfo | None:
        """None if the key changed meanwhile: it may have been given up, and counts no more."""
        place = self._core.spool.place(key)
        self._settle(key, place)
        token = self._core.board.token(place.slot)
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
        mark = parse_mark(obj.announced) if isinstance(obj, RemoteObject) else None
        if mark is not None and obj.size > mark.most:
            wrong = wrong or f"size is {obj.size}, at most {mark.most} was announced"
        if wrong:
            if not self._remove(key, place, token):
                return None
            raise ConfirmFailed(f"the upload of {key!r} is not what was announced: {wrong}")
        if mark is not None and isinstance(obj, RemoteObject) and self._announcer.is_anothers(mark):
            return self._take_over(key, place, obj, mark)
        if not self._announcer.confirmed(key, place, token):
            return None
        if isinstance(obj, ObjectInfo):
            return obj
        self._forget_older(key, place, obj.etag)
        return info_of_remote(obj, key)

    def _remove(self, key: str, place: Place, token: int) -> bool:
        """Delete what is not as announced; False if the key changed since its token was read."""
        if self._by_link(key) and not self._core.is_local(key):
            self._writer.delete(key)  # what came through the app may be pending itself
        elif not self._writer.delete_unchanged(key, token):
            return False
        self._announcer.refused(place)
        return True

    def _settle(self, key: str, place: Place) -> None:
        """A pending operation of ours comes first: what it leaves is what there is to confirm."""
        core = self._core
        newest = None if self._by_link(key) else core.newest(key, place)
        if newest is None:
            return
        try:
            core.uploader.wait(key, newest.id, core.options.miss_deadline)
        except TimedOut as error:
            raise RemoteUnavailable(
                f"an earlier change of {key!r} is not in the bucket yet: {error}"
            ) from error
        left = core.newest(key, place)
        if left is not None and left.operation == "delete":
            raise RemoteUnavailable(f"a delete of {key!r} is parked; see `cachestore queue`")

    def _take_over(self, key: str, place: Place, obj: RemoteObject, mark: Mark) -> ObjectInfo:
        """Another spool announced this upload and would give it up: put it again as our own.

        Nobody but that spool knows its notes, and only a put of ours takes the mark away.
        """
        if self._core.clock.now() > mark.due - MARGIN:
            # It stays: the other one may have confirmed it long ago, or else gives it up.
            raise ConfirmFailed(
                f"the upload of {key!r} was not confirmed in time here; it is for the machine"
                " that announced it to keep it or not"
            )
        self._forget_older(key, place, obj.etag)
        with self._reader.open(key) as file:
            if file.info.etag != obj.etag:
                raise RemoteUnavailable(f"{key!r} changes while it is confirmed; confirm again")
            self._writer.put(
                key, file, content_type=obj.content_type, metadata=obj.metadata,
                cache_control=obj.cache_control, ttl=None, durability="remote",
                if_match=None, if_none_match=None,
            )  # fmt: skip
        return self._reader.head(key)

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
