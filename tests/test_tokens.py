"""Signed tokens, and the secret behind them."""

from __future__ import annotations

import base64
import json
import random
import threading
from pathlib import Path

import pytest

from cachestore.errors import SpoolError
from cachestore.files import Files
from cachestore.local.url_secret import NAME, url_secret
from cachestore.policy.tokens import BadToken, read, sign, window_end

SECRET = b"s" * 32
NOW = 1_767_182_400.0


def test_claims_come_back_until_their_time_is_over() -> None:
    token = sign(SECRET, {"k": "ä/b", "s": None}, NOW + 10)
    assert read(SECRET, token, NOW + 9) == {"k": "ä/b", "s": None, "e": int(NOW) + 10}
    with pytest.raises(BadToken, match="over"):
        read(SECRET, token, NOW + 10)
    with pytest.raises(BadToken, match="signature"):
        read(b"t" * 32, token, NOW)


def test_nothing_of_a_token_can_be_changed() -> None:
    token = sign(SECRET, {"k": "a"}, NOW + 10)
    rng = random.Random(1)
    for _ in range(2000):
        at = rng.randrange(len(token))
        other = token[:at] + rng.choice("AZaz09-_.=~é") + token[at + rng.randrange(2) :]
        if other != token:
            with pytest.raises(BadToken):
                read(SECRET, other, NOW)
    for junk in ("", ".", "a.b", token.partition(".")[0], token + ".x", "x" * 100_000, "\0", "é.é"):
        with pytest.raises(BadToken):
            read(SECRET, junk, NOW)


def test_claims_that_somebody_else_wrote_are_refused() -> None:
    body = base64.urlsafe_b64encode(json.dumps({"k": "a", "e": NOW + 10}).encode()).decode()
    with pytest.raises(BadToken):
        read(SECRET, f"{body}.{body}", NOW)


@pytest.mark.parametrize("seconds", [1.0, 60.0, 3600.0, 604_800.0])
def test_a_window_lasts_between_half_and_all(seconds: float) -> None:
    rng = random.Random(2)
    ends = set()
    for _ in range(1000):
        now = NOW + rng.random() * seconds
        end = window_end(now, seconds)
        assert seconds / 2 - 1e-3 <= end - now <= seconds + 1e-3
        ends.add(end)
    assert len(ends) <= 3, "made in one half, the same end"


def test_the_secret_is_made_once_for_all(tmp_path: Path) -> None:
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(url_secret(Files(), tmp_path, None)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert set(found) == {(tmp_path / NAME).read_bytes()}
    assert len(found[0]) >= 32
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert url_secret(Files(), tmp_path, "of the settings") == b"of the settings"


def test_a_damaged_secret_is_said(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"short")
    with pytest.raises(SpoolError, match="damaged"):
        url_secret(Files(), tmp_path, None)
    with pytest.raises(SpoolError, match="cannot use"):
        url_secret(Files(), tmp_path / "none", None)
