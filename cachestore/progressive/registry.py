"""The partial copies that this process has open, and how they begin."""

from __future__ import annotations

import contextlib
import time
from contextlib import AbstractContextManager, ExitStack

from cachestore.errors import RangeNotSatisfiable
from cachestore.keys import Place
from cachestore.landed import Landed
from cachestore.local.forks import watch_forks
from cachestore.local.partial_rows import PartialRow
from cachestore.locks import ForkLock
from cachestore.policy.blocks import Layout
from cachestore.progressive.file import PartialFile
from cachestore.progressive.past import Passing
from cachestore.progressive.reader import Reading
from cachestore.progressive.tools import Tools
from cachestore.remote.base import RemoteBody

_PATIENCE = 1.0
_TRIES = 10


class Progressive:
    """Reads large objects block by block. One of these for each open store with a remote."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._open: dict[str, PartialFile] = {}
        self._lock = ForkLock()
        watch_forks(self)

    def before_fork(self) -> None:
        """Nothing: the parent's threads go on."""

    def after_fork(self, *, child: bool) -> None:
        if child:
            for file in self._open.values():
                file.renew()
            self._open.clear()  # who reads here gets descriptors and locks of this process

    @property
    def on(self) -> bool:
        """False where the settings say that every file comes as a whole."""
        return self._tools.options.block_bytes > 0

    # -- what is here already ----------------------------------------------------------------------

    def row(self, key: str, token: int) -> PartialRow | None:
        """The key's partial copy; `token` was read before."""
        return self._tools.partials.find(key, token)

    def file(self, row: PartialRow, place: Place) -> PartialFile | None:
        """A partial copy, opened; None if its file has gone."""
        with self._lock:
            there = self._open.get(row.part)
            if there is not None:
                return there
        fd = self._tools.partials.open(row)
        if fd is None:
            self._tools.partials.drop(row)
            return None
        self._tools.partials.used(row)
        return self._kept(PartialFile(row, fd, place, self._tools, self._closed))

    def reader(self, row: PartialRow, place: Place, *, begun: bool = False) -> Reading | None:
        """A reader of a partial copy; None if it has gone."""
        for _ in range(_TRIES):
            file = self.file(row, place)
            reader = None if file is None else file.reader(begun=begun)
            if reader is not None or file is None:
                return reader
        return None  # closed each time that it was found

    def _kept(self, file: PartialFile) -> PartialFile:
        with self._lock:
            there = self._open.setdefault(file.row.part, file)
        if there is not file:
            file.discard()
        return there

    def _closed(self, file: PartialFile) -> None:
        with self._lock:
            if self._open.get(file.row.part) is file:
                del self._open[file.row.part]

    def validated(self, row: PartialRow) -> None:
        self._tools.partials.validated(row)

    def drop(self, row: PartialRow) -> None:
        self._tools.partials.drop(row)

    # -- how one begins ----------------------------------------------------------------------------

    def probe(
        self, key: str, place: Place, at: int, token: int
    ) -> tuple[PartialFile | Passing | None, AbstractContextManager[RemoteBody] | None]:
        """Ask for the block of byte `at`: something to read from if the object is a large one;
        else the answer, if it holds the whole object; else nothing.

        Raises the errors of the remote, `NotFound` among them.
        """
        row = self.row(key, token)
        if row is not None:
            return self.file(row, place), None
        block = self._tools.options.block_bytes
        start = 0 if at < block else Layout(at + 1, block).start_of_page(at)
        try:
            answer = self._tools.remote.get(key, start=start, end=start - start % block + block)
        except RangeNotSatisfiable:  # shorter than that, or empty
            return self.probe(key, place, 0, token) if start else (None, None)
        assert answer is not None, "only if_none_match is answered with nothing"
        with ExitStack() as stack:
            body = stack.enter_context(answer)
            size = body.info.size
            if start == 0 and 0 <= size == body.length:
                stack.pop_all()
                return None, contextlib.closing(body)
            if size <= block or body.length < 0 or not body.info.etag:
                return None, None
            made = self._tools.partials.begin(key, place, token, body.info, block)
            if made is None:
                return Passing(self._tools.remote, body.info, block), None
            stack.pop_all()
        row, fd = made
        file = self._kept(PartialFile(row, fd, place, self._tools, self._closed))
        file.begin(start, body)
        return file, None

    def fill(self, file: PartialFile) -> Landed | None:
        """See `PartialFile.fill`; the silence of the key's download is counted meanwhile."""
        with self._tools.downloader.under_way(file.row.key) as progress:
            return file.fill(progress)

    def close(self) -> None:
        """Fetch nothing more; files that are open can be read as far as they are here."""
        with self._lock:
            files = list(self._open.values())
        end = time.monotonic() + _PATIENCE
        for file in files:
            file.stop(max(0.0, end - time.monotonic()))
        self._tools.pool.close()
        self._tools.partials.close()
