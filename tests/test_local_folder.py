"""LOCAL_DIR as storage: keys and names, what somebody else does in it, links, listings."""

from __future__ import annotations

import os
import stat
import unicodedata
from pathlib import Path

import pytest
from local_rig import hidden, keys, local, look

from cachestore.errors import NotFound, SpoolError
from cachestore.local.media import DEFAULT, guess_type
from cachestore.local.names import plain_path
from cachestore.model import ObjectInfo, Prefix

NFC = unicodedata.normalize("NFC", "café/naïve.txt")
NFD = unicodedata.normalize("NFD", NFC)
LONG = "x" * 300 + ".bin"


def output(root: Path) -> Path:
    return root / "output"


# -- keys and names ---------------------------------------------------------------------------


def test_put_get_overwrite_list_delete(tmp_path: Path) -> None:
    with local(tmp_path) as store:
        receipt = store.put("a/b.txt", b"one", content_type="text/x", metadata={"Who": "é"})
        assert receipt.state == "local"
        assert receipt.path == output(tmp_path) / "a/b.txt"
        assert look(store, "a/b.txt") == b"one"
        info = store.head("a/b.txt")
        assert (info.content_type, dict(info.metadata), info.storage) == (
            "text/x", {"who": "é"}, "local",
        )  # fmt: skip
        assert info.sha256 == receipt.sha256
        store.put("a/b.txt", b"two")
        assert receipt.state == "superseded"
        assert look(store, "a/b.txt") == b"two"
        assert store.head("a/b.txt").content_type == "text/plain"
        store.put("c", b"")
        assert keys(store) == ["a/b.txt", "c"]
        assert [type(item) for item in store.list("", "/")] == [Prefix, ObjectInfo]
        store.delete("a/b.txt")
        store.delete("never there")
        assert look(store, "a/b.txt") is None
        assert keys(store) == ["c"]
    with local(tmp_path) as store:
        assert look(store, "a/b.txt") is None
        assert look(store, "c") == b""
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("order", [("a", "a/b"), ("a/b", "a")])
def test_a_file_beside_a_folder_of_its_name(tmp_path: Path, order: tuple[str, str]) -> None:
    with local(tmp_path) as store:
        for key in order:
            store.put(key, key.encode())
        for key in order:
            assert look(store, key) == key.encode()
        assert keys(store) == ["a", "a/b"]
        path = store.get(order[1])
        store.put(order[1], b"again")
        assert path.read_bytes() == b"again"  # a path that was handed out stays one of the key
        assert len(hidden(tmp_path)) == 1
        store.delete(order[1])
        assert look(store, order[0]) == order[0].encode()
        assert look(store, order[1]) is None
        assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    "key", [LONG, f"{'y' * 256}/b.txt", ".cachestore/records/x", ".CacheStore/a", "é" * 128]
)
def test_keys_that_no_plain_name_can_have(tmp_path: Path, key: str) -> None:
    with local(tmp_path) as store:
        store.put(key, b"one")
        store.put(key, b"two")
        assert look(store, key) == b"two"
        assert keys(store) == keys(store, key[:20]) == [key]
        assert len(hidden(tmp_path)) == 1
    with local(tmp_path) as store:
        assert look(store, key) == b"two"
        store.delete(key)
        assert look(store, key) is None
        assert hidden(tmp_path) == []


def test_our_own_files_are_no_keys(tmp_path: Path) -> None:
    with local(tmp_path) as store:
        store.put("a", b"x")
        (record,) = (output(tmp_path) / ".cachestore" / "records").glob("*/*.json")
        key = record.relative_to(output(tmp_path)).as_posix()
        assert look(store, key) is None
        assert keys(store, ".cachestore/") == []
        store.put(key, b"not the record")
        assert look(store, key) == b"not the record"
        assert look(store, "a") == b"x"
        store.delete(key)
        assert record.exists()
        assert look(store, "a") == b"x"


def test_plain_names() -> None:
    root = Path("/r")
    assert plain_path(root, "a/b") == Path("/r/a/b")
    assert plain_path(root, "x/.cachestore/b") == Path("/r/x/.cachestore/b")
    assert plain_path(root, ".CACHESTORE") is None
    assert plain_path(root, "é" * 127) is not None
    assert plain_path(root, "é" * 128) is None


def test_both_spellings_are_one_key(tmp_path: Path) -> None:
    with local(tmp_path) as store:
        store.put(NFD, b"one")
        assert look(store, NFC) == b"one"
        assert store.get(NFD) == output(tmp_path) / NFC
        assert keys(store, NFD[:-4]) == [NFC]


@pytest.mark.parametrize("name", [NFC, NFD])
def test_a_file_of_either_spelling_is_found_replaced_and_deleted(tmp_path: Path, name: str) -> None:
    path = output(tmp_path) / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"from elsewhere")
    with local(tmp_path) as store:
        assert look(store, NFC) == b"from elsewhere"
        assert keys(store, NFC.split("/")[0] + "/") == [NFC]
        store.put(NFC, b"ours")
        assert path.read_bytes() == b"ours"
        assert keys(store) == [NFC]
        store.delete(NFC)
        assert look(store, NFC) is None
        assert not path.exists()


def test_media_types() -> None:
    known = {"a.WAV": "audio/wav", "x/y.m4a": "audio/mp4", "a.tar.gz": DEFAULT, "a": DEFAULT,
             "a.b/c": DEFAULT, "a.unheard-of": DEFAULT, "a.json": "application/json"}  # fmt: skip
    assert {key: guess_type(key) for key in known} == known


# -- somebody else's work in the folder ---------------------------------------------------------


def test_files_that_appear_are_served_with_a_guessed_type(tmp_path: Path) -> None:
    with local(tmp_path) as store:
        assert look(store, "x/new.png") is None
        (output(tmp_path) / "x").mkdir(parents=True)
        (output(tmp_path) / "x/new.png").write_bytes(b"dropped in")
        assert look(store, "x/new.png") == b"dropped in"
        assert store.head("x/new.png").content_type == "image/png"
        store.delete("x/new.png")
        assert look(store, "x/new.png") is None
        assert not (output(tmp_path) / "x/new.png").exists()


@pytest.mark.parametrize("by", ["in place", "rename"])
def test_an_edited_file_is_served_as_it_is(tmp_path: Path, by: str) -> None:
    with local(tmp_path) as store:
        store.put("a.txt", b"ours", content_type="text/x")
        path = store.get("a.txt")
        if by == "in place":
            path.write_bytes(b"edited by hand")
        else:
            other = tmp_path / "other"
            other.write_bytes(b"edited by hand")
            os.replace(other, path)
        assert look(store, "a.txt") == b"edited by hand"
        info = store.head("a.txt")
        assert (info.sha256, info.content_type) == (None, "text/x")
        store.put("a.txt", b"ours again")
        assert look(store, "a.txt") == b"ours again"


def test_a_file_removed_by_hand_is_gone_and_can_be_put_again(tmp_path: Path) -> None:
    with local(tmp_path) as store:
        store.put("a.txt", b"one")
        store.get("a.txt").unlink()
        assert look(store, "a.txt") is None
        store.put("a.txt", b"two")
        assert look(store, "a.txt") == b"two"
        store.get("a.txt").unlink()
        store.delete("a.txt")
        assert look(store, "a.txt") is None


def test_a_delete_does_not_remove_what_somebody_put_there_since(tmp_path: Path) -> None:
    with local(tmp_path) as store:
        store.put("a.txt", b"one")
        store.delete("a.txt")
        (output(tmp_path) / "a.txt").write_bytes(b"a newer one of somebody else")
        record = store.core.folder.record("a.txt")
        assert record is not None
        assert store.core.folder.mark("a.txt", record.id, "sent", "")
        assert (output(tmp_path) / "a.txt").exists()


def test_an_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    output(tmp_path).mkdir(mode=0o751)
    output(tmp_path).chmod(0o751)
    with local(tmp_path) as store:
        store.put("sub/a.txt", b"x")
        assert stat.S_IMODE(output(tmp_path).stat().st_mode) == 0o751
        assert stat.S_IMODE((output(tmp_path) / ".cachestore").stat().st_mode) == 0o700


@pytest.mark.parametrize("first", ["put", "delete"])
def test_a_new_folder_and_its_files_have_the_usual_modes(tmp_path: Path, first: str) -> None:
    before = os.umask(0o022)
    try:
        with local(tmp_path) as store:
            if first == "delete":
                store.delete("sub/a.txt")
            store.put("sub/a.txt", b"x")
    finally:
        os.umask(before)
    modes = {p: stat.S_IMODE((output(tmp_path) / p).stat().st_mode) for p in ("", "sub")}
    assert modes == {"": 0o755, "sub": 0o755}
    assert stat.S_IMODE((output(tmp_path) / "sub/a.txt").stat().st_mode) == 0o644


# -- symbolic links -----------------------------------------------------------------------------


def test_links_are_neither_served_nor_written_through(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret.txt").write_bytes(b"secret")
    output(tmp_path).mkdir()
    (output(tmp_path) / "file.txt").symlink_to(elsewhere / "secret.txt")
    (output(tmp_path) / "dangling").symlink_to(elsewhere / "nothing")
    (output(tmp_path) / "folder").symlink_to(elsewhere)
    with local(tmp_path) as store:
        assert keys(store) == keys(store, "folder/") == []
        for key in ("file.txt", "folder/secret.txt", "folder/new.txt", "dangling"):
            assert look(store, key) is None
            store.put(key, b"ours")
            assert look(store, key) == b"ours"
            store.delete(key)
            assert look(store, key) is None
    assert (elsewhere / "secret.txt").read_bytes() == b"secret"
    assert os.listdir(elsewhere) == ["secret.txt"]
    assert (output(tmp_path) / "file.txt").is_symlink()
    assert (output(tmp_path) / "dangling").is_symlink()


def test_a_folder_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    with local(tmp_path) as store:
        store.put("a/b.txt", b"ours")
        os.rename(output(tmp_path) / "a", tmp_path / "moved")
        (tmp_path / "moved/b.txt").write_bytes(b"something else")
        (output(tmp_path) / "a").symlink_to(tmp_path / "moved")
        with pytest.raises(NotFound):
            store.read("a/b.txt")
        store.delete("a/b.txt")
        assert (tmp_path / "moved/b.txt").read_bytes() == b"something else"


def test_a_hidden_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    output(tmp_path).mkdir()
    (tmp_path / "elsewhere").mkdir()
    (output(tmp_path) / ".cachestore").symlink_to(tmp_path / "elsewhere")
    with local(tmp_path) as store:
        with pytest.raises(SpoolError, match="not a folder"):
            store.put("a", b"x")
        with pytest.raises(SpoolError, match="not a folder"):
            store.delete("a")
    assert os.listdir(tmp_path / "elsewhere") == []
