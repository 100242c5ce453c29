"""Private folders, links that lead nowhere, keys that stay inside, bodies nobody can alter."""

from __future__ import annotations

import json
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from fault_rig import seed
from local_rig import Quick, content
from store_rig import Shifted, make_options, store_of, until

from cachestore.errors import CacheStoreError, InvalidKey, SpoolError
from cachestore.keys import check_key
from cachestore.local.names import plain_path
from cachestore.options import RemoteOptions
from cachestore.remote.directory import DirectoryRemote
from cachestore.remote.memory import MemoryRemote
from cachestore.remote.s3 import S3Remote
from cachestore.store import CacheStore

DATA = b"the only copy" * 100
PRECIOUS = b"precious".ljust(len(DATA), b".")


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Everything that is private is so by its own mode."""
    before = os.umask(0)
    yield
    os.umask(before)


def opened(root: Path, bucket: MemoryRemote, *, idle: bool = False, **fields: object) -> CacheStore:
    options = make_options(root, mode="remote", **({"leader_interval": 0.02} | fields))
    store = store_of(options, remote=bucket)
    if idle:
        store.core.uploader.stop(5.0)
    return store


def body_of(store: CacheStore, key: str) -> Path:
    ticket = store.core.spool.read(store.core.spool.place(key))
    assert ticket is not None
    return store.core.spool.body(ticket)


# -- modes -----------------------------------------------------------------------------------------


def test_folders_are_private_and_so_are_files(tmp_path: Path, open_umask: None) -> None:
    bucket = MemoryRemote()
    for name in ("cache", "spool"):
        (tmp_path / name).mkdir(mode=0o777)  # made by somebody before
    with opened(tmp_path, bucket) as store:
        seed(bucket, "far.wav", DATA)
        store.get("far.wav")
        store.put("near.wav", DATA).wait(60)
        store.head("other.wav") if store.exists("other.wav") else None
        store.delete("near.wav")
        store.core.uploader.stop(5.0)
        store.put("pending.wav", DATA)
        store.get("pending.wav")
        seen = 0
        for top in ("cache", "spool"):
            for folder, _, names in os.walk(tmp_path / top):
                assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700, folder
                for name in names:
                    path = Path(folder) / name
                    if name == ".gitignore":
                        continue
                    mode, seen = stat.S_IMODE(path.lstat().st_mode), seen + 1
                    assert mode in (0o600, 0o444), f"{path}: {mode:o}"
                    assert mode == 0o444 or path.suffix != ".wav"
        assert seen >= 8


def test_a_local_folder_that_exists_is_never_changed(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir(mode=0o755)
    with store_of(make_options(tmp_path)) as store:
        store.put("a.wav", DATA)
    assert stat.S_IMODE((tmp_path / "output").stat().st_mode) == 0o755


# -- handed-out paths ------------------------------------------------------------------------------


def vandalise(path: Path) -> None:
    """What a program can do with a path that it was given, as root too."""
    os.chmod(path, 0o666)
    with open(path, "r+b") as file:
        file.write(b"EDITED IN PLACE")
    with open(path, "ab") as file:
        file.write(b" and longer")
    os.truncate(path, 5)


@pytest.mark.parametrize("how", ["get", "lease", "receipt"])
def test_what_is_written_into_a_handed_out_path_reaches_no_spool_body(
    tmp_path: Path, how: str
) -> None:
    bucket = MemoryRemote()
    store = opened(tmp_path, bucket, idle=True)
    receipt = store.put("a.wav", DATA)
    if how == "lease":
        with store.lease("a.wav") as path:
            vandalise(path)
    else:
        vandalise(store.get("a.wav") if how == "get" else receipt.path)
    assert body_of(store, "a.wav").read_bytes() == DATA
    assert store.get("a.wav").read_bytes() == store.read("a.wav") == DATA
    store.start()
    assert store.flush(60).done
    assert content(bucket) == {"a.wav": DATA}
    vandalise(store.get("a.wav"))
    assert store.get("a.wav").read_bytes() == store.read("a.wav") == DATA
    assert content(bucket) == {"a.wav": DATA}
    store.close()


def test_a_body_that_was_altered_is_never_sent(tmp_path: Path) -> None:
    """A large file is handed out as a second name: what is sent is what was hashed all the same."""
    bucket = MemoryRemote()
    store = opened(tmp_path, bucket, idle=True, handout_copy_max=0)
    seed(bucket, "a.wav", b"older")
    store.put("a.wav", DATA)
    os.chmod(path := body_of(store, "a.wav"), 0o666)
    with open(path, "r+b") as file:
        file.write(b"EDITED")
    store.start()
    [item] = until(lambda: [i for i in store.pending() if i.state == "parked"], "parked")
    assert "a.wav" in str(item.last_error) or item.last_error
    assert content(bucket) == {"a.wav": b"older"}
    store.close()


# -- links -----------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody else's, with a file."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_bytes(PRECIOUS)
    return folder


def untouched(outside: Path) -> None:
    assert [p.name for p in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_bytes() == PRECIOUS
    assert (outside / "precious").stat().st_nlink == 1


def test_linked_folders_in_the_cache_are_not_entered(tmp_path: Path, outside: Path) -> None:
    bucket = MemoryRemote()
    root = tmp_path / "cache" / bucket.remote_id
    root.mkdir(parents=True)
    for name in ("parts", "transit", "facts", "catalog", *(f"{n:02x}" for n in range(256))):
        (root / name).symlink_to(outside)
    with opened(tmp_path, bucket) as store:
        seed(bucket, "far.wav", DATA)
        receipt = store.put("near.wav", DATA)
        for key in ("far.wav", "near.wav"):
            assert store.get(key).read_bytes() == store.read(key) == DATA
        assert not store.exists("none.wav")
        store.clean()
        store.fsck(repair=True)
        assert receipt.state in ("pending", "uploaded")
        untouched(outside)
        store.close(drain=0)
    untouched(outside)


def test_what_lies_behind_a_linked_folder_is_not_cleaned_up(tmp_path: Path, outside: Path) -> None:
    """Although it has the names of our own files, and is old."""
    bucket = MemoryRemote()
    names = [f"{'a' * 64}{ending}" for ending in (
        f".{'b' * 8}.part", f"-{'b' * 32}.wav", f"-{'b' * 16}.wav", f".{'b' * 32}.wav",
    )]  # fmt: skip
    for name in names:
        (outside / name).write_bytes(b"not ours")
    root = tmp_path / "cache" / bucket.remote_id
    root.mkdir(parents=True)
    (tmp_path / "spool" / "bb").mkdir(parents=True)
    for folder in (root / "parts", root / "transit", root / "damaged", root / "aa"):
        folder.symlink_to(outside)
    for folder in ("quarantine", "aa"):
        (tmp_path / "spool" / folder).symlink_to(outside)
    stray = tmp_path / "spool" / "bb" / f"{'b' * 64}.{'c' * 32}.wav"
    stray.write_bytes(b"perhaps an only copy")
    options = make_options(tmp_path, mode="remote", handout_grace=0.0)
    with store_of(options, remote=bucket, clock=Shifted(30 * 86400.0)) as store:
        store.clean()
        store.fsck(repair=True)
        store.close(drain=0)
    assert {path.name for path in outside.iterdir()} == {"precious", *names}
    assert stray.read_bytes() == b"perhaps an only copy"


def test_linked_shards_of_the_spool_are_not_entered(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "spool").mkdir()
    for number in range(256):
        (tmp_path / "spool" / f"{number:02x}").symlink_to(outside)
    with opened(tmp_path, MemoryRemote()) as store:
        for work in (lambda: store.put("a.wav", DATA), lambda: store.delete("a.wav")):
            with pytest.raises(SpoolError, match="symbolic link"):
                work()
        store.clean()
        store.fsck(repair=True)
        untouched(outside)
        store.close(drain=0)


@pytest.mark.parametrize("trick", ["symlink", "hard link"])
@pytest.mark.parametrize("victim", ["body", "copy", "hand-out"])
def test_a_planted_link_is_neither_followed_nor_sent(
    tmp_path: Path, outside: Path, victim: str, trick: str
) -> None:
    bucket = MemoryRemote()
    store = opened(tmp_path, bucket, idle=True, handout_grace=0.0)
    seed(bucket, "far.wav", DATA)
    store.put("near.wav", DATA)
    key = "far.wav" if victim == "copy" else "near.wav"
    path = body_of(store, key) if victim == "body" else store.get(key)
    path.unlink()
    target = outside / "precious"
    path.symlink_to(target) if trick == "symlink" else path.hardlink_to(target)
    try:
        got = store.get(key).read_bytes()
    except CacheStoreError:
        assert victim == "body"
    else:
        assert got == DATA or (victim, trick) == ("body", "hard link")
    store.start()
    if victim == "body":
        until(lambda: [i for i in store.pending() if i.state == "parked"], "parked")
    else:
        assert store.flush(60).done
    assert PRECIOUS not in content(bucket).values()
    store.delete(key)
    assert store.flush(60).done
    store.clean()
    store.fsck(repair=True)
    assert target.read_bytes() == PRECIOUS
    assert target.exists()
    store.close()


def test_a_linked_folder_in_local_dir_is_not_entered(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "songs").symlink_to(outside)
    with store_of(make_options(tmp_path), files=Quick()) as store:
        store.put("songs/a.wav", DATA)
        assert store.read("songs/a.wav") == DATA
        with pytest.raises(CacheStoreError):
            store.get("songs/precious")
        store.delete("songs/a.wav")
        store.delete("songs/precious")
    untouched(outside)


# -- keys ------------------------------------------------------------------------------------------

PIECES = (
    "..", ".", "...", "", " ", "~", "\\", "..\\..", "C:", "%2e%2e", "%2F", "a", "b.wav", "-rf", "*",
    ".cachestore", ".CacheStore", ".records", ".uploads", ".gitignore", "CON", "nul.txt", "\u2025",
    "\uff0e\uff0e", "\u2215", "\u202e", "e\u0301", "\ud800", "\0", "\n", "\x7f", "x" * 255,
    "y" * 256, "\U0001f3b5", "\u00e4" * 130, "$(id)", "'; --", "?x=1", "#f", "&", "+", "=", "a:b",
    "x.ticket", "x.state", "x.db", "current", "etc/passwd", "//", "\\\\host",
)  # fmt: skip


def fuzzed(count: int, seed_: int) -> list[str]:
    rng = random.Random(seed_)
    keys = []
    while len(keys) < count:
        parts = [rng.choice(PIECES) for _ in range(rng.randint(1, 5))]
        if rng.random() < 0.3:
            parts.append(
                "".join(chr(rng.choice((47, 46, rng.randint(1, 0x2FF)))) for _ in range(9))
            )
        keys.append(rng.choice(("/", "/", "/", "\\", "")).join(parts))
    return keys


def accepted(keys: list[str]) -> dict[str, None]:
    """Those that are keys, as they are stored."""
    good: dict[str, None] = {}
    for key in keys:
        try:
            good[check_key(key)] = None
        except InvalidKey:
            continue
    assert len(good) > len(keys) // 20
    return good


def only_below(root: Path, *folders: str) -> None:
    """Nothing was made beside these folders, nor linked."""
    assert {p.name for p in root.iterdir()} == set(folders)
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            assert not (Path(folder) / name).is_symlink()


def test_no_key_leaves_a_directory_remote(tmp_path: Path) -> None:
    remote = DirectoryRemote(tmp_path / "a" / "bucket", durable=False)
    keys = accepted(fuzzed(10_000, 1))
    root = tmp_path / "a" / "bucket"
    for key in keys:
        for path in (remote._records._path(key), remote._records.new_body(key)):
            assert os.path.normpath(path) == str(path)
            assert path.is_relative_to(root)
    keys = dict.fromkeys(list(keys)[:500])
    for number, key in enumerate(keys):
        seed(remote, key, str(number).encode())
        assert remote.head(key).key == key
    assert {obj.key for page in remote.list() for obj in page.objects} == set(keys)
    only_below(tmp_path, "a")
    only_below(tmp_path / "a", "bucket")
    for folder in (tmp_path / "a" / "bucket").iterdir():
        assert len(folder.name) == 2 or folder.name == ".records"


def test_no_key_means_another_one_in_memory() -> None:
    remote = MemoryRemote()
    keys = accepted(fuzzed(10_000, 2))
    for number, key in enumerate(keys):
        seed(remote, key, str(number).encode())
    assert content(remote) == {key: str(number).encode() for number, key in enumerate(keys)}


def test_no_key_leaves_its_bucket_on_the_wire() -> None:
    """The path of the request is the bucket and the key, whatever the key holds."""
    options = RemoteOptions(
        bucket="mine", endpoint="https://r2.test", access_key="id", secret_key="secret"
    )
    remote = S3Remote(options)
    keys = list(accepted(fuzzed(10_000, 3)))
    for key in keys:
        url = urlsplit(remote.presign_get(key, 60))
        assert url.netloc == "r2.test"
        assert unquote(url.path) == f"/mine/{key}"
        assert not url.fragment
        assert not {"..", "."} & set(url.path.split("/"))
    remote.close()


def test_no_key_leaves_the_local_folder(tmp_path: Path) -> None:
    root = tmp_path / "output"
    keys = list(accepted(fuzzed(10_000, 4)))
    for key in keys:
        path = plain_path(root, key)
        if path is not None:
            assert os.path.normpath(path).startswith(f"{root}{os.sep}")
            assert path.relative_to(root).parts[0].casefold() != ".cachestore"
    with store_of(make_options(tmp_path), files=Quick()) as store:
        taken: dict[str, bytes] = {}
        for number, key in enumerate(keys[:200]):
            store.put(key, str(number).encode())
            taken[key] = str(number).encode()
        for key, data in taken.items():
            assert store.read(key) == data
    only_below(tmp_path, "cache", "spool", "output")


def test_no_key_leaves_cache_and_spool(tmp_path: Path) -> None:
    bucket = MemoryRemote()
    options = make_options(tmp_path, mode="remote", leader_interval=0.02)
    store = store_of(options, remote=bucket, files=Quick())
    keys = list(accepted(fuzzed(3_000, 5)))[:100]
    for number, key in enumerate(keys):
        store.put(key, str(number).encode())
        assert store.get(key).is_relative_to(tmp_path / "cache")
    assert store.flush(60).done
    assert content(bucket) == {key: str(number).encode() for number, key in enumerate(keys)}
    store.close()
    only_below(tmp_path, "cache", "spool")


def test_a_planted_record_of_a_directory_remote_names_no_file_elsewhere(
    tmp_path: Path, outside: Path
) -> None:
    remote = DirectoryRemote(tmp_path / "bucket", durable=False)
    seed(remote, "a.wav", DATA)
    [record] = (tmp_path / "bucket" / ".records").glob("*/*.json")
    good = record.read_text()
    for evil in ("../outside/precious", str(outside / "precious"), "ab/../../outside/precious"):
        record.write_text(json.dumps({**json.loads(good), "body": evil}))
        with pytest.raises(CacheStoreError):
            remote.get("a.wav")
        with pytest.raises(CacheStoreError):
            remote.delete("a.wav")
    untouched(outside)
