"""What the system tells of a folder, by watchdog. Only this module knows it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any, Protocol


class Heard(Protocol):
    """Who is told, from a thread of the observer. Paths are relative, with `/`."""

    def written(self, path: str) -> None:
        """A file was made or written to."""
        ...

    def closed(self, path: str) -> None:
        """A file was closed behind a writer, or renamed into place."""
        ...

    def gone(self, path: str) -> None:
        """A file was deleted, or renamed away."""
        ...

    def appeared(self, folder: str) -> None:
        """A folder was made, or renamed into place: files may lie in it already."""
        ...

    def missed(self) -> None:
        """The system dropped events."""
        ...


class Observing:
    """A folder that is watched, until `close`. `closes`: the end of writing is told."""

    def __init__(self, root: str, heard: Heard) -> None:
        """Raises `OSError` where the folder cannot be watched."""
        from watchdog.observers import Observer

        self._root = root
        self._heard = heard
        kind: Any = Observer
        self.closes = kind.__name__ == "InotifyObserver"
        # On inotify, what comes from outside of the folder is told as a move, too.
        self._observer: Any = kind(generate_full_events=True) if self.closes else kind()
        try:
            self._observer.schedule(_handler(self), root, recursive=True, event_filter=_kinds())
            self._observer.start()
        except BaseException:
            self.close()
            raise
        for emitter in self._observer.emitters:
            _hear_overflow(getattr(emitter, "_inotify", None), heard.missed)

    @property
    def alive(self) -> bool:
        """False once it hears nothing any more: the folder is gone, or a thread of it ended."""
        emitters = self._observer.emitters
        return bool(self._observer.is_alive() and emitters) and all(
            emitter.is_alive() for emitter in emitters
        )

    def take(self, event: Any) -> None:
        """One event of watchdog's."""
        source, target = self._relative(event.src_path), self._relative(event.dest_path)
        kind = event.event_type
        if event.is_directory:
            arrived = target if kind == "moved" else source
            if kind in ("created", "moved") and arrived:
                self._heard.appeared(arrived)
        elif kind == "moved":
            if source:
                self._heard.gone(source)
            if target:
                self._heard.closed(target)
        elif source and kind == "deleted":
            self._heard.gone(source)
        elif source and kind == "closed":
            self._heard.closed(source)
        elif source and kind in ("created", "modified"):
            self._heard.written(source)

    def _relative(self, path: str | bytes) -> str:
        """A path in the folder; "" for the folder itself, for none, and for what lies outside."""
        text = os.fsdecode(path)
        inside = self._root.rstrip(os.sep) + os.sep
        return text.removeprefix(inside).replace(os.sep, "/") if text.startswith(inside) else ""

    def close(self) -> None:
        """Hear nothing more."""
        with contextlib.suppress(RuntimeError):  # it was not started
            self._observer.stop()
            self._observer.join(5.0)


def _handler(observing: Observing) -> Any:
    from watchdog.events import FileSystemEvent, FileSystemEventHandler

    class Handler(FileSystemEventHandler):
        def on_any_event(self, event: FileSystemEvent) -> None:
            observing.take(event)

    return Handler()


def _kinds() -> list[Any]:
    """Not of reads: sending a file would be heard."""
    from watchdog import events

    return [
        events.FileCreatedEvent, events.FileModifiedEvent, events.FileClosedEvent,
        events.FileMovedEvent, events.FileDeletedEvent, events.DirCreatedEvent,
        events.DirMovedEvent, events.DirDeletedEvent,
    ]  # fmt: skip


def _hear_overflow(group: Any, call: Callable[[], None]) -> None:
    """Watchdog mends its own watches when the system's queue ran over, and tells nobody."""
    own = getattr(group, "on_queue_overflow", None)
    if own is None:
        return

    def mended() -> None:
        own()
        call()

    group.on_queue_overflow = mended
