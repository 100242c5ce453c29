"""SigV4 as R2 checks it: in headers and in presigned URLs, for one known key."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, unquote

from cachestore.testing.r2.request import Refusal, Request

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_EXPIRES = 604_800
MAX_SKEW = 900
REGIONS = ("wnam", "enam", "weur", "eeur", "apac", "oc", "auto", "us-east-1", "")
HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Credentials:
    """The only ones that a double knows."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def check_signature(request: Request, known: Credentials, now: float) -> None:
    """Raises Refusal unless the request was signed with the known secret. `now`: Unix time."""
    if request.asked("X-Amz-Algorithm") is not None or request.asked("X-Amz-Signature"):
        _check_presigned(request, known, now)
    elif request.header("authorization"):
        _check_header(request, known, now)
    elif request.asked("Signature") is not None or request.asked("AWSAccessKeyId") is not None:
        raise _old_signature()
    else:
        raise _invalid("Authorization")


def _invalid(message: str) -> Refusal:
    return Refusal(400, "InvalidArgument", message)


def _unauthorized() -> Refusal:
    return Refusal(401, "Unauthorized", "Unauthorized")


def _old_signature() -> Refusal:
    message = "SigV2 authorization is not supported. Please use SigV4 instead."
    return Refusal(401, "Unauthorized", message)


def _parse_date(text: str | None) -> float:
    try:
        return datetime.strptime(text or "", "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise _invalid(f"Date provided in X-Amz-Date ({text}) didn't parse successfully") from None


def _check_header(request: Request, known: Credentials, now: float) -> None:
    authorization = request.headers["authorization"]
    if authorization.startswith("AWS "):
        raise _old_signature()
    payload = request.header("x-amz-content-sha256")
    if payload is None:
        raise Refusal(400, "InvalidRequest", "Missing x-amz-content-sha256")
    date = request.header("x-amz-date")
    if abs(_parse_date(date) - now) > MAX_SKEW:
        message = "The difference between the request time and the server's time is too large."
        raise Refusal(403, "RequestTimeTooSkewed", message)
    parts = authorization.removeprefix(ALGORITHM).split(",")
    fields = {name.strip(): value.strip() for name, _, value in (p.partition("=") for p in parts)}
    if not authorization.startswith(ALGORITHM) or not {
        "Credential",
        "SignedHeaders",
        "Signature",
    } <= set(fields):
        raise Refusal(400, "InvalidRequest", f"Please use {ALGORITHM}")
    _check_token(request.header("x-amz-security-token"), known)
    scope = _check_scope(fields["Credential"], date or "", known)
    _check(request, known, scope, date or "", fields["SignedHeaders"], payload, fields["Signature"])


def _check_presigned(request: Request, known: Credentials, now: float) -> None:
    wanted = ("Algorithm", "Signature", "Date", "SignedHeaders", "Expires", "Credential")
    values = {name: request.asked(f"X-Amz-{name}") for name in wanted}
    missing = [f"X-Amz-{name}" for name, value in values.items() if value is None]
    if missing:
        raise _invalid(f"Required search parameters {', '.join(missing)} missing")
    given = {name: value or "" for name, value in values.items()}
    if given["Algorithm"] != ALGORITHM:
        raise Refusal(400, "InvalidRequest", f"Please use {ALGORITHM}")
    date = _parse_date(given["Date"])
    scope = _check_scope(given["Credential"], given["Date"], known)
    try:
        expires = int(given["Expires"])
    except ValueError:
        raise _invalid("X-Amz-Expires should be a number") from None
    if not 1 <= expires <= MAX_EXPIRES:
        raise _invalid(f"X-Amz-Expires must be between 1 and {MAX_EXPIRES} seconds")
    if now > date + expires:
        raise Refusal(403, "ExpiredRequest", "Request has expired")
    _check_token(request.asked("X-Amz-Security-Token"), known)
    signed, signature = given["SignedHeaders"], given["Signature"]
    _check(request, known, scope, given["Date"], signed, "UNSIGNED-PAYLOAD", signature)


def _check_token(token: str | None, known: Credentials) -> None:
    if token is not None and known.session_token is None:
        raise _invalid("X-Amz-Security-Token")
    if token != known.session_token:
        raise _unauthorized()


def _check_scope(credential: str, date: str, known: Credentials) -> str:
    access_key, _, scope = credential.partition("/")
    parts = scope.split("/")
    if len(parts) != 4 or parts[2:] != ["s3", "aws4_request"]:
        raise _invalid("Credential is not of the form key/date/region/s3/aws4_request")
    if not date.startswith(parts[0]):
        raise _invalid(f"Credential signed date {parts[0]} does not match {date[:8]}")
    if not hmac.compare_digest(access_key.encode(), known.access_key.encode()):
        raise _unauthorized()
    if parts[1] not in REGIONS:
        message = f"The region name '{parts[1]}' is not valid. Must be one of: wnam, enam, auto"
        raise Refusal(400, "InvalidRegionName", message)
    return scope


def _check(
    request: Request,
    known: Credentials,
    scope: str,
    date: str,
    signed_headers: str,
    payload: str,
    signature: str,
) -> None:
    names = signed_headers.split(";")
    if "host" not in names:
        raise _unauthorized()
    text = canonical_request(request, names, payload)
    digest = hashlib.sha256(text).hexdigest()
    to_sign = "\n".join((ALGORITHM, date, scope, digest))
    expected = hmac.new(signing_key(known.secret_key, scope), to_sign.encode(), hashlib.sha256)
    if not hmac.compare_digest(expected.hexdigest().encode(), signature.encode()):
        message = (
            "The request signature we calculated does not match the signature you provided. "
            "Check your secret access key and signing method."
        )
        raise Refusal(403, "SignatureDoesNotMatch", message)


def canonical_request(request: Request, names: list[str], payload: str) -> bytes:
    """The text that a client signs; header values are the bytes on the wire."""
    query = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in request.query
        if name != "X-Amz-Signature"
    )
    headers = "".join(
        f"{name}:{' '.join((request.header(name) or '').split())}\n" for name in names
    )
    lines = (
        request.method,
        quote(unquote(request.path), safe="/-_.~"),
        "&".join(f"{name}={value}" for name, value in query),
        headers,
        ";".join(names),
        payload,
    )
    return "\n".join(lines).encode("latin-1", "replace")


def signing_key(secret: str, scope: str) -> bytes:
    """The key of a day, region and service."""
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
