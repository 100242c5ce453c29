"""LOCAL_DIR: plain files under their keys, the stand-in for the remote when it is off.

A put makes durable first the bytes under a hidden name, then a record that names them, and then
moves them to where they belong; a reader that comes between, or after a crash, finds them by the
record. All changes of a key are made under its shard's lock (L1), which the caller holds.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cachestore.clock import Clock
from cachestore.errors import InvalidKey, SpoolError
from cachestore.files import Files, is_real_folder
from cachestore.keys import check_key, extension_of
from cachestore.local.media import guess_type
from cachestore.local.names import HIDDEN, parents_are_folders, plain_path, same_name_on_disk
from cachestore.local.records import Record, Records, key_digest, moved
from cachestore.local.sources import copy_source
from cachestore.local.spool import new_id
from cachestore.local.spool_reader import spool_error
from cachestore.model import Attributes, ObjectInfo
from cachestore.policy.newest import State


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
        record = self.record
        return record is not None and (record.size, record.mtime_ns, record.inode) == (
            self.size, self.mtime_ns, self.inode,
        )  # fmt: skip


@dataclass(slots=True)
class LocalStaged:
    """New bytes under a hidden name, held by `fd` and its lock until they are published."""

    record: Record
    path: Path
    fd: int

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def size(self) -> int:
        return self.record.size

    @property
    def sha256(self) -> str:
        return self.record.sha256


class LocalFolder:
    """One LOCAL_DIR as one remote's store sees it; other remotes' files in it are not touched."""

    def __init__(self, root: Path, remote_id: str, files: Files, clock: Clock) -> None:
        self.root = root
        self.remote_id = remote_id
        self._files = files
        self._clock = clock
        self._hidden = root / HIDDEN
        self._records = Records(self._hidden / "records", files)

    # -- reading -------------------------------------------------------------------------------

    def record(self, key: str) -> Record | None:
        """The last local change of a key for this remote. Raises `SpoolError` if unreadable."""
        return self._own(self._records.all_of(key))

    def _own(self, records: dict[str, Record]) -> Record | None:
        return records.get(self.remote_id) or records.get("")

    def locate(self, key: str) -> LocalFile | None:
        """The key's file, ours or a legacy one; None if there is none that this remote may see."""
        records = self._records.all_of(key)
        record = self._own(records)
        if record is not None:
            return self._of_record(key, record, records)
        path = plain_path(self.root, key)
        if path is None or not parents_are_folders(self.root, path):
            return None
        there = self._plain(key, path, None)
        if there is None or _claimed(records, there):
            return None
        return there

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
        if changed is None or _claimed(records, changed):
            return None
        return changed

    def _plain(self, key: str, path: Path, record: Record | None) -> LocalFile | None:
        try:
            info = self._files.stat(path)
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(info.st_mode):
            return None
        return LocalFile(key, path, info.st_size, info.st_mtime_ns, info.st_ino, record)

    def info(self, there: LocalFile) -> ObjectInfo:
        """What callers see of a local file. What the record says of bytes counts only for them."""
        record, sha256 = there.record, None
        attributes = Attributes(guess_type(there.key))
        if record is not None:
            attributes = record.attributes
            sha256 = record.sha256 if there.as_recorded else None
        return ObjectInfo(
            there.key, there.size, "", attributes.content_type, dict(attributes.metadata),
            datetime.fromtimestamp(there.mtime_ns / 1e9, UTC), "local", sha256, attributes.cache_control,
        )  # fmt: skip

    def unsent(self) -> Iterator[Record]:
        """Changes that this remote does not have, or that no remote has taken yet."""
        for record in self._records.unsent():
            if record.remote_id in ("", self.remote_id):
                yield record

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys that may have a file, in no order; `locate` tells whether one is to be seen."""
        start = self.root.joinpath(*prefix.split("/")[:-1])
        seen: set[str] = set()
        for key in self._walk(start) if self._reachable(start) else ():
            if key.startswith(prefix):
                seen.add(key)
                yield key
        for key in self._hidden_keys():
            if key.startswith(prefix) and key not in seen:
                seen.add(key)
                yield key

    def _reachable(self, start: Path) -> bool:
        return start == self.root or parents_are_folders(self.root, start / "x")

    def _walk(self, start: Path) -> Iterator[str]:
        """Keys of the plain files below a folder; symbolic links are never followed."""
        for folder, names, files in os.walk(start):
            if folder == str(self.root):
                names[:] = [name for name in names if name.casefold() != HIDDEN]
            for name in files:
                path = Path(folder, name)
                with contextlib.suppress(InvalidKey, OSError):
                    key = check_key(path.relative_to(self.root).as_posix())
                    if stat.S_ISREG(self._files.stat(path).st_mode):
                        yield key

    def _hidden_keys(self) -> Iterator[str]:
        """Keys whose bytes lie under a hidden name."""
        for part in ("objects", "staged"):
            for name in self._files.list(self._hidden / part):
                with contextlib.suppress(SpoolError):
                    for record in self._records.by_digest(name[:64]).values():
                        yield record.key

    # -- putting -------------------------------------------------------------------------------

    def stage(self, key: str, source: Any, attributes: Attributes) -> LocalStaged:
        """Copy a source under a hidden name. Raises `SourceError`, `SpoolFull`, `SpoolError`."""
        id_ = new_id()
        name = f"{HIDDEN}/staged/{key_digest(key)}-{id_}{extension_of(key)}"
        path = self.root / name
        try:
            self._make_hidden("staged")
            fd = self._files.create(path, 0o666)
        except OSError as error:
            raise spool_error(f"cannot store {key!r} in {self.root}", error) from error
        record = Record(
            key=key, id=id_, operation="put", remote_id=self.remote_id, time=self._clock.now(),
            staged=name, content_type=attributes.content_type, metadata=attributes.metadata,
            cache_control=attributes.cache_control,
        )  # fmt: skip
        staged = LocalStaged(record, path, fd)
        try:
            self._files.try_lock(fd)
            copied = copy_source(self._files, source, fd)
            self._files.fsync(fd)
            self._files.fsync_dir(path.parent)
            info = os.fstat(fd)
        except OSError as error:
            self.drop(staged)
            raise spool_error(f"cannot store {key!r} in {self.root}", error) from error
        except BaseException:
            self.drop(staged)
            raise
        staged.record = replace(
            record, size=copied.size, sha256=copied.sha256, mtime_ns=info.st_mtime_ns,
            inode=info.st_ino,
        )  # fmt: skip
        return staged

    def drop(self, staged: LocalStaged) -> None:
        """Give up staged bytes."""
        with contextlib.suppress(OSError):
            self._files.unlink(staged.path)
        with contextlib.suppress(OSError):
            self._files.close(staged.fd)

    def publish(self, staged: LocalStaged, *, replaces: str | None) -> None:
        """Make staged bytes the key's newest version, durably. `replaces`: the pending ticket's id.

        On an error what was there before stays. Raises `SpoolFull` or `SpoolError`.
        """
        key = staged.record.key
        before = self._readable(key)
        try:
            record = replace(staged.record, file=self._target(key, before), replaces=replaces)
            self._records.write(key, self._with(before, record))
            try:
                self._move(record)
            except BaseException:
                self._records.write(key, before)
                raise
        except OSError as error:
            raise spool_error(f"cannot store {key!r} in {self.root}", error) from error
        self._files.close(staged.fd)
        self._remove_old(self._own(before), keep=record.file)

    def _move(self, record: Record) -> None:
        target = self.root / record.file
        self._files.rename(self.root / record.staged, target)
        self._files.fsync_dir(target.parent)

    def _readable(self, key: str) -> dict[str, Record]:
        """A key's records; unreadable ones are set aside, since a new version replaces them."""
        try:
            return self._records.all_of(key)
        except SpoolError:
            self._records.set_aside(key)
            return {}

    def _with(self, before: dict[str, Record], record: Record) -> dict[str, Record]:
        """This remote's record in the place of its old one, and of one that no remote had."""
        others = {k: v for k, v in before.items() if k not in ("", self.remote_id)}
        return others | {record.remote_id: record}

    def _target(self, key: str, records: dict[str, Record]) -> str:
        """Where a key's bytes go, relative to the root, its folders made."""
        path = plain_path(self.root, key)
        if path is not None and parents_are_folders(self.root, path):
            if self._is_free(key, path, records):
                try:
                    self._files.make_folder(path.parent, 0o777)
                    return path.relative_to(self.root).as_posix()
                except (FileExistsError, NotADirectoryError):
                    pass  # somebody made a file where a folder has to be
        self._make_hidden("objects")
        return f"{HIDDEN}/objects/{key_digest(key)}-{new_id()}{extension_of(key)}"

    def _is_free(self, key: str, path: Path, records: dict[str, Record]) -> bool:
        """True if the key's own name may be written: not a folder, a link, or another's work."""
        if not os.path.lexists(path):
            return True
        there = self._plain(key, path, None)
        if there is None or not same_name_on_disk(path):
            return False
        others = {k: v for k, v in records.items() if v is not self._own(records)}
        return not _claimed(others, there, only="unsent")

    def _make_hidden(self, part: str) -> None:
        if not is_real_folder(self._hidden):
            self._files.make_folder(self.root, 0o777)
            self._files.make_folder(self._hidden)
        self._files.make_folder(self._hidden / part)

    def _remove_old(self, old: Record | None, keep: str) -> None:
        """The bytes of a replaced version, where they do not lie under the new one's name."""
        for name in () if old is None else (old.file, old.staged):
            if name.startswith(HIDDEN) and name != keep:
                with contextlib.suppress(OSError):
                    self._files.unlink(self.root / name)

    # -- deleting, sending ---------------------------------------------------------------------

    def publish_delete(self, key: str, id_: str, *, replaces: str | None) -> None:
        """Hide a key durably, and remove its file. Raises `SpoolFull` or `SpoolError`."""
        before = self._readable(key)
        there = None
        with contextlib.suppress(SpoolError):
            there = self.locate(key)
        record = Record(
            key=key, id=id_, operation="delete", remote_id=self.remote_id,
            time=self._clock.now(), replaces=replaces,
            file="" if there is None else there.path.relative_to(self.root).as_posix(),
            size=0 if there is None else there.size,
            mtime_ns=0 if there is None else there.mtime_ns,
            inode=0 if there is None else there.inode,
        )  # fmt: skip
        try:
            self._records.write(key, self._with(before, record))
            self._remove_deleted(record)
        except OSError as error:
            raise spool_error(f"cannot delete {key!r} in {self.root}", error) from error
        self._remove_old(self._own(before), keep="")

    def _remove_deleted(self, record: Record) -> None:
        """The file that a delete meant, unless somebody put another one there since."""
        if not record.file:
            return
        path = self.root / record.file
        there = self._plain(record.key, path, record)
        if there is not None and there.as_recorded and self._files.unlink(path):
            self._files.fsync_dir(path.parent)

    def mark(self, key: str, id_: str, state: State, etag: str) -> bool:
        """What became of a local change at the remote; False if a newer one took its place.

        A delete that was sent needs no record any more. Raises `SpoolError` or `OSError`.
        """
        records = self._records.all_of(key)
        record = self._own(records)
        if record is None or record.id != id_:
            return False
        if record.operation == "delete":
            self._remove_deleted(record)
            records.pop(record.remote_id)
        else:
            records.pop(record.remote_id)
            new = moved(record, state=state, etag=etag, remote_id=self.remote_id)
            records[self.remote_id] = new
        self._records.write(key, records)
        return True

    def supersede(self, key: str, etag: str) -> None:
        """The remote has a newer version than the copy here, which is not to be served."""
        there, record = self.locate(key), self.record(key)
        if record is not None:
            self.mark(key, record.id, "superseded", etag)
        elif there is not None:
            legacy = Record(
                key=key, id=new_id(), operation="put", remote_id=self.remote_id,
                time=self._clock.now(), state="superseded", etag=etag,
                file=there.path.relative_to(self.root).as_posix(), size=there.size,
                mtime_ns=there.mtime_ns, inode=there.inode, content_type=guess_type(key),
            )  # fmt: skip
            self._records.write(key, self._with(self._records.all_of(key), legacy))

    def remove_copy(self, key: str) -> None:
        """The key was deleted at the remote: its copy here goes, and its record after it."""
        there, records = self.locate(key), self._records.all_of(key)
        if there is not None and self._files.unlink(there.path):
            self._files.fsync_dir(there.path.parent)
        record = self._own(records)
        if record is not None:
            records.pop(record.remote_id)
            self._records.write(key, records)

    def renew(self, there: LocalFile, sha256: str) -> None:
        """Somebody wrote a file of an unsent put: the record describes it as it is now."""
        assert there.record is not None
        record = replace(
            there.record, id=new_id(), size=there.size, mtime_ns=there.mtime_ns,
            inode=there.inode, sha256=sha256,
        )  # fmt: skip
        self._records.write(there.key, self._with(self._records.all_of(there.key), record))


def _claimed(records: dict[str, Record], there: LocalFile, only: str | None = None) -> bool:
    """True if another remote's record describes exactly this file."""
    return any(
        (record.size, record.mtime_ns, record.inode) == (there.size, there.mtime_ns, there.inode)
        for record in records.values()
        if record is not there.record and record.operation == "put" and only in (None, record.state)
    )
