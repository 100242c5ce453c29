"""Keys: what is allowed, how they are normalised, and how they are hashed to places."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from cachestore.errors import InvalidKey

MAX_KEY_BYTES = 1024
MAX_SEGMENT_BYTES = 255
_MAX_EXTENSION = 16
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key of one remote lives: all derived from one SHA-256.

    `digest` (64 hex digits) names its files, `shard` (0..255) its folder and lock, `slot`
    (0..65535) its token. A slot lies inside one shard.
    """

    digest: str
    shard: int
    slot: int

    @property
    def folder(self) -> str:
        """The shard's folder name, two hex digits."""
        return self.digest[:2]


def check_key(key: str) -> str:
    """Return `key` in NFC, or raise `InvalidKey` that says what is wrong with it."""
    if not isinstance(key, str):
        raise InvalidKey(
            f"a key is a str, not {type(key).__name__}: {key!r:.80} (arguments swapped?)"
        )
    return _checked(key)


@lru_cache(maxsize=4096)
def _checked(key: str) -> str:
    normal = unicodedata.normalize("NFC", key)
    reason = _fault(normal)
    if reason:
        raise InvalidKey(f"invalid key {_shown(key)}: {reason}")
    return normal


def _shown(key: str) -> str:
    text = ascii(key)
    return text if len(text) <= 120 else text[:117] + "...'"


def _fault(key: str) -> str | None:
    if not key:
        return "it is empty"
    try:
        size = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        return "it holds a lone surrogate, which cannot be written as UTF-8"
    if size > MAX_KEY_BYTES:
        return f"it has {size} bytes of UTF-8, at most {MAX_KEY_BYTES} are allowed"
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in key):
        return "it holds a control character"
    if key.startswith("/"):
        return "it starts with '/'; keys are relative (arguments swapped?)"
    for segment in key.split("/"):
        if not segment:
            return "it has an empty segment ('//' or a '/' at its end)"
        if segment in (".", ".."):
            return f"it has a segment {segment!r}"
    return None


def check_prefix(prefix: str) -> str:
    """Return `prefix` in NFC; a prefix may end anywhere in a key, and may be empty."""
    if not isinstance(prefix, str):
        raise InvalidKey(f"a prefix is a str, not {type(prefix).__name__}")
    normal = unicodedata.normalize("NFC", prefix)
    if normal == "":
        return normal
    # A prefix is valid when some key can start with it.
    probe = normal + "x" if normal.endswith("/") else normal
    reason = None if set(probe.rsplit("/", 1)[-1]) <= {"."} else _fault(probe)
    if reason and "bytes of UTF-8" not in reason:
        raise InvalidKey(f"invalid prefix {_shown(prefix)}: {reason}")
    return normal


@lru_cache(maxsize=8192)
def place_of(remote_id: str, key: str) -> Place:
    """The place of a checked key of one remote."""
    digest = hashlib.sha256(f"{remote_id}\0{key}".encode()).hexdigest()
    return Place(digest, int(digest[:2], 16), int(digest[:4], 16))


def extension_of(key: str) -> str:
    """The key's extension with its dot, if safe in a file name and at most 16 bytes, else ''."""
    name = key.rsplit("/", 1)[-1]
    stem, dot, ext = name.rpartition(".")
    if not dot or not stem or not ext or len(ext) > _MAX_EXTENSION or not set(ext) <= _SAFE:
        return ""
    return "." + ext
