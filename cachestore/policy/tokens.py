"""Signed, expiring claims that travel in a URL: HMAC-SHA256 over their JSON. Pure."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from math import floor
from typing import Any

_LONGEST = 8192
_PURPOSE = b"cachestore url 1\n"


class BadToken(ValueError):
    """It was not signed with this secret, or its time is over."""


def sign(secret: bytes, claims: Mapping[str, Any], expires: float) -> str:
    """A token that holds until `expires` (wall seconds); safe in a URL."""
    text = json.dumps({**claims, "e": int(expires)}, sort_keys=True, separators=(",", ":"))
    body = urlsafe_b64encode(text.encode()).rstrip(b"=")
    return (body + b"." + _signature(secret, body)).decode()


def read(secret: bytes, token: str, now: float) -> dict[str, Any]:
    """The claims of a token. Raises `BadToken`."""
    body, dot, signature = token.encode("ascii", "replace").partition(b".")
    if len(token) > _LONGEST or not dot:
        raise BadToken("this is no token of ours")
    if not hmac.compare_digest(signature, _signature(secret, body)):
        raise BadToken("the signature does not hold")
    claims = json.loads(urlsafe_b64decode(body + b"=" * (-len(body) % 4)))
    if not isinstance(claims, dict) or not now < claims["e"]:
        raise BadToken("its time is over")
    return claims


def window_end(now: float, seconds: float) -> float:
    """When something made now expires: in at least half of `seconds` and at most all of them.

    The same for all that is made in one half, so that clients can cache what it names.
    """
    half = seconds / 2
    return floor(now / half) * half + seconds


def _signature(secret: bytes, body: bytes) -> bytes:
    return urlsafe_b64encode(hmac.new(secret, _PURPOSE + body, sha256).digest()).rstrip(b"=")
