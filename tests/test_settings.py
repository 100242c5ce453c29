"""Where settings come from, which place wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from settings_rig import AWS, KEY, R2, SECRET, TOKEN, Place, place

from cachestore.errors import ConfigError
from cachestore.options import Options
from cachestore.settings import Settings
from cachestore.settings.live import set_flag
from cachestore.settings.names import SETTINGS

__all__ = ["place"]

# -- precedence ----------------------------------------------------------------------------------


def test_each_place_wins_over_those_below(place: Place) -> None:
    """Set from the lowest place upwards; each new one must win."""
    expected: list[tuple[str, str]] = []

    def check(value: str, origin: str) -> None:
        expected.append((value, origin))
        assert Settings().sources()["CACHE_TTL_HOURS"] == expected[-1]

    check("24", "default")
    place.write("CACHE_TTL_HOURS=1")
    check("1", ".env CACHE_TTL_HOURS")
    place.write("CACHE_TTL_HOURS=1", "CACHESTORE_CACHE_TTL_HOURS=2")
    check("2", ".env CACHESTORE_CACHE_TTL_HOURS")
    place.set(CACHE_TTL_HOURS="3")
    check("3", "environment CACHE_TTL_HOURS")
    place.set(CACHESTORE_CACHE_TTL_HOURS="4")
    check("4", "environment CACHESTORE_CACHE_TTL_HOURS")
    set_flag("spool", "CACHE_TTL_HOURS", 5)
    check("5", "flags")
    settings = Settings(cache_ttl_hours=6)
    assert settings.sources()["CACHE_TTL_HOURS"] == ("6", "argument")
    assert settings.options().ttl == 6 * 3600


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.name)
@pytest.mark.parametrize("prefix", ["", "CACHESTORE_"])
def test_every_name_works_bare_and_with_the_prefix(place: Place, setting: Any, prefix: str) -> None:
    texts = {"true, false": "true", "bytes": "6MiB", "seconds": "9", "share": "7%", "number": "3"}
    texts |= {"eu, fedramp, us, none": "eu", "block, through, raise": "raise", "hours": "5"}
    texts |= {
        "never, sample, always": "always",
        "hz, gdsf, lru": "lru",
        "time, object, bytes": "bytes",
    }
    texts |= {"hours by prefix": "a/=5, b/=none"}
    texts |= {"share or bytes": "9GB", "hours of the day": "20:00-06:00 Europe/Berlin"}
    text = texts.get(setting.kind.unit, "x")
    if setting.default is True:
        text = "off"
    if setting.kind.unit == "URL":
        text = "https://files.example.com"
    place.write("", name="x")
    if setting.field == "env_file" and not prefix:
        return  # only with the prefix: a bare ENV_FILE is likely another tool's
    for name in setting.names:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(prefix + name, text)
            shown, origin = Settings().sources()[setting.name]
            assert origin == f"environment {prefix}{name}"
            assert shown not in ("", setting.kind.show(setting.default))


def test_empty_means_unset(place: Place) -> None:
    place.write("CACHE_TTL_HOURS=1", "CACHE_MAX_BYTES=", "USE_R2_STORAGE")
    place.set(CACHE_TTL_HOURS="", CACHESTORE_CACHE_TTL_HOURS="  ", R2_BUCKET_NAME="")
    settings = Settings(cache_ttl_hours="")
    assert settings.cache_ttl_hours == 1
    assert settings.cache_max_bytes == 5_000_000_000
    assert settings.options().reason == "nothing configured"


def test_none_is_not_given_except_where_it_means_never(place: Place) -> None:
    place.set(CACHE_DIR="elsewhere", CACHE_TTL_HOURS="3")
    settings = Settings(cache_dir=None, cache_ttl_hours=None)
    assert settings.cache_dir == place.folder / "elsewhere"
    assert settings.options().ttl is None
    assert settings.sources()["CACHE_TTL_HOURS"] == ("none", "argument")


def test_arguments_in_any_case(place: Place) -> None:
    assert Settings.load(CACHE_TTL_HOURS=2).cache_ttl_hours == 2
    assert Settings.load(CACHESTORE_CACHE_TTL_HOURS="2").cache_ttl_hours == 2
    with pytest.raises(ConfigError, match="CACHE_TTL_HOURS is given twice"):
        Settings(cache_ttl_hours=1, CACHE_TTL_HOURS=2)


def test_two_names_of_one_setting(place: Place) -> None:
    place.set(R2_BUCKET="a")
    assert Settings().r2_bucket_name == "a"
    place.set(R2_BUCKET_NAME="a")
    assert Settings().r2_bucket_name == "a"
    place.set(R2_BUCKET_NAME="b")
    with pytest.raises(ConfigError, match="R2_BUCKET_NAME and R2_BUCKET are both set and differ"):
        Settings()
    place.set(CACHESTORE_R2_BUCKET="c")
    with pytest.raises(ConfigError, match="differ"):
        Settings()


def test_settings_cannot_be_changed(place: Place) -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().cache_ttl_hours = 3


# -- unknown names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("CACHESTORE_CACHE_TTL_HOUR", "CACHESTORE_CACHE_TTL_HOURS"),
        ("CACHESTORE_R2_SECRET_KEY", "CACHESTORE_R2_SECRET_ACCESS_KEY"),
        ("cachestore_cache_dri", "CACHESTORE_CACHE_DIR"),
    ],
)
@pytest.mark.parametrize("where", ["environment", ".env"])
def test_unknown_prefixed_names(place: Place, name: str, nearest: str, where: str) -> None:
    if where == ".env":
        place.write(f"{name}={SECRET}")
    else:
        place.set({name: SECRET})
    with pytest.raises(ConfigError, match=f"{name}; did you mean {nearest}") as caught:
        Settings()
    assert f"({where})" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_an_apps_other_variables_are_ignored(place: Place) -> None:
    place.write("DATABASE_URL=postgres://x", "CACHE_TTL=abc", "not a line at all")
    place.set(R2_SOMETHING="x", CACHE_DIRECTORY="y", ENV_FILE="/nowhere")
    assert Settings().options().reason == "nothing configured"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("cache_dirr", "CACHE_DIR"), ("ttl", "CACHE_TTL_HOURS"), ("workers", "UPLOAD_WORKERS")],
)
def test_unknown_arguments(place: Place, name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no setting {name}; did you mean {nearest}"):
        Settings.load(**{name: 1})


def test_an_unknown_argument_like_nothing(place: Place) -> None:
    with pytest.raises(ConfigError, match=r"there is no setting qqq; docs/settings\.md lists all"):
        Settings(qqq=1)


# -- the env file --------------------------------------------------------------------------------


def test_the_path_of_the_env_file(place: Place) -> None:
    place.write("CACHE_TTL_HOURS=1")
    place.write("CACHE_TTL_HOURS=2", name="configs/.env.r2")
    place.write("CACHE_TTL_HOURS=3", "CACHESTORE_ENV_FILE=.env", name="other.env")
    assert Settings().cache_ttl_hours == 1
    assert Settings().env_file == place.folder / ".env"
    place.set(CACHESTORE_ENV_FILE="other.env")
    assert Settings().cache_ttl_hours == 3
    settings = Settings(env_file="configs/.env.r2")
    assert settings.sources()["CACHE_TTL_HOURS"] == ("2", "configs/.env.r2 CACHE_TTL_HOURS")
    assert settings.env_file == place.folder / "configs/.env.r2"
    assert Settings(env_file=Path("other.env")).cache_ttl_hours == 3


def test_a_named_env_file_must_be_there(place: Place) -> None:
    with pytest.raises(ConfigError, match=r"cannot read.*nix.env \(argument\)"):
        Settings(env_file="nix.env")
    place.set(CACHESTORE_ENV_FILE="nix.env")
    with pytest.raises(ConfigError, match=r"nix.env \(environment CACHESTORE_ENV_FILE\)"):
        Settings()


def test_what_env_files_hold(place: Place) -> None:
    place.write(
        "\ufeffR2_BUCKET_NAME='files'  # the bucket",
        'export R2_SECRET_ACCESS_KEY="a#b"',
        "R2_ENDPOINT=https://{account_id}.r2.cloudflarestorage.com",
        "R2_ACCOUNT_ID=abc",
        "R2_ACCESS_KEY_ID=key",
    )
    remote = Settings().options().remote
    assert remote is not None
    assert (remote.bucket, remote.secret_key) == ("files", "a#b")
    assert remote.endpoint == "https://abc.r2.cloudflarestorage.com"


def test_an_env_file_that_is_not_text(place: Place) -> None:
    (place.folder / ".env").write_bytes(f"R2_SECRET_ACCESS_KEY={SECRET}\xff".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        Settings()
    assert caught.value.__context__ is None


def test_a_folder_called_env_is_no_env_file(place: Place) -> None:
    (place.folder / ".env").mkdir()
    assert Settings().env_file is None


# -- folders -------------------------------------------------------------------------------------


def test_folders_are_resolved_once(place: Place) -> None:
    place.set(SPOOL_DIR="deep/spool")
    settings = Settings(local_dir="~/files")
    (place.folder / "other").mkdir()
    place.go(place.folder / "other")
    options = settings.options()
    assert options.cache_dir == place.folder / "cache"
    assert options.spool_dir == place.folder / "deep/spool"
    assert options.local_dir == Path("~/files").expanduser()


@pytest.mark.parametrize(
    "folders",
    [
        {"cache_dir": "x", "spool_dir": "x"},
        {"cache_dir": "x", "spool_dir": "x/spool"},
        {"cache_dir": "x", "local_dir": "x/../x/output"},
        {"local_dir": "."},
        {"cache_dir": "spool/cache"},
        {"spool_dir": "link/spool"},
    ],
)
def test_folders_must_be_apart(place: Place, folders: dict[str, str]) -> None:
    (place.folder / "cache").mkdir()
    (place.folder / "link").symlink_to("cache")
    with pytest.raises(ConfigError, match="must be apart"):
        Settings(**folders).options()


# -- from settings to options --------------------------------------------------------------------


def test_defaults_are_those_of_options(place: Place) -> None:
    names = ("cache", "spool", "output")
    assert Settings().options() == Options(*(place.folder / name for name in names))


def test_every_option_that_a_user_may_set_has_a_setting() -> None:
    decided = {"mode", "reason", "degraded", "remote", "shadow", "mock_dir", "mock_private"}
    # Rules and internal rhythms: another value would break a promise or gain nothing.
    fixed = {"doubt_wait", "flight_patience", "leader_interval", "sync_after"}
    mapped = [setting.spec.option for setting in SETTINGS.values() if setting.spec.option]
    assert len(mapped) == len(set(mapped))
    assert set(mapped) == set(Options.__slots__) - decided - fixed


def test_values_reach_options_in_seconds_and_bytes(place: Place) -> None:
    place.set(
        CACHE_TTL_HOURS="0.5",
        CACHE_STALE_IF_ERROR="2h",
        CACHE_MAX_BYTES="64MiB",
        CACHE_MIN_FREE="10%",
        UPLOAD_WORKERS="7",
        SPOOL_BACK_PRESSURE="Through",
        LOCAL_ONLY_PREFIXES="samples/, catalog/samples.json,",
        URL_SECRET=SECRET,
        PUBLIC_BASE_URL="https://app.example.com/",
    )
    options = Settings().options()
    assert (options.ttl, options.stale_if_error) == (1800, 7200)
    assert (options.cache_max_bytes, options.cache_min_free) == (64 << 20, 0.1)
    assert (options.workers, options.back_pressure) == (7, "through")
    assert options.local_only_prefixes == ("samples/", "catalog/samples.json")
    assert (options.url_secret, options.public_base_url) == (SECRET, "https://app.example.com")


def test_mock_mode(place: Place) -> None:
    place.set(R2, R2_MOCK_MODE="true", R2_ENDPOINT="nonsense")
    options = Settings().options()
    assert (options.mode, options.mock_private, options.remote) == ("mock", True, None)


def test_r2(place: Place) -> None:
    place.set(R2, R2_SESSION_TOKEN=TOKEN, R2_JURISDICTION="EU", R2_PUBLIC_URL="files.example.com")
    options = Settings().options()
    assert (options.mode, options.degraded) == ("remote", False)
    remote = options.remote
    assert remote is not None
    assert remote.endpoint == "https://abc.eu.r2.cloudflarestorage.com"
    assert (remote.bucket, remote.region, remote.kind) == ("files", "auto", "r2")
    assert (remote.access_key, remote.secret_key, remote.session_token) == (KEY, SECRET, TOKEN)
    assert (remote.conditional, remote.public_url) == (True, "https://files.example.com")


def test_a_plain_s3(place: Place) -> None:
    place.set(AWS, USE_R2_STORAGE="1", AWS_ENDPOINT_URL="http://unused:1", AWS_SESSION_TOKEN=TOKEN)
    remote = Settings().options().remote
    assert remote is not None
    assert (remote.endpoint, remote.bucket, remote.region) == (
        "http://localhost:9000",
        "files",
        "us-east-1",
    )
    assert (remote.access_key, remote.secret_key, remote.session_token) == (KEY, SECRET, TOKEN)
    assert (remote.kind, remote.conditional) == ("s3", False)
    place.set(CACHESTORE_CONDITIONAL_PUT="true", AWS_DEFAULT_REGION="eu-west-1")
    remote = Settings().options().remote
    assert remote is not None
    assert (remote.region, remote.conditional) == ("eu-west-1", True)


def test_a_plain_s3_in_the_bucket_that_r2_bucket_name_names(place: Place) -> None:
    place.set({name: value for name, value in AWS.items() if name != "S3_BUCKET"})
    place.set(R2_BUCKET_NAME="photos")
    options = Settings().options()
    assert options.mode == "remote"
    assert options.remote is not None
    assert options.remote.bucket == "photos"


def test_r2_keys_take_nothing_of_aws(place: Place) -> None:
    others = {name: f"aws-{value}" for name, value in AWS.items() if "ENDPOINT" not in name}
    place.set(R2, others, AWS_SESSION_TOKEN=TOKEN, AWS_DEFAULT_REGION="eu-west-1")
    remote = Settings().options().remote
    assert remote is not None
    assert (remote.access_key, remote.secret_key, remote.session_token) == (KEY, SECRET, None)
    assert (remote.bucket, remote.region) == ("files", "auto")


def test_a_mixed_pair_never_becomes_a_remote(place: Place) -> None:
    place.set(R2, AWS_SECRET_ACCESS_KEY="theirs", R2_SECRET_ACCESS_KEY="")
    options = Settings().options()
    assert (options.mode, options.degraded) == ("local", True)
    assert "R2_SECRET_ACCESS_KEY is missing" in options.reason
    assert "theirs" not in repr(options)


def test_a_family_named_by_argument_goes_before_one_that_is_merely_there(place: Place) -> None:
    place.set(R2)
    given = {name.lower(): value for name, value in AWS.items()}
    remote = Settings(**given, use_r2_storage=True).options().remote
    assert remote is not None
    assert remote.endpoint == "http://localhost:9000"


def test_local_mode_still_names_its_remote(place: Place) -> None:
    place.set(R2, USE_R2_STORAGE="false")
    options = Settings().options()
    assert options.mode == "local"
    assert options.remote is not None
    assert options.remote.endpoint == "https://abc.r2.cloudflarestorage.com"


def test_a_placeholder_does_no_harm_while_r2_is_off(place: Place) -> None:
    place.set(R2, R2_ENDPOINT="https://<account id>.r2.cloudflarestorage.com")
    with pytest.raises(ConfigError, match="R2_ENDPOINT is not a URL"):
        Settings().options()
    place.set(USE_R2_STORAGE="false")
    options = Settings().options()
    assert (options.mode, options.remote) == ("local", None)
    assert "R2_ENDPOINT is not a URL" in options.reason


def test_two_endpoints(place: Place) -> None:
    place.set(R2, R2_ENDPOINT="https://a.example.com", R2_ENDPOINT_URL="https://a.example.com/")
    remote = Settings().options().remote
    assert remote is not None
    assert remote.endpoint == "https://a.example.com"
    place.set(R2_ENDPOINT_URL="https://b.example.com")
    with pytest.raises(ConfigError, match="R2_ENDPOINT and R2_ENDPOINT_URL are both set"):
        Settings().options()
    place.set(CACHESTORE_R2_ENDPOINT_URL="https://c.example.com")
    remote = Settings().options().remote
    assert remote is not None
    assert remote.endpoint == "https://c.example.com"


def test_fallback_forbidden(place: Place) -> None:
    place.set(FALLBACK_TO_LOCAL="no")
    with pytest.raises(ConfigError, match="R2_ACCESS_KEY_ID"):
        Settings().options()
