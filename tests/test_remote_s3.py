"""The S3 remote on the wire: what it sends."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import pytest
from remote_rig import HOST, SECRET, TOKEN, Wire, make

from cachestore.errors import ConfigError, Rejected
from cachestore.model import Attributes
from cachestore.remote.base import RemoteStore, SupportsMultipart, SupportsPresign
from cachestore.remote.s3_client import rounded_timeout
from cachestore.testing.contract import PLAIN, in_threads, put

# -- what is sent ---------------------------------------------------------------------------------


def test_the_constructor_imports_no_boto3_and_needs_no_network() -> None:
    code = (
        "import sys\n"
        "from cachestore.options import RemoteOptions\n"
        "from cachestore.remote.s3 import S3Remote\n"
        "options = RemoteOptions(bucket='b', endpoint='https://nowhere.invalid')\n"
        "remote = S3Remote(options, workers=1)\n"
        "remote.remote_id, remote.name\n"
        "sys.exit(any(name.startswith(('boto', 'urllib3')) for name in sys.modules))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_has_all_capabilities() -> None:
    remote = make()
    assert isinstance(remote, RemoteStore)
    assert isinstance(remote, SupportsMultipart)
    assert isinstance(remote, SupportsPresign)
    with pytest.raises(ConfigError):
        make("account.r2.cloudflarestorage.com")


def test_uploads_over_https_are_plain_and_signed() -> None:
    remote = make(conditional=True)
    wire = Wire(remote)
    data = b"some bytes" * 1000
    stored = put(
        remote, "a/ä b.txt", data, Attributes("text/plain", {"Title": "Größe"}, "no-cache")
    )
    remote.upload_part("k", "u", 1, data)
    remote.create_upload("k", sha256="ab" * 32, attributes=PLAIN)
    assert stored.etag == "e"
    assert wire.bodies[:2] == [data, data]
    for index in range(3):
        headers = wire.headers(index)
        assert "aws-chunked" not in str(headers)
        assert "x-amz-trailer" not in headers
        assert "transfer-encoding" not in headers
        assert not any("checksum" in name for name in headers)
        assert not headers["x-amz-content-sha256"].startswith(("STREAMING", "UNSIGNED"))
        assert headers["authorization"].startswith("AWS4-HMAC-SHA256 ")
    headers = wire.headers(0)
    assert wire.requests[0].url == f"{HOST}/bucket/a/%C3%A4%20b.txt"
    assert headers["content-length"] == str(len(data))
    assert headers["expect"] == "100-continue"
    assert headers["x-amz-content-sha256"] == hashlib.sha256(data).hexdigest()
    assert headers["content-type"] == "text/plain"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-amz-meta-title"] == "Gr%C3%B6%C3%9Fe"
    assert headers["x-amz-meta-cachestore-sha256"] == hashlib.sha256(data).hexdigest()


def test_the_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_PROFILE": "a-missing-profile",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_supported",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_USE_DUALSTACK_ENDPOINT": "true",
        "AWS_MAX_ATTEMPTS": "7",
        "AWS_RETRY_MODE": "adaptive",
        "AWS_ENDPOINT_URL_S3": "https://other.invalid",
        "AWS_SESSION_TOKEN": "stray",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    remote = make()
    wire = Wire(remote)
    put(remote, "a", b"x")
    headers = wire.headers()
    assert wire.requests[0].url == f"{HOST}/bucket/a"
    assert "checksum" not in str(headers)
    assert "x-amz-security-token" not in headers
    assert "/auto/s3/aws4_request" in headers["authorization"]
    assert remote._client().meta.config.retries["total_max_attempts"] == 1


def test_conditions_are_sent_quoted() -> None:
    remote = make(conditional=True)
    wire = Wire(remote)
    put(remote, "a", b"x", if_match="abc")
    assert wire.headers()["if-match"] == '"abc"'
    put(remote, "a", b"x", if_none_match="*")
    assert wire.headers()["if-none-match"] == "*"


def test_too_much_metadata_is_rejected_before_anything_is_sent() -> None:
    remote = make()
    wire = Wire(remote)
    # 1,400 characters, 2,800 bytes, and 8,400 bytes on the wire.
    with pytest.raises(Rejected, match=r"has 8\d\d\d bytes"):
        put(remote, "a", b"x", Attributes("a/b", {"n": "ä" * 1400}))
    assert wire.requests == []


def test_a_body_too_large_for_one_request_is_rejected() -> None:
    with pytest.raises(Rejected, match="in parts"):
        make().put("a", io.BytesIO(), size=5 << 30, sha256="0" * 64, attributes=PLAIN)


def test_secrets_are_never_shown() -> None:
    remote = make(session_token=TOKEN)
    wire = Wire(remote)
    put(remote, "a", b"x")
    assert wire.headers()["x-amz-security-token"] == TOKEN
    for shown in (repr(remote), str(remote), remote.name, repr(remote._options)):
        assert SECRET not in shown
        assert TOKEN not in shown


# -- presigned URLs -------------------------------------------------------------------------------


def test_presigned_urls_are_sigv4_and_path_style() -> None:
    for region in ("auto", "us-east-1"):
        remote = make(region=region)
        parts = urlsplit(remote.presign_get("a/ä b.png", 3600))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert parts.netloc == "account.r2.cloudflarestorage.com"
        assert parts.path == "/bucket/a/%C3%A4%20b.png"
        assert query["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
        assert query["X-Amz-Expires"] == "3600"
        assert query["X-Amz-SignedHeaders"] == "host"


def test_a_presigned_upload_signs_what_was_announced() -> None:
    sha256 = hashlib.sha256(b"hello").hexdigest()
    remote = make()
    up = remote.presign_put("a", content_type="image/png", expires_in=60, size=5, sha256=sha256)
    signed = parse_qs(urlsplit(up.url).query)["X-Amz-SignedHeaders"][0].split(";")
    assert up.method == "PUT"
    assert up.fields == {}
    assert {name.lower() for name in up.headers} | {"host"} == set(signed)
    assert up.headers["Content-Type"] == "image/png"
    assert up.headers["Content-Length"] == "5"
    assert up.headers["x-amz-meta-cachestore-sha256"] == sha256
    least = remote.presign_put("a", content_type="a/b", expires_in=60, size=None, sha256=None)
    assert dict(least.headers) == {"Content-Type": "a/b"}


@pytest.mark.parametrize("seconds", [0, -1, 604_801])
def test_presigned_urls_live_at_most_a_week(seconds: int) -> None:
    with pytest.raises(ValueError, match="604800"):
        make().presign_get("a", seconds)
    with pytest.raises(ValueError, match="604800"):
        make().presign_put("a", content_type="a/b", expires_in=seconds, size=None, sha256=None)


# -- clients --------------------------------------------------------------------------------------


def test_timeouts_share_few_clients() -> None:
    assert rounded_timeout(None) is None
    assert rounded_timeout(1.0) == 1.0
    assert rounded_timeout(0.01) == 0.25
    assert rounded_timeout(29.9) == 30.0
    assert rounded_timeout(1e9) == 60.0
    remote = make()
    assert remote._client(0.9) is remote._client(1.0)
    assert remote._client(1.0) is not remote._client()
    assert remote._client(1.0).meta.config.read_timeout == 1.0
    assert remote._client(1.0).meta.config.connect_timeout == 1.0


def test_one_client_for_all_threads() -> None:
    remote = make()
    seen: list[object] = []
    in_threads(8, lambda _: seen.append(remote._client()))
    assert len({id(client) for client in seen}) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_makes_its_own_client() -> None:
    remote = make()
    mine = remote._client()
    # The lock of the parent is held at the fork, as another thread's could be.
    remote._clients._process.lock.acquire()
    pid = os.fork()
    if pid == 0:
        try:
            other = remote._client() is not mine and remote.presign_get("a", 60)
            os._exit(0 if other else 1)
        finally:
            os._exit(2)
    remote._clients._process.lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert remote._client() is mine
