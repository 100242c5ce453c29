"""A second bucket: the same names as the first one's, behind a prefix."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from cachestore.errors import ConfigError
from cachestore.options import RemoteOptions
from cachestore.settings.model import Settings
from cachestore.settings.sources import read_layers


def other_remote(
    prefix: str = "FROM_", *, bucket: str | None = None, endpoint: str | None = None,
    env_file: str | os.PathLike[str] | None = None,
) -> RemoteOptions:  # fmt: skip
    """How to reach the bucket that `FROM_R2_...` or `FROM_AWS_...` variables name.

    They are read from the environment, else from `env_file` (`.env` if left out and there). Nothing
    is taken from the variables without the prefix. `bucket` and `endpoint` come before them.
    Raises `ConfigError` that names what is missing.
    """
    prefix = prefix.upper()
    if not prefix:
        raise ConfigError("the second bucket's variables need a prefix, such as FROM_")
    given = _variables(prefix, env_file)
    plain = any(name.startswith("AWS_") for name in given)
    arguments: dict[str, Any] = {
        "r2_bucket_name": bucket, "use_r2_storage": True, "r2_mock_mode": False,
        "fallback_to_local": False, "env_file": os.devnull,
        "aws_endpoint_url_s3" if plain else "r2_endpoint": endpoint,
    }  # fmt: skip
    if bucket is not None:
        given.pop("S3_BUCKET", None)
    try:
        settings = Settings.__new__(Settings)
        settings._build(read_layers(arguments, given))
        remote = settings.options().remote
    except ConfigError as error:
        raise ConfigError(
            f"the other bucket (variables that begin with {prefix}): {error}"
        ) from None
    assert remote is not None, "complete, or refused"
    return remote


def _variables(prefix: str, env_file: str | os.PathLike[str] | None) -> dict[str, str]:
    """What is said with the prefix, by the names without it."""
    file = Path(".env" if env_file is None else env_file)
    found: dict[str, str | None] = dict(dotenv_values(file)) if file.is_file() else {}
    found.update(os.environ)
    return {
        name.upper().removeprefix(prefix): value
        for name, value in found.items()
        if name.upper().startswith(prefix) and value
    }
