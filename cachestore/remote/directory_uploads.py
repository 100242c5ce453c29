"""Multipart uploads of a directory remote: a folder for each, with a file for each part."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from cachestore.errors import UploadLost
from cachestore.files import Files, read_file
from cachestore.model import Attributes
from cachestore.remote.directory_files import translated
from cachestore.remote.semantics import CHUNK, check_parts

_ABOUT = "about.json"


class Uploads:
    """What was begun and not finished, under `folder`."""

    def __init__(self, folder: Path, files: Files) -> None:
        self._folder = folder
        self._files = files

    def create(self, upload_id: str, key: str, sha256: str, attributes: Attributes) -> str:
        folder = self._folder / upload_id
        self._files.make_folder(folder)
        about = {
            "key": key, "sha256": sha256, "content_type": attributes.content_type,
            "metadata": dict(attributes.metadata), "cache_control": attributes.cache_control,
        }  # fmt: skip
        (folder / _ABOUT).write_text(json.dumps(about))
        return upload_id

    def _about(self, key: str, upload_id: str) -> tuple[Path, str, Attributes]:
        folder = self._folder / upload_id
        lost = UploadLost(f"put {key!r}: no such upload", status=404, code="NoSuchUpload")
        if not upload_id.isalnum():
            raise lost
        try:
            about = json.loads(read_file(self._files, folder / _ABOUT))
        except FileNotFoundError:
            raise lost from None
        if about["key"] != key:
            raise lost
        attributes = Attributes(about["content_type"], about["metadata"], about["cache_control"])
        return folder, about["sha256"], attributes

    def add(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        """Keep a part under its number and digest; returns the digest, which is its ETag."""
        folder = self._about(key, upload_id)[0]
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        temporary = folder / f"{secrets.token_hex(8)}.tmp"
        fd = self._files.create(temporary)
        try:
            self._files.write(fd, data)
        finally:
            self._files.close(fd)
        self._files.rename(temporary, folder / f"{number}.{etag}.part")
        return etag

    def parts(
        self, key: str, upload_id: str, etags: Sequence[str]
    ) -> tuple[str, Attributes, list[Path]]:
        """The digest and attributes given at the beginning, and the files of the parts."""
        folder, sha256, attributes = self._about(key, upload_id)
        paths = [folder / f"{number}.{etag}.part" for number, etag in enumerate(etags, 1)]
        try:
            sizes = [self._files.stat(path).st_size for path in paths]
        except FileNotFoundError:
            raise UploadLost(
                f"put {key!r}: a part is missing", status=400, code="InvalidPart"
            ) from None
        check_parts(key, sizes)
        return sha256, attributes, paths

    def chunks(self, paths: list[Path]) -> Iterator[bytes]:
        """The bytes of the parts, one after the other."""
        for path in paths:
            with translated(f"read {path.name}"):
                fd = self._files.open_read(path)
            try:
                while True:
                    with translated(f"read {path.name}"):
                        chunk = os.read(fd, CHUNK)
                    if not chunk:
                        break
                    yield chunk
            finally:
                self._files.close(fd)

    def remove(self, upload_id: str) -> None:
        if upload_id.isalnum():
            shutil.rmtree(self._folder / upload_id, ignore_errors=True)
