"""The flag table, with real folders: what the environment says, and where a file then goes."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import pytest
from settings_rig import Place
from settings_rig import place as place
from store_rig import until

from cachestore import ConfigError, open_store

WANTED = ("R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY", "R2_BUCKET_NAME")


def complete(server: Any) -> dict[str, str]:
    return {
        "R2_ACCESS_KEY_ID": server.access_key,
        "R2_SECRET_ACCESS_KEY": server.secret_key,
        "R2_BUCKET_NAME": server.bucket,
        "R2_ENDPOINT": server.endpoint,
    }


def put_and_look(key: str) -> tuple[str, bool, bool, int]:
    """The mode, whether it is degraded, whether the file is in LOCAL_DIR, and what is pending."""
    with open_store() as store:
        store.put(key, b"data")
        assert store.read(key) == b"data"
        health = store.health()
        local = (store.options.local_dir / key).exists()
        if store.options.mode != "local":
            assert store.flush(30).done
        for folder in (store.options.cache_dir, store.options.spool_dir):
            assert folder.stat().st_mode & 0o777 == 0o700
            assert (folder / ".gitignore").read_text() == "*\n"
        return health["mode"], health["degraded"], local, len(store.pending())


def test_mock_wins_over_all(place: Place, r2_double: Any) -> None:
    place.set(complete(r2_double), R2_MOCK_MODE="true", USE_R2_STORAGE="false")
    assert put_and_look("a.txt") == ("mock", False, False, 0)
    assert r2_double.log.count() == 0
    assert not Path("output").exists()


@pytest.mark.parametrize("use", [None, "true"])
@pytest.mark.parametrize("fallback", [None, "false"])
def test_complete_credentials(
    place: Place, r2_double: Any, use: str | None, fallback: str | None
) -> None:
    flags = {"USE_R2_STORAGE": use, "FALLBACK_TO_LOCAL": fallback}
    place.set(complete(r2_double), {name: text for name, text in flags.items() if text})
    assert put_and_look("a.txt") == ("remote", False, False, 0)
    assert r2_double.log.count("PUT", "a.txt", status=200) == 1


def test_refused_credentials_are_a_state_and_puts_go_to_the_spool(
    place: Place, r2_double: Any
) -> None:
    place.set(complete(r2_double), R2_SECRET_ACCESS_KEY="wrong")
    with open_store() as store:
        store.put("a.txt", b"data")
        until(lambda: store.pending()[0].last_error, "a refusal")
        assert not store.flush(0.1).done
        assert store.read("a.txt") == b"data"
        assert store.health()["mode"] == "remote"
        assert store.health()["degraded"]
        [item] = store.pending()
        assert "SignatureDoesNotMatch" in (item.last_error or "")
    place.set(complete(r2_double))
    with open_store() as store:
        store.retry()
        assert store.flush(30).done
    assert r2_double.log.count("PUT", "a.txt", status=200) == 1


@pytest.mark.parametrize("missing", WANTED)
def test_incomplete_credentials_fall_back_with_one_warning(
    place: Place, r2_double: Any, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    given = complete(r2_double)
    del given[missing]
    place.set(given, USE_R2_STORAGE="true")
    with caplog.at_level(logging.WARNING, "cachestore"):
        assert put_and_look("a.txt") == ("local", True, True, 0)
    warnings = [record.getMessage() for record in caplog.records if missing in record.getMessage()]
    assert len(warnings) == 1
    place.set(FALLBACK_TO_LOCAL="false")
    with pytest.raises(ConfigError, match=missing):
        open_store()


def test_switched_off_or_nothing_configured_is_local(place: Place, r2_double: Any) -> None:
    assert put_and_look("a.txt") == ("local", False, True, 0)
    place.set(complete(r2_double), USE_R2_STORAGE="false")
    assert put_and_look("b.txt") == ("local", False, True, 0)
    assert r2_double.log.count() == 0


def test_a_spool_that_dies_with_the_machine_is_warned_of(
    place: Place, r2_double: Any, caplog: pytest.LogCaptureFixture
) -> None:
    place.set(complete(r2_double))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        place.set(SPOOL_DIR=folder + "/spool")
        with caplog.at_level(logging.WARNING, "cachestore"):
            open_store().close()
    assert "SPOOL_DIR" in caplog.text
    assert "in memory" in caplog.text


def test_both_false_or_nothing_without_fallback_is_an_error(place: Place) -> None:
    place.set(FALLBACK_TO_LOCAL="false")
    with pytest.raises(ConfigError):
        open_store()
    place.set(FALLBACK_TO_LOCAL="false", USE_R2_STORAGE="false")
    with pytest.raises(ConfigError):
        open_store()


def test_a_live_flag_switches_at_reload(place: Place, r2_double: Any) -> None:
    from cachestore.settings.live import set_flag, unset_flag

    place.set(complete(r2_double))
    with open_store() as store:
        store.put("a.txt", b"data")
        assert store.flush(30).done
        set_flag(store.options.spool_dir, "USE_R2_STORAGE", False)
        store.reload()
        assert store.options.mode == "local"
        assert store.read("a.txt") == b"data"
        store.put("a.txt", b"made while it was off")
        unset_flag(store.options.spool_dir, "USE_R2_STORAGE")
        store.reload()
        assert store.options.mode == "remote"
        assert store.read("a.txt") == b"made while it was off"
        assert store.flush(30).done
        assert store.core.remote is not None
        assert store.core.remote.head("a.txt").size == len(b"made while it was off")
