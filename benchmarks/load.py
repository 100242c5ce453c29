"""A load generator where there is no `wrk`: keep-alive sockets in processes of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from typing import Any

PROCESSES = max(1, (os.cpu_count() or 2) // 2)


class _Client(asyncio.Protocol):
    """One connection that asks for one path after the other, never two at a time."""

    def __init__(self, requests: list[bytes], first: int, end: float, done: Any) -> None:
        self._requests = requests
        self._next = first
        self._end = end
        self._done = done
        self._left = 0
        self._head = b""
        self.count = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        if time.perf_counter() >= self._end:
            self._transport.close()
            return
        self._head, self._left = b"", -1
        self._next = (self._next + 1) % len(self._requests)
        self._transport.write(self._requests[self._next])

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            at = self._head.find(b"\r\n\r\n")
            if at < 0:
                return
            self._left = _length(self._head[:at]) - (len(self._head) - at - 4)
        else:
            self._left -= len(data)
        if self._left == 0:
            self.count += 1
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(self.count)


def _length(head: bytes) -> int:
    """Bytes of the body; fails for anything but 200."""
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.split(b"\r\n", 1)[0].decode("latin-1"))
    at = head.lower().index(b"content-length:")
    return int(head[at + 15 :].split(b"\r\n", 1)[0])


async def _run(port: int, requests: list[bytes], connections: int, seconds: float) -> int:
    loop = asyncio.get_running_loop()
    end = time.perf_counter() + seconds
    ends = []
    for number in range(connections):
        done = loop.create_future()
        await loop.create_connection(
            lambda first=number, done=done: _Client(requests, first, end, done), "127.0.0.1", port
        )
        ends.append(done)
    return sum(await asyncio.gather(*ends))


def _process(port: int, requests: list[bytes], connections: int, seconds: float, out: Any) -> None:
    out.put(asyncio.run(_run(port, requests, connections, seconds)))


def rate(port: int, paths: list[str], connections: int, seconds: float) -> float:
    """Requests per second of 200 answers, over `connections` in all."""
    requests = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths]
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    share = max(1, connections // PROCESSES)
    workers = [
        context.Process(target=_process, args=(port, requests, share, seconds, out))
        for _ in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    counts = [out.get(timeout=seconds + 60) for _ in workers]
    for worker in workers:
        worker.join()
    return sum(counts) / seconds
