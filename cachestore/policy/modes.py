"""Which mode the flags and the credentials at hand decide on. Pure: names only, no values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cachestore.errors import ConfigError
from cachestore.options import Mode

Family = Literal["R2", "AWS"]

# Names that belong to R2 alone. A bucket's name does not: a plain S3 may use R2_BUCKET_NAME.
_R2_OWN = frozenset(
    {
        "R2_ACCOUNT_ID",
        "R2_ACCESS_KEY_ID",
        "R2_SECRET_ACCESS_KEY",
        "R2_SESSION_TOKEN",
        "R2_ENDPOINT",
    }
)
_R2 = _R2_OWN | {"R2_BUCKET_NAME"}
_AWS_PLACE = frozenset({"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "S3_BUCKET"})
_KEY_NAMES = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")


@dataclass(frozen=True, slots=True)
class Flags:
    """The three switches. `use_r2` is None while USE_R2_STORAGE is not set."""

    mock: bool = False
    use_r2: bool | None = None
    fallback: bool = True


@dataclass(frozen=True, slots=True)
class Credentials:
    """Which credential variables are set, by name: no value, so no secret can leak from here.

    R2_ENDPOINT stands for R2_ENDPOINT_URL too. `endpoint_open`: it holds a literal
    `{account_id}`, so it leads nowhere without an account id.
    """

    given: frozenset[str] = field(default_factory=frozenset)
    endpoint_open: bool = False


@dataclass(frozen=True, slots=True)
class ModeDecision:
    """The mode, why, and what is missing for the remote that was wanted.

    `family`: whose key, secret, token and endpoint belong together.
    """

    mode: Mode
    reason: str
    degraded: bool = False
    missing: tuple[str, ...] = ()
    family: Family = "R2"


def decide_mode(flags: Flags, credentials: Credentials) -> ModeDecision:
    """The mode that follows from the flags and the names of the credentials that are set.

    Raises `ConfigError` that names what is missing when nothing is left to fall back on.
    """
    if flags.mock:
        reason = "R2_MOCK_MODE is true: private folders stand in for R2 and are gone at exit"
        return ModeDecision("mock", reason)
    family = family_of(credentials)
    if flags.use_r2 is False:
        return _switched_off(flags, family)
    missing = missing_of(family, credentials)
    named = bool(credentials.given & _R2)
    if flags.use_r2 is None and not named:
        return _unasked(flags, family, missing)
    why = "USE_R2_STORAGE is true" if flags.use_r2 else "an R2_* credential is set"
    if not missing:
        reason = f"{why}, and the {family}_* credentials are complete"
        return ModeDecision("remote", reason, family=family)
    what = f"{why}, but {_listed(missing)} {_is_or_are(missing)} missing"
    what += _not_mixed(family, credentials)
    if not flags.fallback:
        raise ConfigError(f"{what}; and FALLBACK_TO_LOCAL is false")
    return ModeDecision("local", f"{what}; files stay in LOCAL_DIR", True, missing, family)


def family_of(credentials: Credentials) -> Family:
    """Whose credentials count: R2's if any of its own is set, else those of a plain S3.

    A developer's shell often holds AWS keys for something else. They alone do not make a plain
    S3: its endpoint or bucket must be named.
    """
    given = credentials.given
    if given & _R2_OWN or not given & _AWS_PLACE:
        return "R2"
    return "AWS"


def missing_of(family: Family, credentials: Credentials) -> tuple[str, ...]:
    """What one family lacks to be complete; nothing is ever taken from the other one's keys."""
    given = credentials.given
    missing = [f"{family}_{name}" for name in _KEY_NAMES if f"{family}_{name}" not in given]
    if family == "AWS":
        if not given & {"S3_BUCKET", "R2_BUCKET_NAME"}:
            missing.append("S3_BUCKET or R2_BUCKET_NAME")
        if not given & {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"}:
            missing.append("AWS_ENDPOINT_URL_S3")
        return tuple(missing)
    if "R2_BUCKET_NAME" not in given:
        missing.append("R2_BUCKET_NAME")
    account = given & {"R2_ACCOUNT_ID", "CLOUDFLARE_ACCOUNT_ID"}
    if not account and credentials.endpoint_open:
        missing.append("R2_ACCOUNT_ID (R2_ENDPOINT asks for it)")
    elif not account and "R2_ENDPOINT" not in given:
        missing.append("R2_ACCOUNT_ID or R2_ENDPOINT")
    return tuple(missing)


def _switched_off(flags: Flags, family: Family) -> ModeDecision:
    if not flags.fallback:
        raise ConfigError(
            "USE_R2_STORAGE and FALLBACK_TO_LOCAL are both false, so there is nowhere to keep"
            " files; set one of them to true"
        )
    return ModeDecision("local", "USE_R2_STORAGE is false", family=family)


def _unasked(flags: Flags, family: Family, missing: tuple[str, ...]) -> ModeDecision:
    """USE_R2_STORAGE is not set, and no R2_* credential either."""
    if family == "AWS" and not missing:
        # Complete, so hardly a stray; but keys for something else must not receive files unasked.
        what = "the AWS_* credentials are complete, but USE_R2_STORAGE=true is missing"
        missing, degraded = ("USE_R2_STORAGE=true",), True
    else:
        # What is there may be another program's: it does not name our remote.
        what, family, missing, degraded = "nothing configured", "R2", (), False
    if not flags.fallback:
        if not degraded:
            what = "no R2_* credentials are set (R2_ACCESS_KEY_ID, R2_SECRET_ACCESS_KEY,"
            what += " R2_BUCKET_NAME, and R2_ACCOUNT_ID or R2_ENDPOINT are missing)"
        raise ConfigError(f"{what}; and FALLBACK_TO_LOCAL is false")
    return ModeDecision("local", what, degraded, missing, family)


def _not_mixed(family: Family, credentials: Credentials) -> str:
    other: Family = "AWS" if family == "R2" else "R2"
    wanted = [name for name in _KEY_NAMES if f"{family}_{name}" not in credentials.given]
    there = [f"{other}_{name}" for name in wanted if f"{other}_{name}" in credentials.given]
    if not there:
        return ""
    if family == "R2" and not credentials.given & _R2_OWN:
        return " (AWS_* keys are used for a plain S3 only: set AWS_ENDPOINT_URL_S3 for one)"
    return f" ({_listed(there)} {_is_or_are(there)} set, but R2_* and AWS_* keys are never mixed)"


def _listed(names: tuple[str, ...] | list[str]) -> str:
    if len(names) == 1:
        return names[0]
    if len(names) == 2 and " or " not in names[1]:
        return f"{names[0]} and {names[1]}"
    return f"{', '.join(names[:-1])}, and {names[-1]}"


def _is_or_are(names: tuple[str, ...] | list[str]) -> str:
    return "is" if len(names) == 1 else "are"
