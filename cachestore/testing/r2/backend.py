"""Objects, kept by moto: its S3 application is called as a WSGI server would call it.

moto reads whole bodies into memory, several times over. So it gets to see empty ones; the real
ones become the files of its objects afterwards, and are read from there.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import secrets
import sys
import threading
from collections.abc import Iterable
from typing import IO, Any
from urllib.parse import quote, unquote

from cachestore.testing.r2.answer import Answer, Body
from cachestore.testing.r2.conditions import (
    Version,
    check_read,
    check_write,
    parse_range,
    precondition_failed,
)
from cachestore.testing.r2.documents import delete_request, parse_parts, parts_request
from cachestore.testing.r2.request import Refusal, Request, nfc
from cachestore.testing.r2.strict import MIN_PART
from cachestore.testing.r2.uploads import Received, new_file

PASSED = (
    *("content-type", "content-encoding", "content-disposition", "content-language"),
    *("cache-control", "expires"),
    *("x-amz-copy-source", "x-amz-copy-source-range", "x-amz-metadata-directive"),
    *("x-amz-storage-class", "x-amz-sdk-checksum-algorithm", "x-amz-server-side-encryption"),
    *("x-amz-checksum-algorithm", "x-amz-checksum-type"),
)
PASSED_PREFIXES = ("x-amz-meta-", "x-amz-checksum-")
COPY_CONDITION = "x-amz-copy-source-"
WRITES = ("PutObject", "CopyObject", "CreateMultipartUpload", "CompleteMultipartUpload")


class Backend:
    """moto's S3 for one account of its own. Raises ImportError when moto is not installed."""

    def __init__(self) -> None:
        try:
            from moto.core.request import PRESERVED_HEADER_NAMES_ENVIRON_KEY
            from moto.moto_server.werkzeug_app import create_backend_app
            from moto.s3.models import s3_backends
        except ImportError as error:
            raise ImportError(
                "the R2 double needs moto with its server: pip install 'moto[server]'"
            ) from error
        # moto is not safe to use from several threads; it also checks and acts in two steps.
        self._lock = threading.RLock()
        self._account = "".join(secrets.choice("123456789") for _ in range(12))
        self._s3: Any = s3_backends[self._account]["aws"]
        self._app: Any = create_backend_app("s3")
        self._names_key: str = PRESERVED_HEADER_NAMES_ENVIRON_KEY

    def create_bucket(self, name: str) -> None:
        """Raises ValueError where moto refuses: a bad name, or one in use in this process."""
        from moto.s3.exceptions import S3ClientError

        with self._lock:
            try:
                self._s3.create_bucket(name, "us-east-1")
            except S3ClientError as error:
                raise ValueError(f"bucket {name!r}: {type(error).__name__}") from error

    def has_bucket(self, name: str) -> bool:
        """Whether this bucket is one of this double's."""
        return name in self._s3.buckets

    def close(self) -> None:
        """Drop every bucket and give the memory back."""
        with self._lock:
            for bucket in list(self._s3.buckets.values()):
                for key in list(bucket.keys.values()):
                    key.dispose()
                for upload in list(bucket.multiparts.values()):
                    upload.dispose()
                bucket.keys.clear()
                bucket.multiparts.clear()
                self._s3.delete_bucket(bucket.name)

    def handle(self, request: Request, received: Received) -> Answer:
        """Let a checked request take effect. Raises Refusal."""
        operation = request.operation
        if operation not in ("ListBuckets", "CreateBucket") and not self.has_bucket(request.bucket):
            raise Refusal(404, "NoSuchBucket", "The specified bucket does not exist.")
        if operation in ("GetObject", "HeadObject"):
            return self._read(request)
        with self._lock:
            if operation in WRITES:
                self._check_conditions(request)
            if operation in ("UploadPart", "UploadPartCopy", "ListParts", "AbortMultipartUpload"):
                self._upload(request)
            if operation == "CompleteMultipartUpload":
                return self._complete(request, received.file.read())
            if operation == "DeleteObjects":
                return self._call(request, delete_request(received.file.read()))
            if operation in ("PutObject", "UploadPart"):
                return self._store(request, received)
            return self._call(request, received.file.read())

    def _store(self, request: Request, received: Received) -> Answer:
        answer = self._call(request, b"")
        if answer.status == 200:
            if request.operation == "PutObject":
                target = self._find(request.bucket, request.key)
            else:
                target = self._upload(request).parts[int(request.asked("partNumber") or 0)]
            install(target, received.give(), received.size, received.md5)
            answer.headers.pop("etag", None)
            answer.headers["ETag"] = f'"{received.md5}"'
        return answer

    def _complete(self, request: Request, document: bytes) -> Answer:
        upload = self._upload(request)
        parts = parse_parts(document)
        chosen = checked_parts(upload, parts)
        digests = b"".join(bytes.fromhex(etag) for _, etag in parts)
        etag = f"{hashlib.md5(digests).hexdigest()}-{len(parts)}"
        # Before moto's turn: it closes the files of parts.
        whole, size = joined(chosen)
        upload.complete = lambda _: (b"", etag, None)
        answer = self._call(request, parts_request(parts))
        if answer.status == 200:
            install(self._find(request.bucket, request.key), whole, size, etag)
            upload.dispose()
        else:
            whole.close()
        return answer

    def _find(self, bucket: str, key: str) -> Any:
        found = self._s3.get_object(bucket, key)
        return found if found is not None and hasattr(found, "etag") else None

    def _version(self, bucket: str, key: str) -> Version | None:
        found = self._find(bucket, key)
        return found and Version(found.etag, found.last_modified.replace(microsecond=0))

    def _check_conditions(self, request: Request) -> None:
        try:
            check_write(request.headers, self._version(request.bucket, request.key))
        except Refusal:
            # A failed condition when an upload is published destroys the upload.
            upload = request.asked("uploadId")
            if request.operation == "CompleteMultipartUpload" and upload:
                self._upload(request)
                self._s3.abort_multipart_upload(request.bucket, upload)
            raise
        source = request.header("x-amz-copy-source")
        if source is None:
            return
        conditions = {
            name.removeprefix(COPY_CONDITION): value
            for name, value in request.headers.items()
            if name.startswith(f"{COPY_CONDITION}if-")
        }
        bucket, _, key = unquote(source).removeprefix("/").partition("/")
        version = self._version(bucket, nfc(key)) if self.has_bucket(bucket) else None
        if version is None:
            raise no_such_key()
        if check_read(conditions, version):
            raise precondition_failed()

    def _upload(self, request: Request) -> Any:
        upload = self._s3.get_bucket(request.bucket).multiparts.get(request.asked("uploadId"))
        if upload is None or upload.key_name != request.key:
            message = "The specified multipart upload does not exist."
            raise Refusal(404, "NoSuchUpload", message)
        return upload

    def _read(self, request: Request) -> Answer:
        if request.asked("partNumber") is not None:
            raise Refusal(501, "NotImplemented", "partNumber: not implemented by this double")
        with self._lock:
            found = self._find(request.bucket, request.key)
            if found is None:
                raise no_such_key()
            version = Version(found.etag, found.last_modified.replace(microsecond=0))
            headers = described(found)
            if check_read(request.headers, version):
                kept = ("etag", "last-modified", "cache-control", "expires")
                return Answer(304, {n: v for n, v in headers.items() if n.lower() in kept})
            wanted = None
            if request.header("if-range") in (None, version.etag):
                wanted = parse_range(request.header("range"), found.size)
            body = opened(found)
        if wanted is None:
            if request.header("x-amz-checksum-mode") == "ENABLED" and found.checksum_algorithm:
                name = f"x-amz-checksum-{found.checksum_algorithm.lower()}"
                headers[name] = str(found.checksum_value)
            return Answer(200, headers, body)
        start, length = wanted
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{body.size}"
        body.narrow(start, length)
        return Answer(206, headers, body)

    def _call(self, request: Request, body: bytes) -> Answer:
        said: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
            said.update(status=int(status.split()[0]), headers=dict(headers))
            return lambda data: None

        chunks: Iterable[bytes] = self._app(self._environ(request, body), start_response)
        data = b"".join(chunks)
        getattr(chunks, "close", lambda: None)()
        headers = {
            name: value
            for name, value in said["headers"].items()
            if name.lower() not in ("content-length", "access-control-allow-origin", "connection")
        }
        return Answer(said["status"], headers, Body(data))

    def _environ(self, request: Request, body: bytes) -> dict[str, Any]:
        query = "&".join(
            f"{quote(name, safe='')}={quote(value, safe='')}"
            for name, value in request.query
            if not name.startswith("X-Amz-") and name != "x-id"
        )
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(request.target, "latin-1"),
            "RAW_URI": request.target,
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "HTTP_HOST": "localhost",
            # moto takes a request with this header for one by the owner; the real one was checked.
            "HTTP_AUTHORIZATION": "AWS4-HMAC-SHA256 Credential=double/20260101/us-east-1/s3/"
            "aws4_request, SignedHeaders=host, Signature=0",
            "HTTP_X_MOTO_ACCOUNT_ID": self._account,
        }
        names = environ[self._names_key] = {}
        for name, value in passed_headers(request).items():
            variable = name.upper().replace("-", "_")
            if name != "content-type":
                variable = f"HTTP_{variable}"
            environ[variable] = value
            if "_" in name:
                names[variable] = name
        return environ


def checked_parts(upload: Any, parts: list[tuple[int, str]]) -> list[Any]:
    """moto's objects for the parts. Raises 400 where R2 would not put them together."""
    chosen = []
    for number, etag in parts:
        part = upload.parts.get(number)
        if part is None or part.etag.strip('"') != etag:
            message = "One or more of the specified parts could not be found."
            raise Refusal(400, "InvalidPart", message)
        chosen.append(part)
    sizes = [part.contentsize for part in chosen]
    if len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0]:
        raise Refusal(400, "InvalidPart", "All non-trailing parts must have the same length.")
    if len(sizes) > 1 and sizes[0] < MIN_PART:
        message = "Your proposed upload is smaller than the minimum allowed object size."
        raise Refusal(400, "EntityTooSmall", message)
    return chosen


def joined(parts: list[Any]) -> tuple[IO[bytes], int]:
    """One file with the bodies of all parts, and its size."""
    whole = new_file()
    size = 0
    for part in parts:
        body = opened(part)
        try:
            for piece in body.pieces():
                whole.write(piece)
                size += len(piece)
        finally:
            body.close()
    return whole, size


def install(found: Any, file: IO[bytes], size: int, etag: str) -> None:
    """Make a file the body of one of moto's objects."""
    with found.lock:
        found._value_buffer.close()
        found._value_buffer = file
        found.contentsize = size
        found._etag = etag


def passed_headers(request: Request) -> dict[str, str]:
    """The headers that are moto's business."""
    headers = {
        name: value
        for name, value in request.headers.items()
        if name in PASSED or name.startswith(PASSED_PREFIXES)
    }
    if request.operation in ("PutObject", "CreateMultipartUpload"):
        # R2 looks into the body; this is what it says when it finds nothing there.
        headers.setdefault("content-type", "application/octet-stream")
    elif request.operation != "CopyObject":
        headers.pop("content-type", None)
    if "x-amz-copy-source" in headers:
        source = nfc(unquote(headers["x-amz-copy-source"]))
        headers["x-amz-copy-source"] = quote(source, safe="/")
    if headers.get("x-amz-storage-class") == "STANDARD":
        del headers["x-amz-storage-class"]
    return headers


def described(found: Any) -> dict[str, str]:
    """The headers that moto knows of an object."""
    pairs = itertools.chain(found.metadata.items(), found.response_dict.items())
    headers = {str(name): str(value) for name, value in pairs}
    headers.pop("content-length", None)
    headers["Accept-Ranges"] = "bytes"
    return headers


def opened(found: Any) -> Body:
    """The body of an object, which stays whole when the object is replaced meanwhile."""
    buffer = found._value_buffer
    with found.lock:
        if not getattr(buffer, "_rolled", False):
            buffer.seek(0)
            return Body(buffer.read())
        buffer.flush()
        return Body(descriptor=os.dup(buffer.fileno()), size=found.contentsize)


def no_such_key() -> Refusal:
    return Refusal(404, "NoSuchKey", "The specified key does not exist.")
