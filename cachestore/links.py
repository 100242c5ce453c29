"""Our own signed URLs: for what is not in the bucket, and for stores without one."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cachestore.core import Core, utc
from cachestore.errors import CacheStoreError, Unsupported
from cachestore.local.url_secret import url_secret
from cachestore.model import PresignedUpload
from cachestore.policy.tokens import BadToken, read, sign, window_end


@dataclass(frozen=True, slots=True)
class Announced:
    """What a client may upload. `size` is exact, `max_size` a limit (bytes).

    `note`: what it is noted by until it is confirmed.
    """

    key: str
    content_type: str
    size: int | None
    max_size: int
    sha256: str | None
    note: str | None = None


class Links:
    """Makes and reads them. The routes are those of `cachestore.web`, below `PUBLIC_BASE_URL`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._known: bytes | None = None

    def _secret(self) -> bytes:
        core = self._core
        if self._known is None:
            options = core.options
            self._known = url_secret(core.files, options.spool_dir, options.url_secret)
        return self._known

    @property
    def possible(self) -> bool:
        """True if it is known where the app is reached."""
        return self._core.options.public_base_url is not None

    def _base(self, key: str) -> str:
        base = self._core.options.public_base_url
        if base is None:
            raise Unsupported(
                f"there is no URL for {key!r} as long as it is not in a bucket; set PUBLIC_BASE_URL"
                " to where the routes of cachestore.web are reached"
            )
        return base.rstrip("/")

    def check_possible(self, key: str) -> None:
        """Raise `Unsupported` where there can be no URL."""
        self._base(key)

    def get(self, key: str, expires_in: float) -> str:
        """A URL that reads the key; the same one for half of its time."""
        base = self._base(key)
        expires = window_end(self._core.clock.now(), expires_in)
        token = sign(self._secret(), {"o": "get", "k": key}, expires)
        return f"{base}/links/{token}/{quote(key.rsplit('/', 1)[-1], safe='')}"

    def put(self, announced: Announced, expires_in: float) -> PresignedUpload:
        """How a client uploads through the app's own route, each time a new URL."""
        base = self._base(announced.key)
        expires = int(self._core.clock.now() + expires_in)
        claims: dict[str, Any] = {
            "o": "put", "k": announced.key, "t": announced.content_type, "m": announced.max_size,
            "s": announced.size, "h": announced.sha256,
            "n": announced.note or secrets.token_hex(8),
        }  # fmt: skip
        token = sign(self._secret(), claims, expires)
        headers = {"Content-Type": announced.content_type}
        return PresignedUpload(f"{base}/uploads/{token}", "PUT", headers, {}, utc(expires))

    def readable(self, token: str) -> str:
        """The key that a token of `get` is for. Raises `BadToken`."""
        return str(self._claims(token, "get")["k"])

    def announced(self, token: str) -> Announced:
        """What a token of `put` allows. Raises `BadToken`."""
        claims = self._claims(token, "put")
        return Announced(
            claims["k"], claims["t"], claims["s"], claims["m"], claims["h"], claims["n"]
        )

    def received(self, announced: Announced, operation: str) -> None:
        """What was announced is here, put as `operation`; a note that cannot be kept is lost."""
        core = self._core
        try:
            place = core.spool.place(announced.key)
            with core.spool.lock(place):
                core.announcements.received(place, announced.note or "", operation)
        except (OSError, CacheStoreError) as error:
            core.trouble("spool", error)

    def _claims(self, token: str, operation: str) -> dict[str, Any]:
        claims = read(self._secret(), token, self._core.clock.now())
        if claims.get("o") != operation:
            raise BadToken("this token is for something else")
        return claims
