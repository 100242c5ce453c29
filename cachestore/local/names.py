"""Where a key's file lies in LOCAL_DIR: under its own name, or hidden where that cannot be."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from cachestore.files import is_real_folder
from cachestore.keys import MAX_SEGMENT_BYTES

HIDDEN = ".cachestore"


def plain_path(root: Path, key: str) -> Path | None:
    """The path under the key's own name; None if a file system cannot have it.

    The hidden folder is ours, whatever its case, and a segment has at most 255 bytes.
    """
    segments = key.split("/")
    if segments[0].casefold() == HIDDEN:
        return None
    if any(len(segment.encode()) > MAX_SEGMENT_BYTES for segment in segments):
        return None
    return root.joinpath(*segments)


def path_on_disk(root: Path, key: str) -> Path | None:
    """`plain_path`, or the decomposed spelling (NFD, as macOS gives it) if only that is there."""
    path = plain_path(root, key)
    if path is None or key.isascii() or os.path.lexists(path):
        return path
    other = plain_path(root, unicodedata.normalize("NFD", key))
    return other if other is not None and os.path.lexists(other) else path


def parents_are_folders(root: Path, path: Path) -> bool:
    """True if every folder between `root` and `path` is a real one or not there yet."""
    for parent in path.parents:
        if parent == root:
            return True
        if os.path.lexists(parent) and not is_real_folder(parent):
            return False
    return False


def same_name_on_disk(path: Path) -> bool:
    """True if the file has exactly this name: a case-blind disk answers to others too."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return False
    wanted = unicodedata.normalize("NFC", path.name)
    return any(unicodedata.normalize("NFC", name) == wanted for name in names)
