"""What the cache folder takes besides its files: folders, the catalog, remote facts."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from cachestore.files import allocated

FACTS_LOG = 64
"""Pages of the facts' log until it is written back."""

_PAGE = 4096
_FEWEST, _MOST = 128, 1000
_AGE = 1.0
_MORE = 1 << 20
"""What others write before the log is begun anew."""


def log_pages(limit: int) -> int:
    """Pages of the catalog's log until it is written back: few where the limit is small."""
    return max(_FEWEST, min(_MOST, limit // 16 // _PAGE))


class Bookkeeping:
    """Measures, in bytes on disk. Logs count with what they grow to before they are reused."""

    def __init__(self, top: Path, root: Path, limit: int) -> None:
        """`top`: CACHE_DIR; `root`: the remote's folder in it; `limit`: of all, in bytes."""
        self._top = top
        self._root = root
        self._log = log_pages(limit) * _PAGE + _MORE
        self._slack = min(1 << 20, limit // 32)
        self._folders = 0
        self._seen: tuple[int, float] | None = None

    def measure(self) -> int:
        """All of it now, and a little for what comes between two looks."""
        catalog = _databases(self._root / "catalog", self._log)
        facts = _databases(self._root / "facts", FACTS_LOG * _PAGE)
        return self._slack + catalog + facts + self._of_folders()

    def _of_folders(self) -> int:
        """Looked at again after a second, and when one was made."""
        try:
            changed = os.stat(self._root).st_mtime_ns
        except OSError:
            return 0
        now = time.monotonic()
        if self._seen is None or self._seen[0] != changed or now - self._seen[1] > _AGE:
            self._folders = _folders(self._top) + _folders(self._root)
            self._seen = changed, now
        return self._folders


def _folders(folder: Path) -> int:
    """A folder itself and the folders in it, without their files."""
    total = 0
    with contextlib.suppress(OSError):
        total = allocated(os.lstat(folder))
        with os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False):
                        total += allocated(entry.stat(follow_symlinks=False))
    return total


def _databases(folder: Path, log: int) -> int:
    """The files of a folder of databases; a log shorter than `log` counts as that long."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                taken = allocated(entry.stat(follow_symlinks=False))
                total += max(taken, log) if entry.name.endswith("-wal") else taken
    return total
