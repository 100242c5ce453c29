"""Keys: what is refused, what is normalised, where they lead."""

from __future__ import annotations

import random
import unicodedata

import pytest

from cachestore.errors import InvalidKey
from cachestore.keys import check_key, check_prefix, extension_of, place_of


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "./a",
        "a/.",
        "a\0b",
        "a\nb",
        "a\x7fb",
        "a\x85b",
        "\ud800",
        "a" * 1025,
        "é" * 513,
    ],
)
def test_bad_keys_are_refused_with_a_reason(key: str) -> None:
    with pytest.raises(InvalidKey, match="invalid key"):
        check_key(key)


@pytest.mark.parametrize("key", [None, 3, b"a", ["a"]])
def test_other_types_ask_whether_the_arguments_were_swapped(key: object) -> None:
    with pytest.raises(InvalidKey, match="swapped"):
        check_key(key)  # type: ignore[arg-type]  # the fault under test


@pytest.mark.parametrize("key", ["a", "a b", "ä/ö", "a.b/c..d", "...", "x" * 1024, "a?b#c%d&e+f"])
def test_good_keys_pass_unchanged(key: str) -> None:
    assert check_key(key) == key


def test_decomposed_names_become_composed() -> None:
    assert check_key(unicodedata.normalize("NFD", "café.wav")) == "café.wav"


def test_prefixes_may_end_anywhere() -> None:
    for prefix in ("", "a", "a/", "a/b", "a/.", "a/.."):
        assert check_prefix(prefix) == prefix
    for prefix in ("/", "a//", "../a", "a\0"):
        with pytest.raises(InvalidKey):
            check_prefix(prefix)


def test_a_slot_lies_inside_its_shard() -> None:
    for number in range(1000):
        place = place_of("r", f"key {number}")
        assert place.slot >> 8 == place.shard
        assert place.folder == f"{place.shard:02x}"


def test_two_remotes_never_share_a_place() -> None:
    assert place_of("a", "k").digest != place_of("b", "k").digest


@pytest.mark.parametrize(
    ("key", "extension"),
    [
        ("a/b.wav", ".wav"),
        ("a.b/c", ""),
        ("a", ""),
        (".hidden", ""),
        ("a.tar.gz", ".gz"),
        ("a.w v", ""),
        ("a.ü", ""),
        ("a." + "x" * 17, ""),
        ("a.", ""),
    ],
)
def test_extensions(key: str, extension: str) -> None:
    assert extension_of(key) == extension


def test_ten_thousand_fuzzed_keys_are_safe_or_refused() -> None:
    rng = random.Random(7)
    parts = ["..", ".", "/", "a", "\0", "%2e", "\\", "é", "é", "\ud800", "\n", " ", "x" * 300]
    accepted = 0
    for _ in range(10_000):
        raw = "".join(rng.choice(parts) for _ in range(rng.randint(0, 8)))
        try:
            key = check_key(raw)
        except InvalidKey:
            continue
        accepted += 1
        assert not key.startswith("/")
        assert not {"", ".", ".."} & set(key.split("/"))
        assert len(key.encode()) <= 1024
        assert set(extension_of(key)[1:]) <= set("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFX")
    assert accepted > 300
