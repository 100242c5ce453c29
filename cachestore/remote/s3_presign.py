"""The S3 remote: URLs that work without credentials for a while. Made without the network."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from cachestore.errors import Unsupported
from cachestore.model import PresignedUpload
from cachestore.policy.wire import ANNOUNCED_NAME, SHA256_NAME
from cachestore.remote.s3_base import S3Base
from cachestore.remote.s3_errors import translated
from cachestore.remote.semantics import nfc

MAX_EXPIRES = 604_800


class S3Presign(S3Base):
    """`SupportsPresign` and `SupportsForms` over S3 (SigV4, path style)."""

    def presign_get(self, key: str, expires_in: int) -> str:
        return self._presign("get_object", {"Key": nfc(key)}, expires_in)

    def presign_put(
        self, key: str, *, content_type: str, expires_in: int, size: int | None, sha256: str | None,
        announced: str | None = None,
    ) -> PresignedUpload:  # fmt: skip
        params: dict[str, Any] = {"Key": nfc(key), "ContentType": content_type}
        headers = {"Content-Type": content_type}
        if size is not None:
            params["ContentLength"] = size
            headers["Content-Length"] = str(size)
        entries = _entries(sha256, announced)
        if entries:
            params["Metadata"] = entries
        if sha256 is not None:
            # The metadata entry is for us; the checksum lets the bucket refuse other bytes.
            params["ChecksumSHA256"] = headers["x-amz-checksum-sha256"] = _checksum(sha256)
        headers |= {f"x-amz-meta-{name}": value for name, value in entries.items()}
        expires_at = datetime.now(UTC) + timedelta(seconds=expires_in)
        url = self._presign("put_object", params, expires_in)
        return PresignedUpload(url, "PUT", headers, {}, expires_at)

    def presign_post(
        self, key: str, *, content_type: str, expires_in: int, least: int, most: int,
        sha256: str | None, announced: str | None = None,
    ) -> PresignedUpload:  # fmt: skip
        if self._options.kind == "r2":
            raise Unsupported(
                "R2 takes no form uploads (presigned POST, answered with 501); use presign_put,"
                " with `size` where the length must be signed"
            )
        _check_expiry(expires_in)
        fields = {"Content-Type": content_type}
        fields |= {f"x-amz-meta-{n}": value for n, value in _entries(sha256, announced).items()}
        if sha256 is not None:
            fields["x-amz-checksum-sha256"] = _checksum(sha256)
        conditions: list[Any] = [{name: value} for name, value in fields.items()]
        conditions.append(["content-length-range", least, most])
        expires_at = datetime.now(UTC) + timedelta(seconds=expires_in)
        with translated(f"presign {key!r}"):
            made = self._client().generate_presigned_post(
                self._bucket, nfc(key), Fields=fields, Conditions=conditions, ExpiresIn=expires_in
            )
        return PresignedUpload(str(made["url"]), "POST", {}, dict(made["fields"]), expires_at)

    def _presign(self, operation: str, params: dict[str, Any], expires_in: int) -> str:
        _check_expiry(expires_in)
        with translated(f"presign {params['Key']!r}"):
            return str(
                self._client().generate_presigned_url(
                    operation, Params={"Bucket": self._bucket, **params}, ExpiresIn=expires_in
                )
            )


def _check_expiry(expires_in: int) -> None:
    if not 1 <= expires_in <= MAX_EXPIRES:
        raise ValueError(f"expires_in is {expires_in} seconds; 1 to {MAX_EXPIRES} are allowed")


def _entries(sha256: str | None, announced: str | None) -> dict[str, str]:
    """Our own metadata entries of an upload."""
    named = ((SHA256_NAME, sha256), (ANNOUNCED_NAME, announced))
    return {name: value for name, value in named if value is not None}


def _checksum(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()
