"""Where the bucket is: the endpoint, its region, and what its host is known to honour. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from cachestore.errors import ConfigError

R2_HOST = "r2.cloudflarestorage.com"
JURISDICTIONS = ("eu", "fedramp", "us")
ACCOUNT_PLACE = "{account_id}"
_ACCOUNT = re.compile(r"[A-Za-z0-9_-]+")
_AMAZON = re.compile(
    r"(?:.+\.)?s3(?:\.dualstack)?[.-](?:(?P<region>[a-z]{2}(?:-[a-z]+)+-\d)\.)?amazonaws\.com(\.cn)?"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A checked endpoint. `conditional`: the host is known to honour If-Match on PUT."""

    url: str
    kind: Literal["r2", "s3"]
    region: str
    conditional: bool


def check_account_id(text: str) -> str:
    """An account id as Cloudflare shows it, or `ConfigError`."""
    if not _ACCOUNT.fullmatch(text):
        raise ConfigError(
            "R2_ACCOUNT_ID must be the account id alone (32 letters and digits), not a URL"
        )
    return text


def r2_endpoint(
    endpoint: str | None,
    endpoint_url: str | None,
    account_id: str | None,
    jurisdiction: str | None,
) -> str:
    """R2_ENDPOINT or R2_ENDPOINT_URL if given, else made from account id and jurisdiction.

    A literal `{account_id}` is filled in. Raises `ConfigError` when both are given and differ,
    when nothing is given, or when the jurisdiction is not the endpoint's.
    """
    if account_id is not None:
        check_account_id(account_id)
    one = _filled("R2_ENDPOINT", endpoint, account_id)
    other = _filled("R2_ENDPOINT_URL", endpoint_url, account_id)
    if one and other and one != other:
        raise ConfigError("R2_ENDPOINT and R2_ENDPOINT_URL are both set and differ; keep one")
    given = one or other
    if not given:
        if account_id is None:
            raise ConfigError("neither R2_ENDPOINT nor R2_ACCOUNT_ID is set")
        middle = f"{jurisdiction}." if jurisdiction else ""
        return f"https://{account_id}.{middle}{R2_HOST}"
    host = urlsplit(given).hostname or ""
    if jurisdiction and is_r2(host) and not host.endswith(f".{jurisdiction}.{R2_HOST}"):
        raise ConfigError(
            f"R2_JURISDICTION is {jurisdiction}, but R2_ENDPOINT is not of that jurisdiction"
            f" (https://ACCOUNT_ID.{jurisdiction}.{R2_HOST}); remove one of the two"
        )
    return given


def _filled(name: str, text: str | None, account_id: str | None) -> str | None:
    if text is None:
        return None
    if ACCOUNT_PLACE in text:
        if account_id is None:
            raise ConfigError(f"{name} holds {ACCOUNT_PLACE}, but R2_ACCOUNT_ID is not set")
        text = text.replace(ACCOUNT_PLACE, account_id)
    return check_endpoint(name, text)


def check_endpoint(name: str, text: str) -> str:
    """A URL with scheme and host in lower case and no trailing slash, or `ConfigError`.

    `name`: the variable, for the message. Without a scheme, https is added where the host is a
    full name. The value is never shown: a password may be in it.
    """
    parts = _split(name, text)
    host = (parts.hostname or "").lower()
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{name} holds a user name or password; keys have variables of their own")
    if parts.query or parts.fragment:
        raise ConfigError(f"{name} has a part after '?' or '#'; remove it")
    path = parts.path.rstrip("/")
    if is_r2(host):
        _check_r2(name, parts.scheme, host, path)
    shown = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}[parts.scheme]
    port = "" if parts.port in (None, default) else f":{parts.port}"
    return f"{parts.scheme}://{shown}{port}{path}"


def _split(name: str, text: str) -> SplitResult:
    text = text.strip()
    if "://" not in text:
        host = text.split("/", 1)[0]
        if ":" in host or "." not in host or "@" in host:
            raise ConfigError(f"{name} has no scheme; begin it with https:// (or http://)")
        text = f"https://{text}"
    fault = f"{name} is not a URL such as https://ACCOUNT_ID.{R2_HOST}"
    if re.search(r"[\s{}<>\"\\]", text):
        raise ConfigError(fault)
    try:
        parts = urlsplit(text)
        complete = bool(parts.hostname) and parts.port != 0
    except ValueError:
        complete = False
    if not complete:
        raise ConfigError(fault)
    if parts.scheme not in ("http", "https"):
        raise ConfigError(f"{name} must begin with https:// or http://")
    return parts


def _check_r2(name: str, scheme: str, host: str, path: str) -> None:
    if path:
        raise ConfigError(
            f"{name} ends with a path; remove {path!r}: the bucket belongs in R2_BUCKET_NAME"
        )
    if scheme != "https":
        raise ConfigError(f"{name} must begin with https://: R2 takes nothing else")
    labels = host.removesuffix(R2_HOST).rstrip(".").split(".")
    if not labels[0] or len(labels) > 2 or (len(labels) == 2 and labels[1] not in JURISDICTIONS):
        raise ConfigError(
            f"the host of {name} must be ACCOUNT_ID.{R2_HOST}, or with .eu, .fedramp or .us before"
            " .r2; the bucket belongs in R2_BUCKET_NAME"
        )


def is_r2(host: str) -> bool:
    """True for Cloudflare's S3 API."""
    return host == R2_HOST or host.endswith(f".{R2_HOST}")


def describe(
    url: str, *, family: Literal["R2", "AWS"], region: str | None, conditional: bool | None
) -> Endpoint:
    """What is known of a checked endpoint.

    `region`: as set, else None. Amazon's hosts name their own. `conditional`: as set, else on
    for R2 and Amazon, off elsewhere, since some servers ignore conditions without a word.
    """
    host = urlsplit(url).hostname or ""
    r2, amazon = is_r2(host), _AMAZON.fullmatch(host)
    if r2 and family == "AWS":
        region = None  # AWS_DEFAULT_REGION names a region of Amazon; R2 refuses those
    if region is None:
        if amazon:
            region = amazon["region"] or "us-east-1"
        else:
            region = "auto" if r2 or family == "R2" else "us-east-1"
    known = r2 or amazon is not None
    return Endpoint(
        url, "r2" if r2 else "s3", region, known if conditional is None else conditional
    )


def check_bucket(name: str, text: str) -> str:
    """A bucket's name, or `ConfigError`; `name`: the variable, for the message."""
    if "/" in text or ":" in text:
        raise ConfigError(
            f"{name} must be the bucket's name alone, without '/' or a URL; folders inside the"
            " bucket belong in the keys"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        raise ConfigError(f"{name} holds characters that no bucket has")
    return text
