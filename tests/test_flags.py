"""Live flags: set in one process, seen by the next reload, kept whole whatever happens."""

from __future__ import annotations

import json

import pytest
from settings_rig import R2, Place, place

from cachestore.errors import ConfigError
from cachestore.files import Files, locked_folder
from cachestore.settings import Settings
from cachestore.settings.live import check_flag, read_flags, set_flag, unset_flag
from cachestore.settings.names import SETTINGS

__all__ = ["place"]


def test_set_and_unset(place: Place) -> None:
    assert read_flags("spool") == {}
    set_flag("spool", "use_r2_storage", False)
    set_flag("spool", "CACHESTORE_CACHE_TTL_HOURS", "90m")
    set_flag(place.folder / "spool", "CACHE_TTL_HOURS", None)
    assert read_flags("spool") == {"USE_R2_STORAGE": "false", "CACHE_TTL_HOURS": "none"}
    assert Settings().cache_ttl_hours is None
    assert unset_flag("spool", "cache_ttl_hours")
    assert not unset_flag("spool", "CACHE_TTL_HOURS")
    assert read_flags("spool") == {"USE_R2_STORAGE": "false"}
    assert [path.name for path in (place.folder / "spool").iterdir()] == ["flags.json"]


def test_unset_makes_no_folder(place: Place) -> None:
    assert not unset_flag("spool", "CACHE_TTL_HOURS")
    assert not (place.folder / "spool").exists()


def test_settings_at_hand_see_new_flags_when_options_are_made(place: Place) -> None:
    place.set(R2)
    settings = Settings(spool_dir="here")
    assert settings.options().mode == "remote"
    set_flag("here", "USE_R2_STORAGE", "off")
    place.set(CACHE_TTL_HOURS="1")
    options = settings.options()
    assert options.mode == "local"
    assert options.ttl == 86400, "only the flags are read again"
    assert settings.refreshed().sources()["USE_R2_STORAGE"] == ("false", "flags")
    unset_flag("here", "USE_R2_STORAGE")
    assert settings.options().mode == "remote"


def test_arguments_win_over_flags(place: Place) -> None:
    set_flag("spool", "CACHE_TTL_HOURS", 1)
    assert Settings(cache_ttl_hours=2).options().ttl == 7200


def test_flags_are_read_from_the_spool_in_use(place: Place) -> None:
    set_flag("spool", "CACHE_TTL_HOURS", 1)
    place.write("SPOOL_DIR=other")
    assert Settings().cache_ttl_hours == 24
    set_flag("other", "CACHE_TTL_HOURS", 2)
    assert Settings().cache_ttl_hours == 2


def test_mock_mode_has_no_flags(place: Place) -> None:
    set_flag("spool", "CACHE_TTL_HOURS", 1)
    assert Settings(r2_mock_mode=True).cache_ttl_hours == 24


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.name)
def test_only_live_names(place: Place, setting: object) -> None:
    spec = SETTINGS[setting.field].spec  # type: ignore[attr-defined]  # parametrize knows no type
    name = SETTINGS[setting.field].name  # type: ignore[attr-defined]  # as above
    if spec.live:
        shown = SETTINGS[name.lower()].kind.show(SETTINGS[name.lower()].default)
        empty = {"CACHE_TTL_BY_PREFIX": "a/=1", "hours of the day": "20:00-06:00"}
        text = shown or empty.get(name) or empty.get(SETTINGS[name.lower()].kind.unit, "true")
        assert check_flag(name, text)[0] == name
        return
    with pytest.raises(ConfigError, match=f"{name} cannot be changed live"):
        set_flag("spool", name, "x")
    assert not (place.folder / "spool").exists()


def test_secrets_and_folders_are_never_flags() -> None:
    live = {setting.kind.unit for setting in SETTINGS.values() if setting.spec.live}
    assert not live & {"secret", "folder", "URL", "file"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CACHE_TTL", "1", "did you mean CACHE_TTL_HOURS"),
        ("CACHE_TTL_HOURS", "soon", "cannot be 'soon'"),
        ("CACHE_TTL_HOURS", "", "unset the flag"),
        ("UPLOAD_WORKERS", 0, "at least 1"),
        ("FALLBACK_TO_LOCAL", None, "expected true or false"),
    ],
)
def test_wrong_flags_are_refused(place: Place, name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        set_flag("spool", name, value)
    assert read_flags("spool") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "one JSON object"),
        ('{"CACHE_TTL_HOURS": [1]}', "one JSON object"),
        ('{"CACHE_TTL": 1}', "did you mean CACHE_TTL_HOURS.*unset the flag"),
        ('{"CACHE_DIR": "x"}', "cannot be changed live"),
        ('{"CACHE_TTL_HOURS": "soon"}', "cannot be 'soon'"),
    ],
)
def test_a_flags_file_that_cannot_be_used_is_an_error(
    place: Place, text: str, message: str
) -> None:
    place.write(text, name="spool/flags.json")
    with pytest.raises(ConfigError, match=message) as caught:
        Settings()
    assert "flags.json" in str(caught.value)


def test_flags_written_by_hand(place: Place) -> None:
    flags = {"CACHE_TTL_HOURS": 0.5, "USE_R2_STORAGE": False, "CACHE_MAX_BYTES": None}
    place.write(json.dumps(flags), name="spool/flags.json")
    settings = Settings()
    assert (settings.cache_ttl_hours, settings.use_r2_storage) == (0.5, False)
    assert settings.sources()["CACHE_MAX_BYTES"][1] == "default"


def test_a_name_that_no_setting_has_can_be_unset(place: Place) -> None:
    place.write('{"GONE_IN_THIS_VERSION": 1}', name="spool/flags.json")
    assert unset_flag("spool", "GONE_IN_THIS_VERSION")
    assert read_flags("spool") == {}


def test_a_write_that_fails_leaves_the_flags_as_they_were(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_flag("spool", "CACHE_TTL_HOURS", 1)

    def full(self: object, fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cachestore.files.Files.fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        set_flag("spool", "CACHE_TTL_HOURS", 2)
    assert read_flags("spool") == {"CACHE_TTL_HOURS": "1"}
    assert [path.name for path in (place.folder / "spool").iterdir()] == ["flags.json"]


def test_one_change_at_a_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two changes that read the same flags would keep only one of the two."""
    set_flag("spool", "CACHE_TTL_HOURS", 1)
    monkeypatch.setattr("cachestore.settings.live._LOCK_SECONDS", 0.0)
    with locked_folder(Files(), place.folder / "spool", 0.0, AssertionError):
        for change in (
            lambda: set_flag("spool", "ALERT_QUEUE", 2),
            lambda: unset_flag("spool", "CACHE_TTL_HOURS"),
        ):
            with pytest.raises(ConfigError, match="another process holds"):
                change()
    set_flag("spool", "ALERT_QUEUE", 2)
    assert read_flags("spool") == {"CACHE_TTL_HOURS": "1", "ALERT_QUEUE": "2"}
