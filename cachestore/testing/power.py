"""Power cuts: record file-system calls, and build the states a journaling disk may be left in.

`Recorder` is a file layer that does its work and notes it. `Disk` replays a prefix of the notes
and knows what was made durable: file contents by fsync of the file, names by fsync of the folder.
What was not may be there, be missing, or be torn. Names within one folder become durable in the
order in which they were made, as a journal gives them; folders are independent of each other.
"""

from __future__ import annotations

import os
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cachestore.files import Files

Note = tuple[Any, ...]


class Recorder(Files):
    """The real file layer below `root`, with a note of every change. Threads may share it."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self.notes: list[Note] = []
        self._lock = threading.RLock()
        self._kept: list[int] = []
        if self.root.is_dir():
            self._note_folder(self.root)

    def _inside(self, path: str | Path) -> str | None:
        text = os.path.abspath(path)
        prefix = str(self.root) + os.sep
        return text[len(prefix) :] if text.startswith(prefix) else None

    def _note(self, *note: Any) -> None:
        self.notes.append(note)

    def _identity(self, fd: int) -> int:
        return os.fstat(fd).st_ino

    def _keep(self, path: str | Path) -> None:
        """Hold a new file open, so that no later one gets its inode number."""
        self._kept.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def end(self) -> None:
        """Record nothing more; the notes stay."""
        with self._lock:
            kept, self._kept = self._kept, []
        for fd in kept:
            os.close(fd)

    def create(self, path: str | Path, mode: int = 0o600) -> int:
        with self._lock:
            fd = super().create(path, mode)
            name = self._inside(path)
            if name is not None:
                self._keep(path)
                self._note("create", name, self._identity(fd))
            return fd

    def open_shared(self, path: str | Path, mode: int = 0o600) -> int:
        with self._lock:
            there = os.path.lexists(path)
            fd = super().open_shared(path, mode)
            name = self._inside(path)
            if name is not None and not there:
                self._keep(path)
                self._note("create", name, self._identity(fd))
            return fd

    def write(self, fd: int, data: bytes | memoryview) -> None:
        with self._lock:
            at = os.lseek(fd, 0, os.SEEK_CUR)
            super().write(fd, data)
            self._note("write", self._identity(fd), at, bytes(data))

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        with self._lock:
            super().pwrite(fd, data, offset)
            self._note("write", self._identity(fd), offset, bytes(data))

    def truncate(self, fd: int, size: int) -> None:
        with self._lock:
            super().truncate(fd, size)
            self._note("truncate", self._identity(fd), size)

    def fsync(self, fd: int) -> None:
        with self._lock:
            super().fsync(fd)
            self._note("fsync", self._identity(fd))

    def rename(self, source: str | Path, target: str | Path) -> None:
        with self._lock:
            super().rename(source, target)
            old, new = self._inside(source), self._inside(target)
            if old is not None and new is not None:
                self._note("rename", old, new)

    def link(self, source: str | Path, target: str | Path) -> None:
        with self._lock:
            super().link(source, target)
            old, new = self._inside(source), self._inside(target)
            if old is not None and new is not None:
                self._note("link", old, new)

    def unlink(self, path: str | Path) -> bool:
        with self._lock:
            gone = super().unlink(path)
            name = self._inside(path)
            if gone and name is not None:
                self._note("unlink", name)
            return gone

    def mkdir(self, path: str | Path, mode: int = 0o700) -> None:
        with self._lock:
            super().mkdir(path, mode)
            self._note_folder(Path(path))

    def _note_folder(self, path: Path) -> None:
        is_root = os.path.abspath(path) == str(self.root)
        name = "" if is_root else self._inside(path)
        if name is not None:
            self._note("folder", name, os.stat(path).st_ino)

    def copy(self, source: int, target: int) -> None:
        with self._lock:
            offset = 0
            while chunk := os.pread(source, 1 << 20, offset):
                self.pwrite(target, chunk, offset)
                offset += len(chunk)


@dataclass
class _Inode:
    """A file's bytes now, as last synced, and the writes since."""

    now: bytearray = field(default_factory=bytearray)
    durable: bytes | None = None
    since: list[tuple[int, bytes]] = field(default_factory=list)


class Disk:
    """What a prefix of the notes left behind, durable and not."""

    def __init__(self, notes: list[Note]) -> None:
        self._inodes: dict[int, _Inode] = {}
        self._folders: dict[int, str] = {}
        self._now: dict[str, int] = {}
        self._durable: dict[str, dict[str, int]] = {}
        self._waiting: dict[str, list[tuple[str, str, int]]] = {}
        for note in notes:
            getattr(self, f"_{note[0]}")(*note[1:])

    # -- replay --------------------------------------------------------------------------------

    def _entry(self, name: str, inode: int, kind: str = "add") -> None:
        folder = os.path.dirname(name.split("\0")[-1])
        self._waiting.setdefault(folder, []).append((kind, name, inode))

    def _create(self, name: str, inode: int) -> None:
        self._inodes[inode] = _Inode()
        self._now[name] = inode
        self._entry(name, inode)

    def _folder(self, name: str, inode: int) -> None:
        self._folders[inode] = name
        if name:
            self._entry(name, inode)

    def _write(self, inode: int, at: int, data: bytes) -> None:
        file = self._inodes.setdefault(inode, _Inode())
        file.now[len(file.now) :] = bytes(max(0, at - len(file.now)))
        file.now[at : at + len(data)] = data
        file.since.append((at, data))

    def _truncate(self, inode: int, size: int) -> None:
        file = self._inodes.setdefault(inode, _Inode())
        del file.now[size:]
        file.now.extend(bytes(size - len(file.now)))

    def _fsync(self, inode: int) -> None:
        folder = self._folders.get(inode)
        if folder is not None:
            self._apply(folder, len(self._waiting.get(folder, [])), self._durable)
            self._waiting.pop(folder, None)
        elif inode in self._inodes:
            file = self._inodes[inode]
            file.durable, file.since = bytes(file.now), []

    def _rename(self, old: str, new: str) -> None:
        inode = self._now.pop(old)
        self._now[new] = inode
        if os.path.dirname(old) == os.path.dirname(new):
            self._entry(f"{old}\0{new}", inode, "rename")
        else:
            self._entry(new, inode)
            self._entry(old, inode, "remove")

    def _link(self, old: str, new: str) -> None:
        self._now[new] = self._now[old]
        self._entry(new, self._now[new])

    def _unlink(self, name: str) -> None:
        inode = self._now.pop(name, 0)
        self._entry(name, inode, "remove")

    def _apply(self, folder: str, count: int, state: dict[str, dict[str, int]]) -> None:
        """Let the first `count` waiting changes of a folder's names take effect."""
        names = state.setdefault(folder, {})
        for kind, name, inode in self._waiting.get(folder, [])[:count]:
            if kind == "add":
                names[name] = inode
            elif kind == "remove":
                names.pop(name, None)
            else:
                old, new = name.split("\0")
                names.pop(old, None)
                names[new] = inode

    # -- states ----------------------------------------------------------------------------------

    def leave(self, target: Path, rng: random.Random, style: str) -> None:
        """Write one possible state below `target`.

        `style`: "least" (nothing unsynced survived), "names" (all names, no unsynced bytes),
        "zeros" (all names and sizes, zeros for unsynced bytes), "all" (everything survived) or
        "mixed" (for each folder and file something between).
        """
        names = {folder: dict(entries) for folder, entries in self._durable.items()}
        for folder, waiting in self._waiting.items():
            count = len(waiting)
            if style == "least":
                count = 0
            elif style == "mixed":
                count = rng.randint(0, count)
            self._apply(folder, count, names)
        there = {""}
        for folder in sorted(self._folders.values()):
            parent = os.path.dirname(folder)
            if folder and parent in there and folder in names.get(parent, {}):
                there.add(folder)
                (target / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in there:
            for name, inode in names.get(folder, {}).items():
                if inode not in self._folders:
                    target.mkdir(parents=True, exist_ok=True)
                    (target / name).write_bytes(self._content(inode, rng, style))

    def _content(self, inode: int, rng: random.Random, style: str) -> bytes:
        file = self._inodes.get(inode, _Inode())
        if style == "all" or (not file.since and file.durable is not None):
            return bytes(file.now)
        durable = file.durable or b""
        if style in ("least", "names"):
            return durable
        if style == "zeros":
            return bytes(len(file.now))
        return rng.choice(
            [durable, bytes(file.now), bytes(file.now[: rng.randint(0, len(file.now))]),
             bytes(len(file.now))]
        )  # fmt: skip
