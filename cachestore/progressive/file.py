"""A large object that is read while it comes: all readers of this process share one of these."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from cachestore import events
from cachestore.errors import CacheFull, CacheStoreError, Corrupt, RemoteUnavailable, StoreClosed
from cachestore.keys import Place
from cachestore.landed import Landed
from cachestore.local.partial_rows import PartialRow
from cachestore.policy.blocks import Layout
from cachestore.progressive.job import Job, NoRoom
from cachestore.progressive.landing import Landing
from cachestore.progressive.past import PastTheCache, Replaced
from cachestore.progressive.reader import Reading
from cachestore.progressive.table import BlockTable
from cachestore.progressive.tools import Tools
from cachestore.remote.base import RemoteBody

_TURN = 0.25


class PartialFile(BlockTable):
    """A partial copy, open. `fetched`: bytes that came while it was.

    `on_idle` is called when the last reader has gone and no job is under way.
    """

    def __init__(
        self, row: PartialRow, fd: int, place: Place, tools: Tools,
        on_idle: Callable[[PartialFile], None],
    ) -> None:  # fmt: skip
        super().__init__(Layout(row.info.size, row.block))
        self.row = row
        self.fd = fd
        self.place = place
        self.landed: Landed | None = None
        self.fetched = 0
        self._tools = tools
        self._on_idle = on_idle
        self._validated = row.validated
        self._bypassed = False
        self._broken = False
        self._failed: BaseException | None = None
        self._readers: set[int] = set()
        self._using = 0
        self._inherited = False
        self._landing = False
        self._lander = Landing(self, tools)
        self._closed = False
        self._ended = False

    def renew(self) -> None:
        """In a forked child: the parent's threads do not live here."""
        super().renew()
        self._landing, self._using, self._inherited = False, 0, True

    # -- readers -----------------------------------------------------------------------------------

    def reader(self, *, begun: bool = False) -> Reading | None:
        """A new reader; None if it has just been closed."""
        with self._changed:
            if self._closed:
                return None
            ahead = self._tools.options.read_ahead_bytes // self.row.block
            past = PastTheCache(self._tools.remote, self.row.info, self.row.block)
            reader = Reading(self, ahead, past, begun=begun)
            reader.fetched = self.fetched
            self._readers.add(reader.id)
            return reader

    def leave(self, reader: Reading) -> None:
        if not reader.begun:
            here = max(0, reader.read - (self.fetched - reader.fetched))
            self._tools.events.emit(events.Hit(self.row.key, here, "partial"))
        with self._changed:
            self._readers.discard(reader.id)
            for job in set(self._flying.values()):
                job.readers.discard(reader.id)
            self._changed.notify_all()
        self._may_close()

    def _may_close(self) -> None:
        with self._changed:
            busy = self._using or self._flying or self._landing
            if self._closed or self._readers or busy:
                return
            self._closed = True
            self._on_idle(self)
        self.discard()

    def stop(self, seconds: float) -> None:
        """The store closes: nothing more is fetched. Waits so long until what came is noted."""
        with self._changed:
            self._ended = True
            for job in set(self._flying.values()):
                job.stop()
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._flying, seconds)

    def discard(self) -> None:
        """Let go of the file: its lock by name, as a process forked meanwhile has it too."""
        unlock, close = self._tools.files.unlock, self._tools.files.close
        for let_go in (close,) if self._inherited else (unlock, close):
            with contextlib.suppress(OSError):  # a page that the disk lost is found by its CRC-32
                let_go(self.fd)

    # -- reading -----------------------------------------------------------------------------------

    def read_at(self, reader: Reading, at: int, count: int) -> bytes:
        """See `Reading.read_at`."""
        end = min(at + count, self.layout.size)
        if at >= end:
            return b""
        with self._changed:
            self._using += 1
        try:
            return self._read(reader, at, end)
        finally:
            with self._changed:
                self._using -= 1
                gone = reader.id not in self._readers
            if gone:
                self._may_close()

    def _read(self, reader: Reading, at: int, end: int) -> bytes:
        here = 0 if self._broken else self._have(reader, at, end)
        if here:
            try:
                data = os.pread(self.fd, here, at)
                if data:
                    return data
                raise OSError(errno.EIO, "somebody made the file shorter")
            except OSError as error:
                self._bypass(error)
        return reader.past.read(at, end)

    def _have(self, reader: Reading, at: int, end: int) -> int:
        """Wait for bytes from `at` on; how many are here. 0: they are not had from the cache."""
        ahead = reader.ahead.after(at, end, self.layout)
        block = self.layout.block_of(at)
        job: Job | None = None
        while True:
            with self._changed:
                if reader.id not in self._readers:
                    raise ValueError("read of a closed file")
                if self._failed is not None:
                    raise self._failed
                here = self.layout.here(self._masks, at, end)
                if here or self._bypassed:
                    begun = self._begin_ahead(reader, ahead)
                    break
                if self._ended:
                    raise StoreClosed("the store was closed; what is not here cannot be read")
                flying = self._flying.get(block)
                if flying is None and job is not None and job.error is not None:
                    raise job.error
                begun = [] if flying else [self._new(block, block + 1, at, block + 1)]
                job = flying or begun[0]
                job.readers.add(reader.id)
            if begun:
                self._submit(begun)
                continue
            self._await(job)
        self._submit(begun)
        return here

    def _await(self, job: Job) -> None:
        """Until something came; gives up after a silence as long as the miss deadline."""
        with self._changed:
            if not job.done:
                self._changed.wait(_TURN)
        silence = self._tools.clock.monotonic() - job.moved
        if not job.done and silence > self._tools.options.miss_deadline:
            raise RemoteUnavailable(
                f"no bytes of {self.row.key!r} arrived for {silence:.0f} s; try again later"
            )

    def _begin_ahead(self, reader: Reading, ahead: range) -> list[Job]:
        """Under the lock: a job for the blocks ahead that nobody fetches yet."""
        for block in ahead:
            if block in self._flying:
                self._flying[block].readers.add(reader.id)
        jobs = [] if self._ended or self._bypassed else self._jobs_for(ahead)
        for job in jobs:
            job.readers.add(reader.id)
        return jobs

    def _jobs_for(self, blocks: range) -> list[Job]:
        """Under the lock: a job for the first run of blocks that nobody fetches yet, if any."""
        first, end = self._free_run(blocks)
        return [self._new(first, end, self.layout.span(first)[0], first)] if first < end else []

    def _new(
        self, first: int, end: int, at: int, urgent: int, body: RemoteBody | None = None
    ) -> Job:
        """Under the lock: a job, not begun yet."""
        at = self.layout.start_of_page(at)
        return self._take(Job(self, self._tools, first, end, at, urgent=urgent, body=body))

    def _submit(self, jobs: list[Job]) -> None:
        for number, job in enumerate(jobs):
            try:
                future = self._tools.pool.submit(job.run)
            except BaseException as error:
                for left in jobs[number:]:
                    left.fail(error)
                raise
            future.add_done_callback(partial(_see_to, job))

    def begin(self, at: int, body: RemoteBody) -> None:
        """Take what comes with an answer whose first byte is the one at `at`.

        And the ends of the file, where many formats keep their index, as far as that is asked for.
        """
        options, block = self._tools.options, self.layout.block_of(at)
        with self._changed:
            if self._closed:  # somebody read it meanwhile, and has gone
                body.close()
                return
            jobs = [self._new(block, block + 1, at, block + 1, body)]
            for blocks in self.layout.ends(
                options.prefetch_head_bytes, options.prefetch_tail_bytes
            ):
                jobs += self._jobs_for(blocks)
            for job in jobs:
                job.urgent = job.end
        self._submit(jobs)

    # -- the whole ---------------------------------------------------------------------------------

    def fill(self, progress: Callable[[], None]) -> Landed | None:
        """Fetch all that is missing; the file once it is whole. None: it is over, look again.

        `progress` is called as bytes come. Raises what hinders.
        """
        reader = self.reader()
        if reader is None:
            return None
        try:
            while self.landed is None:
                if not self._fill_on(reader, progress):
                    return None
            return self.landed
        finally:
            reader.close()

    def _fill_on(self, reader: Reading, progress: Callable[[], None]) -> bool:
        """A step of `fill`; False when the partial copy is over."""
        options = self._tools.options
        step = max(1, options.part_size // self.row.block)
        jobs: list[Job] = []
        with self._changed:
            if self._failed is not None:
                raise self._failed
            if self._ended:
                raise StoreClosed("the store was closed; open a new one")
            if self._bypassed:
                raise CacheFull(f"no room for all of {self.row.key!r}")
            under_way = set(self._flying.values())
            for first, end, at in self._free_runs(options.download_parts - len(under_way), step):
                jobs.append(self._new(first, end, at, end))
            for job in (*under_way, *jobs):
                job.readers.add(reader.id)
            waits = [*under_way, *jobs]
            nothing = not (jobs or under_way or self._landing)
        self._submit(jobs)
        if nothing:
            if not self._tools.partials.stays(self.row):
                self._over()
                return self.landed is not None
            self._submit_landing()
        with self._changed:
            self._changed.wait(_TURN)
        for job in waits:
            if job.done and job.error is not None:
                raise job.error
        now = self._tools.clock.monotonic()
        if self._landing or any(job.moved > now - _TURN for job in waits):
            progress()
        return True

    # -- the end of a job --------------------------------------------------------------------------

    def over(self, job: Job) -> None:
        """A job has ended."""
        self._judge(job.error)
        with self._changed:
            self.fetched += job.fetched
            if job.fetched and job.error is None:  # its condition was met
                self._validated = max(self._validated, job.began)
        whole = self._tools.partials.whole_blocks(self.row) if job.error is None else 0
        if whole == self.layout.count:
            self._submit_landing()  # before its last reader may close the file
        with self._changed:
            job.done = True
            for block in range(job.first, job.end):
                if self._flying.get(block) is job:
                    del self._flying[block]
            self._changed.notify_all()
        self._may_close()

    def _judge(self, error: BaseException | None) -> None:
        """What an error means for the others."""
        if isinstance(error, Replaced):
            self._tools.partials.drop(self.row)  # the next one who opens it has the newer version
        elif isinstance(error, NoRoom) and not self._tools.partials.stays(self.row):
            self._over()
        elif isinstance(error, NoRoom) or _is_disk(error):
            self._bypass(error)

    def _bypass(self, error: BaseException | None) -> None:
        """The cache does not take it: reads go on, past it."""
        with self._changed:
            told, self._bypassed = self._bypassed, True
            self._broken = self._broken or _is_disk(error)
            self._changed.notify_all()
        if not told:
            self._tools.events.emit(events.Trouble(self.row.key, "cache", f"bypassed: {error}"))

    def _over(self) -> None:
        """It is a copy by now, by another process, or was given up."""
        row = self._tools.downloader.copy_of(self.row.key)
        with self._changed:
            if row is not None and row.row is not None and _is_file(self.fd, row.row.inode):
                self.landed = row
                self._masks = {n: self.layout.whole(n) for n in range(self.layout.count)}
            else:
                self._bypassed = True
            self._changed.notify_all()

    # -- becoming a copy ---------------------------------------------------------------------------

    def _submit_landing(self) -> None:
        with self._changed:
            if self._landing or self.landed is not None or self._closed:
                return
            self._landing = True
        try:
            self._tools.pool.submit(self._land).add_done_callback(self._unless_closed)
        except StoreClosed:
            with self._changed:
                self._landing = False

    def _unless_closed(self, done: Future[None]) -> None:
        """The store closed before its turn came."""
        if isinstance(done.exception(), StoreClosed):
            with self._changed:
                self._landing = False
            self._may_close()

    def _land(self) -> None:
        partials, row = self._tools.partials, self.row
        try:
            if self._lander.begin():
                try:
                    self._land_alone()
                finally:
                    self._lander.end()
        except Corrupt as error:
            self._failed = error
            self._tools.events.emit(events.Trouble(row.key, "cache", str(error)))
            partials.drop(row)
        except OSError as error:
            if partials.stays(row):
                self._bypass(error)
            else:
                self._over()
        finally:
            with self._changed:
                self._landing = False
                self._changed.notify_all()
            self._may_close()

    def _land_alone(self) -> None:
        if self._tools.partials.stays(self.row):
            self.landed = self._lander.land(self.place, self._validated)
        else:
            self._over()


def _see_to(job: Job, done: Future[None]) -> None:
    """A job that the pool did not run has ended, too."""
    error = done.exception()
    if error is not None:
        job.fail(error)


def _is_disk(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and not isinstance(error, CacheStoreError)


def _is_file(fd: int, inode: int) -> bool:
    return os.fstat(fd).st_ino == inode
