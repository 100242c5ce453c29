"""Keys as paths in a folder: never outside it, never two on one, and a word where none fits."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from cachestore.errors import InvalidKey
from cachestore.keys import MAX_SEGMENT_BYTES

HIDDEN = ".cachestore-export"
"""Where files are written before they get their names."""

_SLASHES = re.compile(r"(?<=/)/|^/|/$")


def base_of(prefix: str) -> str:
    """The part of a prefix that is left out of the paths: its folders."""
    return prefix[: prefix.rfind("/") + 1]


def is_marker(key: str, size: int) -> bool:
    """True for what consoles put where they show an empty folder."""
    return size == 0 and key.endswith("/")


def fault_of(path: str) -> str:
    """Why no file can have this path in a folder; "" if one can."""
    for segment in path.split("/"):
        if segment == "":
            return "it has an empty segment ('//', or a '/' at an end)"
        if segment in (".", ".."):
            return f"it has a segment {segment!r}"
        if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in segment):
            return "it holds a control character"
        try:
            length = len(segment.encode())
        except UnicodeEncodeError:
            return "it holds a lone surrogate"
        if length > MAX_SEGMENT_BYTES:
            return f"a segment has {length} bytes, at most {MAX_SEGMENT_BYTES} are allowed"
    if path.split("/")[0].casefold() == HIDDEN:
        return f"{HIDDEN!r} is where unfinished files are kept"
    return ""


def encoded(path: str) -> str:
    """A path with what no file name can hold as `%XX`: slashes too many, dots alone, controls."""
    path = _SLASHES.sub("%2F", path)
    segments = []
    for segment in path.split("/"):
        if segment in (".", ".."):
            segment = segment.replace(".", "%2E")
        segments.append(
            "".join(
                f"%{ord(char):02X}" if ord(char) < 32 or 127 <= ord(char) < 160 else char
                for char in segment
            )
        )
    if segments[0].casefold() == HIDDEN:
        segments[0] = "%2E" + segments[0][1:]
    return "/".join(segments)


class Placing:
    """Gives keys their paths, for one run. `folded`: the disk takes `A` and `a` for the same."""

    def __init__(self, prefix: str, *, encode: bool, folded: bool) -> None:
        self._base = base_of(prefix)
        self._encode = encode
        self._folded = folded
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def path(self, key: str) -> str:
        """The key's path in the folder, with `/`. Raises `InvalidKey`."""
        path = key[len(self._base) :]
        reason = fault_of(path)
        if reason and self._encode:
            path = encoded(path)
            reason = fault_of(path)
        if reason:
            raise InvalidKey(f"no file can be named {key!r}: {reason}")
        self._claim(key, path)
        return path

    def _claim(self, key: str, path: str) -> None:
        parts = self._name(path).split("/")
        folders = ["/".join(parts[:count]) for count in range(1, len(parts))]
        name = "/".join(parts)
        first = self._files.get(name) or self._folders.get(name)
        for folder in folders:
            first = first or self._files.get(folder)
        if first is not None:
            raise InvalidKey(f"{key!r} cannot lie beside {first!r} in one folder")
        self._files[name] = key
        for folder in folders:
            self._folders.setdefault(folder, key)

    def _name(self, path: str) -> str:
        return unicodedata.normalize("NFC", path).casefold() if self._folded else path


def is_folded(hidden: Path) -> bool:
    """True if the disk that holds this folder finds it by another case."""
    return os.path.exists(hidden.with_name(hidden.name.upper()))
