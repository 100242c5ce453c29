"""Published policies in byte-limited form, for comparison only: small, plain, and ours.

SIEVE (Zhang et al., NSDI 2024), S3-FIFO (Yang et al., SOSP 2023), and W-TinyLFU with aggregated
victims (Einziger et al., arXiv 2105.08770). Where the papers count files, these count bytes.
"""

from __future__ import annotations

from collections import OrderedDict

from benchmarks.replay import Cache

_MOST_USES = 3
_PROMOTED = 2
_SMALL = 0.1
_WINDOW = 0.01
_PROTECTED = 0.8
_AGED_AFTER = 10
_MOST_COUNT = 15


class Sieve(Cache):
    """One queue and a hand that spares what was asked for since it last came by.

    The hand goes from the oldest to the newest file, and stays where it took one out.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._size: dict[int, int] = {}
        self._visited: dict[int, bool] = {}
        self._newer: dict[int | None, int | None] = {None: None}  # None: before the oldest
        self._older: dict[int | None, int | None] = {None: None}  # None: behind the newest
        self._hand: int | None = None

    def request(self, key: int, size: int, tick: int) -> bool:
        if key in self._size:
            self._visited[key] = True
            return True
        if size <= self.limit:
            while self.used + size > self.limit:
                self._evict()
            newest = self._older[None]
            self._newer[newest], self._older[key] = key, newest
            self._newer[key], self._older[None] = None, key
            self._size[key], self._visited[key] = size, False
            self.used += size
        return False

    def _evict(self) -> None:
        at = self._hand if self._hand is not None else self._newer[None]
        while at is None or self._visited[at]:
            if at is not None:
                self._visited[at] = False
            at = self._newer[at]
        older, newer = self._older.pop(at), self._newer.pop(at)
        self._newer[older], self._older[newer] = newer, older
        self._hand = newer
        self.used -= self._size.pop(at)
        del self._visited[at]


class S3Fifo(Cache):
    """A small queue that most files leave soon, a main one, and a memory of what left the small."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._small: OrderedDict[int, int] = OrderedDict()
        self._main: OrderedDict[int, int] = OrderedDict()
        self._ghosts: OrderedDict[int, int] = OrderedDict()
        self._uses: dict[int, int] = {}
        self._in_small = self._in_ghosts = 0

    def request(self, key: int, size: int, tick: int) -> bool:
        if key in self._uses:
            self._uses[key] = min(_MOST_USES, self._uses[key] + 1)
            return True
        if size > self.limit:
            return False
        known = key in self._ghosts
        while self.used + size > self.limit:
            self._evict()
        if known:
            self._in_ghosts -= self._ghosts.pop(key, 0)
            self._main[key] = size
        else:
            self._small[key] = size
            self._in_small += size
        self._uses[key] = 0
        self.used += size
        return False

    def _evict(self) -> None:
        if self._small and (self._in_small >= _SMALL * self.limit or not self._main):
            self._evict_small()
        else:
            self._evict_main()

    def _evict_small(self) -> None:
        while self._small:
            key, size = self._small.popitem(last=False)
            self._in_small -= size
            if self._uses[key] < _PROMOTED:
                self._remember(key, size)
                self._gone(key, size)
                return
            self._uses[key] = 0
            self._main[key] = size

    def _evict_main(self) -> None:
        while self._main:
            key, size = self._main.popitem(last=False)
            if not self._uses[key]:
                self._gone(key, size)
                return
            self._uses[key] -= 1
            self._main[key] = size

    def _remember(self, key: int, size: int) -> None:
        self._ghosts[key] = size
        self._in_ghosts += size
        while self._in_ghosts > (1 - _SMALL) * self.limit:
            self._in_ghosts -= self._ghosts.popitem(last=False)[1]

    def _gone(self, key: int, size: int) -> None:
        del self._uses[key]
        self.used -= size


class WTinyLfu(Cache):
    """A small LRU window; who leaves it must have been asked for more often than all together
    that would have to leave the main part for it. Counts are exact, and halved now and then."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._window: OrderedDict[int, int] = OrderedDict()
        self._probation: OrderedDict[int, int] = OrderedDict()
        self._protected: OrderedDict[int, int] = OrderedDict()
        self._in_window = self._in_protected = self._in_probation = 0
        self._window_limit = max(1, int(limit * _WINDOW))
        self._main_limit = limit - self._window_limit
        self._counts: dict[int, int] = {}
        self._counted = 0

    @property
    def used(self) -> int:
        return self._in_window + self._in_probation + self._in_protected

    @used.setter
    def used(self, value: int) -> None:
        """Begins at 0; the parts are what is counted."""

    def request(self, key: int, size: int, tick: int) -> bool:
        self._count(key)
        if key in self._window:
            self._window.move_to_end(key)
            return True
        if key in self._protected:
            self._protected.move_to_end(key)
            return True
        if key in self._probation:
            self._promote(key, self._probation.pop(key))
            return True
        if size <= self.limit:
            self._window[key] = size
            self._in_window += size
            while self._in_window > self._window_limit:
                left, its_size = self._window.popitem(last=False)
                self._in_window -= its_size
                self._compete(left, its_size)
        return False

    def _count(self, key: int) -> None:
        self._counts[key] = min(_MOST_COUNT, self._counts.get(key, 0) + 1)
        self._counted += 1
        here = len(self._window) + len(self._probation) + len(self._protected)
        if self._counted >= _AGED_AFTER * max(64, here):
            self._counted //= 2
            halved = ((each, count // 2) for each, count in self._counts.items())
            self._counts = {each: count for each, count in halved if count}

    def _promote(self, key: int, size: int) -> None:
        self._in_probation -= size
        self._protected[key] = size
        self._in_protected += size
        while self._in_protected > _PROTECTED * self._main_limit:
            back, its_size = self._protected.popitem(last=False)
            self._in_protected -= its_size
            self._probation[back] = its_size
            self._in_probation += its_size

    def _compete(self, key: int, size: int) -> None:
        """Into the main part, or out."""
        need = self._in_probation + self._in_protected + size - self._main_limit
        if size > self._main_limit:
            return
        own, theirs = self._counts.get(key, 0), 0
        victims: list[tuple[OrderedDict[int, int], int]] = []
        for queue in (self._probation, self._protected):
            for each, its_size in queue.items():
                if need <= 0:
                    break
                victims.append((queue, each))
                theirs += self._counts.get(each, 0)
                need -= its_size
                if theirs >= own:
                    for where, spared in victims:
                        where.move_to_end(spared)
                    return
        for queue, each in victims:
            gone = queue.pop(each)
            if queue is self._probation:
                self._in_probation -= gone
            else:
                self._in_protected -= gone
        self._probation[key] = size
        self._in_probation += size
