"""What a GET or HEAD for a file is answered: status, headers, and which bytes. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from cachestore.model import ObjectInfo
from cachestore.web.conditions import date_of, etag_of, evaluate, range_holds
from cachestore.web.ranges import Span, Unsatisfiable, parse_range

Headers = dict[str, str]
_SAFE_NAME = "!#$&+-.^_`|~"


@dataclass(frozen=True, slots=True)
class Look:
    """How an app wants its files to be answered.

    `cache_control`: for files that say nothing themselves. `download`: True for the file's own
    name, or another one, makes browsers save it. `headers`: sent with every answer.
    """

    cache_control: str | None = None
    download: bool | str = False
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """Text of the answer, or a span of the file."""

    text: bytes = b""
    span: Span | None = None

    @property
    def length(self) -> int:
        return len(self.text) if self.span is None else self.span.length


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and headers with lower-case names; `parts` follow one another, none for HEAD."""

    status: int
    headers: Headers
    parts: tuple[Part, ...] = ()


def answer(method: str, headers: Mapping[str, str], info: ObjectInfo, look: Look) -> Answer:
    """The answer to a request with these (lower-case) headers for a file that exists."""
    outcome = evaluate(headers, info)
    about = _about(info, look)
    if outcome == "failed":
        return problem(412, look, about)
    if outcome == "not modified":
        return Answer(304, about)
    spans: list[Span] | None = None
    # Ranges are for GET only; a HEAD is told what the whole is.
    if method == "GET" and range_holds(headers.get("if-range"), info):
        try:
            spans = parse_range(headers.get("range"), info.size)
        except Unsatisfiable:
            return problem(416, look, {**about, "content-range": f"bytes */{info.size}"})
    made = _with_bytes(about, info, spans, look)
    return made if method == "GET" else Answer(made.status, made.headers)


def problem(status: int, look: Look, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer without a file, in one line of text."""
    text = f"{_WORDS[status]}\n".encode()
    made = {**(headers or {}), **look.headers, "content-length": str(len(text))}
    made["content-type"] = "text/plain; charset=utf-8"
    if status != 412:
        made["cache-control"] = "no-store"
    return Answer(status, made, (Part(text),))


_WORDS = {
    400: "bad path", 404: "no such file", 405: "only GET and HEAD are answered here",
    412: "the file is another version", 416: "the file has no such bytes",
    503: "the file cannot be had now; try again",
}  # fmt: skip


def _about(info: ObjectInfo, look: Look) -> Headers:
    """What is said of a file, with a 304 as well."""
    made = {"accept-ranges": "bytes", "last-modified": date_of(info.last_modified)}
    tag = etag_of(info)
    if tag is not None:
        made["etag"] = tag
    control = info.cache_control or look.cache_control
    if control:
        made["cache-control"] = control
    return {**made, **look.headers}


def _with_bytes(about: Headers, info: ObjectInfo, spans: list[Span] | None, look: Look) -> Answer:
    made = {**about, "content-type": info.content_type}
    if look.download:
        name = look.download if isinstance(look.download, str) else info.key.rsplit("/", 1)[-1]
        made["content-disposition"] = disposition(name)
    if spans is None:
        made["content-length"] = str(info.size)
        return Answer(200, made, (Part(span=Span(0, info.size)),))
    if len(spans) == 1:
        made["content-range"] = spans[0].header(info.size)
        made["content-length"] = str(spans[0].length)
        return Answer(206, made, (Part(span=spans[0]),))
    return _several(made, info, spans)


def _several(made: Headers, info: ObjectInfo, spans: list[Span]) -> Answer:
    """multipart/byteranges."""
    boundary = secrets.token_hex(16)
    parts: list[Part] = []
    for span in spans:
        head = (
            f"\r\n--{boundary}\r\ncontent-type: {info.content_type}\r\n"
            f"content-range: {span.header(info.size)}\r\n\r\n"
        )
        parts += [Part(head.encode("latin-1", "replace")), Part(span=span)]
    parts.append(Part(f"\r\n--{boundary}--\r\n".encode()))
    made["content-type"] = f"multipart/byteranges; boundary={boundary}"
    made["content-length"] = str(sum(part.length for part in parts))
    return Answer(206, made, tuple(parts))


def disposition(name: str) -> str:
    """Content-Disposition that saves under `name` (RFC 6266): plain for old clients, and exact."""
    plain = "".join(c if " " <= c < "\x7f" and c not in '"\\%' else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe=_SAFE_NAME)}"
