"""Ranges, conditions and headers of HTTP, as the standard has them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cachestore.model import ObjectInfo
from cachestore.web.answers import Look, answer, disposition
from cachestore.web.conditions import date_of, etag_of, evaluate, range_holds
from cachestore.web.ranges import MOST, Span, Unsatisfiable, first_offset, parse_range

WHEN = datetime(2026, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)
INFO = ObjectInfo("a/b ö.wav", 100, "e1", "audio/wav", {}, WHEN, "cached", "d" * 64)
DATE = "Sat, 31 Jan 2026 12:00:00 GMT"
BEFORE, AFTER = (date_of(WHEN + timedelta(seconds=n)) for n in (-1, 1))


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-99", [(0, 100)]),
        ("bytes=90-", [(90, 100)]),
        ("bytes=90-1000", [(90, 100)]),
        ("bytes=-5", [(95, 100)]),
        ("bytes=-1000", [(0, 100)]),
        ("Bytes = 1-2", [(1, 3)]),
        ("bytes=0-1,4-5", [(0, 2), (4, 6)]),
        ("bytes=4-5, 0-1", [(0, 2), (4, 6)]),
        ("bytes=0-1,1-5,6-7", [(0, 8)]),
        ("bytes=0-1,200-300", [(0, 2)]),
        ("bytes=0-1,,", [(0, 2)]),
        ("bytes=" + "0-0," * MOST + "0-0", None),
        ("bytes=2-1", None),
        ("bytes=", None),
        ("bytes=,", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1-2-3", None),
        ("bytes=+1-2", None),
        ("bytes=²-3", None),
        ("items=0-1", None),
        ("0-1", None),
        (None, None),
        ("bytes=99999999999999999999-", None),
    ],
)
def test_ranges(header: str | None, spans: list[tuple[int, int]] | None) -> None:
    assert parse_range(header, 100) == (None if spans is None else [Span(*each) for each in spans])


def test_the_most_ranges_that_are_answered() -> None:
    spans = [Span(2 * n, 2 * n + 1) for n in range(MOST)]
    header = "bytes=" + ",".join(f"{span.start}-{span.start}" for span in spans)
    assert parse_range(header, 100) == spans


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("bytes=100-", 100), ("bytes=100-200,300-", 100), ("bytes=-0", 100), ("bytes=0-", 0),
        ("bytes=-1", 0),
    ],
)  # fmt: skip
def test_ranges_outside_of_the_file(header: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range(header, size)


def test_where_the_first_range_begins_needs_no_size() -> None:
    assert first_offset("bytes=17-20,3-4") == 17
    assert first_offset("bytes=-5") is None
    assert first_offset(None) is None


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ({}, "send"),
        ({"if-none-match": '"e1"'}, "not modified"),
        ({"if-none-match": 'W/"e1"'}, "not modified"),
        ({"if-none-match": f'"x", "{"d" * 64}"'}, "not modified"),
        ({"if-none-match": "*"}, "not modified"),
        ({"if-none-match": '"x"'}, "send"),
        ({"if-none-match": "e1"}, "send"),
        ({"if-modified-since": DATE}, "not modified"),
        ({"if-modified-since": AFTER}, "not modified"),
        ({"if-modified-since": BEFORE}, "send"),
        ({"if-modified-since": "yesterday"}, "send"),
        ({"if-none-match": '"x"', "if-modified-since": AFTER}, "send"),
        ({"if-match": '"e1"'}, "send"),
        ({"if-match": "*"}, "send"),
        ({"if-match": 'W/"e1"'}, "failed"),
        ({"if-match": '"x"'}, "failed"),
        ({"if-unmodified-since": DATE}, "send"),
        ({"if-unmodified-since": BEFORE}, "failed"),
        ({"if-unmodified-since": "x"}, "send"),
        ({"if-match": '"e1"', "if-unmodified-since": BEFORE}, "send"),
        ({"if-match": '"x"', "if-none-match": '"e1"'}, "failed"),
    ],
)
def test_conditions(headers: dict[str, str], outcome: str) -> None:
    assert evaluate(headers, INFO) == outcome


@pytest.mark.parametrize(
    ("header", "holds"),
    [
        (None, True), ('"e1"', True), (f'"{"d" * 64}"', True), ('W/"e1"', False), ('"x"', False),
        (DATE, True), (AFTER, False), (BEFORE, False), ("x", False),
    ],
)  # fmt: skip
def test_if_range(header: str | None, holds: bool) -> None:
    assert range_holds(header, INFO) is holds


def test_a_version_without_the_buckets_etag_is_named_by_its_digest() -> None:
    assert etag_of(INFO) == '"e1"'
    assert etag_of(replace(INFO, etag="")) == f'"{"d" * 64}"'
    assert etag_of(replace(INFO, etag="", sha256=None)) is None


def test_the_file_says_how_long_it_may_be_kept_else_the_app_does() -> None:
    look = Look("max-age=60", headers={"x-app": "1"})
    assert answer("GET", {}, INFO, look).headers["cache-control"] == "max-age=60"
    own = replace(INFO, cache_control="no-cache")
    assert answer("GET", {}, own, look).headers["cache-control"] == "no-cache"
    for status, headers in ((304, {"if-none-match": "*"}), (412, {"if-match": '"x"'})):
        made = answer("GET", headers, INFO, look)
        assert made.status == status
        assert (made.headers["etag"], made.headers["x-app"]) == ('"e1"', "1")
    assert "content-length" not in answer("GET", {"if-none-match": "*"}, INFO, look).headers


def test_a_head_has_no_bytes_and_no_range() -> None:
    made = answer("HEAD", {"range": "bytes=0-1"}, INFO, Look())
    assert (made.status, made.headers["content-length"], made.parts) == (200, "100", ())


def test_names_are_saved_as_they_are() -> None:
    said = disposition('a "b"\\ö\r\n%.wav')
    plain, exact = said.removeprefix("attachment; ").split("; ")
    assert plain == 'filename="a _b______.wav"'
    assert exact == "filename*=UTF-8''a%20%22b%22%5C%C3%B6%0D%0A%25.wav"
    made = answer("GET", {}, INFO, Look(download=True)).headers["content-disposition"]
    assert "filename*=UTF-8''b%20%C3%B6.wav" in made
    assert (
        "other.wav"
        in answer("GET", {}, INFO, Look(download="other.wav")).headers["content-disposition"]
    )
