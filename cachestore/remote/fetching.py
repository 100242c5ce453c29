"""Downloads: one stream for small objects, parallel ranges for large ones, resumed when broken."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cachestore.errors import (
    Corrupt,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    RemoteUnavailable,
    Throttled,
)
from cachestore.model import RemoteObject
from cachestore.remote.base import RemoteBody, RemoteStore
from cachestore.remote.budget import Budget

TRIES = 3
_CHUNK = 1 << 20
_PROGRESS = 8 << 20
_MD5 = re.compile(r"[0-9a-f]{32}")

WriteAt = Callable[[int, bytes], None]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole object. `verified`: its digest was checked as it arrived, or there is none to check.

    When it is False the caller checks what it wrote with `verify_digest`.
    """

    info: RemoteObject
    verified: bool


class Changed(Exception):
    """The object was replaced while it was downloaded."""


@dataclass
class Download:
    """One version of an object on its way."""

    remote: RemoteStore
    key: str
    info: RemoteObject
    write_at: WriteAt
    timeout: float | None
    error: BaseException | None = None

    def get(self, start: int, end: int | None) -> Any:
        """The bytes from `start` on, of the same version."""
        try:
            return self.remote.get(
                self.key,
                start=start,
                end=end,
                if_match=self.info.etag or None,
                timeout=self.timeout,
            )
        except (PreconditionFailed, NotFound) as error:
            raise Changed from error

    def check(self, body: RemoteBody) -> None:
        """Raise `Changed` for another version: some servers ignore conditions."""
        if self.info.etag and body.info.etag and body.info.etag != self.info.etag:
            raise Changed


def fetch(
    remote: RemoteStore,
    key: str,
    write_at: WriteAt,
    *,
    size_hint: int | None = None,
    if_match: str | None = None,
    parts: int = 4,
    part_size: int,
    threshold: int | None = None,
    budget: Budget,
    timeout: float | None = None,
    on_info: Callable[[RemoteObject], None] = lambda info: None,
    answer: AbstractContextManager[RemoteBody] | None = None,
) -> Fetched:
    """Download an object; `write_at(offset, data)` is given all of its bytes, from any thread.

    Objects of more than `threshold` bytes (None: four times `part_size`) are read by `parts`
    threads in ranges of at least `part_size` bytes, all of one version. `size_hint`: the size in
    bytes where it is known, which saves the rest of the first answer. `on_info` is called with the
    object before its first byte, and again when it was replaced and the download begins anew. A
    body that breaks is resumed where it broke, at most three times. `answer`: a `get`'s, to begin.

    Raises `NotFound` and others of `remote`, what `write_at` raises, and `Corrupt` for bytes of a
    wrong length or, in one stream, digest.
    """
    limit = 4 * part_size if threshold is None else threshold
    reached = _Reached(write_at)
    for _ in range(TRIES):
        try:
            end = part_size if size_hint is not None and size_hint > limit else None
            given = answer or remote.get(key, end=end, if_match=if_match, timeout=timeout)
            answer = None
            assert given is not None, "only if_none_match is answered with nothing"
            with given as body:
                reached.check(key, body.info)
                on_info(body.info)
                run = Download(remote, key, body.info, reached, timeout)
                if body.info.size > limit and parts > 1:
                    return _in_ranges(run, body, parts, part_size, budget)
                return _in_one(run, body)
        except RangeNotSatisfiable:  # an empty object refuses any range
            if size_hint is None:
                raise
            size_hint = None
        except Changed as changed:
            size_hint = None
            if if_match is not None:
                raise changed.__cause__ or RemoteUnavailable(f"get {key!r}") from None
    raise RemoteUnavailable(f"get {key!r}: it changed all the time while it was downloaded")


class _Reached:
    """`write_at` that remembers how far it wrote: a shorter version cannot take its place."""

    def __init__(self, write_at: WriteAt) -> None:
        self._write_at = write_at
        self._lock = threading.Lock()
        self.end = 0

    def __call__(self, offset: int, data: bytes) -> None:
        self._write_at(offset, data)
        with self._lock:
            self.end = max(self.end, offset + len(data))

    def check(self, key: str, info: RemoteObject) -> None:
        if 0 <= info.size < self.end:
            raise RemoteUnavailable(
                f"get {key!r}: it was replaced by a shorter one while it was downloaded; try again"
            )


# -- one stream ---------------------------------------------------------------------------------


def _in_one(run: Download, body: RemoteBody) -> Fetched:
    digest, expected = _digest_for(run.info)
    if body.length < 0:
        # The remote unpacks it on the way, so neither its size nor its digest is this one's.
        size = 0
        for chunk in body:
            run.write_at(size, chunk)
            size += len(chunk)
        return Fetched(replace(run.info, size=size), True)

    def take(offset: int, data: bytes) -> None:
        if expected is not None:
            digest.update(data)
        run.write_at(offset, data)

    stream(run, body, 0, run.info.size, take)
    if expected is not None and digest.hexdigest() != expected:
        raise _mismatch(run.info, digest.hexdigest(), expected)
    return Fetched(run.info, True)


def stream(run: Download, body: RemoteBody | None, start: int, end: int, take: WriteAt) -> None:
    """Hand on the bytes from `start` to `end`, asking for the rest where an answer breaks."""
    at, tries = start, 0
    while True:
        begun = at
        try:
            if body is not None:
                at = _pass_on(run, body, at, end, take)
            else:
                with run.get(at, end) as resumed:
                    run.check(resumed)
                    at = _pass_on(run, resumed, at, end, take)
            error: RemoteUnavailable = Corrupt(f"get {run.key!r}: the answer ended early")
        except Throttled:
            raise
        except _BrokenOff as broken:
            at, error = broken.at, broken.error
        except RemoteUnavailable as refused:
            error = refused
        if at >= end or run.error is not None:
            return
        # A long download may break more often, as long as it gets on.
        tries = 1 if at - begun >= _PROGRESS else tries + 1
        if tries > TRIES:
            raise error
        body = None


class _BrokenOff(Exception):
    """An answer broke; `at` is the first byte that did not arrive."""

    def __init__(self, at: int, error: RemoteUnavailable) -> None:
        self.at = at
        self.error = error


def _pass_on(run: Download, body: RemoteBody, at: int, end: int, take: WriteAt) -> int:
    """Hand on an answer's bytes up to `end`; returns where it stopped."""
    chunks = iter(body)
    while at < end and run.error is None:
        try:
            chunk = next(chunks, None)
        except RemoteUnavailable as error:
            raise _BrokenOff(at, error) from error
        if chunk is None:
            break
        chunk = chunk[: end - at]
        take(at, chunk)
        at += len(chunk)
    return at


# -- ranges -------------------------------------------------------------------------------------


class _Ranges:
    """Ranges still to be read, in order."""

    def __init__(self, size: int, step: int, first: int) -> None:
        self._lock = threading.Lock()
        self._at = first
        self._size = size
        self._step = step

    def next(self) -> tuple[int, int] | None:
        with self._lock:
            if self._at >= self._size:
                return None
            start = self._at
            self._at = min(start + self._step, self._size)
            return start, self._at


def _in_ranges(
    run: Download, body: RemoteBody, parts: int, part_size: int, budget: Budget
) -> Fetched:
    # Few large ranges: each is a request that is paid for.
    step = max(part_size, -(-run.info.size // (4 * parts)))
    first = min(step, body.length)
    ranges = _Ranges(run.info.size, step, first)

    def work(start: tuple[int, int] | None, given: RemoteBody | None) -> None:
        try:
            with budget.holding(_CHUNK):
                while start is not None and run.error is None:
                    stream(run, given, *start, run.write_at)
                    start, given = ranges.next(), None
        except BaseException as error:
            run.error = run.error or error

    helpers: list[threading.Thread] = []
    for number in range(parts - 1):
        span = ranges.next()
        if span is None:
            break
        helper = threading.Thread(
            target=work, args=(span, None), name=f"cachestore-range-{number}", daemon=True
        )
        try:
            helper.start()
        except RuntimeError:  # the interpreter shuts down: this thread reads that range too
            work(span, None)
            break
        helpers.append(helper)
    work((0, first), body)
    for helper in helpers:
        helper.join()
    if run.error is not None:
        raise run.error
    return Fetched(run.info, _digest_for(run.info)[1] is None)


# -- digests ------------------------------------------------------------------------------------


def _digest_for(info: RemoteObject) -> tuple[Any, str | None]:
    """A hash and what it should give: our SHA-256, else an ETag that is an MD5, else None."""
    if info.sha256 is not None:
        return hashlib.sha256(), info.sha256
    md5 = hashlib.md5(usedforsecurity=False)
    return md5, info.etag if _MD5.fullmatch(info.etag) else None


def has_digest(info: RemoteObject) -> bool:
    """False if nothing is known that an object's bytes could be compared with."""
    return _digest_for(info)[1] is not None


def _mismatch(info: RemoteObject, found: str, expected: str) -> Corrupt:
    return Corrupt(
        f"get {info.key!r}: the bytes that arrived have the digest {found[:16]}...,"
        f" they should have {expected[:16]}..."
    )


def verify_digest(file: int | str | Path, info: RemoteObject) -> None:
    """Raise `Corrupt` unless a file has the size and digest of `info`.

    `file`: a path, or a descriptor whose position is not used. The SHA-256 that we stored counts;
    where there is none, an ETag that is an MD5. Otherwise only the size (if known) is checked.
    """
    if not isinstance(file, int):
        fd = os.open(file, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            verify_digest(fd, info)
        finally:
            os.close(fd)
        return
    size = os.fstat(file).st_size
    if 0 <= info.size != size:
        raise Corrupt(f"get {info.key!r}: {size} bytes are here, {info.size} were announced")
    digest, expected = _digest_for(info)
    if expected is None:
        return
    at = 0
    while chunk := os.pread(file, _CHUNK, at):
        digest.update(chunk)
        at += len(chunk)
    if digest.hexdigest() != expected:
        raise _mismatch(info, digest.hexdigest(), expected)
