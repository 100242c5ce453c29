"""What tests of settings share: an empty working directory and an environment without settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cachestore.settings.names import PREFIX, SETTINGS

KEY, SECRET, TOKEN = "ak-5f0c1e", "sk-7d1b9a44e2", "st-33aa90cc"
R2 = {
    "R2_ACCOUNT_ID": "abc",
    "R2_ACCESS_KEY_ID": KEY,
    "R2_SECRET_ACCESS_KEY": SECRET,
    "R2_BUCKET_NAME": "files",
}
AWS = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_ENDPOINT_URL_S3": "http://localhost:9000",
    "S3_BUCKET": "files",
}


class Place:
    """A working directory and an environment of the test's own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def set(self, *many: dict[str, str], **variables: str) -> None:
        for group in (*many, variables):
            for name, value in group.items():
                self._monkeypatch.setenv(name, value)

    def write(self, *lines: str, name: str = ".env") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def go(self, folder: Path) -> None:
        self._monkeypatch.chdir(folder)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    known = {name for setting in SETTINGS.values() for name in setting.names}
    for name in list(os.environ):
        if name in known or name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, monkeypatch)
