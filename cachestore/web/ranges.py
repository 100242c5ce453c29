"""The Range header (RFC 9110, section 14): which bytes a client wants. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST = 32
"""More ranges than this in one request are answered with the whole."""

_FIRST = re.compile(r"\s*bytes\s*=\s*(\d{1,18})-")
_SPEC = re.compile(r"(\d{0,19})-(\d{0,19})")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from `start` to `end`, which is exclusive."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start

    def header(self, size: int) -> str:
        """As Content-Range has it, of `size` bytes in all."""
        return f"bytes {self.start}-{self.end - 1}/{size}"


class Unsatisfiable(Exception):
    """None of the ranges overlaps the file: 416."""


def first_wanted(header: str | None) -> int:
    """Where a request will be read first, as far as its Range header says so without the size."""
    match = _FIRST.match(header or "")
    return int(match[1]) if match else 0


def parse_range(header: str | None, size: int) -> list[Span] | None:
    """The spans that a Range header asks for of `size` bytes; None: send the whole.

    What cannot be understood, other units, and far too many ranges are ignored, as the standard
    allows. Spans that overlap or touch are joined, in the order of the file. Raises
    `Unsatisfiable` when no range lies inside the file.
    """
    if header is None:
        return None
    unit, equals, rest = header.partition("=")
    specs = [spec.strip() for spec in rest.split(",")]
    if unit.strip().lower() != "bytes" or not equals or len(specs) > MOST:
        return None
    spans: list[Span] = []
    for spec in filter(None, specs):
        match = _SPEC.fullmatch(spec)
        if match is None or spec == "-":
            return None
        first, last = match[1], match[2]
        if first and last and int(first) > int(last):
            return None
        span = _span(first, last, size)
        if span is not None:
            spans.append(span)
    if not any(specs):
        return None
    if not spans:
        raise Unsatisfiable
    return _joined(spans)


def first_offset(header: str | None) -> int | None:
    """Where the first range begins, which needs no size; None for a suffix, or no range."""
    if header is None:
        return None
    match = re.match(r"\s*bytes\s*=\s*(\d{1,19})-", header, re.IGNORECASE)
    return None if match is None else int(match[1])


def _span(first: str, last: str, size: int) -> Span | None:
    """One range of a file; None if it lies outside."""
    if not first:
        length = min(int(last), size)
        return Span(size - length, size) if length else None
    end = min(int(last) + 1, size) if last else size
    return Span(int(first), end) if int(first) < end else None


def _joined(spans: list[Span]) -> list[Span]:
    joined: list[Span] = []
    for span in sorted(spans, key=lambda each: each.start):
        if joined and span.start <= joined[-1].end:
            joined[-1] = Span(joined[-1].start, max(joined[-1].end, span.end))
        else:
            joined.append(span)
    return joined
