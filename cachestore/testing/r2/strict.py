"""Where R2 refuses what other S3 servers take. Pure: a request goes in, a Refusal comes out."""

from __future__ import annotations

from cachestore.testing.r2.request import LIFECYCLE, Refusal, Request, not_implemented

MAX_KEY = 1024
MAX_METADATA = 8192
MAX_PUT = 5 * 1024**3 - 5 * 1024**2
MAX_DELETE = 1000
MAX_PARTS = 10_000
MIN_PART = 5 * 1024**2

WRITES = ("PutObject", "CopyObject", "CreateMultipartUpload")
BODIES = ("PutObject", "UploadPart")
LIST_PARAMETERS = {
    *("list-type", "continuation-token", "delimiter", "encoding-type", "fetch-owner"),
    *("max-keys", "prefix", "start-after"),
}
ANYWHERE: tuple[str, ...] = (
    *("x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"),
    *("x-amz-request-payer", "x-amz-mfa", "x-amz-bypass-governance-retention"),
)
WRITE_HEADERS = (
    *("x-amz-tagging", "x-amz-website-redirect-location"),
    *("x-amz-grant-full-control", "x-amz-grant-read", "x-amz-grant-read-acp"),
    *("x-amz-grant-write", "x-amz-grant-write-acp"),
    *("x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"),
    "x-amz-object-lock-legal-hold",
    *("x-amz-server-side-encryption-aws-kms-key-id", "x-amz-server-side-encryption-context"),
    "x-amz-server-side-encryption-bucket-key-enabled",
)
# What a token that may only read and write objects is refused.
ADMIN = ("ListBuckets", "HeadBucket", "CreateBucket", "DeleteBucket", *LIFECYCLE.values())


def check_form(request: Request) -> None:
    """What is refused before a signature is looked at."""
    if request.operation == "PostObject":
        raise not_implemented("Presigned post requests are")
    encoding = request.header("content-encoding") or ""
    payload = request.header("x-amz-content-sha256") or ""
    for name, value, refused in (
        ("content-encoding", encoding, "aws-chunked" in encoding),
        ("x-amz-content-sha256", payload, payload.startswith("STREAMING-")),
        (
            "x-amz-trailer",
            request.header("x-amz-trailer") or "",
            "x-amz-trailer" in request.headers,
        ),
    ):
        if refused:
            raise not_implemented(f"Header '{name}' with value '{value}'")
    if request.operation in BODIES and "content-length" not in request.headers:
        message = "You must provide the Content-Length HTTP header."
        raise Refusal(411, "MissingContentLength", message)


def check_operation(request: Request, *, admin: bool) -> None:
    """Operations that R2 does not have, or this token may not use."""
    operation = request.operation
    if not operation or ":" in operation:
        raise not_implemented(operation.partition(":")[2] or request.method)
    if operation in ADMIN and not admin:
        raise Refusal(403, "AccessDenied", "Access Denied")
    if operation == "ListObjectsV2":
        signing = {name for name, _ in request.query if name.startswith("X-Amz-")} | {"x-id"}
        for name in {name for name, _ in request.query} - LIST_PARAMETERS - signing:
            raise not_implemented(f"ListObjectsV2 search parameter {name}")
        _check_max_keys(request.asked("max-keys"))
    if request.asked("partNumber") is not None and operation in ("UploadPart", "UploadPartCopy"):
        _check_part_number(request.asked("partNumber") or "")


def check_headers(request: Request) -> None:
    """Headers that R2 does not know, and values that it does not take."""
    operation = request.operation
    names = ANYWHERE + (WRITE_HEADERS if operation in WRITES else ())
    if operation == "CopyObject":
        names += ("x-amz-checksum-algorithm", "x-amz-tagging-directive")
    for name in names:
        value = request.header(name)
        if value is not None:
            raise not_implemented(f"Header '{name}' with value '{value}'")
    encryption = request.header("x-amz-server-side-encryption")
    if encryption not in (None, "AES256"):
        raise not_implemented(f"Header 'x-amz-server-side-encryption' with value '{encryption}'")
    if operation in WRITES and request.header("x-amz-storage-class") not in (
        None,
        "STANDARD",
        "STANDARD_IA",
    ):
        raise Refusal(400, "InvalidStorageClass", "The storage class specified is not valid.")


def check_limits(request: Request) -> None:
    """Sizes of keys, metadata and bodies."""
    if len(request.key.encode("utf-8", "surrogateescape")) > MAX_KEY:
        raise Refusal(400, "KeyTooLongError", "Your key is too long.")
    if not {".", ".."}.isdisjoint(request.key.split("/")):
        # URLs are normalised on their way to R2, so that what was signed is not what arrives.
        message = "The request signature we calculated does not match the signature you provided."
        raise Refusal(403, "SignatureDoesNotMatch", message)
    if metadata_size(request) > MAX_METADATA:
        message = "Your metadata headers exceed the maximum allowed metadata size."
        raise Refusal(400, "MetadataTooLarge", message)
    if request.operation in BODIES and int(request.header("content-length") or 0) > MAX_PUT:
        message = "Your proposed upload exceeds the maximum allowed object size."
        raise Refusal(400, "EntityTooLarge", message)


def metadata_size(request: Request) -> int:
    """Bytes of the names and values of an object's own metadata."""
    prefix = "x-amz-meta-"
    return sum(
        len(name) - len(prefix) + len(value)
        for name, value in request.headers.items()
        if name.startswith(prefix)
    )


def _check_max_keys(value: str | None) -> None:
    if value is not None and not value.isdecimal():
        raise Refusal(400, "InvalidMaxKeys", "MaxKeys params must be positive integer <= 1000.")


def _check_part_number(value: str) -> None:
    if not value.isdecimal() or not 1 <= int(value) <= MAX_PARTS:
        message = f"Part number must be an integer between 1 and {MAX_PARTS}, inclusive."
        raise Refusal(400, "InvalidArgument", message)
