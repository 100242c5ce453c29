"""LOCAL_DIR: plain files under their keys, the stand-in for the remote when it is off.

A put makes durable first the bytes under a hidden name, then a record that names them, and then
moves them to where they belong; a reader that comes between, or after a crash, finds them by the
record. All changes of a key are made under its shard's lock (L1), which the caller holds, and
under the records' own, which stores of other remotes heed too.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cachestore.errors import SpoolError
from cachestore.files import is_plain, is_real_folder
from cachestore.keys import extension_of
from cachestore.local.folder_reader import LocalFile, LocalFolderReader
from cachestore.local.media import guess_type
from cachestore.local.names import HIDDEN, parents_are_folders, path_on_disk, same_name_on_disk
from cachestore.local.records import Record, key_digest, moved
from cachestore.local.sources import copy_source
from cachestore.local.spool import new_id
from cachestore.local.spool_reader import spool_error
from cachestore.model import Attributes
from cachestore.policy.newest import State

STRAY_AGE = 86400.0
"""Seconds after which hidden files that no record names and nobody holds are removed."""

_HIDDEN_NAME = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{32}(\.[A-Za-z0-9]{1,16})?")


@dataclass(slots=True)
class LocalStaged:
    """New bytes under a hidden name, held by `fd` and its lock until they are published."""

    record: Record
    path: Path
    fd: int
    offered: bool = False

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def size(self) -> int:
        return self.record.size

    @property
    def sha256(self) -> str:
        return self.record.sha256


class LocalFolder(LocalFolderReader):
    """One LOCAL_DIR with its changes."""

    # -- putting -------------------------------------------------------------------------------

    def stage(self, key: str, source: Any, attributes: Attributes) -> LocalStaged:
        """Copy a source under a hidden name. Raises `SourceError`, `SpoolFull`, `SpoolError`."""
        id_ = new_id()
        name = self._hidden_name("staged", key, id_)
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
        """Give up staged bytes; those that a record names stay. May be called at any time."""
        with contextlib.suppress(OSError, SpoolError):
            record = self.record(staged.record.key) if staged.offered else None
            if record is None or record.id != staged.id:
                self._files.unlink(staged.path)
        self._close(staged)

    def _close(self, staged: LocalStaged) -> None:
        fd, staged.fd = staged.fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                self._files.close(fd)

    def publish(self, staged: LocalStaged, *, replaces: str | None) -> None:
        """Make staged bytes the key's newest version, durably. `replaces`: the pending ticket's id.

        On an error what was there before stays. Raises `SpoolFull` or `SpoolError`.
        """
        key = staged.record.key
        try:
            with self._records.lock(key_digest(key)):
                self._publish(key, staged, replaces)
        except OSError as error:
            if isinstance(error, SpoolError):
                raise
            raise spool_error(f"cannot store {key!r} in {self.root}", error) from error
        self._close(staged)

    def _publish(self, key: str, staged: LocalStaged, replaces: str | None) -> None:
        before, junk = self._records.replaceable(key)
        record = replace(staged.record, file=self._target(key, before), replaces=replaces)
        target = self.root / record.file
        # The hidden name stays until the other one is durable.
        old, moving = self._second_name(key, target), self._second_name(key, staged.path)
        staged.offered = True
        try:
            self._records.write(key, self._with(before, record))
            self._files.rename(moving or staged.path, target)
            self._files.fsync_dir(target.parent)
        except BaseException:
            if self._put_back(key, record, old):
                with contextlib.suppress(OSError):
                    self._records.take_back(key, before, junk)
            self._remove_hidden(moving)
            raise
        finally:
            self._remove_hidden(old)
        self._remove_hidden(staged.path)
        self._remove_old(self._own(before), keep=record.file)

    def _second_name(self, key: str, path: Path) -> Path | None:
        """A hidden second name of a file; None if there is no file, or the disk has no links."""
        other = self.root / self._hidden_name("staged", key, new_id())
        with contextlib.suppress(OSError):
            self._files.link(path, other)
            return other
        return None

    def _put_back(self, key: str, record: Record, old: Path | None) -> bool:
        """Put the replaced file in its place again; False where only the new version is left."""
        target = self.root / record.file
        try:
            there = self._plain(key, target, record)
            if old is not None:
                self._files.rename(old, target)
            elif there is not None and there.as_recorded:
                if not is_plain(self.root / record.staged):
                    return False
                self._files.unlink(target)
        except (OSError, SpoolError):
            return False
        return True

    def _with(self, before: dict[str, Record], record: Record) -> dict[str, Record]:
        """This remote's record in the place of its old one, and of one that no remote had."""
        others = {k: v for k, v in before.items() if k not in ("", self.remote_id)}
        return others | {record.remote_id: record}

    def _target(self, key: str, records: dict[str, Record]) -> str:
        """Where a key's bytes go, relative to the root, its folders made."""
        path = path_on_disk(self.root, key)
        if path is not None and self._is_free(key, path, records):
            try:
                self._files.make_folder(path.parent, 0o777)
                return self._name(path)
            except (FileExistsError, NotADirectoryError):
                pass  # somebody made a file where a folder has to be
        self._make_hidden("objects")
        own = self._own(records)
        if own is not None and own.file.startswith(f"{HIDDEN}/objects/"):
            return own.file  # a path that was handed out stays one of the key
        return self._hidden_name("objects", key, new_id())

    def _is_free(self, key: str, path: Path, records: dict[str, Record]) -> bool:
        """True if the key's own name may be written: not a folder, a link, or another's work."""
        if not parents_are_folders(self.root, path):
            return False
        if not os.path.lexists(path):
            return True
        there = self._plain(key, path, None)
        if there is None or not same_name_on_disk(path):
            return False
        return not self._is_anothers(there, records, unsent_only=True)

    def _hidden_name(self, part: str, key: str, id_: str) -> str:
        return f"{HIDDEN}/{part}/{key_digest(key)}.{id_}{extension_of(key)}"

    def _make_hidden(self, part: str) -> None:
        """A part of the hidden folder. Raises `OSError`, also for a symbolic link in its place."""
        self._files.make_folder(self.root, 0o777)
        for folder in (self._hidden, self._hidden / part):
            if not os.path.lexists(folder):
                self._files.make_folder(folder)
            # Only now: another process may have made it in between.
            if not is_real_folder(folder):
                raise NotADirectoryError(f"{folder} is not a folder")

    def _remove_hidden(self, path: Path | None) -> None:
        if path is not None:
            with contextlib.suppress(OSError):
                self._files.unlink(path)

    def _remove_old(self, old: Record | None, keep: str) -> None:
        """The bytes of a replaced version, where they do not lie under the new one's name."""
        for name in () if old is None else (old.file, old.staged):
            if name.startswith(f"{HIDDEN}/") and name != keep:
                self._remove_hidden(self.root / name)

    # -- deleting, sending ---------------------------------------------------------------------

    def publish_delete(self, key: str, id_: str, *, replaces: str | None) -> None:
        """Hide a key durably, and remove its file; on an error it is as before.

        Raises `SpoolFull` or `SpoolError`.
        """
        try:
            self._make_hidden("records")
            with self._records.lock(key_digest(key)):
                self._publish_delete(key, id_, replaces)
        except OSError as error:
            if isinstance(error, SpoolError):
                raise
            raise spool_error(f"cannot delete {key!r} in {self.root}", error) from error

    def _publish_delete(self, key: str, id_: str, replaces: str | None) -> None:
        before, junk = self._records.replaceable(key)
        there = self._arrived(key, before)
        record = Record(
            key=key, id=id_, operation="delete", remote_id=self.remote_id,
            time=self._clock.now(), replaces=replaces,
        )  # fmt: skip
        if there is not None:
            record = self._describing(record, there)
        try:
            self._records.write(key, self._with(before, record))
            if there is not None:
                self._files.unlink(there.path)  # need not last: the record hides it
        except BaseException:
            with contextlib.suppress(OSError):
                self._records.take_back(key, before, junk)
            raise
        self._remove_old(self._own(before), keep="")

    def _arrived(self, key: str, records: dict[str, Record]) -> LocalFile | None:
        """The key's file, after a killed put was ended: else an older one in its place, which no
        record describes, would be taken for somebody's own once the record is gone.
        """
        there = self._locate(key, records)
        record = None if there is None else there.record
        if there is None or record is None or self._name(there.path) != record.staged:
            return there
        older = self._plain(key, target := self.root / record.file, None)
        if older is None or self._is_anothers(older, records):
            return there
        self._files.rename(there.path, target)
        self._files.fsync_dir(target.parent)
        return replace(there, path=target)

    def _describing(self, record: Record, there: LocalFile) -> Record:
        return replace(
            record, file=self._name(there.path), size=there.size, mtime_ns=there.mtime_ns,
            inode=there.inode,
        )  # fmt: skip

    def _remove_durably(self, path: Path, there: LocalFile | None) -> None:
        """Remove what is there, if it is to go; what an earlier try removed must be durable too."""
        if there is not None:
            self._files.unlink(path)
        if parents_are_folders(self.root, path) and is_real_folder(path.parent):
            self._files.fsync_dir(path.parent)

    def mark(self, key: str, id_: str, state: State, etag: str) -> bool:
        """What became of a local change at the remote; False if a newer one took its place.

        A delete that was sent needs no record any more. Raises `SpoolError` or `OSError`.
        """
        with self._records.lock(key_digest(key)):
            return self._mark(key, id_, state, etag)

    def _mark(self, key: str, id_: str, state: State, etag: str) -> bool:
        records = self._records.all_of(key)
        record = self._own(records)
        if record is None or record.id != id_:
            return False
        records.pop(record.remote_id)
        if record.operation == "put":
            new = moved(record, state=state, etag=etag, remote_id=self.remote_id)
            records[self.remote_id] = new
        elif record.file:
            path = self.root / record.file
            there = self._plain(key, path, record)
            # Not what somebody put there since.
            ours = there is not None and there.as_recorded
            self._remove_durably(path, there if ours else None)
        self._records.write(key, records)
        return True

    def supersede(self, key: str, etag: str) -> None:
        """The remote has a newer version than the copy here, which is not to be served."""
        with self._records.lock(key_digest(key)):
            records = self._records.all_of(key)
            record, there = self._own(records), self._locate(key, records)
            if record is not None:
                self._mark(key, record.id, "superseded", etag)
            elif there is not None:
                legacy = Record(
                    key=key, id=new_id(), operation="put", remote_id=self.remote_id,
                    time=self._clock.now(), state="superseded", etag=etag,
                    content_type=guess_type(key),
                )  # fmt: skip
                legacy = self._describing(legacy, there)
                self._records.write(key, self._with(records, legacy))

    def recognize(self, there: LocalFile, version: Record) -> bool:
        """The remote got `version` another way, and the file here has the same bytes.

        False if it is no longer the file that was compared.
        """
        with self._records.lock(key_digest(there.key)):
            records = self._records.all_of(there.key)
            if self._locate(there.key, records) != there:
                return False
            there = self._arrived(there.key, records) or there
            sent = self._describing(replace(version, state="sent"), there)
            self._records.write(there.key, self._with(records, sent))
            return True

    def remove_copy(self, key: str) -> None:
        """The key was deleted at the remote: its copy here goes, and its record after it."""
        with self._records.lock(key_digest(key)):
            records = self._records.all_of(key)
            record, there = self._own(records), self._arrived(key, records)
            if there is not None:
                self._remove_durably(there.path, there)
            elif record is not None and record.file:
                self._remove_durably(self.root / record.file, None)
            if record is not None:
                self._remove_old(record, keep="")
                records.pop(record.remote_id)
                self._records.write(key, records)

    def renew(self, there: LocalFile, sha256: str) -> None:
        """Somebody wrote a file of an unsent put: the record describes it as it is now."""
        assert there.record is not None
        with self._records.lock(key_digest(there.key)):
            records = self._records.all_of(there.key)
            if self._own(records) == there.record:
                record = replace(there.record, id=new_id(), sha256=sha256)
                record = self._describing(record, there)
                self._records.write(there.key, self._with(records, record))

    # -- cleaning ------------------------------------------------------------------------------

    def tidy(self) -> int:
        """Remove what killed puts left hidden: old, not held, and named by no record."""
        strays = [
            (name[:64], self._hidden / part / name)
            for part in ("staged", "objects")
            for name in self._files.list(self._hidden / part)
            if _HIDDEN_NAME.fullmatch(name)
        ]
        gone = 0
        for digest, path in [*strays, *self._records.temporaries()]:
            with contextlib.suppress(OSError, SpoolError):
                gone += self._remove_stray(digest, path)
        return gone

    def _remove_stray(self, digest: str, path: Path) -> bool:
        info = self._files.stat(path)
        if not is_plain(path) or self._clock.now() - max(info.st_mtime, info.st_ctime) < STRAY_AGE:
            return False
        fd = self._files.open_read(path)
        try:
            if not self._files.try_lock(fd):
                return False
            with self._records.lock(digest):
                # Unreadable records may name it: the error keeps the file.
                records = self._records.by_digest(digest).values()
                named = {name for record in records for name in (record.file, record.staged)}
                return self._name(path) not in named and self._files.unlink(path)
        finally:
            self._files.close(fd)
