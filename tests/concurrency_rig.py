"""Stores on an R2 double whose requests can be held, for tests of what happens meanwhile."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from store_rig import make_options

from cachestore.errors import NotFound
from cachestore.options import Options, RemoteOptions
from cachestore.remote.s3 import S3Remote
from cachestore.testing.r2 import R2Double

PATIENCE = 60.0


def remote_on(double: R2Double, **fields: Any) -> RemoteOptions:
    """How to reach the double's bucket."""
    values: dict[str, Any] = {
        "bucket": double.bucket, "endpoint": double.endpoint, "access_key": double.access_key,
        "secret_key": double.secret_key, "conditional": True,
    }  # fmt: skip
    return RemoteOptions(**(values | fields))


def on_double(root: Path, double: R2Double, *, conditional: bool = True, **fields: Any) -> Options:
    """Options for the double."""
    remote = remote_on(double, conditional=conditional)
    return make_options(root, mode="remote", remote=remote, **fields)


def in_bucket(double: R2Double, key: str) -> bytes | None:
    """What the bucket has, None for nothing."""
    remote = S3Remote(remote_on(double), workers=1, in_flight=1)
    try:
        body = remote.get(key)
        assert body is not None
        with body as chunks:
            return b"".join(chunks)
    except NotFound:
        return None
    finally:
        remote.close()


class Asked:
    """A call on a thread of its own; `answer` waits for it and gives what it gave."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._value: Any = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._value = error

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def answer(self) -> Any:
        """What was returned, or the error that was raised."""
        self._thread.join(PATIENCE)
        assert self.done, "it did not end"
        return self._value


def line(child: subprocess.Popen[str]) -> list[str]:
    """The words of a child's next line."""
    assert child.stdout is not None
    return child.stdout.readline().split()


def tell(child: subprocess.Popen[str], text: str = "go") -> None:
    """A line for a child that reads one."""
    assert child.stdin is not None
    child.stdin.write(text + "\n")
    child.stdin.flush()


def bury(children: list[subprocess.Popen[str]]) -> None:
    """End what is left of children."""
    for child in children:
        child.kill()
        child.wait(30)
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()
