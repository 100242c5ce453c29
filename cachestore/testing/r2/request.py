"""A request as the double sees it: bucket, key, operation, and ways to refuse it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

# Sub-resources of an object or bucket, and what asking for them is called.
OBJECT_PARTS = ("acl", "attributes", "legal-hold", "restore", "retention", "select", "tagging")
BUCKET_PARTS = (
    *("accelerate", "acl", "analytics", "cors", "encryption", "intelligent-tiering", "inventory"),
    *("lifecycle", "logging", "metrics", "notification", "object-lock", "ownershipControls"),
    *("policy", "policyStatus", "publicAccessBlock", "replication", "requestPayment", "tagging"),
    *("versioning", "versions", "website"),
)

LIFECYCLE = {
    "GET": "GetBucketLifecycleConfiguration",
    "PUT": "PutBucketLifecycleConfiguration",
    "DELETE": "DeleteBucketLifecycle",
}


class Refusal(Exception):
    """An answer that is an error, as S3 words it."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def body(self) -> bytes:
        """R2's error document: it has a code and a message only."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?><Error>'
            f"<Code>{self.code}</Code><Message>{escape(self.message)}</Message></Error>"
        ).encode()


def not_implemented(what: str) -> Refusal:
    return Refusal(501, "NotImplemented", f"{what} not implemented")


def nfc(text: str) -> str:
    """R2 takes NFC and NFD spellings of a key for the same object."""
    return unicodedata.normalize("NFC", text)


@dataclass(frozen=True)
class Request:
    """`path` and `query` are as sent; names in `headers` are lower-case; `key` is in NFC."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    bucket: str
    key: str

    @classmethod
    def parse(cls, method: str, target: str, headers: Mapping[str, str]) -> Request:
        """Take a request line's target apart (path style)."""
        path, _, query = target.partition("?")
        pairs = tuple(
            (unquote(name), unquote(value))
            for name, _, value in (item.partition("=") for item in query.split("&") if item)
        )
        bucket, _, key = unquote(path.removeprefix("/")).partition("/")
        return cls(method, path, pairs, headers, bucket, nfc(key))

    def asked(self, name: str) -> str | None:
        """The value of a query parameter, "" for one without a value, None for none."""
        return next((value for found, value in self.query if found == name), None)

    def header(self, name: str) -> str | None:
        """The value of a header, None for none."""
        return self.headers.get(name)

    @property
    def target(self) -> str:
        """The path with the key in NFC, percent-encoded."""
        return f"/{quote(self.bucket)}" + (f"/{quote(self.key, safe='/~')}" if self.key else "")

    @property
    def operation(self) -> str:
        """Its name in S3, "" for what there is no name for here."""
        names = {name for name, _ in self.query}
        if not self.bucket:
            return "ListBuckets" if self.method == "GET" else ""
        return _object_operation(self, names) if self.key else _bucket_operation(self, names)


def _bucket_operation(request: Request, names: set[str]) -> str:
    part = next((part for part in BUCKET_PARTS if part in names), None)
    if part == "lifecycle" and request.method in LIFECYCLE:
        return LIFECYCLE[request.method]
    if part:
        return f"Bucket:{part}"
    if request.method == "GET":
        if "uploads" in names:
            return "ListMultipartUploads"
        if "location" in names:
            return "GetBucketLocation"
        return "ListObjectsV2" if request.asked("list-type") == "2" else "ListObjects"
    if request.method == "POST":
        return "DeleteObjects" if "delete" in names else "PostObject"
    simple = {"HEAD": "HeadBucket", "PUT": "CreateBucket", "DELETE": "DeleteBucket"}
    return simple.get(request.method, "")


def _object_operation(request: Request, names: set[str]) -> str:
    part = next((part for part in OBJECT_PARTS if part in names), None)
    if part:
        return f"Object:{part}"
    upload = "uploadId" in names
    copy = "x-amz-copy-source" in request.headers
    if request.method == "PUT":
        if upload:
            return "UploadPartCopy" if copy else "UploadPart"
        return "CopyObject" if copy else "PutObject"
    if request.method == "POST":
        if upload:
            return "CompleteMultipartUpload"
        return "CreateMultipartUpload" if "uploads" in names else ""
    simple = {
        "GET": "ListParts" if upload else "GetObject",
        "HEAD": "HeadObject",
        "DELETE": "AbortMultipartUpload" if upload else "DeleteObject",
    }
    return simple.get(request.method, "")
