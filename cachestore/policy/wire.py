"""Metadata as it travels in headers: values percent-encoded, our own entries beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.header import decode_header, make_header
from urllib.parse import quote, unquote

from cachestore.errors import Rejected
from cachestore.model import Attributes

OWN_PREFIX = "cachestore-"
SHA256_NAME = "cachestore-sha256"
"""The metadata entry that carries our digest (hex); hidden from callers."""

ANNOUNCED_NAME = "cachestore-announced"
"""Signed into a presigned upload: which announcement the object came by; hidden from callers."""

ENCODED_NAME = "cachestore-encoding"
"""Marks entries whose values we encoded, so that values of others are taken as they are."""

MAX_METADATA = 8192
"""Bytes of all names and values together that R2 takes."""

_SAFE = "!\"#$&'()*+,-./:;<=>@[\\]^_`{|}~"
_HEX64 = re.compile(r"[0-9a-f]{64}")


def encode_value(value: str) -> str:
    """A metadata value in printable ASCII without spaces, '%' or '?'; any Unicode is kept.

    '?' is encoded because R2 decodes '=?...?=' by itself.
    """
    return quote(value, safe=_SAFE)


def encode_metadata(what: str, attributes: Attributes, sha256: str | None) -> dict[str, str]:
    """All entries to send, without the `x-amz-meta-` of the wire. Names are lower-case.

    Raises `Rejected`, beginning with `what`, when they are too large to be sent.
    """
    plain = {name.lower(): value for name, value in attributes.metadata.items()}
    entries = {name: encode_value(value) for name, value in plain.items()}
    if any(entries[name] != plain[name] for name in plain):
        entries[ENCODED_NAME] = "percent"
    if sha256 is not None:
        entries[SHA256_NAME] = sha256
    size = wire_size(entries)
    if size > MAX_METADATA:
        raise Rejected(
            f"{what}: the metadata has {size} bytes as it is sent (percent-encoded, with our own"
            f" entries); at most {MAX_METADATA} are allowed",
            code="MetadataTooLarge",
        )
    return entries


def wire_size(entries: Mapping[str, str]) -> int:
    """Bytes that the remote counts against its limit."""
    return sum(len(name) + len(value) for name, value in entries.items())


def decode_metadata(entries: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
    """The caller's metadata and our SHA-256 (hex; None for objects of others)."""
    lower = {name.lower(): value for name, value in entries.items()}
    ours = lower.get(ENCODED_NAME) == "percent"
    digest = lower.get(SHA256_NAME, "").strip().lower()
    shown = {
        name: unquote(value) if ours else _foreign(value)
        for name, value in lower.items()
        if not name.startswith(OWN_PREFIX)
    }
    return shown, digest if _HEX64.fullmatch(digest) else None


def announced_by(entries: Mapping[str, str]) -> str | None:
    """The mark of the presigned URL that an object was uploaded with; None for all others."""
    return next((v for name, v in entries.items() if name.lower() == ANNOUNCED_NAME), None)


def _foreign(value: str) -> str:
    """R2 hands out non-ASCII values of others in RFC 2047 form."""
    if not (value.startswith("=?") and value.endswith("?=")):
        return value
    try:
        return str(make_header(decode_header(value)))
    except (ValueError, LookupError):
        return value
