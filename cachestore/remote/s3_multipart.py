"""The S3 remote: large objects in parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cachestore.errors import NotFound, PreconditionFailed, Unsupported, UploadLost
from cachestore.model import Attributes, RemoteObject
from cachestore.remote.s3_base import S3Base, answered_at, bare_etag, quoted
from cachestore.remote.s3_errors import translated
from cachestore.remote.semantics import nfc


class S3Multipart(S3Base):
    """`SupportsMultipart` over S3."""

    def create_upload(self, key: str, *, sha256: str, attributes: Attributes) -> str:
        key, what = nfc(key), f"begin upload of {key!r}"
        params = self._sent(what, attributes, sha256)
        with translated(what):
            answer = self._client().create_multipart_upload(Bucket=self._bucket, Key=key, **params)
        return str(answer["UploadId"])

    def upload_part(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        key, what = nfc(key), f"send part {number} of {key!r}"
        try:
            with translated(what):
                answer = self._client().upload_part(
                    Bucket=self._bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=data
                )
        except NotFound as error:
            raise UploadLost(f"{what}: the upload is gone: {error}", status=404) from None
        return bare_etag(answer["ETag"])

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[str],
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> RemoteObject:
        key, what = nfc(key), f"finish upload of {key!r}"
        params = self._conditions(if_match, if_none_match)
        if params:
            self._look_first(key, what, if_match)
        listed = [
            {"PartNumber": number, "ETag": quoted(etag)} for number, etag in enumerate(parts, 1)
        ]
        try:
            with translated(what):
                answer = self._client().complete_multipart_upload(
                    Bucket=self._bucket,
                    Key=key,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": listed},
                    **params,
                )
        except NotFound as error:
            raise UploadLost(f"{what}: the upload is gone: {error}", status=404) from None
        return RemoteObject(key, 0, bare_etag(answer.get("ETag")), modified=answered_at(answer))

    def abort_upload(self, key: str, upload_id: str) -> None:
        try:
            with translated(f"give up upload of {key!r}"):
                self._client().abort_multipart_upload(
                    Bucket=self._bucket, Key=nfc(key), UploadId=upload_id
                )
        except (NotFound, UploadLost):
            pass  # it is gone, which is what was wanted

    def _conditions(self, if_match: str | None, if_none_match: str | None) -> dict[str, Any]:
        params: dict[str, Any] = {}
        if if_match is not None:
            params["IfMatch"] = quoted(if_match)
        if if_none_match is not None:
            params["IfNoneMatch"] = if_none_match
        if params and not self.conditional:
            raise Unsupported(f"{self.name} does not honour if_match and if_none_match")
        return params

    def _look_first(self, key: str, what: str, if_match: str | None) -> None:
        """Some servers honour a condition on PUT but not on finishing an upload."""
        try:
            with translated(what):
                answer = self._client().head_object(Bucket=self._bucket, Key=key)
            found: str | None = bare_etag(answer.get("ETag"))
        except NotFound:
            found = None
        if found != if_match:
            raise PreconditionFailed(
                f"{what}: it is not the version that was expected", expected=if_match, found=found
            )
