"""The S3 remote: the bucket's own rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cachestore.errors import NotFound
from cachestore.remote.s3_base import S3Base
from cachestore.remote.s3_errors import translated


class S3Lifecycle(S3Base):
    """`SupportsLifecycle` over S3."""

    def lifecycle(self) -> list[Mapping[str, Any]]:
        try:
            with translated("read the lifecycle rules"):
                answer = self._client().get_bucket_lifecycle_configuration(Bucket=self._bucket)
        except NotFound:
            return []
        return list(answer.get("Rules") or ())

    def set_lifecycle(self, rules: Sequence[Mapping[str, Any]]) -> None:
        with translated("write the lifecycle rules"):
            if rules:
                self._client().put_bucket_lifecycle_configuration(
                    Bucket=self._bucket, LifecycleConfiguration={"Rules": list(rules)}
                )
            else:
                self._client().delete_bucket_lifecycle(Bucket=self._bucket)
