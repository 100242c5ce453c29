"""Key templates and the times that files have: pure rules."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachestore.errors import ConfigError, InvalidKey
from cachestore.keys import check_key
from cachestore.policy.filetimes import NamePattern, file_time, zone_of
from cachestore.policy.templates import FIELDS, FileFacts, KeyTemplate, Template

JANUARY = datetime(2026, 1, 15, 8, 30, 22, tzinfo=UTC)
FACTS = FileFacts("cam/event.side.jpg", 24_576, JANUARY, "12345678" * 8)
DOCS = Path(__file__).resolve().parent.parent / "docs" / "sync.md"


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("{path}", "cam/event.side.jpg"),
        ("snapshots/{mtime:%Y}/{mtime:%m}/{name}", "snapshots/2026/01/event.side.jpg"),
        ("projects/{stem}_{hash:.8}{suffix}", "projects/event.side_12345678.jpg"),
        ("{folder}/{size:08d}-{name}", "cam/00024576-event.side.jpg"),
        ("a{{b}}/{name}", "a{b}/event.side.jpg"),
        ("{mtime:%Y-%m-%dT%H%M%S%z}-{name}", "2026-01-15T083022+0000-event.side.jpg"),
    ],
)
def test_a_template_makes_a_key(template: str, key: str) -> None:
    assert KeyTemplate(template).key(FACTS) == key


def test_a_folder_that_is_empty_leaves_no_empty_segment() -> None:
    facts = FileFacts("top.jpg", 1, JANUARY)
    assert KeyTemplate("{folder}/{name}").key(facts) == "top.jpg"
    assert KeyTemplate("x/{folder}/{name}").key(facts) == "x/top.jpg"


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("{nam}", "unknown field {nam}"),
        ("{}", "without a name"),
        ("{0}", "unknown field"),
        ("{name.upper}", "unknown field"),
        ("{name!r}", "leave out the !"),
        ("{name", "cannot be read"),
        ("{hash:.8x}", "bad format"),
        ("{size:%Y}-{name}", "bad format"),
        ("{name:{size}}", "another field"),
        ("{mtime}/{name}", "write a format"),
        ("{mtime:Y}/{name}", "has a format such as"),
        ("{mtime:%Q}/{name}", "directive %Q"),
        ("{mtime:%}/{name}", "directive %"),
        ("all/{mtime:%Y}", "same key"),
        ("/abs/{name}", "makes no keys"),
        ("a//{name}", "makes no keys"),
        ("../{name}", "makes no keys"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(template: str, word: str) -> None:
    with pytest.raises(ConfigError, match="template") as caught:
        KeyTemplate(template)
    assert word in str(caught.value)


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(["{path}", "k/{stem}{suffix}"]))
def test_whatever_the_name_the_key_is_valid_or_refused(a: str, b: str, template: str) -> None:
    try:
        made = KeyTemplate(template).key(FileFacts(f"{a}/{b}", 1, JANUARY))
    except InvalidKey:
        return
    assert check_key(made) == made


def test_every_field_is_documented() -> None:
    text = DOCS.read_text("utf-8")
    for name in FIELDS:
        assert f"| `{{{name}}}`" in text, name


def test_a_template_for_documents_knows_more_fields_and_bare_times() -> None:
    made = Template("{key} {mtime}", {"key": "the key"})
    assert made.render({"key": "a", "mtime": JANUARY}) == "a 2026-01-15T08:30:22+00:00"
    assert Template("{size}").only_field() == "size"
    assert Template("{size} B").only_field() is None


# -- times --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("%Y%m%d_%H%M%S", "event_20260115_083022_side.jpg", datetime(2026, 1, 15, 8, 30, 22)),
        ("%Y-%m-%d", "a-2026-02-03.wav", datetime(2026, 2, 3)),
        ("%y%j", "x26032.bin", datetime(2026, 2, 1)),
        ("%Y%m%d", "20261345_20260115.jpg", datetime(2026, 1, 15)),
        ("%Y%m%d", "120260115.jpg", None),
        ("%Y%m%d", "none.jpg", None),
    ],
)
def test_a_time_is_found_in_a_name(pattern: str, name: str, found: datetime | None) -> None:
    assert NamePattern(pattern).find(name) == found


@pytest.mark.parametrize("pattern", ["", "%Y%m", "%H%M%S", "%Y%m%d%Y", "%Q%Y%m%d", "%Y%m%d%"])
def test_a_pattern_that_names_no_date_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="time pattern"):
        NamePattern(pattern)


def test_the_name_comes_first_then_the_sidecar_then_the_file() -> None:
    document = {"timestamp": "2025-05-05T05:05:05", "other": 1_600_000_000}
    mtime = 1_700_000_000 * 10**9

    def year(name: str, **given: Any) -> int:
        values: dict[str, Any] = {
            "pattern": NamePattern("%Y%m%d"), "document": document, "field": "timestamp",
            "zone": UTC,
        }  # fmt: skip
        return file_time(name, mtime, **(values | given)).year

    assert year("20260115.jpg") == 2026
    assert year("20260115.jpg", pattern=None) == 2025
    assert year("x.jpg") == 2025
    assert year("x.jpg", field="other") == 2020
    assert year("x.jpg", field="nothing") == 2023
    assert year("x.jpg", document=None) == 2023
    assert year("x.jpg", document={"timestamp": "yesterday"}) == 2023


def test_the_zone_is_the_one_that_was_asked_for() -> None:
    def at(name: str, mtime: float, zone: str | None) -> str:
        found = file_time(
            name, int(mtime * 1e9), pattern=NamePattern("%Y%m%d%H"), document=None, field="",
            zone=zone_of(zone),
        )  # fmt: skip
        return found.strftime("%d %H %z")

    assert at("x", JANUARY.timestamp(), None) == "15 08 +0000"
    assert at("x", JANUARY.timestamp(), "Europe/Berlin") == "15 09 +0100"
    # A name's digits are the camera's clock: they stay as they are.
    assert at("2026011523", 0, "Europe/Berlin") == "15 23 +0100"
    with pytest.raises(ConfigError, match="Mars"):
        zone_of("Mars/Olympus")
