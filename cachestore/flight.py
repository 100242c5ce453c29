"""Single-flight inside a process: one shared future for all who want the same thing.

Work runs on our own daemon threads, so a caller who goes away harms nobody, and nothing here
stops working while the interpreter shuts down.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

from cachestore.errors import StoreClosed
from cachestore.local.forks import watch_forks

T = TypeVar("T")
_IDLE_SECONDS = 10.0


class Pool:
    """At most `size` daemon threads, started when needed, ended when idle; a fork starts afresh."""

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._reset()
        watch_forks(self)

    def before_fork(self) -> None:
        """Nothing: the parent's threads go on."""

    def after_fork(self, *, child: bool) -> None:
        if child:
            self._reset()

    def _reset(self) -> None:
        self._ready = threading.Condition()
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run `work` on a thread; its future cannot be cancelled once it runs."""
        future: Future[T] = Future()
        with self._ready:
            if self._closed:
                raise StoreClosed("the store was closed; open a new one")
            self._jobs.append((future, work))
            if self._idle >= len(self._jobs):
                self._ready.notify()
            elif self._threads < self._size:
                self._threads += 1
                threading.Thread(target=self._serve, name=self._name, daemon=True).start()
        return future

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            future, work = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # handed to whoever waits
                future.set_exception(error)
            del future, work, job

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._ready:
            self._idle += 1
            try:
                while not self._jobs:
                    if self._closed or not self._ready.wait(_IDLE_SECONDS):
                        if self._jobs:
                            break
                        self._threads -= 1
                        return None
                return self._jobs.popleft()
            finally:
                self._idle -= 1

    def close(self) -> None:
        """Take no more work; what waits is failed with `StoreClosed`, what runs goes on."""
        with self._ready:
            self._closed = True
            left = list(self._jobs)
            self._jobs.clear()
            self._ready.notify_all()
        for future, _ in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(StoreClosed("the store was closed; open a new one"))


class Flights:
    """Work under way by name; whoever comes later gets the same future."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._under_way: dict[Hashable, Future[Any]] = {}
        self._lock = threading.Lock()
        watch_forks(self)

    def before_fork(self) -> None:
        """Nothing: the parent's threads go on."""

    def after_fork(self, *, child: bool) -> None:
        if child:
            self._under_way, self._lock = {}, threading.Lock()

    def join(self, name: Hashable, work: Callable[[], T]) -> Future[T]:
        """The future of the work called `name`, started now unless it is under way."""
        with self._lock:
            future: Future[T] | None = self._under_way.get(name)
            if future is not None:
                return future
            future = self._pool.submit(work)
            self._under_way[name] = future
        future.add_done_callback(lambda _: self._landed(name))
        return future

    def _landed(self, name: Hashable) -> None:
        with self._lock:
            self._under_way.pop(name, None)

    def close(self) -> None:
        self._pool.close()
