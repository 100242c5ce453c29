"""Notes of uploads that were announced to clients and not confirmed yet, in the spool folder.

One small file for each, shared by all processes on one spool. It is not fsynced: one that a power
cut takes costs an object that nobody removes, never one that is removed wrongly. The name says
which key (by its place's digest), which announcement, and when it is over (wall seconds).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cachestore.files import Files, is_real_folder, read_file, replace_file
from cachestore.keys import Place
from cachestore.local.url_secret import kept_random

FOLDER = "announced"
SPOOL_NAME = "spool.id"
_LIMIT = 1 << 14
_NAME = re.compile(r"([0-9a-f]{64})\.([0-9a-f]{32})\.(\d{1,15})")
_TEMPORARY = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{32}\.\d{1,15}\.[0-9a-f]{16}\.tmp")
_MARK = re.compile(r"([0-9a-f]{32})\.(\d{1,15})\.([0-9a-f]{16})\.(\d{1,18})")
_STALE_AGE = 3600.0


@dataclass(frozen=True, slots=True)
class Note:
    """An upload that was announced. `due`: wall seconds from which on it counts as given up."""

    digest: str
    id: str
    due: int

    @property
    def name(self) -> str:
        return f"{self.digest}.{self.id}.{self.due}"


@dataclass(frozen=True, slots=True)
class Content:
    """What a note holds.

    `through`: the upload comes through the app; `received`: as which operation it came. `free`:
    nothing was there under the key when it was announced.
    """

    key: str
    through: bool = False
    received: str | None = None
    free: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """What an uploaded object says of its announcement.

    `due`: from when on (wall seconds) it counts as given up, 0: never. `spool`: who keeps the
    note. `most`: bytes that were allowed.
    """

    id: str
    due: int
    spool: str
    most: int


def parse_mark(text: str | None) -> Mark | None:
    """The mark of an object; None for none, or what is none of ours."""
    match = _MARK.fullmatch(text or "")
    return None if match is None else Mark(match[1], int(match[2]), match[3], int(match[4]))


class Announcements:
    """The notes of one spool folder. Every method may raise `OSError` or `SpoolError`."""

    def __init__(self, files: Files, spool_dir: Path) -> None:
        self._files = files
        self._root = spool_dir
        self._folder = spool_dir / FOLDER
        self._spool: str | None = None

    @property
    def spool(self) -> str:
        """16 hex digits that name this spool folder, made once."""
        if self._spool is None:
            self._spool = kept_random(self._files, self._root / SPOOL_NAME).decode()[:16]
        return self._spool

    def mark(self, note: Note | None, most: int) -> str:
        """What an upload of at most `most` bytes carries that `note` announces, if any."""
        id_, due = ("0" * 32, 0) if note is None else (note.id, note.due)
        return f"{id_}.{due}.{self.spool}.{most}"

    def add(self, place: Place, content: Content, due: int) -> Note:
        """A new note."""
        note = Note(place.digest, secrets.token_hex(16), due)
        path = self._path(note)
        self._files.make_folder(path.parent)
        self._write(path, content)
        return note

    def _write(self, path: Path, content: Content) -> None:
        data = json.dumps(asdict(content)).encode()
        replace_file(self._files, path, data, unique=secrets.token_hex(8), durable=False)

    def _path(self, note: Note) -> Path:
        return self._folder / note.digest[:2] / note.name

    def of(self, place: Place) -> list[Note]:
        """All notes of a key."""
        names = self._files.list(self._folder / place.digest[:2])
        return [note for note in map(_parse, names) if note and note.digest == place.digest]

    def due(self, now: float) -> Iterator[Note]:
        """Notes whose time is over; what killed writers left is removed meanwhile."""
        for shard in sorted(self._files.list(self._folder)):
            folder = self._folder / shard
            if not is_real_folder(folder):
                continue
            for name in sorted(self._files.list(folder)):
                note = _parse(name)
                if note is not None and note.due <= now:
                    yield note
                elif _TEMPORARY.fullmatch(name):
                    self._remove_stale(folder / name, now)

    def _remove_stale(self, path: Path, now: float) -> None:
        with suppress(FileNotFoundError):
            if now - self._files.stat(path).st_mtime > _STALE_AGE:
                self._files.unlink(path)

    def read(self, note: Note) -> Content | None:
        """What a note holds; None if it is gone or cannot be understood."""
        try:
            plain = json.loads(read_file(self._files, self._path(note), _LIMIT))
            content = Content(**plain)
        except (FileNotFoundError, ValueError, TypeError, RecursionError):
            return None
        return content if isinstance(content.key, str) else None

    def is_there(self, note: Note) -> bool:
        """False once it was confirmed, or removed."""
        try:
            self._files.stat(self._path(note))
        except FileNotFoundError:
            return False
        return True

    def received(self, place: Place, id_: str, operation: str) -> None:
        """What was announced by note `id_` came through the app, as `operation`."""
        for note in self.of(place):
            content = self.read(note) if note.id == id_ else None
            if content is not None:
                self.change(note, replace(content, received=operation))

    def change(self, note: Note, content: Content) -> None:
        """Write a note again. Caller: under the key's lock, so that a removed one stays so."""
        if self.is_there(note):
            self._write(self._path(note), content)

    def remove_durably(self, place: Place) -> None:
        """All of a key are over, and no power cut brings one back."""
        self.remove(self.of(place))
        with suppress(FileNotFoundError):  # nothing was ever announced here
            self._files.fsync_dir(self._folder / place.digest[:2])

    def remove(self, notes: list[Note]) -> None:
        """They are over."""
        for note in notes:
            self._files.unlink(self._path(note))


def _parse(name: str) -> Note | None:
    match = _NAME.fullmatch(name)
    return None if match is None else Note(match[1], match[2], int(match[3]))
