"""What browsers are told about pages of other origins (CORS)."""

from __future__ import annotations

from collections.abc import Container, Mapping

from cachestore.testing.r2.answer import Answer, refused
from cachestore.testing.r2.request import Refusal

_METHODS = "GET, HEAD, PUT"
_SHOWN = "ETag, Content-Length, Content-Range, Accept-Ranges"


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """A browser's question whether a page may send a request; it is never signed."""
    return method == "OPTIONS" and "access-control-request-method" in headers


def preflight(headers: Mapping[str, str], origins: Container[str]) -> Answer:
    """Yes for origins with a rule, and for the methods of uploads and downloads."""
    allowed = headers.get("origin") in origins
    if not allowed or headers["access-control-request-method"] not in _METHODS.split(", "):
        return refused(
            Refusal(403, "AccessForbidden", "CORSResponse: This request is not allowed.")
        )
    return Answer(
        204,
        {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": headers.get("access-control-request-headers", ""),
            "Access-Control-Max-Age": "3600",
        },
    )


def shown_to(origin: str | None, origins: Container[str]) -> dict[str, str]:
    """Headers by which a browser lets a page see any answer."""
    if origin is None or origin not in origins:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": _SHOWN,
        "Vary": "Origin",
    }
