"""Which blocks of a file are here, and who fetches which."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from cachestore.policy.blocks import Layout
from cachestore.progressive.job import Job


class BlockTable:
    """Kept under one lock, whose condition is told of every change."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._masks: dict[int, int] = {}
        self._flying: dict[int, Job] = {}
        self._changed = threading.Condition()

    def renew(self) -> None:
        """In a forked child: nobody fetches anything here."""
        self._changed = threading.Condition()
        self._flying.clear()

    def mask(self, block: int) -> int:
        """The pages of a block that are here."""
        return self._masks.get(block, 0)

    def mark(self, block: int, pages: int) -> None:
        """These pages came."""
        with self._changed:
            self._masks[block] = self._masks.get(block, 0) | pages
            self._changed.notify_all()

    def _is_free(self, block: int) -> bool:
        """Under the lock: it is not here to the last page, and on nobody's way."""
        whole = self._masks.get(block, 0) == self.layout.whole(block)
        return not whole and block not in self._flying

    def _free_run(self, blocks: Iterable[int]) -> tuple[int, int]:
        """Under the lock: the first run of free ones; empty where there is none."""
        wanted = [block for block in blocks if self._is_free(block)]
        first = end = wanted[0] if wanted else 0
        while end in wanted:
            end += 1
        return first, end

    def _free_runs(self, most: int, step: int) -> list[tuple[int, int, int]]:
        """Under the lock: at most so many runs of free blocks, none longer than `step`.

        Each with the first byte that is missing.
        """
        free = [block for block in range(self.layout.count) if self._is_free(block)]
        runs: list[tuple[int, int, int]] = []
        while free and len(runs) < most:
            first, end = free[0], free[0] + 1
            while end in free[:step]:
                end += 1
            free = free[end - first :]
            mask = self._masks.get(first, 0)
            page = (mask ^ (mask + 1)).bit_length() - 1  # the lowest that is not set
            runs.append((first, end, self.layout.page_span(first, page)[0]))
        return runs

    def _take(self, job: Job) -> Job:
        """Under the lock: these blocks are a job's."""
        self._flying.update(dict.fromkeys(range(job.first, job.end), job))
        return job

    def shorten(self, job: Job, end: int) -> None:
        """Another process fetches a job's blocks from `end` on."""
        with self._changed:
            for block in range(end, job.end):
                self._flying.pop(block, None)
            job.end = end
            self._changed.notify_all()

    def wanted(self, job: Job) -> bool:
        """False when nobody waits for the rest of a job's blocks."""
        if job.readers:
            return True
        block = job.first
        while block < job.end and self.mask(block) == self.layout.whole(block):
            block += 1
        return block < job.urgent

    def ended(self, job: Job, block: int) -> None:
        """A block of a job is whole."""
        with self._changed:
            if self._flying.get(block) is job:
                del self._flying[block]
