"""The ten known faults of the in-app predecessor, each as a test that it would fail.

It queued uploads in memory, by the caller's path, and kept its cache in files named `*.cache`
beside a `metadata.json`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest
from fault_rig import seed
from local_rig import content
from process_rig import load_options, save_options, say, start
from store_rig import Shifted, make_options, on_server, store_of, until

from cachestore import events
from cachestore.errors import NotFound, RemoteRefused, RemoteUnavailable, Throttled
from cachestore.model import ObjectInfo
from cachestore.options import Options
from cachestore.remote.directory import DirectoryRemote
from cachestore.remote.memory import MemoryRemote
from cachestore.store import CacheStore
from cachestore.testing.r2 import R2Double
from cachestore.testing.remotes import FaultyRemote

AUDIO = b"RIFF" + bytes(range(256)) * 300
DAY = 86400.0


class Rig:
    """A bucket in memory that can go away, and a store on it."""

    def __init__(self, root: Path) -> None:
        self.bucket = MemoryRemote()
        self.remote = FaultyRemote(self.bucket)
        self.options = make_options(root, mode="remote", leader_interval=0.02, handout_grace=0.0)
        self.stores: list[CacheStore] = []

    def open(self, later: float = 0.0, **fields: object) -> CacheStore:
        options = Options(**{
            **{name: getattr(self.options, name) for name in Options.__slots__}, **fields,
        })  # fmt: skip
        store = store_of(options, remote=self.remote, clock=Shifted(later))
        self.stores.append(store)
        return store


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    for store in rig.stores:
        store.close(drain=0)


def test_01_the_callers_file_may_be_removed_as_soon_as_put_returns(
    rig: Rig, tmp_path: Path
) -> None:
    """It queued the caller's temporary path; callers unlink it, and the upload failed."""
    rig.remote.down()
    store = rig.open()
    source = tmp_path / "upload.tmp"
    source.write_bytes(AUDIO)
    receipt = store.put("song.wav", source)
    source.unlink()
    rig.remote.up()
    assert receipt.wait(60) == "uploaded"
    assert content(rig.bucket) == {"song.wav": AUDIO}
    assert store.get("song.wav").read_bytes() == AUDIO


def child_puts(options: str, bucket: str) -> None:
    store = store_of(load_options(options), remote=DirectoryRemote(bucket))
    store.core.uploader.stop(5.0)
    store.put("song.wav", AUDIO)
    say("put")
    input()


def test_02_what_waits_for_its_upload_outlives_the_process(tmp_path: Path) -> None:
    """Its queue was an `asyncio.Queue`: a restart lost it."""
    options = make_options(tmp_path, mode="remote", leader_interval=0.02)
    saved = save_options(options, tmp_path / "options")
    child = start("test_predecessor:child_puts", saved, tmp_path / "bucket")
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "put"
    child.kill()
    child.communicate()
    remote = DirectoryRemote(tmp_path / "bucket")
    with store_of(options, remote=remote) as store:
        assert store.get("song.wav").read_bytes() == AUDIO
        assert [item.key for item in store.pending()] == ["song.wav"]
        store.start()
        assert store.flush(60).done
    assert remote.head("song.wav").size == len(AUDIO)


def test_03_a_failed_upload_is_told_kept_and_tried_again(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """It printed the failure and forgot the file."""
    rig.remote.down()
    store = rig.open()
    heard: list[events.Event] = []
    store.subscribe(heard.append)
    with caplog.at_level(logging.WARNING, "cachestore"):
        store.put("song.wav", AUDIO)
        until(lambda: [e for e in heard if isinstance(e, events.UploadFailed)], "a failed try")
        until(lambda: store.pending()[0].last_error, "its reason")
    [item] = store.pending()
    assert item.tries >= 1
    assert "down" in str(item.last_error)
    assert any("song.wav" in record.getMessage() for record in caplog.records)
    assert store.health()["pending"]["count"] == 1
    assert not store.flush(0.05).done
    rig.remote.up()
    assert store.flush(60).done
    assert content(rig.bucket) == {"song.wav": AUDIO}


def test_04_a_url_is_not_given_before_it_works(tmp_path: Path, r2_double: R2Double) -> None:
    """It returned a presigned URL at once, which answered 404 until the upload was done."""
    options = on_server(tmp_path, r2_double, r2_double.bucket)
    r2_double.rules.add("status", method="PUT", status=503)
    with store_of(options) as store, ThreadPoolExecutor(2) as pool:
        receipt = store.put("song.wav", AUDIO)
        asked = [pool.submit(receipt.url), pool.submit(lambda: store.presign_get("song.wav"))]
        until(lambda: store.pending()[0].tries > 1, "failed tries")
        assert not any(future.done() for future in asked)
        r2_double.rules.clear()
        for future in asked:
            with urlopen(future.result(60)) as answer:
                assert answer.read() == AUDIO


@pytest.mark.parametrize("error", [RemoteUnavailable, RemoteRefused, Throttled])
def test_05_only_a_404_means_not_found(rig: Rig, error: type[Exception]) -> None:
    """It took any `ClientError` for "not found"."""
    store = rig.open()
    seed(rig.bucket, "song.wav", AUDIO)
    rig.remote.fail(times=10_000, error=lambda: error("of the test"))
    for read in (store.get, store.exists, store.head, store.read):
        with pytest.raises(Exception) as caught:
            read("song.wav")
        assert not isinstance(caught.value, FileNotFoundError)
    rig.remote.up()
    until(lambda: _read(store, "song.wav") == AUDIO, "the end of the trouble")
    with pytest.raises(NotFound):
        store.get("other.wav")


def _read(store: CacheStore, key: str) -> bytes | None:
    try:
        return store.read(key)
    except (RemoteUnavailable, RemoteRefused):
        return None


@pytest.mark.parametrize("at", [0, 1, 40_000, len(AUDIO) - 1])
def test_06_a_download_that_breaks_off_leaves_no_file(
    tmp_path: Path, r2_double: R2Double, at: int
) -> None:
    """It downloaded straight onto the path of the cache: the next read was short."""
    options = on_server(tmp_path, r2_double, r2_double.bucket)
    with store_of(options) as store:
        assert store.core.remote is not None
        seed(store.core.remote, "song.wav", AUDIO)
        r2_double.rules.add("cut", method="GET", key="song.wav", at=at)
        for _ in range(3):
            # What had arrived before the cut may be gone on with.
            assert _read(store, "song.wav") in (None, AUDIO)
        assert all(p.read_bytes() == AUDIO for p in options.cache_dir.rglob("*.wav"))
        r2_double.rules.clear()
        assert until(lambda: _read(store, "song.wav")) == AUDIO
        assert store.get("song.wav").read_bytes() == AUDIO


def test_07_age_never_removes_what_is_not_uploaded(rig: Rig) -> None:
    """Its TTL knew nothing of pending files, and removed the only copy."""
    rig.remote.down()
    rig.open().put("song.wav", AUDIO)
    later = rig.open(365 * DAY, cache_max_bytes=1, unused_after=0.0, ttl=1.0)
    for _ in range(2):
        later.clean()
        assert later.read("song.wav") == AUDIO
    later.invalidate("song.wav")
    later.fsck(repair=True)
    assert later.get("song.wav").read_bytes() == AUDIO
    rig.remote.up()
    assert later.flush(60).done
    assert content(rig.bucket) == {"song.wav": AUDIO}


def test_08_torn_or_missing_metadata_deletes_nothing(rig: Rig) -> None:
    """`metadata.json` was written in place; what it did not name was expired, and deleted."""
    rig.remote.down()
    store = rig.open()
    store.core.uploader.stop(5.0)
    store.put("pending.wav", AUDIO)
    seed(rig.bucket, "clean.wav", AUDIO)
    rig.remote.up()
    store.get("clean.wav")
    strangers = [
        rig.options.cache_dir / "song_1.cache",
        store.core.cache.path(store.core.catalog.rows()[0]).with_name("song_2.cache"),
    ]
    for stranger in strangers:
        stranger.write_bytes(b"an older app's file")
    (rig.options.cache_dir / "metadata.json").write_text('{"song_1": {"expi')
    store.close(drain=0)
    torn = list(rig.options.cache_dir.glob("*/catalog/*"))
    assert torn
    for path in torn:
        path.write_bytes(path.read_bytes()[:100])
    again = rig.open(30 * DAY)
    again.clean()
    again.fsck(repair=True)
    assert again.read("pending.wav") == again.read("clean.wav") == AUDIO
    assert [path.read_bytes() for path in strangers] == [b"an older app's file"] * 2
    assert (rig.options.cache_dir / "metadata.json").exists()
    again.start()
    assert again.flush(60).done
    assert content(rig.bucket)["pending.wav"] == AUDIO


@pytest.mark.parametrize(
    ("name", "suffix", "kind"),
    [("song.wav", ".wav", "audio/wav"), ("voice.mp3", ".mp3", "audio/mpeg"),
     ("cover.JPG", ".JPG", "image/jpeg"), ("meta.json", ".json", "application/json")],
)  # fmt: skip
def test_09_paths_keep_their_extension_and_objects_their_type(
    rig: Rig, name: str, suffix: str, kind: str
) -> None:
    """Its files ended in `.cache`: decoders refused them, and the type was lost."""
    store = rig.open()
    key = f"users/7/{name}"
    receipt = store.put(key, AUDIO)
    assert store.get(key).suffix == receipt.path.suffix == suffix
    assert receipt.wait(60) == "uploaded"
    assert store.get(key).suffix == suffix
    assert rig.bucket.head(key).content_type == kind
    store.invalidate(key)
    assert store.get(key).suffix == suffix
    assert store.head(key).content_type == kind
    [listed] = [item for item in store.list() if isinstance(item, ObjectInfo)]
    assert listed.key == key


def test_10_the_hit_rate_is_that_of_the_reads(rig: Rig) -> None:
    """It computed a hit rate from what its metadata listed."""
    for number in range(4):
        seed(rig.bucket, f"{number}.wav", AUDIO)
    store = rig.open()
    for number in range(4):
        store.get(f"{number}.wav")
    assert (store.stats().hits, store.stats().misses) == (0, 4)
    assert store.stats().hit_rate == 0.0
    for _ in range(4):
        for number in range(3):
            store.get(f"{number}.wav")
    counts = store.stats()
    assert (counts.hits, counts.misses) == (12, 4)
    assert counts.hit_rate == 0.75
    store.clean()
    with pytest.raises(NotFound):
        store.get("none.wav")
    assert store.stats().hit_rate == 0.75
    fresh = rig.open()
    assert (fresh.stats().hits, fresh.stats().misses) == (0, 0)
