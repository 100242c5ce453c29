"""The reading half of LOCAL_DIR: which file holds a key, whose it is, and what there is."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

from cachestore.clock import Clock
from cachestore.errors import InvalidKey, SpoolError
from cachestore.files import Files
from cachestore.keys import check_key
from cachestore.local.media import guess_type
from cachestore.local.names import HIDDEN, parents_are_folders, path_on_disk
from cachestore.local.records import Record, Records
from cachestore.model import Attributes, ObjectInfo

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of LOCAL_DIR. `record` is None for a legacy file, which somebody else put there."""

    key: str
    path: Path
    size: int
    mtime_ns: int
    inode: int
    record: Record | None

    @property
    def legacy(self) -> bool:
        return self.record is None

    @property
    def as_recorded(self) -> bool:
        """True if nobody wrote the file since our put."""
        return self.record is not None and self.is_of(self.record)

    def is_of(self, record: Record) -> bool:
        """True if this is the file that a record describes."""
        return (record.size, record.mtime_ns, record.inode) == (
            self.size, self.mtime_ns, self.inode,
        )  # fmt: skip


class LocalFolderReader:
    """One LOCAL_DIR as one remote's store sees it; other remotes' files in it are not touched."""

    def __init__(
        self, root: Path, remote_id: str, files: Files, clock: Clock, lock_timeout: float
    ) -> None:
        self.root = root
        self.remote_id = remote_id
        self._files = files
        self._clock = clock
        self._hidden = root / HIDDEN
        self._records = Records(self._hidden / "records", files, lock_timeout)

    # -- one key -------------------------------------------------------------------------------

    def record(self, key: str) -> Record | None:
        """The last local change of a key for this remote. Raises `SpoolError` if unreadable."""
        return self._own(self._records.all_of(key))

    def _own(self, records: dict[str, Record]) -> Record | None:
        return records.get(self.remote_id) or records.get("")

    def locate(self, key: str) -> LocalFile | None:
        """The key's file, ours or a legacy one; None if there is none that this remote may see."""
        return self._locate(key, self._records.all_of(key))

    def _locate(self, key: str, records: dict[str, Record]) -> LocalFile | None:
        record = self._own(records)
        if record is not None:
            return self._of_record(key, record, records)
        path = path_on_disk(self.root, key)
        there = None if path is None else self._plain(key, path, None)
        return None if there is None or self._is_anothers(there, records) else there

    def _of_record(self, key: str, record: Record, records: dict[str, Record]) -> LocalFile | None:
        if record.operation == "delete":
            return None
        changed: LocalFile | None = None
        # Twice: between the two looks the bytes may move to their place.
        for name in (record.file, record.staged, record.file):
            there = self._plain(key, self.root / name, record) if name else None
            if there is not None and there.as_recorded:
                return there
            changed = changed or there
        return None if changed is None or self._is_anothers(changed, records) else changed

    def _plain(self, key: str, path: Path, record: Record | None) -> LocalFile | None:
        """What is at a path; None if that is no regular file, or is behind a symbolic link.

        Raises `SpoolError` when that cannot be known.
        """
        try:
            info = self._files.stat(path)
        except ValueError:
            return None
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise SpoolError(f"cannot look at {path}: {error.strerror or error}") from error
        if not stat.S_ISREG(info.st_mode) or not parents_are_folders(self.root, path):
            return None
        return LocalFile(key, path, info.st_size, info.st_mtime_ns, info.st_ino, record)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _is_anothers(
        self, there: LocalFile, records: dict[str, Record], *, unsent_only: bool = False
    ) -> bool:
        """True if the file is another remote's: the one that its record describes, or, written
        over by somebody, in the place of one that the remote does not have."""
        name, own = self._name(there.path), self._own(records)
        for record in records.values():
            if record is own or record.operation == "delete":
                continue
            if record.state == "unsent" and record.file == name:
                return True
            if there.is_of(record) and (record.state == "unsent" or not unsent_only):
                return True
        return False

    def info(self, there: LocalFile) -> ObjectInfo:
        """What callers see of a local file. What the record says of bytes counts only for them."""
        record, sha256 = there.record, None
        attributes = Attributes(guess_type(there.key))
        if record is not None:
            attributes = record.attributes
            sha256 = record.sha256 if there.as_recorded else None
        return ObjectInfo(
            there.key, there.size, "", attributes.content_type, dict(attributes.metadata),
            datetime.fromtimestamp(there.mtime_ns / 1e9, UTC), "local", sha256,
            attributes.cache_control,
        )  # fmt: skip

    # -- many keys -----------------------------------------------------------------------------

    def unsent(self) -> Iterator[Record]:
        """Changes that this remote does not have, or that no remote has taken yet."""
        for record in self._records.unsent():
            if record.remote_id in ("", self.remote_id):
                yield record

    def unreadable(self) -> Iterator[tuple[Path, str]]:
        """Records that cannot be read, and why."""
        return self._records.unreadable()

    def foreign(self) -> Iterator[Record]:
        """Changes that another remote does not have yet; they wait until it is configured."""
        for record in self._records.unsent():
            if record.remote_id not in ("", self.remote_id):
                yield record

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys that may have a file, in no order; `locate` tells whether one is to be seen."""
        # A folder may have the other spelling of its name; only plain ones are gone into.
        start = self.root.joinpath(*takewhile(str.isascii, prefix.split("/")[:-1]))
        seen: set[str] = set()
        for key in self._walk(start) if parents_are_folders(self.root, start / "x") else ():
            if key.startswith(prefix) and key not in seen:
                seen.add(key)
                yield key
        for key in self._hidden_keys():
            if key.startswith(prefix) and key not in seen:
                seen.add(key)
                yield key

    def _walk(self, start: Path) -> Iterator[str]:
        """Keys of the plain files below a folder; symbolic links are never followed."""
        for folder, names, files in os.walk(start):
            if folder == str(self.root):
                names[:] = [name for name in names if name.casefold() != HIDDEN]
            for name in files:
                path = Path(folder, name)
                with contextlib.suppress(InvalidKey, OSError):
                    key = check_key(self._name(path))
                    if stat.S_ISREG(self._files.stat(path).st_mode):
                        yield key

    def _hidden_keys(self) -> Iterator[str]:
        """Keys whose bytes lie under a hidden name."""
        for part in ("objects", "staged"):
            for name in self._files.list(self._hidden / part):
                with contextlib.suppress(SpoolError):
                    for record in self._records.by_digest(name[:64]).values():
                        yield record.key
