"""Where a key's file lies in LOCAL_DIR: under its own name, or hidden where that cannot be."""

from __future__ import annotations

import os
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
        return path.name in os.listdir(path.parent)
    except OSError:
        return False
