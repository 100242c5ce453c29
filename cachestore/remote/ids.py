"""Which remote it is: a short hash that tickets, cache folders and facts belong to."""

from __future__ import annotations

import hashlib
from urllib.parse import urlsplit

from cachestore.errors import ConfigError

_PORTS = {"http": 80, "https": 443}


def normal_endpoint(endpoint: str) -> str:
    """Scheme and host in lower case, no default port, no trailing slash, no user or query.

    Raises `ConfigError` for what is not an http or https URL.
    """
    try:
        parts = urlsplit(endpoint.strip())
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"the endpoint is not a URL: {error}") from None
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    if scheme not in _PORTS or not host:
        raise ConfigError("the endpoint must be a URL such as https://ID.r2.cloudflarestorage.com")
    host = f"[{host}]" if ":" in host else host
    shown = host if port in (None, _PORTS[scheme]) else f"{host}:{port}"
    return f"{scheme}://{shown}{parts.path.rstrip('/')}"


def remote_id_of(endpoint: str, bucket: str) -> str:
    """16 hex digits, the same for the same endpoint and bucket however they are spelled."""
    return id_of_text(f"{normal_endpoint(endpoint)}\0{bucket}")


def id_of_text(text: str) -> str:
    """16 hex digits of a text that names a remote."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
