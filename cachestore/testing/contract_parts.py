"""The part of the contract suite that large objects need: `SupportsMultipart`."""

from __future__ import annotations

import hashlib
import secrets

import pytest

from cachestore.errors import NotFound, PreconditionFailed, Unsupported, UploadLost
from cachestore.model import Attributes
from cachestore.remote.base import MIN_PART, RemoteStore, SupportsMultipart
from cachestore.testing.contract_tools import PLAIN, in_threads, put, read


class PartsContract:
    """Every promise of `SupportsMultipart`, as tests."""

    def test_multipart(self, remote: RemoteStore, root: str) -> None:
        assert isinstance(remote, SupportsMultipart)
        data = secrets.token_bytes(2 * MIN_PART + 1234)
        digest = hashlib.sha256(data).hexdigest()
        attributes = Attributes("video/mp4", {"title": "Größe"}, "no-cache")
        upload = remote.create_upload(root + "ä b.mp4", sha256=digest, attributes=attributes)
        etags: dict[int, str] = {}

        def send(index: int) -> None:
            part = data[index * MIN_PART : (index + 1) * MIN_PART]
            etags[index] = remote.upload_part(root + "ä b.mp4", upload, index + 1, part)

        in_threads(3, send)
        with pytest.raises(NotFound):
            remote.head(root + "ä b.mp4")
        parts = [etags[index] for index in range(3)]
        done = remote.complete_upload(root + "ä b.mp4", upload, parts)
        there = remote.head(root + "ä b.mp4")
        assert done.key == root + "ä b.mp4"
        assert (there.size, there.sha256) == (len(data), digest)
        assert there.metadata == {"title": "Größe"}
        assert (there.content_type, there.cache_control) == ("video/mp4", "no-cache")
        assert read(remote, root + "ä b.mp4") == data

    def test_a_multipart_etag(self, remote: RemoteStore, root: str) -> None:
        assert isinstance(remote, SupportsMultipart)
        upload = remote.create_upload(root + "a", sha256="0" * 64, attributes=PLAIN)
        etag = remote.upload_part(root + "a", upload, 1, b"part")
        done = remote.complete_upload(root + "a", upload, [etag])
        # A part's own ETag may be anything, the whole one is made of the parts' MD5.
        inner = hashlib.md5(b"part", usedforsecurity=False).digest()
        joined = hashlib.md5(inner, usedforsecurity=False).hexdigest()
        assert done.etag == remote.head(root + "a").etag == f"{joined}-1"

    def test_a_part_may_be_sent_again(self, remote: RemoteStore, root: str) -> None:
        assert isinstance(remote, SupportsMultipart)
        upload = remote.create_upload(root + "a", sha256="0" * 64, attributes=PLAIN)
        remote.upload_part(root + "a", upload, 1, b"first try")
        etag = remote.upload_part(root + "a", upload, 1, b"second")
        remote.complete_upload(root + "a", upload, [etag])
        assert read(remote, root + "a") == b"second"

    def test_an_aborted_upload_is_lost(self, remote: RemoteStore, root: str) -> None:
        assert isinstance(remote, SupportsMultipart)
        upload = remote.create_upload(root + "a", sha256="0" * 64, attributes=PLAIN)
        etag = remote.upload_part(root + "a", upload, 1, b"x")
        remote.abort_upload(root + "a", upload)
        remote.abort_upload(root + "a", upload)
        with pytest.raises(UploadLost):
            remote.complete_upload(root + "a", upload, [etag])
        with pytest.raises(NotFound):
            remote.head(root + "a")

    def test_multipart_conditions(self, remote: RemoteStore, root: str) -> None:
        assert isinstance(remote, SupportsMultipart)
        upload = remote.create_upload(root + "a", sha256="0" * 64, attributes=PLAIN)
        etag = remote.upload_part(root + "a", upload, 1, b"in parts")
        if not remote.conditional:
            with pytest.raises(Unsupported):
                remote.complete_upload(root + "a", upload, [etag], if_none_match="*")
            remote.abort_upload(root + "a", upload)
            return
        there = put(remote, root + "a", b"somebody else")
        with pytest.raises(PreconditionFailed):
            remote.complete_upload(root + "a", upload, [etag], if_none_match="*")
        assert read(remote, root + "a") == b"somebody else"
        upload = remote.create_upload(root + "a", sha256="0" * 64, attributes=PLAIN)
        etag = remote.upload_part(root + "a", upload, 1, b"in parts")
        remote.complete_upload(root + "a", upload, [etag], if_match=there.etag)
        assert read(remote, root + "a") == b"in parts"
