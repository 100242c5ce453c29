"""Short words for remotes in tests: put, read, list, and many threads at a time."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable

from cachestore.model import Attributes, RemoteObject
from cachestore.remote.base import RemoteStore

PLAIN = Attributes("application/octet-stream")


def put(
    remote: RemoteStore,
    key: str,
    data: bytes,
    attributes: Attributes = PLAIN,
    **conditions: str | None,
) -> RemoteObject:
    """Store bytes with their digest."""
    return remote.put(
        key,
        io.BytesIO(data),
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        attributes=attributes,
        **conditions,
    )


def read(remote: RemoteStore, key: str, start: int = 0, end: int | None = None) -> bytes:
    """All bytes of one answer."""
    answer = remote.get(key, start=start, end=end)
    assert answer is not None
    with answer as body:
        data = b"".join(body)
        assert body.length == len(data)
        return data


def keys_of(remote: RemoteStore, prefix: str, **options: str | None) -> list[str]:
    """The keys of a whole listing."""
    return [obj.key for page in remote.list(prefix, **options) for obj in page.objects]


def prefixes_of(remote: RemoteStore, prefix: str, delimiter: str) -> list[str]:
    """The common prefixes of a whole listing."""
    return [name for page in remote.list(prefix, delimiter=delimiter) for name in page.prefixes]


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work(0)` to `work(count - 1)` at the same time; raise what the first failed with."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
