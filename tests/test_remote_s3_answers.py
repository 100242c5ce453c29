"""The S3 remote on the wire: what it makes of answers, and of answers that break."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest
from remote_rig import SECRET, Answer, Stub, make, refuse, say

from cachestore.errors import (
    CacheStoreError,
    NotFound,
    NotSent,
    PreconditionFailed,
    Rejected,
    RemoteRefused,
    RemoteUnavailable,
    Throttled,
)
from cachestore.remote.s3 import S3Remote
from cachestore.testing.contract import PLAIN, put, read


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.close()


@pytest.fixture
def remote(stub: Stub) -> Iterator[S3Remote]:
    remote = make(f"http://127.0.0.1:{stub.server.server_port}", conditional=True)
    yield remote
    remote.close()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refuse(429, "ServiceUnavailable"), Throttled),
        (say(429, b"<html>slow down</html>"), Throttled),
        (refuse(500, "InternalError"), RemoteUnavailable),
        (say(520, b"<html>edge</html>"), RemoteUnavailable),
        (refuse(403, "SignatureDoesNotMatch"), RemoteRefused),
        (refuse(401, "Unauthorized"), RemoteRefused),
        (refuse(404, "NoSuchBucket"), RemoteRefused),
        (refuse(412, "PreconditionFailed"), PreconditionFailed),
        (refuse(400, "InvalidArgument"), Rejected),
    ],
)
def test_error_answers_to_all_requests(
    stub: Stub, remote: S3Remote, answer: Answer, kind: type[Exception]
) -> None:
    stub.answer = answer
    for request in (
        lambda: remote.get("a"),
        lambda: put(remote, "a", b"x"),
        lambda: remote.delete("a"),
        lambda: list(remote.list()),
        lambda: remote.upload_part("a", "u", 1, b"x"),
    ):
        stub.seen.clear()
        with pytest.raises(kind) as caught:
            request()
        assert type(caught.value) is kind
        assert len(stub.seen) == 1, "a request must not be repeated"


def test_error_answers_to_head_have_no_body(stub: Stub, remote: S3Remote) -> None:
    for status, kind in (
        (404, NotFound),
        (403, RemoteRefused),
        (429, Throttled),
        (503, RemoteUnavailable),
    ):
        stub.answer = say(status, Retry_After="5")
        with pytest.raises(kind) as caught:
            remote.head("a")
        assert type(caught.value) is kind
        if isinstance(caught.value, Throttled):
            assert caught.value.retry_after == 5.0


def test_an_error_names_the_request_and_no_secret(stub: Stub, remote: S3Remote) -> None:
    stub.answer = refuse(403, "AccessDenied", "go away")
    with pytest.raises(RemoteRefused) as caught:
        remote.get("a/b.png")
    assert str(caught.value) == "get 'a/b.png': 403 AccessDenied: go away"
    assert caught.value.__cause__ is None
    assert SECRET not in str(caught.value)


def test_an_answer_that_is_cut(stub: Stub, remote: S3Remote) -> None:
    stub.answer = say(200, bytes(1_000_000), cut=700_000, ETag='"e"')
    answer = remote.get("a")
    assert answer is not None
    arrived: list[bytes] = []
    with answer as body, pytest.raises(RemoteUnavailable):
        arrived.extend(body)
    assert 0 < sum(map(len, arrived)) <= 700_000


def test_an_object_without_a_length(stub: Stub, remote: S3Remote) -> None:
    def chunked(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"5\r\nhello\r\n0\r\n\r\n")

    stub.answer = chunked
    answer = remote.get("a")
    assert answer is not None
    with answer as body:
        assert (body.length, body.info.size) == (-1, -1)
        assert b"".join(body) == b"hello"


def test_a_server_that_ignores_ranges_is_found_out(stub: Stub, remote: S3Remote) -> None:
    stub.answer = say(200, b"0123456789", ETag='"e"')
    with pytest.raises(Rejected, match="range"):
        remote.get("a", start=3)


def test_a_server_that_ignores_if_match_is_found_out(stub: Stub, remote: S3Remote) -> None:
    stub.answer = say(200, b"0123456789", ETag='"new"')
    with pytest.raises(PreconditionFailed) as caught:
        remote.get("a", if_match="old")
    assert caught.value.found == "new"


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        remote = make(f"http://127.0.0.1:{taken.getsockname()[1]}")
        for request in (
            lambda: remote.head("a"),
            lambda: put(remote, "a", b"x" * 100_000),
            lambda: list(remote.list()),
        ):
            with pytest.raises(NotSent):
                request()


def test_a_silent_server_is_left_after_the_timeout(stub: Stub, remote: S3Remote) -> None:
    over = threading.Event()
    stub.answer = lambda _: (over.wait(60), None)[1]
    try:
        with pytest.raises(RemoteUnavailable, match="Timeout"):
            remote.head("a", timeout=0.25)
    finally:
        over.set()


def test_a_listing_is_paged_by_its_token(stub: Stub, remote: S3Remote) -> None:
    def page(handler: BaseHTTPRequestHandler) -> None:
        query = parse_qs(urlsplit(handler.path).query)
        assert query["max-keys"] == ["1000"]
        second = query.get("continuation-token") == ["t ok/en"]
        assert ("start-after" in query) is not second
        key = "b%20b" if second else "a"
        more = "" if second else "<NextContinuationToken>t ok/en</NextContinuationToken>"
        say(
            200,
            f"<ListBucketResult><EncodingType>url</EncodingType>"
            f"<IsTruncated>{str(not second).lower()}</IsTruncated>{more}<Contents><Key>{key}</Key>"
            f'<Size>3</Size><ETag>"e"</ETag><LastModified>2026-11-24T10:00:00Z</LastModified>'
            f"</Contents></ListBucketResult>".encode(),
        )(handler)

    stub.answer = page
    pages = list(remote.list("", after="A"))
    assert [obj.key for each in pages for obj in each.objects] == ["a", "b b"]


def test_delete_many_falls_back_to_single_requests(stub: Stub, remote: S3Remote) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        many = handler.command == "POST"
        (refuse(501, "NotImplemented") if many else say(204))(handler)

    stub.answer = answer
    assert remote.delete_many(["a", "b"]) == {}
    assert stub.seen == ["POST /bucket?delete", "DELETE /bucket/a", "DELETE /bucket/b"]


def test_delete_many_tells_which_failed(stub: Stub, remote: S3Remote) -> None:
    stub.answer = say(
        200,
        b"<DeleteResult><Error><Key>b</Key><Code>InternalError</Code><Message>m</Message></Error>"
        b"<Error><Key>c</Key><Code>NoSuchKey</Code></Error></DeleteResult>",
    )
    failed = remote.delete_many(["a", "b", "c"])
    assert list(failed) == ["b"]
    assert isinstance(failed["b"], RemoteUnavailable)


def test_nothing_of_botocore_comes_out(stub: Stub, remote: S3Remote) -> None:
    def garbage(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"this is not HTTP\r\n\r\n")
        handler.close_connection = True

    for answer in (garbage, say(200, b"<not xml"), say(200, b"\xff\xfe junk")):
        stub.answer = answer
        for request in (
            lambda: list(remote.list()),
            lambda: remote.complete_upload("a", "u", ["e"]),
        ):
            with pytest.raises(CacheStoreError):
                request()


def test_a_large_body_is_not_read_whole(stub: Stub, remote: S3Remote) -> None:
    class Counting(io.BytesIO):
        largest = 0

        def read(self, count: int | None = -1, /) -> bytes:
            data = super().read(count)
            self.largest = max(self.largest, len(data))
            return data

    stub.answer = say(200, ETag='"e"')
    body = Counting(bytes(9_000_000))
    remote.put("a", body, size=9_000_000, sha256="0" * 64, attributes=PLAIN)
    assert 0 < body.largest <= 2_000_000


def test_read_of_a_whole_object(stub: Stub, remote: S3Remote) -> None:
    stub.answer = say(200, b"hello", ETag='"e"', x_amz_meta_Note="Gr%C3%B6%C3%9Fe",
                      x_amz_meta_cachestore_encoding="percent")  # fmt: skip
    assert read(remote, "a") == b"hello"
    answer = remote.get("a")
    assert answer is not None
    with answer as got:
        assert got.info.metadata == {"note": "Größe"}
