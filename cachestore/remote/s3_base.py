"""What the rooms of the S3 remote share: the bucket, the client, and answers as our values."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from cachestore.model import Attributes, RemoteObject
from cachestore.options import RemoteOptions
from cachestore.policy.wire import announced_by, decode_metadata, encode_metadata
from cachestore.remote.ids import normal_endpoint, remote_id_of
from cachestore.remote.s3_client import Clients


class S3Base:
    """One bucket. Makes no client and no request before the first call."""

    def __init__(self, options: RemoteOptions, *, workers: int = 4, in_flight: int = 4) -> None:
        """`workers` * `in_flight`: requests at a time, for the connection pool.

        Raises `ConfigError` for an endpoint that is no URL.
        """
        self._options = options
        self._bucket = options.bucket
        self._endpoint = normal_endpoint(options.endpoint)
        self._id = remote_id_of(options.endpoint, options.bucket)
        self._clients = Clients(options, workers * in_flight)

    @property
    def remote_id(self) -> str:
        return self._id

    @property
    def name(self) -> str:
        return f"bucket {self._bucket!r} at {self._endpoint}"

    @property
    def conditional(self) -> bool:
        return self._options.conditional

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def close(self) -> None:
        self._clients.close()

    def _client(self, timeout: float | None = None) -> Any:
        return self._clients.get(timeout)

    def _sent(self, what: str, attributes: Attributes, sha256: str | None) -> dict[str, Any]:
        """The parameters that carry attributes; `Rejected` if metadata is too large."""
        params: dict[str, Any] = {
            "ContentType": attributes.content_type,
            "Metadata": encode_metadata(what, attributes, sha256),
        }
        if attributes.cache_control:
            params["CacheControl"] = attributes.cache_control
        return params


def quoted(etag: str) -> str:
    """An ETag as conditions carry it."""
    return etag if etag == "*" else f'"{etag}"'


def bare_etag(value: str | None) -> str:
    """An ETag without quotes and weakness."""
    return (value or "").removeprefix("W/").strip('"')


def object_of(key: str, answer: Mapping[str, Any], size: int) -> RemoteObject:
    """What a HEAD or GET answer says."""
    entries = answer.get("Metadata") or {}
    metadata, sha256 = decode_metadata(entries)
    modified = answer.get("LastModified")
    return RemoteObject(
        key=key,
        size=size,
        etag=bare_etag(answer.get("ETag")),
        content_type=answer.get("ContentType") or "application/octet-stream",
        metadata=metadata,
        cache_control=answer.get("CacheControl"),
        modified=modified.timestamp() if modified is not None else 0.0,
        sha256=sha256,
        announced=announced_by(entries),
    )


def answered_at(answer: Mapping[str, Any]) -> float:
    """The server's time of an answer, seconds since the epoch; 0 if it does not say."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders") or {}
    try:
        return parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (TypeError, ValueError):
        return 0.0
