"""Error answers: what they mean, and metadata on the wire."""

from __future__ import annotations

import pytest

from cachestore import errors
from cachestore.model import Attributes
from cachestore.policy.attributes import InvalidAttributes, make_attributes
from cachestore.policy.classify import classify, retry_after
from cachestore.policy.wire import decode_metadata, encode_metadata, encode_value, wire_size
from cachestore.remote.ids import normal_endpoint, remote_id_of

TABLE = [
    (429, None, "", errors.Throttled),
    (429, "ServiceUnavailable", "Reduce your concurrent request rate", errors.Throttled),
    (429, "TooManyRequests", "", errors.Throttled),
    (503, "SlowDown", "", errors.Throttled),
    (503, "ServiceUnavailable", "Reduce your concurrent request rate", errors.Throttled),
    (503, "TooMuchConcurrency", "", errors.Throttled),
    (500, "InternalError", "", errors.RemoteUnavailable),
    (502, None, "<html>", errors.RemoteUnavailable),
    (503, "ServiceUnavailable", "", errors.RemoteUnavailable),
    (504, None, "", errors.RemoteUnavailable),
    (520, None, "<html>", errors.RemoteUnavailable),
    (527, None, "", errors.RemoteUnavailable),
    (530, None, "", errors.RemoteUnavailable),
    (408, None, "", errors.RemoteUnavailable),
    (400, "RequestTimeout", "", errors.RemoteUnavailable),
    (400, "ClientDisconnect", "", errors.RemoteUnavailable),
    (400, "IncompleteBody", "", errors.RemoteUnavailable),
    (409, "OperationAborted", "", errors.RemoteUnavailable),
    (409, "ConditionalRequestConflict", "", errors.RemoteUnavailable),
    (400, "BadDigest", "", errors.Corrupt),
    (400, "XAmzContentSHA256Mismatch", "", errors.Corrupt),
    (404, "NoSuchKey", "", errors.NotFound),
    (404, "404", "Not Found", errors.NotFound),
    (404, None, "", errors.NotFound),
    (404, "NoSuchBucket", "", errors.RemoteRefused),
    (404, "NoSuchUpload", "", errors.UploadLost),
    (400, "InvalidPart", "All non-trailing parts must have the same length.", errors.UploadLost),
    (400, "EntityTooSmall", "", errors.UploadLost),
    (412, "PreconditionFailed", "", errors.PreconditionFailed),
    (412, "412", "", errors.PreconditionFailed),
    (416, "InvalidRange", "", errors.RangeNotSatisfiable),
    (416, None, "", errors.RangeNotSatisfiable),
    (401, "Unauthorized", "", errors.RemoteRefused),
    (403, "AccessDenied", "", errors.RemoteRefused),
    (403, "403", "Forbidden", errors.RemoteRefused),
    (403, "SignatureDoesNotMatch", "", errors.RemoteRefused),
    (403, "RequestTimeTooSkewed", "", errors.RemoteRefused),
    (400, "ExpiredRequest", "", errors.RemoteRefused),
    (400, "InvalidBucketName", "", errors.RemoteRefused),
    (301, "PermanentRedirect", "", errors.RemoteRefused),
    (302, None, "", errors.RemoteUnavailable),
    (403, "ObjectLockedByBucketPolicy", "", errors.Rejected),
    (400, "EntityTooLarge", "", errors.Rejected),
    (400, "MetadataTooLarge", "", errors.Rejected),
    (400, "InvalidObjectName", "", errors.Rejected),
    (400, "400", "Bad Request", errors.Rejected),
    (411, "MissingContentLength", "", errors.Rejected),
    (501, "NotImplemented", "", errors.Rejected),
    (None, None, "connection refused", errors.RemoteUnavailable),
    (None, "AccessDenied", "", errors.RemoteRefused),
    (None, "InternalError", "", errors.RemoteUnavailable),
]


@pytest.mark.parametrize(("status", "code", "message", "kind"), TABLE)
def test_what_an_answer_means(
    status: int | None, code: str | None, message: str, kind: type[Exception]
) -> None:
    error = classify(status, code, message, what="put 'a'")
    assert type(error) is kind
    assert str(error).startswith("put 'a': ")


def test_an_error_says_what_the_remote_said() -> None:
    error = classify(403, "AccessDenied", "Access\n denied " + "x" * 1000, what="get 'k'")
    assert isinstance(error, errors.RemoteRefused)
    assert (error.status, error.code) == (403, "AccessDenied")
    assert str(error).startswith("get 'k': 403 AccessDenied: Access denied xx")
    assert len(str(error)) < 400


def test_a_pause_that_was_asked_for() -> None:
    error = classify(429, None, "", {"retry-after": "7"})
    assert isinstance(error, errors.Throttled)
    assert error.retry_after == 7.0
    assert retry_after({}, 0) is None
    assert retry_after({"retry-after": "soon"}, 0) is None
    assert retry_after({"retry-after": "nan"}, 0) is None
    assert retry_after({"retry-after": "-3"}, 0) == 0.0
    assert retry_after({"retry-after": "999999999"}, 0) == 3600.0
    date = "Thu, 01 Jan 1970 00:01:40 GMT"
    assert retry_after({"retry-after": date}, 60.0) == 40.0
    assert retry_after({"retry-after": date}, 500.0) == 0.0


def test_encoded_values_are_safe_in_a_header() -> None:
    for value in ("ä ö\n\0", "=?utf-8?q?x?=", "  spaces  ", "100%", "🎬"):
        sent = encode_value(value)
        assert sent.isascii()
        assert sent.isprintable()
        assert " " not in sent
        assert "=?" not in sent


def test_values_of_others_are_taken_as_they_are() -> None:
    assert decode_metadata({"Note": "100%41"}) == ({"note": "100%41"}, None)
    assert decode_metadata({"n": "=?UTF-8?Q?Gr=C3=B6=C3=9Fe?="})[0] == {"n": "Größe"}
    assert decode_metadata({"n": "=?no-such-charset?Q?x?="})[0] == {"n": "=?no-such-charset?Q?x?="}
    assert decode_metadata({"cachestore-sha256": "junk"}) == ({}, None)


def test_metadata_goes_there_and_back() -> None:
    metadata = {"plain": "x", "title": "Größe 100%"}
    sent = encode_metadata("put", Attributes("a/b", metadata), "ab" * 32)
    assert decode_metadata(sent) == (metadata, "ab" * 32)
    plain = encode_metadata("put", Attributes("a/b", {"x": "y"}), None)
    assert plain == {"x": "y"}


def test_a_remote_is_the_same_however_it_is_spelled() -> None:
    one = remote_id_of("https://ACC.r2.cloudflarestorage.com/", "bucket")
    assert one == remote_id_of("https://acc.r2.cloudflarestorage.com:443", "bucket")
    assert one != remote_id_of("https://acc.r2.cloudflarestorage.com", "Bucket")
    assert one != remote_id_of("http://acc.r2.cloudflarestorage.com", "bucket")
    assert one != remote_id_of("https://acc.r2.cloudflarestorage.com:8443", "bucket")
    assert normal_endpoint("http://127.0.0.1:80/path/S3/") == "http://127.0.0.1/path/S3"
    assert normal_endpoint("http://[::1]:9000") == "http://[::1]:9000"


@pytest.mark.parametrize("endpoint", ["", "host.example", "ftp://host", "https://", "https://h:x"])
def test_an_endpoint_that_is_no_url(endpoint: str) -> None:
    with pytest.raises(errors.ConfigError):
        normal_endpoint(endpoint)


def test_metadata_that_a_put_takes_can_always_be_sent() -> None:
    for value in ("x" * 8063, "ä" * 1343, " " * 2687):
        attributes = make_attributes("a/b", None, {"n": value}, None)
        assert wire_size(encode_metadata("put", attributes, "0" * 64)) <= 8192
    for value in ("x" * 8064, "ä" * 1344):
        with pytest.raises(InvalidAttributes, match="as it is sent"):
            make_attributes("a/b", None, {"n": value}, None)
