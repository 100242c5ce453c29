"""The command line in this process, on an environment of the test's own."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from settings_rig import Place
from settings_rig import place as place
from typer.testing import CliRunner, Result

from cachestore.cli.app import app


class Cli:
    """Runs commands in a folder with nothing configured, unless `configure` was called."""

    def __init__(self, place: Place) -> None:
        self.folder = place.folder
        self._place = place

    def configure(self, server: Any, bucket: str, **more: str) -> None:
        """Point the settings at an S3 server."""
        values = {
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "AWS_ENDPOINT_URL": server.endpoint,
            "S3_BUCKET": bucket,
            "USE_R2_STORAGE": "true",
        }
        self._place.set(values, more)

    def __call__(self, *arguments: str, code: int = 0, stdin: bytes = b"") -> Result:
        result = CliRunner().invoke(app, list(arguments), input=stdin)
        assert result.exit_code == code, (result.output, result.exception)
        return result

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)


@pytest.fixture
def cli(place: Place) -> Iterator[Cli]:
    handlers = logging.getLogger().handlers[:]
    yield Cli(place)
    logging.getLogger().handlers[:] = handlers
