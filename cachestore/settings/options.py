"""From settings to `Options`: the mode, the remote, and folders that do not get into each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from cachestore.errors import ConfigError
from cachestore.options import Options, RemoteOptions
from cachestore.policy import endpoints
from cachestore.policy.modes import Credentials, Flags, ModeDecision, decide_mode
from cachestore.settings.fields import Fields
from cachestore.settings.names import SETTINGS
from cachestore.settings.sources import Found, Place

_OWN = ("account_id", "access_key_id", "secret_access_key", "session_token", "endpoint")
_R2 = tuple(f"r2_{name}" for name in (*_OWN, "endpoint_url"))
_AWS = (
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "aws_endpoint_url_s3",
    "aws_endpoint_url",
    "s3_bucket",
)
_SHARED = ("r2_bucket_name", "cloudflare_account_id")


def make_options(fields: Fields, found: Mapping[str, Found]) -> Options:
    """What the layers below need. Raises `ConfigError`."""
    decision = decide(fields, found)
    remote, reason = None, decision.reason
    if decision.mode != "mock":
        _check_folders(fields)
        try:
            remote = _remote(fields, decision)
        except ConfigError as error:
            # Switched off, a placeholder in R2_ENDPOINT does no harm; it only names no remote.
            if fields.use_r2_storage is not False:
                raise
            reason = f"{reason}; it could not be used: {error}"
    shadow, reason = _shadow(fields, decision, remote, reason)
    values: dict[str, Any] = {}
    for setting in SETTINGS.values():
        if setting.spec.option is not None:
            values[setting.spec.option] = _plain(getattr(fields, setting.field), setting.kind.scale)
    return Options(
        **values,
        mode=decision.mode,
        reason=reason,
        degraded=decision.degraded,
        remote=remote,
        shadow=shadow,
        mock_private=decision.mode == "mock",
    )


def _shadow(
    fields: Fields, decision: ModeDecision, remote: RemoteOptions | None, reason: str
) -> tuple[bool, str]:
    """Whether local mode sends its changes to the bucket as well, and the reason with that."""
    if not fields.r2_shadow or fields.use_r2_storage is not False or decision.mode != "local":
        return False, reason
    if remote is None or not (remote.access_key and remote.secret_key):
        raise ConfigError("R2_SHADOW is true, but the credentials name no bucket to send to")
    return True, f"{reason}; R2_SHADOW is true: changes are sent to the bucket too"


def decide(fields: Fields, found: Mapping[str, Found]) -> ModeDecision:
    """The mode that the flags and credentials give. Raises `ConfigError`."""
    flags = Flags(fields.r2_mock_mode, fields.use_r2_storage, fields.fallback_to_local)
    names = (*_R2, *_AWS, *_SHARED)
    if _aws_is_meant(found):
        names = (*_AWS, *_SHARED)
    given = {name.upper() for name in names if getattr(fields, name) is not None}
    if "R2_ENDPOINT_URL" in given:
        given.add("R2_ENDPOINT")
    open_ = any(endpoints.ACCOUNT_PLACE in (text or "") for text in _r2_endpoints(fields))
    return decide_mode(flags, Credentials(frozenset(given), endpoint_open=open_))


def _aws_is_meant(found: Mapping[str, Found]) -> bool:
    """Named by argument or with our prefix, AWS_* stands above R2_* names that are merely there."""
    aws = [found[name].place for name in _AWS[:2] if name in found]
    r2 = [found[name].place for name in _R2 if name in found]
    named = any(name in found for name in _AWS[3:])
    return bool(named and aws and r2) and min(aws) <= Place.PREFIXED and min(aws) < min(r2)


def _remote(fields: Fields, decision: ModeDecision) -> RemoteOptions | None:
    """The bucket that the settings name, in local mode too; None if they name none."""
    if decision.family == "AWS":
        url, bucket = _aws_place(fields)
        secrets = (
            fields.aws_access_key_id,
            fields.aws_secret_access_key,
            fields.aws_session_token,
        )
        region = fields.aws_default_region
    else:
        url, bucket = _r2_place(fields)
        secrets = (fields.r2_access_key_id, fields.r2_secret_access_key, fields.r2_session_token)
        region = fields.r2_region
    if url is None or bucket is None:
        return None
    endpoint = endpoints.describe(
        url, family=decision.family, region=region, conditional=fields.conditional_put
    )
    return RemoteOptions(
        bucket=bucket,
        endpoint=endpoint.url,
        region=endpoint.region,
        access_key=_text(secrets[0]) or "",
        secret_key=_text(secrets[1]) or "",
        session_token=_text(secrets[2]),
        public_url=fields.r2_public_url,
        conditional=endpoint.conditional,
        kind=endpoint.kind,
    )


def _r2_endpoints(fields: Fields) -> tuple[str | None, str | None]:
    return fields.r2_endpoint, fields.r2_endpoint_url


def _r2_place(fields: Fields) -> tuple[str | None, str | None]:
    bucket = fields.r2_bucket_name
    if bucket is not None:
        endpoints.check_bucket("R2_BUCKET_NAME", bucket)
    account = fields.r2_account_id or fields.cloudflare_account_id
    given = [text for text in _r2_endpoints(fields) if text is not None]
    if account is None and (not given or any(endpoints.ACCOUNT_PLACE in text for text in given)):
        return None, bucket
    return endpoints.r2_endpoint(*_r2_endpoints(fields), account, fields.r2_jurisdiction), bucket


def _aws_place(fields: Fields) -> tuple[str | None, str | None]:
    name = "AWS_ENDPOINT_URL" if fields.aws_endpoint_url_s3 is None else "AWS_ENDPOINT_URL_S3"
    text = fields.aws_endpoint_url_s3 or fields.aws_endpoint_url
    bucket = fields.s3_bucket or fields.r2_bucket_name
    if bucket is not None:
        endpoints.check_bucket("S3_BUCKET" if fields.s3_bucket else "R2_BUCKET_NAME", bucket)
    return (None if text is None else endpoints.check_endpoint(name, text)), bucket


def _check_folders(fields: Fields) -> None:
    """A folder inside another one would be emptied, listed or uploaded with it."""
    folders = {
        name: Path(os.path.realpath(getattr(fields, name.lower())))
        for name in ("CACHE_DIR", "SPOOL_DIR", "LOCAL_DIR")
    }
    for name, path in folders.items():
        for other, outer in folders.items():
            if name != other and path.is_relative_to(outer):
                raise ConfigError(
                    f"{name} ({path}) lies in {other} ({outer}); the three folders must be apart"
                )


def _plain(value: Any, scale: float | None) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple) and scale is not None:
        return tuple((prefix, _plain(each, scale)) for prefix, each in value)
    if scale is None or value is None or scale == 1:
        return value
    return value * scale


def _text(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
