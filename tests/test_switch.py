"""Switching flags and buckets on the same folders: nothing lost, nothing resurrected."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from store_rig import make_options, on_server, store_of

from cachestore.errors import NotFound, RemoteUnavailable
from cachestore.model import ObjectInfo
from cachestore.options import Options, RemoteOptions
from cachestore.store import CacheStore

KEYS = [f"p/{n}.bin" for n in range(12)]


def check(store: CacheStore, model: dict[str, bytes]) -> None:
    """Everything that the model knows, and nothing else, is served."""
    for key in KEYS:
        if key in model:
            assert store.get(key).read_bytes() == model[key], key
            assert store.read(key) == model[key], key
            assert store.head(key).size == len(model[key]), key
        else:
            with pytest.raises(NotFound):
                store.get(key)
            assert not store.exists(key), key
    listed = [item.key for item in store.list("p/") if isinstance(item, ObjectInfo)]
    assert listed == sorted(model)


def change(store: CacheStore, model: dict[str, bytes], rng: random.Random) -> None:
    for _ in range(10):
        key = rng.choice(KEYS)
        if rng.random() < 0.65:
            model[key] = rng.randbytes(rng.randint(0, 5000))
            store.put(key, model[key])
        else:
            model.pop(key, None)
            store.delete(key)
        if rng.random() < 0.3:
            check(store, model)


@pytest.mark.parametrize("seed", range(6))
def test_local_and_remote_in_turn(moto_server: Any, tmp_path: Path, seed: int) -> None:
    """The last phase is the bucket's own: what it holds is what the model says."""
    rng = random.Random(seed)
    remote = on_server(tmp_path, moto_server, moto_server.new_bucket())
    assert isinstance(remote, Options)
    local = make_options(tmp_path, mode="local", remote=remote.remote)
    model: dict[str, bytes] = {}
    for phase in range(6):
        options = local if phase % 2 == 0 else remote
        with store_of(options) as store:
            check(store, model)
            change(store, model, rng)
            check(store, model)
            if phase % 2 and rng.random() < 0.5:
                assert store.flush(60).done
            store.close(drain=0.0)
    with store_of(remote) as store:
        check(store, model)
        report = store.flush(60)
        assert report.done, report
        check(store, model)
        raw = store.core.remote
        assert raw is not None
        there = {}
        for page in raw.list("p/"):
            for obj in page.objects:
                body = raw.get(obj.key)
                assert body is not None
                with body as answer:
                    there[obj.key] = b"".join(answer)
        assert there == model


def test_local_without_any_remote_and_then_the_first_one(moto_server: Any, tmp_path: Path) -> None:
    with store_of(make_options(tmp_path)) as store:
        store.put("a.txt", b"made before there was a bucket")
        store.put("b.txt", b"deleted again")
        store.delete("b.txt")
    remote = on_server(tmp_path, moto_server, moto_server.new_bucket())
    with store_of(remote) as store:
        assert store.get("a.txt").read_bytes() == b"made before there was a bucket"
        assert store.flush(60).done
        assert [item.key for item in store.list()] == ["a.txt"]
        assert store.core.remote is not None
        assert store.core.remote.head("a.txt").content_type == "text/plain"


def test_another_bucket_on_the_same_folders_serves_and_sends_nothing_of_the_first(
    moto_server: Any, tmp_path: Path
) -> None:
    first = on_server(tmp_path, moto_server, moto_server.new_bucket())
    second = on_server(tmp_path, moto_server, moto_server.new_bucket())
    dead = Options(**{f: getattr(first, f) for f in first.__slots__})
    assert dead.remote is not None
    with store_of(first) as store:
        store.put("clean.txt", b"of the first")
        assert store.flush(60).done
        store.get("clean.txt")
    # Pending for the first: put while nothing uploads.
    with store_of(first) as store:
        store.core.uploader.stop(5.0)
        store.put("pending.txt", b"of the first")
        store.close(drain=0.0)
    with store_of(second) as store:
        for key in ("clean.txt", "pending.txt"):
            with pytest.raises(NotFound):
                store.get(key)
        assert list(store.list()) == []
        store.put("pending.txt", b"of the second")
        assert store.flush(60).done
        assert [item.state for item in store.pending()] == ["foreign"]
        assert store.health()["foreign"]
    with store_of(first) as store:
        assert store.get("pending.txt").read_bytes() == b"of the first"
        assert store.flush(60).done
        assert store.core.remote is not None
        assert store.core.remote.head("pending.txt").size == len(b"of the first")
    with store_of(second) as store:
        assert store.get("pending.txt").read_bytes() == b"of the second"


def test_a_superseded_local_copy_is_not_served_for_the_newer_version(
    moto_server: Any, tmp_path: Path
) -> None:
    remote = on_server(tmp_path, moto_server, moto_server.new_bucket())
    local = make_options(tmp_path, mode="local", remote=remote.remote)
    with store_of(local) as store:
        store.put("a.txt", b"old")
    with store_of(remote) as store:
        store.put("a.txt", b"new")
        assert store.flush(60).done
        store.invalidate("a.txt")
    with store_of(local) as store, pytest.raises(RemoteUnavailable, match="older"):
        store.get("a.txt")


def test_a_copy_that_was_sent_is_not_served_for_what_another_machine_put_since(
    moto_server: Any, tmp_path: Path
) -> None:
    remote = on_server(tmp_path, moto_server, moto_server.new_bucket())
    local = make_options(tmp_path, mode="local", remote=remote.remote)
    with store_of(local) as store:
        store.put("a.txt", b"old")
    with store_of(remote) as store:
        assert store.flush(60).done
        elsewhere = replace(
            remote, cache_dir=tmp_path / "c2", spool_dir=tmp_path / "s2", local_dir=tmp_path / "l2"
        )
        with store_of(elsewhere) as other:
            other.put("a.txt", b"newer", durability="remote")
        assert store.get("a.txt", max_age=0).read_bytes() == b"newer"
        store.invalidate("a.txt")
    with store_of(local) as store, pytest.raises(RemoteUnavailable, match="older"):
        store.get("a.txt")


def test_a_legacy_file_is_adopted_only_when_the_bucket_does_not_know_the_key(
    moto_server: Any, tmp_path: Path
) -> None:
    remote = on_server(tmp_path, moto_server, moto_server.new_bucket())
    with store_of(remote) as store:
        store.put("known.txt", b"of the bucket")
        assert store.flush(60).done
        store.invalidate("known.txt")
    output = tmp_path / "output"
    (output / "sub").mkdir(parents=True, exist_ok=True)
    (output / "known.txt").write_bytes(b"legacy")
    (output / "sub" / "new.txt").write_bytes(b"legacy")
    (output / "gone.txt").write_bytes(b"legacy")
    with store_of(remote) as store:
        assert store.get("known.txt").read_bytes() == b"of the bucket"
        assert store.get("sub/new.txt").read_bytes() == b"legacy"
        store.delete("gone.txt")
        with pytest.raises(NotFound):
            store.get("gone.txt")
        assert store.flush(60).done
        assert store.core.remote is not None
        assert store.core.remote.head("sub/new.txt").size == 6
        assert not (output / "gone.txt").exists()
        with pytest.raises(NotFound):
            store.get("gone.txt")


def test_a_file_whose_bytes_the_bucket_has_is_served_when_the_bucket_is_off(
    moto_server: Any, tmp_path: Path
) -> None:
    """One that was there before us, and one of ours that was put again past the folder."""
    remote = on_server(tmp_path, moto_server, moto_server.new_bucket())
    local = make_options(tmp_path, mode="local", remote=remote.remote)
    with store_of(local) as store:
        store.put("ours.txt", b"same", content_type="text/x-new")
    (tmp_path / "output" / "legacy.txt").write_bytes(b"legacy")
    with store_of(remote) as store:
        store.put("ours.txt", b"same", content_type="text/x-newer")
        assert store.get("legacy.txt").read_bytes() == b"legacy"
        assert store.flush(60).done
        for key in ("ours.txt", "legacy.txt"):
            store.invalidate(key)
    with store_of(local) as store:
        assert store.get("legacy.txt").read_bytes() == b"legacy"
        assert store.get("ours.txt").read_bytes() == b"same"
        assert store.head("ours.txt").content_type == "text/x-newer"
        assert store.pending() == []


def test_local_only_prefixes_never_leave(moto_server: Any, tmp_path: Path) -> None:
    remote = on_server(
        tmp_path, moto_server, moto_server.new_bucket(), local_only_prefixes=("samples/",)
    )
    with store_of(remote) as store:
        store.put("samples/drum.wav", b"local")
        store.put("songs/a.wav", b"remote")
        assert store.flush(60).done
        assert store.get("samples/drum.wav").read_bytes() == b"local"
        assert [i.key for i in store.list()] == ["samples/drum.wav", "songs/a.wav"]
        assert store.core.remote is not None
        pages = list(store.core.remote.list())
        assert [obj.key for page in pages for obj in page.objects] == ["songs/a.wav"]
        store.delete("samples/drum.wav")
        assert not store.exists("samples/drum.wav")


def test_remote_options_show_no_secret() -> None:
    options = RemoteOptions(
        "b", "https://e", access_key="id", secret_key="hush", session_token="t0k"
    )
    assert "hush" not in repr(options)
    assert "t0k" not in repr(options)
