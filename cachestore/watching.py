"""Settings that are edited while a store is open: it reloads by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cachestore.errors import CacheStoreError
from cachestore.events import log
from cachestore.store import CacheStore

_SETTLE = 0.1
"""Seconds after a change: an editor may still be writing."""

_LOOK = 5.0
"""Seconds between two looks where the system says nothing, as on some mounts."""

Signature = list[tuple[int, int, int] | None]


class SettingsWatch:
    """Reloads `store` when one of `files` changes, appears or goes, until the store is closed.

    Settings that cannot be used are logged, and the store goes on with the former ones.
    """

    def __init__(self, store: CacheStore, files: Iterable[Path]) -> None:
        self._store = store
        self._files = [file.parent.resolve() / file.name for file in files]
        self._seen = self._signature()
        self._changed = threading.Event()
        self._stop = False
        self._observer = self._observe()
        self._thread = threading.Thread(target=self._run, name="cachestore-settings", daemon=True)
        self._thread.start()
        store.on_close(self.close)

    def _observe(self) -> Any:
        """An observer of the folders; None where the system has none to give."""
        from watchdog.events import FileSystemEvent, FileSystemEventHandler
        from watchdog.observers import Observer

        names, changed = set(map(str, self._files)), self._changed

        class Handler(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:
                if names & {str(event.src_path), str(event.dest_path)}:
                    changed.set()

        observer = Observer()
        try:
            for folder in sorted({file.parent for file in self._files}):
                observer.schedule(Handler(), str(folder), recursive=False)
            observer.start()
        except OSError as error:
            log.warning("cachestore: changes of settings are seen late: %s", error)
            return None
        return observer

    def _signature(self) -> Signature:
        """Tells one version of the files from another."""
        return [_version(file) for file in self._files]

    def _run(self) -> None:
        while not self._stop:
            self._changed.wait(_LOOK)
            if self._stop:
                return
            if self._changed.is_set():
                self._changed.clear()
                time.sleep(_SETTLE)  # the editor ends; a later change sets the event again
            seen = self._signature()
            if seen != self._seen:
                self._seen = seen
                self._reload()

    def _reload(self) -> None:
        try:
            self._store.reload()
        except CacheStoreError as error:
            log.warning("cachestore: the new settings cannot be used: %s", error)
        except Exception:  # the watch must outlive anything
            log.exception("cachestore: a reload failed")
        else:
            options = self._store.options
            log.info("cachestore: settings changed: mode %s (%s)", options.mode, options.reason)

    def close(self) -> None:
        """End; a reload that is under way ends first, for at most ten seconds."""
        self._stop = True
        self._changed.set()
        if self._observer is not None:
            self._observer.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join(10.0)


def _version(file: Path) -> tuple[int, int, int] | None:
    try:
        info = file.stat()
    except OSError:
        return None
    return info.st_ino, info.st_size, info.st_mtime_ns
