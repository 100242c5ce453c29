"""Cloudflare R2, and any S3, as a remote. boto3 is imported by the first request."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

from cachestore.errors import NotFound, PreconditionFailed, Rejected, UploadLost
from cachestore.model import Attributes, ListPage, RemoteObject
from cachestore.policy.classify import classify
from cachestore.remote import semantics
from cachestore.remote.base import MAX_SINGLE_PUT, RemoteSource
from cachestore.remote.s3_base import answered_at, bare_etag, object_of, quoted
from cachestore.remote.s3_body import ReceivedBody, SentBody
from cachestore.remote.s3_errors import NotModified, translated
from cachestore.remote.s3_lifecycle import S3Lifecycle
from cachestore.remote.s3_multipart import S3Multipart
from cachestore.remote.s3_presign import S3Presign
from cachestore.remote.semantics import nfc

_AT_ONCE = 1 << 20


class S3Remote(S3Multipart, S3Presign, S3Lifecycle):
    """`RemoteStore` over one bucket, and all that a remote may support besides."""

    def head(self, key: str, *, timeout: float | None = None) -> RemoteObject:
        key = nfc(key)
        with translated(f"head {key!r}"):
            answer = self._client(timeout).head_object(Bucket=self._bucket, Key=key)
        return object_of(key, answer, int(answer.get("ContentLength", -1)))

    def get(
        self,
        key: str,
        *,
        start: int = 0,
        end: int | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        timeout: float | None = None,
    ) -> ReceivedBody | None:
        semantics.check_range(start, end)
        key, what = nfc(key), f"get {key!r}"
        params: dict[str, Any] = {"Bucket": self._bucket, "Key": key}
        ranged = start > 0 or end is not None
        if ranged:
            params["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if if_match is not None:
            params["IfMatch"] = quoted(if_match)
        if if_none_match is not None:
            params["IfNoneMatch"] = quoted(if_none_match)
        try:
            with translated(what):
                answer = self._client(timeout).get_object(**params)
        except NotModified:
            return None
        return _received(key, what, answer, start, ranged, if_match)

    def put(
        self,
        key: str,
        body: RemoteSource,
        *,
        size: int,
        sha256: str,
        attributes: Attributes,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> RemoteObject:
        key, what = nfc(key), f"put {key!r}"
        if size > MAX_SINGLE_PUT:
            raise Rejected(f"{what}: {size} bytes are too many for one request; send it in parts")
        params = self._sent(what, attributes, sha256 or None)
        params |= self._conditions(if_match, if_none_match)
        sent = SentBody(body, size)
        # botocore asks first whether a file may be sent, which costs a round trip; bytes just go.
        data = _bytes_of(body, size)
        try:
            with translated(what):
                answer = self._client().put_object(
                    Bucket=self._bucket, Key=key, ContentLength=size,
                    Body=sent if data is None else data, **params,
                )  # fmt: skip
        except NotFound:
            if if_match is None:
                raise
            # AWS answers 404 where R2 answers 412.
            raise PreconditionFailed(f"{what}: it is gone", status=404, expected=if_match) from None
        except Exception:
            if sent.error is not None:
                raise sent.error from None
            raise
        return RemoteObject(
            key=key,
            size=size,
            etag=bare_etag(answer.get("ETag")),
            content_type=attributes.content_type,
            metadata={name.lower(): value for name, value in attributes.metadata.items()},
            cache_control=attributes.cache_control,
            modified=answered_at(answer),
            sha256=sha256 or None,
        )

    def delete(self, key: str) -> None:
        try:
            with translated(f"delete {key!r}"):
                self._client().delete_object(Bucket=self._bucket, Key=nfc(key))
        except NotFound:
            pass  # some servers say so; it is what was wanted

    def delete_many(self, keys: Iterable[str]) -> dict[str, Exception]:
        wanted = semantics.at_most_1000(keys)
        names: dict[str, list[str]] = {}
        for key in wanted:
            names.setdefault(nfc(key), []).append(key)
        if not names:
            return {}
        try:
            with translated(f"delete {len(names)} objects"):
                answer = self._client().delete_objects(
                    Bucket=self._bucket,
                    Delete={"Objects": [{"Key": name} for name in names], "Quiet": True},
                )
        except (Rejected, UploadLost, NotFound):
            # Not every server takes this request (it carries a checksum); single ones always work.
            return self._delete_each(wanted)
        failed: dict[str, Exception] = {}
        for entry in answer.get("Errors") or ():
            error = _deletion_error(entry)
            if error is not None:
                failed |= dict.fromkeys(names.get(str(entry.get("Key", "")), ()), error)
        return failed

    def _delete_each(self, keys: Iterable[str]) -> dict[str, Exception]:
        failed: dict[str, Exception] = {}
        for key in keys:
            try:
                self.delete(key)
            except Rejected as error:
                failed[key] = error
        return failed

    def list(
        self, prefix: str = "", *, delimiter: str | None = None, after: str | None = None
    ) -> Iterator[ListPage]:
        params: dict[str, Any] = {"Bucket": self._bucket, "MaxKeys": 1000}
        if prefix:
            params["Prefix"] = nfc(prefix)
        if delimiter:
            params["Delimiter"] = delimiter
        if after:
            params["StartAfter"] = nfc(after)
        while True:
            with translated(f"list {prefix!r}"):
                answer = self._client().list_objects_v2(**params)
            yield _page(answer)
            token = answer.get("NextContinuationToken")
            if not answer.get("IsTruncated") or not token:
                return
            params.pop("StartAfter", None)
            params["ContinuationToken"] = token


def _bytes_of(body: RemoteSource, size: int) -> bytes | None:
    """The bytes of a small body that is in memory as a whole."""
    if type(body) is not io.BytesIO or size > _AT_ONCE or body.tell() != 0:
        return None
    data = body.getvalue()
    return data if len(data) == size else None


def _received(
    key: str, what: str, answer: dict[str, Any], start: int, ranged: bool, if_match: str | None
) -> ReceivedBody:
    """Check that the answer is the range and version that was asked for."""
    length = int(answer.get("ContentLength", -1))
    body = answer["Body"]
    size = length
    if ranged:
        first, total = _content_range(str(answer.get("ContentRange", "")))
        if first != start or total is None:
            body.close()
            raise Rejected(f"{what}: the remote did not answer with the range that was asked for")
        size = total
    info = object_of(key, answer, size)
    if if_match is not None and info.etag != if_match:
        # Some servers ignore the condition; the answer shows that it does not hold.
        body.close()
        raise PreconditionFailed(
            f"{what}: it is not the version that was expected", expected=if_match, found=info.etag
        )
    return ReceivedBody(what, info, length, body)


def _content_range(value: str) -> tuple[int | None, int | None]:
    """First byte and whole size of `bytes 0-9/100`; None for what it does not say."""
    unit, _, rest = value.partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdigit() or not total.isdigit():
        return None, None
    return int(first), int(total)


def _deletion_error(entry: dict[str, Any]) -> Exception | None:
    error = classify(
        None,
        str(entry.get("Code") or "unknown"),
        str(entry.get("Message") or ""),
        what=f"delete {entry.get('Key')!r}",
    )
    return None if isinstance(error, NotFound) else error


def _page(answer: dict[str, Any]) -> ListPage:
    return ListPage(
        tuple(
            RemoteObject(
                key=nfc(entry["Key"]),
                size=int(entry["Size"]),
                etag=bare_etag(entry.get("ETag")),
                content_type="",
                modified=entry["LastModified"].timestamp(),
            )
            for entry in answer.get("Contents") or ()
        ),
        tuple(nfc(entry["Prefix"]) for entry in answer.get("CommonPrefixes") or ()),
    )
