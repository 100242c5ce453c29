"""From what a bucket answered to what is probably wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping

from cachestore.errors import CacheStoreError, RemoteError

_BY_CODE = {
    "SignatureDoesNotMatch": (
        "the secret access key does not fit the access key id",
        "copy both again from one token's page; the secret is used as it is, never hashed",
    ),
    "InvalidAccessKeyId": (
        "the remote does not know this access key id: mistyped, revoked, or of another account",
        "compare R2_ACCESS_KEY_ID and R2_ACCOUNT_ID with the dashboard, or make a new token",
    ),
    "Unauthorized": (
        "the remote does not know this access key id: mistyped, revoked or expired",
        "compare R2_ACCESS_KEY_ID and R2_ACCOUNT_ID with the dashboard, or make a new token",
    ),
    "ExpiredToken": (
        "the token or its session has expired",
        "make a new token, or renew the temporary credentials (all three values)",
    ),
    "InvalidToken": (
        "the session token does not belong to these keys",
        "set R2_SESSION_TOKEN together with the two keys it came with, or unset it",
    ),
    "NoSuchBucket": (
        "there is no bucket of this name at this endpoint",
        "check R2_BUCKET_NAME, the account id and R2_JURISDICTION (eu has its own endpoint)",
    ),
    "InvalidBucketName": (
        "the bucket's name cannot be one",
        "R2_BUCKET_NAME is only the name: 3 to 63 small letters, digits and dashes",
    ),
    "RequestTimeTooSkewed": (
        "this machine's clock is wrong by more than 15 minutes",
        "set the clock (for example: timedatectl set-ntp true)",
    ),
    "NotEntitled": ("R2 is not enabled for this account", "enable R2 in the dashboard"),
}
_BY_STATUS = {401: "Unauthorized", 301: "NoSuchBucket"}


def likely_cause(
    error: Exception, step: str, passed: Mapping[str, bool], skew: float | None = None
) -> tuple[str, str]:
    """The likely cause of a failed step, and what to do: two sentences.

    `step`: list, put, head, get, presigned or delete. `passed`: the steps before it. `skew`:
    seconds by which this machine's clock is ahead of the remote's, if known.
    """
    if skew is not None and abs(skew) > 900:
        return _BY_CODE["RequestTimeTooSkewed"]
    if not isinstance(error, CacheStoreError):
        return str(error), "see the message"
    status = getattr(error, "status", None)
    code = getattr(error, "code", None)
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status == 403 or code == "AccessDenied":
        return _denied(step, passed)
    if status in _BY_STATUS:
        return _BY_CODE[_BY_STATUS[status]]
    if isinstance(error, RemoteError) and status is None:
        return (
            "the remote cannot be reached: no network, a wrong host name, a proxy or a firewall",
            "check the endpoint's host (R2_ACCOUNT_ID is part of it) and that port 443 is open",
        )
    if status == 404 and step in ("list", "put"):
        return (
            "the endpoint answers, but not as an S3 service: is there a bucket in its path?",
            "the endpoint is scheme and host only; the bucket goes into R2_BUCKET_NAME",
        )
    if status is not None and status >= 500:
        return "the remote has a fault of its own", "try again; see www.cloudflarestatus.com"
    return str(error), "see the message"


def _denied(step: str, passed: Mapping[str, bool]) -> tuple[str, str]:
    if step == "list":
        return (
            "the token may not list this bucket, or belongs to another bucket",
            "reads and uploads of known keys may still work; give the token 'Object Read & Write'",
        )
    if step in ("put", "delete") and passed.get("list"):
        return (
            "the token is read-only",
            "make a token with 'Object Read & Write'; until then puts stay in the spool",
        )
    return (
        "the token has no rights on this bucket: wrong bucket, or a token for another one",
        "compare R2_BUCKET_NAME with the buckets that the token names",
    )
