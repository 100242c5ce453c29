"""One suite of promises for every remote: subclass `RemoteContract` and give it a `remote`.

    class TestMine(RemoteContract):
        @pytest.fixture
        def remote(self) -> RemoteStore:
            return MyRemote(...)

The suite writes below a random prefix of its own, so a bucket may be shared by many runs.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import unicodedata
from collections.abc import Mapping

import pytest

from cachestore.errors import (
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    Rejected,
    SourceError,
    Unsupported,
)
from cachestore.model import Attributes
from cachestore.remote.base import RemoteStore
from cachestore.testing.contract_parts import PartsContract
from cachestore.testing.contract_tools import (
    PLAIN,
    in_threads,
    keys_of,
    prefixes_of,
    put,
    read,
)

__all__ = [
    "ODD_NAMES",
    "PLAIN",
    "RemoteContract",
    "in_threads",
    "keys_of",
    "prefixes_of",
    "put",
    "read",
]

ODD_NAMES = [
    "with space.txt",
    "a+b.txt",
    "100%.txt",
    "%41 is not A",
    "hash#tag",
    "question?mark=1",
    "this&that;other,more",
    'it\'s "quoted" (twice)',
    "colon:at@dollar$star*bang!",
    "tilde~ ^caret` |pipe [x] {y} <z> \\back",
    "grüße/größe.png",
    "日本語/ファイル.txt",
    "🎬🍿/clip 👩‍👩‍👧.mp4",
    "trailing dot.",
    ".hidden/file",
    "=?utf-8?q?x?=",
]


class RemoteContract(PartsContract):
    """Every promise of `cachestore.remote.base`, as tests."""

    metadata_limit = 8192
    """Bytes of metadata that the remote is known to refuse one more of; 0 to leave that out."""

    @pytest.fixture
    def root(self) -> str:
        """A prefix that nobody else uses."""
        return f"contract/{secrets.token_hex(6)}/"

    # -- identity ------------------------------------------------------------------------------

    def test_it_is_a_remote_store(self, remote: RemoteStore) -> None:
        assert isinstance(remote, RemoteStore)
        assert len(remote.remote_id) == 16
        assert set(remote.remote_id) <= set("0123456789abcdef")
        assert remote.name

    # -- put, head, get ------------------------------------------------------------------------

    def test_what_was_put_comes_back(self, remote: RemoteStore, root: str) -> None:
        data = secrets.token_bytes(300_000)
        attributes = Attributes("image/png", {"owner": "me"}, "max-age=60")
        stored = put(remote, root + "a.png", data, attributes)
        assert read(remote, root + "a.png") == data
        there = remote.head(root + "a.png")
        for said in (stored, there):
            assert said.key == root + "a.png"
            assert said.size == len(data)
            assert said.content_type == "image/png"
            assert said.metadata == {"owner": "me"}
            assert said.cache_control == "max-age=60"
            assert said.sha256 == hashlib.sha256(data).hexdigest()
            assert said.etag == hashlib.md5(data, usedforsecurity=False).hexdigest()
        assert there.modified > 1_000_000_000

    def test_get_describes_the_object_too(self, remote: RemoteStore, root: str) -> None:
        put(remote, root + "a", b"0123456789", Attributes("text/plain", {"x": "y"}))
        answer = remote.get(root + "a", start=2, end=4)
        assert answer is not None
        with answer as body:
            assert body.info.size == 10
            assert body.length == 2
            assert body.info.metadata == {"x": "y"}
            assert body.info.etag == remote.head(root + "a").etag

    def test_put_replaces(self, remote: RemoteStore, root: str) -> None:
        put(remote, root + "a", b"old and long", Attributes("text/plain", {"x": "y"}))
        put(remote, root + "a", b"new")
        assert read(remote, root + "a") == b"new"
        assert remote.head(root + "a").metadata == {}

    def test_an_empty_object(self, remote: RemoteStore, root: str) -> None:
        put(remote, root + "empty", b"")
        assert remote.head(root + "empty").size == 0
        assert read(remote, root + "empty") == b""

    def test_put_reads_from_the_position_and_leaves_the_file_open(
        self, remote: RemoteStore, root: str
    ) -> None:
        body = io.BytesIO(b"skip-BODY-rest")
        body.seek(5)
        digest = hashlib.sha256(b"BODY").hexdigest()
        remote.put(root + "a", body, size=4, sha256=digest, attributes=PLAIN)
        assert not body.closed
        assert read(remote, root + "a") == b"BODY"

    def test_an_error_of_the_source_comes_out_and_nothing_is_stored(
        self, remote: RemoteStore, root: str
    ) -> None:
        class Broken(io.BytesIO):
            def read(self, count: int | None = -1, /) -> bytes:
                if self.tell() > 100_000:
                    raise SourceError("the disk failed")
                return super().read(min(65_536, count) if count and count > 0 else 65_536)

        body = Broken(bytes(300_000))
        with pytest.raises(SourceError, match="the disk failed"):
            remote.put(root + "a", body, size=300_000, sha256="0" * 64, attributes=PLAIN)
        with pytest.raises(NotFound):
            remote.head(root + "a")

    def test_an_unknown_key_is_not_found(self, remote: RemoteStore, root: str) -> None:
        with pytest.raises(NotFound):
            remote.head(root + "nothing")
        with pytest.raises(NotFound):
            remote.get(root + "nothing")
        with pytest.raises(NotFound):
            remote.get(root + "nothing", start=1, end=2)

    # -- ranges --------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("start", "end"),
        [(0, None), (0, 1), (3, None), (3, 7), (9, None), (9, 10), (0, 10), (5, 999)],
    )
    def test_ranges(self, remote: RemoteStore, root: str, start: int, end: int | None) -> None:
        put(remote, root + "a", b"0123456789")
        assert read(remote, root + "a", start, end) == b"0123456789"[start:end]

    def test_a_range_behind_the_end(self, remote: RemoteStore, root: str) -> None:
        put(remote, root + "a", b"0123456789")
        for start in (10, 11, 1000):
            with pytest.raises(RangeNotSatisfiable):
                remote.get(root + "a", start=start)

    def test_a_range_that_is_empty(self, remote: RemoteStore, root: str) -> None:
        put(remote, root + "a", b"0123456789")
        for start, end in ((5, 5), (5, 4), (-1, None)):
            with pytest.raises(ValueError, match="range"):
                remote.get(root + "a", start=start, end=end)

    def test_an_answer_may_be_left_early(self, remote: RemoteStore, root: str) -> None:
        put(remote, root + "a", bytes(3_000_000))
        for _ in range(3):
            answer = remote.get(root + "a")
            assert answer is not None
            with answer as body:
                assert next(iter(body))
        assert remote.head(root + "a").size == 3_000_000

    # -- conditions ----------------------------------------------------------------------------

    def test_get_if_none_match(self, remote: RemoteStore, root: str) -> None:
        etag = put(remote, root + "a", b"one").etag
        assert remote.get(root + "a", if_none_match=etag) is None
        put(remote, root + "a", b"two")
        answer = remote.get(root + "a", if_none_match=etag)
        assert answer is not None
        with answer as body:
            assert b"".join(body) == b"two"

    def test_get_if_match(self, remote: RemoteStore, root: str) -> None:
        etag = put(remote, root + "a", b"one").etag
        answer = remote.get(root + "a", if_match=etag, start=1)
        assert answer is not None
        with answer as body:
            assert b"".join(body) == b"ne"
        put(remote, root + "a", b"two")
        with pytest.raises(PreconditionFailed):
            remote.get(root + "a", if_match=etag, start=1)
        remote.delete(root + "a")
        with pytest.raises((PreconditionFailed, NotFound)):
            remote.get(root + "a", if_match=etag)

    def test_put_conditions(self, remote: RemoteStore, root: str) -> None:
        if not remote.conditional:
            with pytest.raises(Unsupported):
                put(remote, root + "a", b"x", if_none_match="*")
            with pytest.raises(Unsupported):
                put(remote, root + "a", b"x", if_match="0" * 32)
            with pytest.raises(NotFound):
                remote.head(root + "a")
            return
        with pytest.raises(PreconditionFailed):
            put(remote, root + "a", b"x", if_match="0" * 32)
        first = put(remote, root + "a", b"one", if_none_match="*")
        with pytest.raises(PreconditionFailed):
            put(remote, root + "a", b"two", if_none_match="*")
        with pytest.raises(PreconditionFailed):
            put(remote, root + "a", b"two", if_match="0" * 32)
        assert read(remote, root + "a") == b"one"
        put(remote, root + "a", b"two", if_match=first.etag)
        assert read(remote, root + "a") == b"two"

    def test_one_of_many_creates(self, remote: RemoteStore, root: str) -> None:
        if not remote.conditional:
            pytest.skip("no conditions")
        won: list[int] = []

        def create(number: int) -> None:
            try:
                put(remote, root + "a", b"%d" % number, if_none_match="*")
            except PreconditionFailed:
                return
            won.append(number)

        in_threads(6, create)
        assert len(won) == 1
        assert read(remote, root + "a") == b"%d" % won[0]

    # -- keys and metadata ---------------------------------------------------------------------

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_odd_keys(self, remote: RemoteStore, root: str, name: str) -> None:
        key = root + name
        put(remote, key, name.encode())
        assert read(remote, key) == name.encode()
        assert remote.head(key).key == key
        assert keys_of(remote, root) == [key]
        assert keys_of(remote, key) == [key]
        remote.delete(key)
        with pytest.raises(NotFound):
            remote.head(key)

    def test_keys_are_compared_in_nfc(self, remote: RemoteStore, root: str) -> None:
        composed = root + "Größe-é.txt"
        apart = unicodedata.normalize("NFD", composed)
        assert apart != composed
        put(remote, apart, b"one")
        assert read(remote, composed) == b"one"
        put(remote, composed, b"two")
        assert read(remote, apart) == b"two"
        assert keys_of(remote, root) == [composed]
        assert keys_of(remote, apart) == [composed]
        remote.delete(apart)
        assert keys_of(remote, root) == []

    def test_a_key_of_1024_bytes(self, remote: RemoteStore, root: str) -> None:
        key = root + "d" * 200 + "/" + "e" * 200 + "/"
        key += "/".join("f" * 150 for _ in range(20))
        key = key.encode()[:1024].decode().rstrip("/")
        put(remote, key, b"x")
        assert read(remote, key) == b"x"
        assert keys_of(remote, root) == [key]

    @pytest.mark.parametrize(
        "metadata",
        [
            {"title": "Größe: 100 % – «日本語» 🎬"},
            {"spaces": "  two  before and after  "},
            {"empty": "", "full": "x"},
            {"encoded": "%41%ZZ+a=b?c&d", "rfc": "=?utf-8?b?w6Q=?="},
            {"lines": "one\ntwo\r\nthree\ttab\0nul"},
            {"quotes": 'it\'s "quoted", (really); \\ok'},
            {"with-dash_and.dot": "v"},
        ],
    )
    def test_metadata(self, remote: RemoteStore, root: str, metadata: Mapping[str, str]) -> None:
        put(remote, root + "a", b"x", Attributes("text/plain; charset=utf-8", metadata))
        there = remote.head(root + "a")
        assert there.metadata == metadata
        assert there.content_type == "text/plain; charset=utf-8"

    def test_metadata_names_come_back_in_lower_case(self, remote: RemoteStore, root: str) -> None:
        stored = put(remote, root + "a", b"x", Attributes("text/plain", {"Title": "Big"}))
        assert stored.metadata == {"title": "Big"}
        assert remote.head(root + "a").metadata == {"title": "Big"}

    # -- deleting ------------------------------------------------------------------------------

    def test_delete(self, remote: RemoteStore, root: str) -> None:
        put(remote, root + "a", b"x")
        remote.delete(root + "a")
        remote.delete(root + "a")
        with pytest.raises(NotFound):
            remote.get(root + "a")

    def test_delete_many(self, remote: RemoteStore, root: str) -> None:
        names = [root + f"a b+{number}" for number in range(12)]
        for name in names:
            put(remote, name, b"x")
        assert remote.delete_many([*names[:10], root + "missing"]) == {}
        assert sorted(keys_of(remote, root)) == sorted(names[10:])
        assert remote.delete_many([]) == {}
        with pytest.raises(ValueError, match="1,000"):
            remote.delete_many(f"{root}{number}" for number in range(1001))

    # -- listing -------------------------------------------------------------------------------

    def test_list(self, remote: RemoteStore, root: str) -> None:
        for name in ("b", "a/1", "a/2", "a/sub/3", "c/4", "é"):
            put(remote, root + name, name.encode())
        objects = [obj for page in remote.list(root) for obj in page.objects]
        names = [obj.key.removeprefix(root) for obj in objects]
        assert names == ["a/1", "a/2", "a/sub/3", "b", "c/4", "é"]
        by_name = dict(zip(names, objects, strict=True))
        assert by_name["a/sub/3"].size == len("a/sub/3")
        assert by_name["b"].etag == hashlib.md5(b"b", usedforsecurity=False).hexdigest()
        assert by_name["b"].modified > 1_000_000_000
        assert keys_of(remote, root + "a/") == [root + "a/1", root + "a/2", root + "a/sub/3"]
        assert keys_of(remote, root + "none/") == []

    def test_list_with_a_delimiter(self, remote: RemoteStore, root: str) -> None:
        for name in ("b", "a/1", "a/2", "a/sub/3", "c d/4"):
            put(remote, root + name, b"x")
        assert keys_of(remote, root, delimiter="/") == [root + "b"]
        assert prefixes_of(remote, root, "/") == [root + "a/", root + "c d/"]
        assert keys_of(remote, root + "a/", delimiter="/") == [root + "a/1", root + "a/2"]
        assert prefixes_of(remote, root + "a/", "/") == [root + "a/sub/"]

    def test_list_after(self, remote: RemoteStore, root: str) -> None:
        names = [root + f"{number:02d}" for number in range(10)]
        for name in names:
            put(remote, name, b"x")
        assert keys_of(remote, root, after=names[3]) == names[4:]
        assert keys_of(remote, root, after=names[3] + "!") == names[4:]
        assert keys_of(remote, root, after=names[9]) == []

    # -- life ----------------------------------------------------------------------------------

    def test_a_closed_remote_works_again(self, remote: RemoteStore, root: str) -> None:
        put(remote, root + "a", b"x")
        remote.close()
        assert read(remote, root + "a") == b"x"
        remote.close()
        remote.close()

    def test_many_threads(self, remote: RemoteStore, root: str) -> None:
        def work(number: int) -> None:
            for turn in range(3):
                data = b"%d-%d" % (number, turn) * 1000
                put(remote, f"{root}{number}", data)
                assert read(remote, f"{root}{number}") == data

        in_threads(8, work)
        assert len(keys_of(remote, root)) == 8

    def test_too_much_metadata_is_rejected(self, remote: RemoteStore, root: str) -> None:
        if not self.metadata_limit:
            pytest.skip("this remote has no limit")
        attributes = Attributes("text/plain", {"note": "x" * self.metadata_limit})
        with pytest.raises(Rejected, match="metadata"):
            put(remote, root + "a", b"x", attributes)
