"""What became of an operation: the other end of a receipt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cachestore.core import Core
from cachestore.errors import CacheStoreError, TimedOut
from cachestore.presigning import Presigner
from cachestore.reading import Reader
from cachestore.receipts import State


class Follow:
    """Answers receipts; made once for a store."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.reader: Reader | None = None
        self.presigner: Presigner | None = None

    def path(self, key: str) -> Path:
        assert self.reader is not None
        hot = self._core.hot.path(key)
        return self.reader.get(key) if hot is None else hot

    def url(self, key: str) -> str:
        assert self.presigner is not None
        return self.presigner.url(key)

    def state(self, key: str, id: str) -> State:
        if self._core.is_local(key):
            return self._local(key, id)
        try:
            return self._core.uploader.wait(key, id, 0.0)
        except TimedOut:
            return "pending"

    def _local(self, key: str, id: str) -> State:
        record = self._core.folder.record(key)
        return "local" if record is not None and record.id == id else "superseded"

    def wait(self, key: str, id: str, timeout: float | None) -> State:
        if self._core.is_local(key):
            return self._local(key, id)
        self._core.warn_if_in_loop("waiting for an upload")
        return self._core.uploader.wait(key, id, timeout)

    def when_done(self, key: str, id: str, call: Callable[[State], None]) -> None:
        if self._core.is_local(key):
            self._call(call, self._local(key, id))
            return

        def done(outcome: State) -> None:
            self._call(call, outcome)

        self._core.uploader.when_done(key, id, done)

    def _call(self, call: Callable[[State], None], outcome: State) -> None:
        try:
            call(outcome)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # the caller's fault must not end our thread
            if not isinstance(error, CacheStoreError):
                self._core.trouble("callback", error)
