"""What the bucket has already, read from one listing where that is cheaper than many questions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from cachestore.errors import NotFound
from cachestore.model import RemoteObject
from cachestore.remote.base import RemoteStore

_MD5 = re.compile(r"[0-9a-f]{32}")
_KEYS_FOR_A_PAGE = 25
"""A page of a listing costs about as much as so many heads."""


def is_md5(etag: str) -> bool:
    """True for an ETag that is the MD5 of the bytes (not one of an upload in parts)."""
    return _MD5.fullmatch(etag) is not None


class Bucket:
    """A bucket's objects by key, as far as they were listed; the rest is asked for one by one."""

    def __init__(self, remote: RemoteStore) -> None:
        self._remote = remote
        self._objects: dict[str, RemoteObject] = {}
        self._prefix = ""
        self._first = b""
        self._last: bytes | None = b""

    def read(
        self, keys: Iterable[str], stopped: Callable[[], bool], *, prefix: str = "", count: int = 0
    ) -> None:
        """List the range that holds `keys`, as far as it pays.

        Where keys are not known yet: all below `prefix`, for `count` files. Raises what the
        remote raises; what was listed until then stays known.
        """
        wanted = sorted(key.encode() for key in keys)
        if wanted:
            prefix = _common(wanted[0], wanted[-1])
        pages = 1 + max(len(wanted), count) // _KEYS_FOR_A_PAGE
        self._prefix = prefix
        self._first, self._last = (wanted[0] if wanted else b""), b""
        for page in self._remote.list(prefix, after=_just_before(wanted, prefix)):
            for found in page.objects:
                self._objects[found.key] = found
            if page.objects:
                self._last = page.objects[-1].key.encode()
            pages -= 1
            if pages <= 0 or stopped() or (wanted and self._last > wanted[-1]):
                return
        self._last = None  # to the end

    def knows(self, key: str) -> bool:
        """True if the listing went over this key."""
        raw = key.encode()
        if not key.startswith(self._prefix) or raw < self._first:
            return False
        return self._last is None or raw <= self._last

    def find(self, key: str) -> RemoteObject | None:
        """The object, asked for unless the listing knows. Raises what `head` raises."""
        if self.knows(key):
            return self._objects.get(key)
        return self.ask(key)

    def ask(self, key: str) -> RemoteObject | None:
        """The object as it is now; None if there is none."""
        try:
            return self._remote.head(key)
        except NotFound:
            return None


def _common(first: bytes, last: bytes) -> str:
    """The text that both begin with."""
    pairs = enumerate(zip(first, last, strict=False))
    end = next((at for at, (one, other) in pairs if one != other), min(len(first), len(last)))
    return first[:end].decode("utf-8", "ignore")


def _just_before(wanted: list[bytes], prefix: str) -> str | None:
    """A key behind which a listing finds the first wanted one; None to begin at the prefix."""
    if not wanted:
        return None
    before = wanted[0].decode()[:-1]
    return before if len(before) > len(prefix) else None
