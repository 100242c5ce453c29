"""What a caller may attach to a file, checked and completed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cachestore.errors import CacheStoreError
from cachestore.model import Attributes
from cachestore.policy.wire import encode_value

# What R2 takes, less our own two entries: a put that is acknowledged must be one that can be sent.
MAX_METADATA = 8192 - 128
RESERVED = "cachestore-"
_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,128}")
_TYPE = re.compile(r"[\x20-\x7e]{1,255}")


class InvalidAttributes(CacheStoreError, ValueError):
    """A content type, cache control or metadata entry that cannot be sent."""


def make_attributes(
    guessed_type: str,
    content_type: str | None,
    metadata: Mapping[str, str] | None,
    cache_control: str | None,
) -> Attributes:
    """Attributes in the form in which they are kept: metadata names in lower case.

    `guessed_type` stands in for a `content_type` of None. Raises `InvalidAttributes`.
    """
    for what, value in (("content_type", content_type), ("cache_control", cache_control)):
        if value is not None and not (isinstance(value, str) and _TYPE.fullmatch(value)):
            raise InvalidAttributes(f"{what} must be 1 to 255 printable ASCII characters")
    return Attributes(content_type or guessed_type, _checked(metadata or {}), cache_control)


def _checked(metadata: Mapping[str, str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    size = 0
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidAttributes(f"metadata maps str to str; {name!r} does not")
        lower = name.lower()
        if not _NAME.fullmatch(lower):
            raise InvalidAttributes(f"metadata name {name!r} cannot be sent as a header name")
        if lower.startswith(RESERVED):
            raise InvalidAttributes(f"metadata names that start with {RESERVED!r} are our own")
        if lower in kept:
            raise InvalidAttributes(f"metadata name {name!r} is there twice (case is ignored)")
        try:
            size += len(lower) + len(encode_value(value))
        except UnicodeEncodeError:
            raise InvalidAttributes(f"metadata value of {name!r} holds a lone surrogate") from None
        kept[lower] = value
    if size > MAX_METADATA:
        raise InvalidAttributes(
            f"metadata has {size} bytes as it is sent (percent-encoded);"
            f" at most {MAX_METADATA} are allowed"
        )
    return kept
