"""The R2 double is as strict as R2, seen by plain boto3 and plain HTTP."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import os
import re
import subprocess
import sys
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from botocore.exceptions import ClientError
from servers import client_of

from cachestore.options import RemoteOptions
from cachestore.remote.s3 import S3Remote
from cachestore.testing.contract import RemoteContract
from cachestore.testing.r2 import R2Double
from cachestore.testing.r2.request import Refusal, Request
from cachestore.testing.r2.signing import Credentials, check_signature

PART = 5 * 1024 * 1024


@pytest.fixture(scope="module")
def double() -> Iterator[R2Double]:
    with R2Double() as running:
        yield running


@pytest.fixture(scope="module")
def client(double: R2Double) -> Any:
    return client_of(double)


@pytest.fixture
def bucket(double: R2Double) -> str:
    return double.new_bucket()


@pytest.fixture(scope="module")
def shared_remote(double: R2Double) -> Iterator[S3Remote]:
    options = RemoteOptions(
        bucket=double.bucket,
        endpoint=double.endpoint,
        region=double.region,
        access_key=double.access_key,
        secret_key=double.secret_key,
        conditional=double.conditional,
    )
    remote = S3Remote(options, workers=8, in_flight=1)
    yield remote
    remote.close()


class TestContract(RemoteContract):
    @pytest.fixture
    def remote(self, shared_remote: S3Remote) -> S3Remote:
        return shared_remote


def refused(call: Any, **arguments: Any) -> tuple[int, str]:
    """Status and code of the refusal."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def fetch(url: str, method: str = "GET", data: bytes | None = None, **headers: str) -> int:
    """The status of a plain request."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data, named, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def signed(
    double: R2Double, method: str, target: str, data: bytes = b"", **headers: str
) -> tuple[int, str]:
    """Status and code of a request that is signed as it is, whatever its headers say."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named = {"x-amz-content-sha256": hashlib.sha256(data).hexdigest()} | named
    request = AWSRequest(method, f"{double.endpoint}/{target}", named, data)
    keys = BotoCredentials(double.access_key, double.secret_key)
    SigV4Auth(keys, "s3", "auto").add_auth(request)
    connection = http.client.HTTPConnection(urlsplit(double.endpoint).netloc, timeout=60)
    connection.request(method, f"/{target}", data, dict(request.headers))
    answer = connection.getresponse()
    code = re.search(rb"<Code>(\w+)</Code>", answer.read())
    connection.close()
    return answer.status, code[1].decode() if code else ""


# Signatures


def test_an_unknown_key_is_401_and_a_wrong_secret_403(double: R2Double, bucket: str) -> None:
    other = client_of(_like(double, access_key="other"))
    assert refused(other.put_object, Bucket=bucket, Key="a", Body=b"") == (401, "Unauthorized")
    assert refused(other.get_object, Bucket=bucket, Key="a") == (401, "Unauthorized")
    wrong = client_of(_like(double, secret_key="wrong"))
    expected = (403, "SignatureDoesNotMatch")
    assert refused(wrong.put_object, Bucket=bucket, Key="a", Body=b"") == expected
    assert refused(wrong.list_objects_v2, Bucket=bucket) == expected


def _like(double: R2Double, **changes: Any) -> Any:
    names = ("endpoint", "access_key", "secret_key", "region")
    return type("Server", (), {name: getattr(double, name) for name in names} | changes)


def test_no_signature_and_sigv2(double: R2Double, bucket: str, client: Any) -> None:
    assert fetch(f"{double.endpoint}/{bucket}/a") == 400
    old = client_of(double, signature_version="s3")
    assert refused(old.get_object, Bucket=bucket, Key="a") == (401, "Unauthorized")


def test_a_foreign_region_is_refused(double: R2Double, bucket: str) -> None:
    far = client_of(double, region_name="eu-west-1")
    assert refused(far.get_object, Bucket=bucket, Key="a") == (400, "InvalidRegionName")
    alias = client_of(double, region_name="us-east-1")
    assert refused(alias.get_object, Bucket=bucket, Key="a") == (404, "NoSuchKey")


def test_odd_names_are_signed_right(client: Any, bucket: str) -> None:
    for key in ("a b+c%20&d=e?f#g", "ä/ö ü.txt", "a//b/", "(x)'!*~$@,;:.txt", "日本"):
        client.put_object(Bucket=bucket, Key=key, Body=key.encode(), Metadata={"a_b-c": "1   2"})
        got = client.get_object(Bucket=bucket, Key=key)
        assert got["Body"].read() == key.encode()
        assert got["Metadata"] == {"a_b-c": "1   2"}
        found = client.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]
        assert [item["Key"] for item in found] == [key]


def test_presigned_urls(client: Any, bucket: str) -> None:
    put = client.generate_presigned_url(
        "put_object", Params={"Bucket": bucket, "Key": "a b", "ContentType": "image/png"}
    )
    assert fetch(put, "PUT", b"x", Content_Type="text/html") == 403
    assert fetch(put, "PUT", b"x", Content_Type="image/png") == 200
    get = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b"})
    assert fetch(get) == 200
    assert fetch(get.replace("a%20b", "a%20c")) == 403
    assert fetch(get, "DELETE") == 403
    assert client.head_object(Bucket=bucket, Key="a b")["ContentType"] == "image/png"
    for seconds, status in ((604_800, 200), (604_801, 400)):
        url = client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": "a b"}, ExpiresIn=seconds
        )
        assert fetch(url) == status


def test_expired_urls_and_wrong_clocks() -> None:
    """Pure, so that nobody waits."""
    known = Credentials("key", "secret")
    url = client_of(_server(known)).generate_presigned_url(
        "get_object", Params={"Bucket": "bucket", "Key": "a"}, ExpiresIn=60
    )
    parts = urlsplit(url)
    request = Request.parse("GET", f"{parts.path}?{parts.query}", {"host": parts.netloc})
    now = datetime.now(UTC).timestamp()
    check_signature(request, known, now + 50)
    with pytest.raises(Refusal, match="403 ExpiredRequest"):
        check_signature(request, known, now + 65)
    with pytest.raises(Refusal, match="401 Unauthorized"):
        check_signature(request, Credentials("other", "secret"), now)
    headers = {
        "authorization": "AWS4-HMAC-SHA256 Credential=key/x, SignedHeaders=host, Signature=0",
        "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        "x-amz-date": datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"),
    }
    signed = Request.parse("GET", "/bucket/a", headers)
    late = datetime.now(UTC) + timedelta(minutes=16)
    with pytest.raises(Refusal, match="403 RequestTimeTooSkewed"):
        check_signature(signed, known, late.timestamp())
    assert "secret" not in repr(known)


def _server(known: Credentials) -> Any:
    details = {"endpoint": "https://r2.example", "region": "auto"}
    keys = {"access_key": known.access_key, "secret_key": known.secret_key}
    return type("Server", (), details | keys)


def test_a_session_token_is_checked() -> None:
    with R2Double(session_token="token") as double:
        import boto3
        from botocore.config import Config

        def put(token: str | None) -> Any:
            return boto3.client(
                "s3",
                endpoint_url=double.endpoint,
                aws_access_key_id=double.access_key,
                aws_secret_access_key=double.secret_key,
                aws_session_token=token,
                region_name="auto",
                config=Config(s3={"addressing_style": "path"}),
            ).put_object(Bucket=double.bucket, Key="a", Body=b"x")

        put("token")
        assert refused(put, token="other") == (401, "Unauthorized")
        assert refused(put, token=None) == (401, "Unauthorized")


# Bodies


def test_wrong_digests_are_refused(double: R2Double, client: Any, bucket: str) -> None:
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    put = {"Bucket": bucket, "Key": "a", "Body": b"x"}
    assert refused(client.put_object, **put, ContentMD5=wrong) == (400, "BadDigest")
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    assert refused(client.put_object, **put, ChecksumSHA256=wrong) == (400, "BadDigest")
    right = base64.b64encode(hashlib.sha256(b"x").digest()).decode()
    client.put_object(**put, ChecksumSHA256=right)
    expected = (400, "XAmzContentSHA256Mismatch")
    assert signed(double, "PUT", f"{bucket}/b", b"x", x_amz_content_sha256="0" * 64) == expected
    assert signed(double, "PUT", f"{bucket}/b", b"x") == (200, "")


def test_chunks_and_trailers_are_refused(double: R2Double, bucket: str) -> None:
    expected = (501, "NotImplemented")
    for headers in (
        {"x_amz_trailer": "x-amz-checksum-crc32"},
        {"Content_Encoding": "aws-chunked"},
        {"x_amz_content_sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"},
    ):
        assert signed(double, "PUT", f"{bucket}/a", b"x", **headers) == expected


def test_a_body_without_a_length_is_refused(double: R2Double, bucket: str, client: Any) -> None:
    url = client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "a"})
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    connection.request("PUT", f"{parts.path}?{parts.query}", body=iter([b"one", b"two"]))
    answer = connection.getresponse()
    assert (answer.status, b"MissingContentLength" in answer.read()) == (411, True)
    # The connection is still in step.
    connection.request("PUT", f"{parts.path}?{parts.query}", body=b"three")
    assert connection.getresponse().status == 200
    connection.close()


def test_boto3s_default_checksums_fail_on_https(tmp_path: Any) -> None:
    """What http never shows: with default settings boto3 sends trailers, which R2 refuses."""
    import ssl

    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with R2Double(ssl_context=context) as double:
        import boto3
        from botocore.config import Config

        def put(checksums: str) -> None:
            boto3.client(
                "s3",
                endpoint_url=double.endpoint,
                aws_access_key_id=double.access_key,
                aws_secret_access_key=double.secret_key,
                region_name="auto",
                verify=str(certificate),
                config=Config(
                    s3={"addressing_style": "path"}, request_checksum_calculation=checksums
                ),
            ).put_object(Bucket=double.bucket, Key="a", Body=b"x" * 100_000)

        assert refused(put, checksums="when_supported") == (501, "NotImplemented")
        put("when_required")
        assert double.log.bytes_received("a") >= 100_000


def make_certificate(folder: Any) -> tuple[Any, Any]:
    """A certificate for 127.0.0.1, which signs itself."""
    from ipaddress import IPv4Address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), False
        )
        .sign(private, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "certificate").write_bytes(made.public_bytes(pem))
    plain = serialization.NoEncryption()
    (folder / "key").write_bytes(
        private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    )
    return folder / "certificate", folder / "key"


# Limits


def test_keys_metadata_and_deletes_have_limits(client: Any, bucket: str) -> None:
    put = {"Bucket": bucket, "Body": b""}
    client.put_object(**put, Key="ä" * 512)
    assert refused(client.put_object, **put, Key="ä" * 512 + "a")[0] == 400
    client.put_object(**put, Key="a", Metadata={"m": "x" * 8191})
    expected = (400, "MetadataTooLarge")
    assert refused(client.put_object, **put, Key="a", Metadata={"m": "x" * 8192}) == expected
    keys = [{"Key": f"k{number}"} for number in range(1001)]
    delete = {"Bucket": bucket, "Delete": {"Objects": keys[:1000]}}
    assert len(client.delete_objects(**delete)["Deleted"]) == 1000
    delete["Delete"] = {"Objects": keys}
    assert refused(client.delete_objects, **delete) == (400, "MalformedXML")


def test_nfc_and_nfd_are_one_key(client: Any, bucket: str) -> None:
    composed, decomposed = "ä/é.txt", unicodedata.normalize("NFD", "ä/é.txt")
    assert composed != decomposed
    client.put_object(Bucket=bucket, Key=decomposed, Body=b"one")
    client.put_object(Bucket=bucket, Key=composed, Body=b"two")
    assert client.get_object(Bucket=bucket, Key=decomposed)["Body"].read() == b"two"
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    client.copy_object(Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": decomposed})
    client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": decomposed}]})
    assert [o["Key"] for o in client.list_objects_v2(Bucket=bucket)["Contents"]] == ["b"]


def test_keys_with_dot_segments_are_refused(client: Any, bucket: str) -> None:
    for key in ("./a", "a/../b", "a/."):
        assert refused(client.put_object, Bucket=bucket, Key=key, Body=b"")[0] == 403


def test_a_type_is_made_up(client: Any, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="a", Body=b"x")
    assert client.head_object(Bucket=bucket, Key="a")["ContentType"] == "application/octet-stream"
    form = "application/x-www-form-urlencoded"
    client.put_object(Bucket=bucket, Key="b", Body=b"a=b", ContentType=form)
    got = client.get_object(Bucket=bucket, Key="b")
    assert (got["Body"].read(), got["ContentType"]) == (b"a=b", form)


@pytest.mark.parametrize(
    "extra",
    [
        {"Tagging": "a=b"},
        {"ServerSideEncryption": "aws:kms"},
        {"SSEKMSKeyId": "key", "ServerSideEncryption": "AES256"},
        {"ExpectedBucketOwner": "123456789012"},
        {"GrantRead": "id=x"},
        {"ObjectLockLegalHoldStatus": "ON"},
    ],
)
def test_headers_that_r2_does_not_have(client: Any, bucket: str, extra: dict[str, str]) -> None:
    found = refused(client.put_object, Bucket=bucket, Key="a", Body=b"x", **extra)
    assert found == (501, "NotImplemented")


def test_what_else_r2_does_not_have(double: R2Double, client: Any, bucket: str) -> None:
    no = (501, "NotImplemented")
    client.put_object(Bucket=bucket, Key="a", Body=b"x", ACL="public-read")
    one = {"Bucket": bucket, "Key": "a"}
    assert refused(client.get_object_tagging, **one) == no
    assert refused(client.get_object_acl, **one) == no
    assert refused(client.get_object_attributes, **one, ObjectAttributes=["ETag"]) == no
    assert refused(client.list_object_versions, Bucket=bucket) == no
    assert refused(client.get_bucket_policy, Bucket=bucket) == no
    assert refused(client.put_object, **one, Body=b"", StorageClass="GLACIER") == (
        400,
        "InvalidStorageClass",
    )
    url = client.generate_presigned_url("list_objects_v2", Params={"Bucket": bucket})
    assert fetch(url) == 200
    post = client.generate_presigned_post(bucket, "b")
    assert fetch(post["url"], "POST", b"x", Content_Type="multipart/form-data") == 501
    assert signed(double, "GET", f"{bucket}?list-type=2&max-keys=3") == (200, "")
    assert signed(double, "GET", f"{bucket}?list-type=2&strange=1") == no


def test_buckets_are_not_for_object_tokens(double: R2Double, client: Any, bucket: str) -> None:
    assert refused(client.list_buckets) == (403, "AccessDenied")
    assert refused(client.head_bucket, Bucket=bucket)[0] == 403
    assert refused(client.create_bucket, Bucket="another")[0] == 403
    assert refused(client.get_object, Bucket="nowhere", Key="a") == (404, "NoSuchBucket")
    with R2Double(admin=True) as generous:
        admin = client_of(generous)
        admin.head_bucket(Bucket=generous.bucket)
        (found,) = admin.list_buckets()["Buckets"]
        assert found["Name"] == generous.bucket


# Conditions and ranges


def test_conditional_writes(client: Any, bucket: str) -> None:
    failed = (412, "PreconditionFailed")
    put = {"Bucket": bucket, "Key": "a"}
    assert refused(client.put_object, **put, Body=b"", IfMatch='"x"') == failed
    etag = client.put_object(**put, Body=b"one", IfNoneMatch="*")["ETag"]
    assert refused(client.put_object, **put, Body=b"two", IfNoneMatch="*") == failed
    assert refused(client.put_object, **put, Body=b"two", IfNoneMatch=etag) == failed
    assert refused(client.put_object, **put, Body=b"two", IfMatch='"x"') == failed
    client.put_object(**put, Body=b"two", IfMatch=f'"x", W/{etag}')
    client.put_object(**put, Body=b"three", IfMatch="*")
    assert client.get_object(**put)["Body"].read() == b"three"


def test_conditional_reads_and_ranges(client: Any, bucket: str) -> None:
    one = {"Bucket": bucket, "Key": "a"}
    etag = client.put_object(**one, Body=b"0123456789")["ETag"]
    client.put_object(Bucket=bucket, Key="empty", Body=b"")
    assert refused(client.get_object, **one, IfMatch='"x"')[0] == 412
    assert refused(client.get_object, **one, IfNoneMatch=f'"x", {etag}')[0] == 304
    assert refused(client.head_object, **one, IfNoneMatch="*")[0] == 304
    for asked, data, said in (
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=0-", b"0123456789", "bytes 0-9/10"),
    ):
        got = client.get_object(**one, Range=asked)
        assert (got["Body"].read(), got["ContentRange"]) == (data, said)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert refused(client.get_object, **one, Range="bytes=10-") == (416, "InvalidRange")
    assert refused(client.get_object, Bucket=bucket, Key="empty", Range="bytes=0-")[0] == 416
    assert refused(client.get_object, **one, Range="bytes=4-2") == (400, "InvalidArgument")
    assert refused(client.get_object, **one, Range="bytes=a-b") == (400, "InvalidArgument")


def test_writes_of_a_key_can_be_limited(double: R2Double, client: Any, bucket: str) -> None:
    double.write_interval = 3600.0
    try:
        client.put_object(Bucket=bucket, Key="a", Body=b"one")
        client.put_object(Bucket=bucket, Key="b", Body=b"one")
        found = refused(client.put_object, Bucket=bucket, Key="a", Body=b"two")
        assert found == (429, "ServiceUnavailable")
        double.write_interval = 0.0
        client.put_object(Bucket=bucket, Key="a", Body=b"two")
    finally:
        double.write_interval = None


# Uploads in parts


def send_parts(client: Any, bucket: str, key: str, sizes: list[int]) -> tuple[str, list[Any]]:
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    parts = []
    for number, size in enumerate(sizes, 1):
        etag = client.upload_part(
            Bucket=bucket,
            Key=key,
            UploadId=upload,
            PartNumber=number,
            Body=io.BytesIO(bytes([number]) * size),
        )["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    return upload, parts


def complete(client: Any, bucket: str, key: str, upload: str, parts: list[Any], **more: Any) -> Any:
    return client.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **more
    )


def test_parts_must_be_equal(client: Any, bucket: str) -> None:
    for sizes in ([PART, PART + 1, 10], [PART, PART + 1]):
        upload, parts = send_parts(client, bucket, "a", sizes)
        found = refused(complete, client=client, bucket=bucket, key="a", upload=upload, parts=parts)
        assert found == (400, "InvalidPart")
    upload, parts = send_parts(client, bucket, "a", [10, 10])
    found = refused(complete, client=client, bucket=bucket, key="a", upload=upload, parts=parts)
    assert found == (400, "EntityTooSmall")
    upload, parts = send_parts(client, bucket, "a", [PART, PART, 10])
    # R2 sorts them.
    done = complete(client, bucket, "a", upload, parts[::-1])
    digests = [
        hashlib.md5(bytes([n]) * size).digest() for n, size in ((1, PART), (2, PART), (3, 10))
    ]
    assert done["ETag"] == f'"{hashlib.md5(b"".join(digests)).hexdigest()}-3"'
    got = client.get_object(Bucket=bucket, Key="a", Range=f"bytes={PART - 1}-{PART}")
    assert got["Body"].read() == b"\x01\x02"


def test_uploads_that_are_gone(client: Any, bucket: str) -> None:
    upload, parts = send_parts(client, bucket, "a", [10])
    one = {"Bucket": bucket, "Key": "a", "UploadId": upload}
    assert len(client.list_parts(**one)["Parts"]) == 1
    client.abort_multipart_upload(**one)
    gone = (404, "NoSuchUpload")
    assert refused(client.upload_part, **one, PartNumber=1, Body=b"x") == gone
    assert refused(client.abort_multipart_upload, **one) == gone
    assert (
        refused(complete, client=client, bucket=bucket, key="a", upload=upload, parts=parts) == gone
    )
    client.put_object(Bucket=bucket, Key="a", Body=b"x")
    upload, parts = send_parts(client, bucket, "a", [10])
    arguments = {"client": client, "bucket": bucket, "key": "a", "upload": upload, "parts": parts}
    assert refused(complete, **arguments, IfNoneMatch="*")[0] == 412
    # The failed condition destroyed the upload.
    assert refused(complete, **arguments) == gone


# By itself


def test_the_program(tmp_path: Any) -> None:
    command = [sys.executable, "-m", "cachestore.testing.r2", "--bucket", "demo", "--with-stdin"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=os.getcwd()
    )
    try:
        assert process.stdout is not None
        details = json.loads(process.stdout.readline())
        client = client_of(type("Server", (), details))
        client.put_object(Bucket="demo", Key="a", Body=b"x")
        assert client.list_objects_v2(Bucket=details["bucket"])["KeyCount"] == 1
    finally:
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_doubles_are_separate() -> None:
    with R2Double("same") as one, R2Double() as two:
        client_of(one).put_object(Bucket="same", Key="a", Body=b"x")
        assert refused(client_of(two).get_object, Bucket="same", Key="a")[0] == 404
        with pytest.raises(ValueError, match="same"):
            R2Double("same")
    with R2Double("same") as again:
        assert client_of(again).list_objects_v2(Bucket="same")["KeyCount"] == 0
        assert again.secret_key not in repr(again)


def test_the_fixture(r2_double: R2Double) -> None:
    client = client_of(r2_double)
    client.put_object(Bucket=r2_double.bucket, Key="a", Body=b"x")
    assert r2_double.log.count("PUT", "a") == 1


def test_the_fixture_of_a_store(request: pytest.FixtureRequest, r2_double: R2Double) -> None:
    pytest.importorskip("cachestore.local.folder")
    store = request.getfixturevalue("cachestore_store")
    store.put("a.txt", b"hello", durability="remote")
    assert r2_double.log.count(operation="PutObject", key="a.txt", status=200) == 1
    assert store.get("a.txt").read_bytes() == b"hello"
