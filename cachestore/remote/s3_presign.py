"""The S3 remote: URLs that work without credentials for a while. Made without the network."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from cachestore.model import PresignedUpload
from cachestore.policy.wire import SHA256_NAME
from cachestore.remote.s3_base import S3Base
from cachestore.remote.s3_errors import translated
from cachestore.remote.semantics import nfc

MAX_EXPIRES = 604_800


class S3Presign(S3Base):
    """`SupportsPresign` over S3 (SigV4, path style)."""

    def presign_get(self, key: str, expires_in: int) -> str:
        return self._presign("get_object", {"Key": nfc(key)}, expires_in)

    def presign_put(
        self, key: str, *, content_type: str, expires_in: int, size: int | None, sha256: str | None
    ) -> PresignedUpload:
        params: dict[str, Any] = {"Key": nfc(key), "ContentType": content_type}
        headers = {"Content-Type": content_type}
        if size is not None:
            params["ContentLength"] = size
            headers["Content-Length"] = str(size)
        if sha256 is not None:
            # The metadata entry is for us; the checksum lets the bucket refuse other bytes.
            checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
            params["Metadata"] = {SHA256_NAME: sha256}
            params["ChecksumSHA256"] = checksum
            headers[f"x-amz-meta-{SHA256_NAME}"] = sha256
            headers["x-amz-checksum-sha256"] = checksum
        expires_at = datetime.now(UTC) + timedelta(seconds=expires_in)
        url = self._presign("put_object", params, expires_in)
        return PresignedUpload(url, "PUT", headers, {}, expires_at)

    def _presign(self, operation: str, params: dict[str, Any], expires_in: int) -> str:
        if not 1 <= expires_in <= MAX_EXPIRES:
            raise ValueError(f"expires_in is {expires_in} seconds; 1 to {MAX_EXPIRES} are allowed")
        with translated(f"presign {params['Key']!r}"):
            return str(
                self._client().generate_presigned_url(
                    operation, Params={"Bucket": self._bucket, **params}, ExpiresIn=expires_in
                )
            )
