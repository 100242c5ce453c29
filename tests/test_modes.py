"""The flag table: which switches and credentials give which mode, and where the bucket then is."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from cachestore.errors import ConfigError
from cachestore.policy.endpoints import check_bucket, check_endpoint, describe, r2_endpoint
from cachestore.policy.modes import Credentials, Flags, ModeDecision, decide_mode

R2 = frozenset({"R2_ACCOUNT_ID", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY", "R2_BUCKET_NAME"})
AWS = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3", "S3_BUCKET"})
INCOMPLETE = R2 - {"R2_SECRET_ACCESS_KEY"}
NOTHING: frozenset[str] = frozenset()


def decide(
    given: frozenset[str] = NOTHING,
    *,
    use: bool | None = None,
    fallback: bool = True,
    mock: bool = False,
    open_: bool = False,
) -> ModeDecision:
    return decide_mode(Flags(mock, use, fallback), Credentials(given, open_))


# -- the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize("use", [None, True, False])
@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("given", [NOTHING, INCOMPLETE, R2, AWS])
def test_mock_wins_over_all(use: bool | None, fallback: bool, given: frozenset[str]) -> None:
    decision = decide(given, use=use, fallback=fallback, mock=True)
    assert (decision.mode, decision.degraded) == ("mock", False)
    assert "R2_MOCK_MODE" in decision.reason


@pytest.mark.parametrize("use", [None, True])
@pytest.mark.parametrize("fallback", [True, False])
def test_complete_credentials_are_remote(use: bool | None, fallback: bool) -> None:
    decision = decide(R2, use=use, fallback=fallback)
    assert (decision.mode, decision.degraded, decision.missing) == ("remote", False, ())


@pytest.mark.parametrize("use", [None, True])
def test_incomplete_credentials_fall_back_and_say_so(use: bool | None) -> None:
    decision = decide(INCOMPLETE, use=use)
    assert (decision.mode, decision.degraded) == ("local", True)
    assert decision.missing == ("R2_SECRET_ACCESS_KEY",)
    assert "R2_SECRET_ACCESS_KEY is missing" in decision.reason


@pytest.mark.parametrize("use", [None, True])
def test_incomplete_credentials_without_fallback_are_an_error(use: bool | None) -> None:
    with pytest.raises(ConfigError, match="R2_SECRET_ACCESS_KEY is missing"):
        decide(INCOMPLETE, use=use, fallback=False)


@pytest.mark.parametrize("given", [NOTHING, INCOMPLETE, R2, AWS])
def test_switched_off_is_local(given: frozenset[str]) -> None:
    decision = decide(given, use=False)
    assert (decision.mode, decision.degraded, decision.missing) == ("local", False, ())
    assert "USE_R2_STORAGE is false" in decision.reason


def test_nothing_configured_is_local() -> None:
    decision = decide()
    assert (decision.mode, decision.reason, decision.degraded) == (
        "local",
        "nothing configured",
        False,
    )


@pytest.mark.parametrize("given", [NOTHING, INCOMPLETE, R2, AWS])
def test_both_false_is_an_error(given: frozenset[str]) -> None:
    with pytest.raises(ConfigError, match="USE_R2_STORAGE and FALLBACK_TO_LOCAL"):
        decide(given, use=False, fallback=False)


def test_nothing_configured_without_fallback_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"R2_ACCESS_KEY_ID.*FALLBACK_TO_LOCAL is false"):
        decide(fallback=False)


def test_wanted_with_nothing_set_names_all_that_is_missing() -> None:
    decision = decide(use=True)
    assert decision.mode == "local"
    assert decision.degraded
    assert decision.missing == (
        "R2_ACCESS_KEY_ID",
        "R2_SECRET_ACCESS_KEY",
        "R2_BUCKET_NAME",
        "R2_ACCOUNT_ID or R2_ENDPOINT",
    )


# -- what is complete ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(R2))
def test_each_credential_alone_switches_r2_on_and_each_is_needed(name: str) -> None:
    assert decide(frozenset({name})).degraded
    (missing,) = decide(R2 - {name}).missing
    assert name in missing


@pytest.mark.parametrize("place", ["R2_ACCOUNT_ID", "R2_ENDPOINT", "CLOUDFLARE_ACCOUNT_ID"])
def test_account_id_or_endpoint(place: str) -> None:
    assert decide(R2 - {"R2_ACCOUNT_ID"} | {place}).mode == "remote"


def test_an_endpoint_that_asks_for_the_account_id_needs_it() -> None:
    given = R2 - {"R2_ACCOUNT_ID"} | {"R2_ENDPOINT"}
    (missing,) = decide(given, open_=True).missing
    assert missing.startswith("R2_ACCOUNT_ID")
    assert decide(given | {"R2_ACCOUNT_ID"}, open_=True).mode == "remote"


def test_wranglers_account_id_alone_means_nothing() -> None:
    assert decide(frozenset({"CLOUDFLARE_ACCOUNT_ID"})).reason == "nothing configured"


# -- families ------------------------------------------------------------------------------------


def test_no_mixed_pair_is_ever_complete() -> None:
    """Whatever is set: a remote has the key and the secret of one family."""
    names = [*sorted(R2 | AWS), "R2_ENDPOINT"]
    for count in range(len(names) + 1):
        for chosen in itertools.combinations(names, count):
            decision = decide(frozenset(chosen), use=True)
            pair = {f"{decision.family}_ACCESS_KEY_ID", f"{decision.family}_SECRET_ACCESS_KEY"}
            assert (decision.mode == "remote") <= (pair <= set(chosen)), chosen


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("R2_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("R2_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
    ],
)
def test_a_mixed_pair_is_incomplete_and_explained(ours: str, theirs: str) -> None:
    given = frozenset({ours, theirs, "R2_ACCOUNT_ID", "R2_BUCKET_NAME", "AWS_ENDPOINT_URL"})
    decision = decide(given)
    assert decision.mode == "local"
    assert theirs.replace("AWS", "R2") in decision.missing
    assert f"{theirs} is set, but R2_* and AWS_* keys are never mixed" in decision.reason


@pytest.mark.parametrize("bucket", ["S3_BUCKET", "R2_BUCKET_NAME"])
@pytest.mark.parametrize("endpoint", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_a_plain_s3(bucket: str, endpoint: str) -> None:
    given = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", bucket, endpoint})
    decision = decide(given, use=True)
    assert (decision.mode, decision.family) == ("remote", "AWS")


def test_r2_goes_before_aws_when_both_are_complete() -> None:
    assert decide(R2 | AWS).family == "R2"


def test_stray_aws_keys_do_not_complete_r2() -> None:
    given = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"})
    assert decide(given | {"R2_BUCKET_NAME", "R2_ACCOUNT_ID"}).mode == "local"
    assert decide(given | {"R2_BUCKET_NAME", "CLOUDFLARE_ACCOUNT_ID"}).mode == "local"
    assert decide(given).reason == "nothing configured"


def test_complete_aws_is_not_used_unasked_but_not_silently_either() -> None:
    decision = decide(AWS)
    assert (decision.mode, decision.degraded) == ("local", True)
    assert "USE_R2_STORAGE=true is missing" in decision.reason
    with pytest.raises(ConfigError, match="USE_R2_STORAGE=true is missing"):
        decide(AWS, fallback=False)


# -- endpoints -----------------------------------------------------------------------------------

HOST = "https://abc.r2.cloudflarestorage.com"


@pytest.mark.parametrize(
    ("jurisdiction", "host"),
    [
        (None, HOST),
        ("eu", "https://abc.eu.r2.cloudflarestorage.com"),
        ("fedramp", "https://abc.fedramp.r2.cloudflarestorage.com"),
        ("us", "https://abc.us.r2.cloudflarestorage.com"),
    ],
)
def test_made_from_account_id_and_jurisdiction(jurisdiction: str | None, host: str) -> None:
    assert r2_endpoint(None, None, "abc", jurisdiction) == host


@pytest.mark.parametrize(
    "given",
    [
        (HOST, None),
        (None, HOST),
        (HOST, f"{HOST}/"),
        ("https://{account_id}.r2.cloudflarestorage.com", None),
        ("https://{account_id}.r2.cloudflarestorage.com", HOST),
        ("abc.r2.cloudflarestorage.com", None),
        ("HTTPS://ABC.R2.CloudflareStorage.com:443", None),
    ],
)
def test_explicit_endpoints(given: tuple[str | None, str | None]) -> None:
    assert r2_endpoint(*given, "abc", None) == HOST


def test_an_explicit_endpoint_goes_before_the_account_id() -> None:
    assert r2_endpoint("http://localhost:9000", None, "abc", None) == "http://localhost:9000"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((HOST, "https://def.r2.cloudflarestorage.com", "abc", None), "both set and differ"),
        ((f"{HOST}/bucket", None, None, None), "remove '/bucket'.*R2_BUCKET_NAME"),
        ((f"{HOST}/bucket/", None, None, None), "remove '/bucket'"),
        (("https://{account_id}.r2.cloudflarestorage.com", None, None, None), "R2_ACCOUNT_ID"),
        ((HOST, None, "abc", "eu"), "R2_JURISDICTION is eu"),
        (("http://abc.r2.cloudflarestorage.com", None, None, None), "https"),
        (("https://bucket.abc.r2.cloudflarestorage.com", None, None, None), "R2_BUCKET_NAME"),
        (("https://r2.cloudflarestorage.com", None, None, None), "ACCOUNT_ID"),
        ((None, None, HOST, None), "account id alone"),
        ((None, None, None, None), "neither"),
    ],
)
def test_endpoints_that_cannot_be(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        r2_endpoint(*arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("localhost:9000", "https://"),
        ("minio", "https://"),
        ("127.0.0.1:9000/x", "https://"),
        ("ftp://files.example.com", "https://"),
        ("https://", "not a URL"),
        ("https://files.example.com:port", "not a URL"),
        ("https://<your id>.example.com", "not a URL"),
        ("https://files.example.com?x=1", r"'\?'"),
        ("https://key:hunter2@files.example.com", "password"),
    ],
)
def test_what_is_no_endpoint(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_endpoint("R2_ENDPOINT", text)
    assert str(caught.value).startswith("R2_ENDPOINT")
    assert "hunter2" not in str(caught.value)


def test_a_path_is_allowed_elsewhere() -> None:
    text = "https://files.example.com/storage/v1/s3"
    assert check_endpoint("R2_ENDPOINT", text) == text


@pytest.mark.parametrize(
    ("url", "family", "region", "kind", "expected", "conditional"),
    [
        (HOST, "R2", None, "r2", "auto", True),
        (HOST, "R2", "weur", "r2", "weur", True),
        (HOST, "AWS", "eu-west-1", "r2", "auto", True),
        ("http://localhost:9000", "R2", None, "s3", "auto", False),
        ("http://localhost:9000", "AWS", None, "s3", "us-east-1", False),
        ("http://localhost:9000", "AWS", "eu-west-1", "s3", "eu-west-1", False),
        ("https://s3.amazonaws.com", "AWS", None, "s3", "us-east-1", True),
        ("https://s3.eu-west-1.amazonaws.com", "AWS", None, "s3", "eu-west-1", True),
        ("https://s3.eu-west-1.amazonaws.com", "AWS", "us-west-2", "s3", "us-west-2", True),
        ("https://s3.cn-north-1.amazonaws.com.cn", "AWS", None, "s3", "cn-north-1", True),
        ("https://xs3.amazonaws.com.example.com", "AWS", None, "s3", "us-east-1", False),
        ("https://r2.cloudflarestorage.com.example.com", "R2", None, "s3", "auto", False),
    ],
)
def test_what_a_host_is_known_for(
    url: str, family: Any, region: str | None, kind: str, expected: str, conditional: bool
) -> None:
    found = describe(url, family=family, region=region, conditional=None)
    assert (found.kind, found.region, found.conditional) == (kind, expected, conditional)
    for said in (True, False):
        assert describe(url, family=family, region=None, conditional=said).conditional is said


@pytest.mark.parametrize("name", ["a/b", "s3://a", "https://x", "a b", "-a"])
def test_what_is_no_bucket(name: str) -> None:
    with pytest.raises(ConfigError, match="R2_BUCKET_NAME"):
        check_bucket("R2_BUCKET_NAME", name)
