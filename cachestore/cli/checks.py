"""What `doctor` looks at: settings, folders, then a real round trip with the bucket."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from cachestore.errors import CacheStoreError, ConfigError
from cachestore.files import Files
from cachestore.local.disks import disk_of, missing_powers
from cachestore.model import Attributes
from cachestore.options import Options
from cachestore.policy.diagnosis import likely_cause
from cachestore.policy.wire import ANNOUNCED_NAME
from cachestore.remote.s3 import S3Remote
from cachestore.settings import Settings

_SECONDS = 20.0


@dataclass(slots=True)
class Check:
    """One line of the report. `ok` None: worth knowing, no failure."""

    name: str
    ok: bool | None
    detail: str = ""
    cause: str = ""
    fix: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Report:
    """All checks so far."""

    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(check.ok is not False for check in self.checks)


# -- without the network ------------------------------------------------------------------------


def check_settings(overrides: dict[str, Any]) -> tuple[Check, Options | None]:
    """Whether the settings make sense, and the mode they give."""
    try:
        options = Settings(**overrides).options()
    except ConfigError as error:
        return Check("settings", False, str(error), "the settings contradict each other",
                     "see `cachestore flags` and docs/settings.md"), None  # fmt: skip
    if options.degraded:
        return Check("settings", None, f"mode {options.mode}: {options.reason}",
                     "R2 is meant to be on, but something is missing",
                     "set what is missing; until then LOCAL_DIR stands in"), options  # fmt: skip
    return Check("settings", True, f"mode {options.mode}: {options.reason}"), options


def check_folders(options: Options) -> Iterator[Check]:
    """Whether each folder can be written, on a disk that keeps its promises."""
    for name, folder in (
        ("CACHE_DIR", options.cache_dir),
        ("SPOOL_DIR", options.spool_dir),
        ("LOCAL_DIR", options.local_dir),
    ):
        yield _check_folder(name, Path(os.path.abspath(folder)), name == "SPOOL_DIR")


def _check_folder(name: str, folder: Path, durable: bool) -> Check:
    files = Files()
    try:
        files.make_folder(folder)
        missing = missing_powers(folder, files)
        disk = disk_of(folder)
    except OSError as error:
        return Check(name, False, f"{folder}: {error.strerror}",
                     "the folder cannot be made or written by this user",
                     f"chown or chmod it, or set {name} to another place")  # fmt: skip
    detail = f"{folder}: {disk.free / 1e9:.1f} GB free of {disk.total / 1e9:.1f} GB"
    if disk.kind:
        detail += f" on {disk.kind}"
    if missing:
        return Check(name, False, detail, f"this disk cannot do: {', '.join(missing)}",
                     f"set {name} to a local disk; here only one process may run")  # fmt: skip
    if durable and disk.volatile:
        return Check(name, None, detail, f"acknowledged files can be lost: {disk.volatile}",
                     "set SPOOL_DIR to a disk or volume that stays")  # fmt: skip
    if disk.network:
        return Check(name, None, detail, "on a network disk only one machine may use it",
                     f"set {name} to a local disk")  # fmt: skip
    return Check(name, True, detail)


# -- with the bucket ----------------------------------------------------------------------------


class RoundTrip:
    """List, put, head, ranged get, presigned GET and delete of one small object."""

    def __init__(self, options: Options) -> None:
        assert options.remote is not None
        self._where = options.remote
        self._remote = S3Remote(options.remote)
        self._key = f".cachestore-doctor/{secrets.token_hex(8)}.txt"
        self._body = secrets.token_hex(500).encode()
        self._passed: dict[str, bool] = {}

    def run(self) -> Iterator[Check]:
        """The checks, each as it is done; those that cannot succeed any more are left out."""
        steps: list[tuple[str, Callable[[], str]]] = [
            ("list", self._list), ("put", self._put), ("head", self._head), ("get", self._get),
            ("presigned", self._presigned), ("delete", self._delete),
        ]  # fmt: skip
        try:
            for name, step in steps:
                if name not in ("list", "put") and not self._passed.get("put"):
                    continue
                yield self._step(name, step)
        finally:
            self._remote.close()

    def _step(self, name: str, step: Callable[[], str]) -> Check:
        start = time.perf_counter()
        try:
            detail = step()
        except (CacheStoreError, OSError, ValueError) as error:
            self._passed[name] = False
            cause, fix = likely_cause(error, name, self._passed, clock_skew(self._where.endpoint))
            only_listing = name == "list" and getattr(error, "status", None) == 403
            return Check(name, None if only_listing else False, str(error), cause, fix,
                         time.perf_counter() - start)  # fmt: skip
        self._passed[name] = True
        return Check(name, True, detail, seconds=time.perf_counter() - start)

    def _list(self) -> str:
        next(iter(self._remote.list(".cachestore-doctor/")), None)
        return f"bucket {self._where.bucket!r} at {self._where.endpoint}"

    def _put(self) -> str:
        attributes = Attributes("text/plain", {"made-by": "cachestore doctor"})
        self._remote.put(
            self._key, io.BytesIO(self._body), size=len(self._body),
            sha256=hashlib.sha256(self._body).hexdigest(), attributes=attributes,
        )  # fmt: skip
        return f"{len(self._body)} bytes"

    def _head(self) -> str:
        found = self._remote.head(self._key, timeout=_SECONDS)
        if found.size != len(self._body) or found.content_type != "text/plain":
            raise CacheStoreError(f"head says {found.size} bytes of {found.content_type}")
        return f"{found.size} bytes, {found.content_type}"

    def _get(self) -> str:
        body = self._remote.get(self._key, start=10, end=110, timeout=_SECONDS)
        assert body is not None
        with body:
            got = b"".join(body)
        if got != self._body[10:110]:
            raise CacheStoreError("other bytes came back than were put")
        return "bytes 10 to 110"

    def _presigned(self) -> str:
        url = self._remote.presign_get(self._key, 60)
        with urlopen(url, timeout=_SECONDS) as answer:
            if answer.read() != self._body:
                raise CacheStoreError("the presigned URL gave other bytes than were put")
        return "the presigned URL works"

    def _delete(self) -> str:
        self._remote.delete(self._key)
        return "removed again"


def clock_skew(endpoint: str) -> float | None:
    """Seconds by which this machine's clock is ahead of the remote's; None if unknown."""
    date = None
    with contextlib.suppress(OSError, ValueError):
        try:
            with urlopen(Request(endpoint, method="HEAD"), timeout=5) as answer:
                date = answer.headers.get("Date")
        except HTTPError as error:
            date = error.headers.get("Date")
    if date is None:
        return None
    try:
        return time.time() - parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return None


# -- CORS ---------------------------------------------------------------------------------------


def cors_rules(origin: str) -> list[dict[str, Any]]:
    """The rules that a browser at `origin` needs for direct uploads and downloads."""
    return [
        {
            "AllowedOrigins": [origin],
            "AllowedMethods": ["GET", "HEAD", "PUT"],
            "AllowedHeaders": ["*"],
            "ExposeHeaders": ["ETag", "Content-Length", "Content-Range", "Accept-Ranges"],
            "MaxAgeSeconds": 3600,
        }
    ]


def check_cors(options: Options, origin: str) -> Check:
    """Ask the bucket as a browser at `origin` would before it uploads."""
    assert options.remote is not None
    remote = S3Remote(options.remote)
    try:
        made = remote.presign_put(
            ".cachestore-doctor/cors", content_type="text/plain", expires_in=60, size=None,
            sha256=None,
        )  # fmt: skip
    finally:
        remote.close()
    headers = f"content-type,x-amz-meta-{ANNOUNCED_NAME}"
    asked = {"Origin": origin, "Access-Control-Request-Method": "PUT",
             "Access-Control-Request-Headers": headers}  # fmt: skip
    fix = "paste into the bucket's CORS policy: " + json.dumps(cors_rules(origin))
    try:
        with urlopen(Request(made.url, method="OPTIONS", headers=asked), timeout=10) as answer:
            allowed = answer.headers.get("Access-Control-Allow-Origin")
    except HTTPError as error:
        return Check("CORS", False, f"the bucket answered {error.code}",
                     f"no CORS rule lets {origin} upload", fix)  # fmt: skip
    except OSError as error:
        return Check("CORS", False, str(error), "the remote cannot be reached", "check the network")
    if allowed not in ("*", origin):
        return Check("CORS", False, f"allowed origin: {allowed}",
                     f"no CORS rule lets {origin} upload", fix)  # fmt: skip
    return Check("CORS", True, f"{origin} may upload")
