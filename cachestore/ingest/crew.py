"""Many hands for one run: jobs in, ends out, and a Ctrl-C that leaves nothing half done."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Generic, TypeVar

from cachestore.flight import Pool
from cachestore.ingest.turns import Stopped, Turns
from cachestore.remote.sources import SendCancelled

Job = TypeVar("Job")
End = TypeVar("End")

ENDING = 30.0
"""Seconds for which what is on its way may end after an interruption."""

_TICK = 0.2


class Crew(Generic[Job, End]):
    """`workers` threads that do `work(job)` for jobs in order.

    `take(job, end)` hears of every end in the caller's thread: what `work` returned or raised, or
    None if the run was stopped before it ended. `tick()` is called there now and then.
    """

    def __init__(
        self, turns: Turns, workers: int, name: str, *, work: Callable[[Job], End],
        take: Callable[[Job, End | Exception | None], None],
        tick: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._turns = turns
        self._work = work
        self._take = take
        self._tick = tick
        self._ahead = 4 * workers
        self._pool = Pool(workers, name)
        self._ended: queue.SimpleQueue[tuple[Job, End | Exception | None]] = queue.SimpleQueue()
        self._open = 0

    def run(self, jobs: Sequence[Job]) -> None:
        """Return when every job has ended; those not begun when the run stops end as None."""
        waiting = iter(jobs)
        try:
            self._submit(waiting)
            while self._open:
                self._next(self._take)
                self._submit(waiting)
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            self._turns.stop("interrupted" if interrupted else f"{type(error).__name__}: {error}")
            self._drain(self._take if interrupted else lambda job, end: None)
            raise
        for job in waiting:
            self._take(job, None)

    def _drain(self, take: Callable[[Job, End | Exception | None], None]) -> None:
        """What is on its way may end: nothing is written once `run` has returned."""
        limit = time.monotonic() + ENDING
        while self._open and time.monotonic() < limit:
            self._next(take)

    def _submit(self, waiting: Iterator[Job]) -> None:
        while self._open < self._ahead and not self._turns.stopped:
            job = next(waiting, None)
            if job is None:
                return
            self._open += 1
            self._pool.submit(partial(self._serve, job))

    def _serve(self, job: Job) -> None:
        end: End | Exception | None
        try:
            end = None if self._turns.stopped else self._work(job)
        except (Stopped, SendCancelled):
            end = None
        except Exception as error:  # told to the caller's thread
            end = error
        self._ended.put((job, end))

    def _next(self, take: Callable[[Job, End | Exception | None], None]) -> None:
        try:
            job, end = self._ended.get(timeout=_TICK)
        except queue.Empty:
            self._tick()
            return
        self._open -= 1
        take(job, end)

    def close(self) -> None:
        """Let the workers go."""
        self._pool.close()
