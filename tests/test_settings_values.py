"""What values may look like, what is told of wrong ones, and what is never shown."""

from __future__ import annotations

import copy
import pickle
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from settings_rig import KEY, R2, SECRET, TOKEN, Place, place

from cachestore.errors import ConfigError
from cachestore.settings import Settings, docs
from cachestore.settings.names import SETTINGS

__all__ = ["place"]
ROOT = Path(__file__).resolve().parent.parent

# -- wrong values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("CACHE_TTL_HOURS", "soon", "CACHE_TTL_HOURS is 'soon'.*expected hours"),
        ("CACHE_TTL_HOURS", "-1", "expected hours"),
        ("CACHE_MAX_BYTES", "5G", "expected a size such as 5GB"),
        ("CACHE_MIN_FREE", "5", "below 1, or a size such as 10GB"),
        ("CACHE_MIN_FREE", "100%", "at least 0 and below 1"),
        ("CACHE_HIGH_WATERMARK", "101%", "at most 100%"),
        ("CACHE_STALE_IF_ERROR", "2 fortnights", "expected seconds"),
        ("USE_R2_STORAGE", "maybe", "expected true or false"),
        ("UPLOAD_WORKERS", "0", "at least 1"),
        ("UPLOAD_WORKERS", "1.5", "whole number"),
        ("UPLOAD_PART_SIZE", "1MB", "at least 5 MiB"),
        ("UPLOAD_CONFIRM_WITHIN", "1h", "at least 2 hours, or none"),
        ("SPOOL_BACK_PRESSURE", "explode", "expected one of block, through, raise"),
        ("R2_JURISDICTION", "mars", "expected one of eu, fedramp, us"),
        ("LOCAL_ONLY_PREFIXES", "/samples/", "do not begin with '/'"),
        ("R2_PUBLIC_URL", "localhost:80", "begin with https://"),
        ("PUBLIC_BASE_URL", "https://me:hunter2@example.com", "password"),
        ("R2_ENDPOINT", "https://me:hunter2@example.com", "password"),
        ("R2_SECRET_ACCESS_KEY", "two words", "space"),
    ],
)
def test_wrong_values(place: Place, name: str, text: str, message: str) -> None:
    place.set({f"CACHESTORE_{name}": text})
    with pytest.raises(ConfigError, match=message) as caught:
        Settings()
    assert str(caught.value).startswith(name)
    assert f"(environment CACHESTORE_{name})" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "two words" not in str(caught.value)


def test_all_wrong_values_are_told_at_once(place: Place) -> None:
    with pytest.raises(ConfigError, match=r"CACHE_TTL_HOURS.*CACHE_MAX_BYTES"):
        Settings(cache_ttl_hours="x", cache_max_bytes=True)


# -- units ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("24", 86400),
        (0.25, 900),
        ("0", 0),
        ("90m", 5400),
        ("7d", 604800),
        ("none", None),
        ("None", None),
        (timedelta(minutes=3), 180),
    ],
)
def test_ttl(place: Place, given: Any, seconds: float | None) -> None:
    assert Settings(cache_ttl_hours=given).options().ttl == seconds


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("5GB", 5_000_000_000),
        ("5 gb", 5_000_000_000),
        ("64MiB", 64 << 20),
        ("1.5KiB", 1536),
        ("5_000", 5000),
        ("12b", 12),
        (0, 0),
        (10**15 + 1, 10**15 + 1),
    ],
)
def test_sizes(place: Place, given: Any, size: int) -> None:
    assert Settings(cache_max_bytes=given).options().cache_max_bytes == size


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("30", 30), ("30s", 30), ("15m", 900), ("2h", 7200), ("7d", 604800), ("250ms", 0.25), (1, 1)],
)
def test_times(place: Place, given: Any, seconds: float) -> None:
    assert Settings(cache_miss_deadline=given).options().miss_deadline == seconds


@pytest.mark.parametrize(
    ("given", "share"), [("5%", 0.05), ("0.05", 0.05), (0, 0), ("12.5 %", 0.125)]
)
def test_shares(place: Place, given: Any, share: float) -> None:
    assert Settings(cache_min_free=given).options().cache_min_free == share


def test_free_space_may_be_a_size(place: Place) -> None:
    settings = Settings(cache_min_free="10GB")
    assert settings.options().cache_min_free == 10_000_000_000
    assert settings.sources()["CACHE_MIN_FREE"] == ("10 GB", "argument")


def test_patterns_for_keys(place: Place) -> None:
    options = Settings(cache_admit_exclude="*.tmp, previews/*,").options()
    assert options.admit_exclude == ("*.tmp", "previews/*")
    assert options.admit_include == ()


def test_the_low_watermark_is_not_above_the_high_one(place: Place) -> None:
    with pytest.raises(ConfigError, match="low watermark"):
        Settings(cache_high_watermark="80%", cache_low_watermark="90%").options()


@pytest.mark.parametrize(
    ("given", "switch"), [("TRUE", True), ("1", True), ("on", True), ("No", False), (False, False)]
)
def test_switches(place: Place, given: Any, switch: bool) -> None:
    assert Settings(use_r2_storage=given).use_r2_storage is switch


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.name)
def test_what_is_shown_can_be_set(setting: Any) -> None:
    shown = setting.kind.show(setting.default)
    if shown and setting.kind.unit != "folder":
        assert setting.kind.parse(shown) == setting.default


# -- secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["environment", ".env", "argument", "SecretStr"])
def test_secrets_are_never_shown(place: Place, way: str) -> None:
    secrets = {**R2, "R2_SESSION_TOKEN": TOKEN, "URL_SECRET": "us-99887766"}
    given: dict[str, Any] = {}
    if way == "environment":
        place.set(secrets)
    elif way == ".env":
        place.write(*(f"{name}={value}" for name, value in secrets.items()))
    else:
        given = dict(secrets)
    if way == "SecretStr":
        given = {
            name: SecretStr(text) if "bucket" not in name.lower() else text
            for name, text in given.items()
            if name != "R2_ACCOUNT_ID"
        }
        given["r2_account_id"] = "abc"
    settings = Settings(**given)
    options = settings.options()
    assert options.mode == "remote"
    assert options.remote is not None
    assert options.remote.secret_key == SECRET
    assert options.url_secret == "us-99887766"
    shown = [settings, options, options.remote, settings.sources(), settings.decision()]
    shown += [settings.model_dump(), settings._layers, settings._found, copy.deepcopy(settings)]
    text = " ".join(f"{item!r} {item!s}" for item in shown) + settings.model_dump_json()
    for secret in (KEY, SECRET, TOKEN, "us-99887766"):
        assert secret not in text
    assert settings.sources()["R2_SECRET_ACCESS_KEY"][0] == "********"
    assert pickle.loads(pickle.dumps(settings)).options() == options


def test_errors_do_not_carry_secrets(place: Place) -> None:
    place.set(R2, R2_SECRET_ACCESS_KEY=f"{SECRET} {SECRET}", CACHE_TTL_HOURS="x")
    with pytest.raises(ConfigError, match="R2_SECRET_ACCESS_KEY") as caught:
        Settings()
    assert caught.value.__context__ is None
    assert SECRET not in "".join(traceback.format_exception(caught.value))


# -- documentation -------------------------------------------------------------------------------


def test_the_page_is_current() -> None:
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    assert page == docs.render() + "\n", (
        "run: python -m cachestore.settings.docs > docs/settings.md"
    )


def test_the_page_names_all(place: Place) -> None:
    page = docs.render()
    for setting in SETTINGS.values():
        assert all(f"{name}`" in page for name in setting.names)
