"""Sources: all kinds of them, whole or refused, and left as they were."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cachestore.errors import SourceError
from cachestore.files import Files
from cachestore.local.sources import copy_source

DATA = os.urandom(3_000_001)


def copied(tmp_path: Path, source: Any) -> bytes:
    target = tmp_path / "target"
    fd = Files().create(target)
    try:
        result = copy_source(Files(), source, fd)
    finally:
        os.close(fd)
    data = target.read_bytes()
    target.unlink()
    assert result.size == len(data)
    assert result.sha256 == hashlib.sha256(data).hexdigest()
    return data


class Upload:
    """Like FastAPI's UploadFile."""

    def __init__(self, file: Any) -> None:
        self.file = file


class Stream(io.RawIOBase):
    """Cannot seek."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)


def test_every_kind_of_source(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    with path.open("rb") as file, tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(DATA)
        for source in (
            path, str(path), DATA, bytearray(DATA), memoryview(DATA), file, io.BytesIO(DATA),
            Upload(spooled), Stream(DATA),
        ):  # fmt: skip
            assert copied(tmp_path, source) == DATA
    assert copied(tmp_path, b"") == b""


def test_a_file_object_is_read_from_its_start_and_left_where_it_was(tmp_path: Path) -> None:
    file = io.BytesIO(DATA)
    file.seek(10)
    assert copied(tmp_path, file) == DATA
    assert file.tell() == 10
    assert not file.closed


@pytest.mark.parametrize("source", [None, 3, object(), io.StringIO("text")])
def test_strange_sources_are_refused(tmp_path: Path, source: Any) -> None:
    with pytest.raises(SourceError):
        copied(tmp_path, source)


def test_missing_and_strange_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot read"):
        copied(tmp_path, tmp_path / "missing")
    (tmp_path / "target").unlink()
    with pytest.raises(SourceError, match="regular"):
        copied(tmp_path, tmp_path)
    (tmp_path / "target").unlink()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SourceError, match="regular"):
        copied(tmp_path, tmp_path / "fifo")


@pytest.mark.parametrize("change", ["grow", "shrink", "touch", "replace", "remove"])
def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "source"
    path.write_bytes(DATA)

    class Meddling(Files):
        def write(self, fd: int, data: bytes | memoryview) -> None:
            super().write(fd, data)
            if change == "grow":
                with path.open("ab") as file:
                    file.write(b"more")
            elif change == "shrink":
                os.truncate(path, 2_000_000)
            elif change == "touch":
                os.utime(path, ns=(1, 1))
            elif change == "replace" and path.stat().st_size == len(DATA):
                (tmp_path / "other").write_bytes(DATA)
                os.replace(tmp_path / "other", path)
            elif change == "remove":
                path.unlink(missing_ok=True)

    fd = Files().create(tmp_path / "target")
    try:
        with pytest.raises(SourceError, match=r"changed|went away"):
            copy_source(Meddling(), path, fd)
    finally:
        os.close(fd)
