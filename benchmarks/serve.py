"""Hot 24 KB files over HTTP: `FileApp` beside Starlette's `FileResponse` and `rclone serve http`.

    python -m benchmarks.serve

Every server runs in a process of its own and is asked in turns, by `wrk` where that is installed,
else by processes of `benchmarks.load`. Ratios are the median of the ratios within a round.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import load
from benchmarks.rig import Line, alone, publish, report
from benchmarks.screen import say
from benchmarks.serve_apps import NAMES, SIZE, make_files, prefix

Ask = Callable[[int, list[str], int, float], float]
"""Port, paths, connections and seconds; gives requests per second."""

APPS = ("constant", "read_and_send", "cachestore", "file_response")
ROUNDS = 7
SECONDS = 3.0
CONNECTIONS = 16
_START_SECONDS = 60.0
_NAMES = {
    "file_response": "Starlette FileResponse",
    "cachestore": "cachestore FileApp",
    "constant": "uvicorn, bytes in memory",
    "read_and_send": "uvicorn, open + read",
    "rclone": "rclone serve http, full VFS cache",
}


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    port: int
    process: subprocess.Popen[bytes]

    def processor(self) -> float:
        """Seconds of processor time so far, of all its threads."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one server did in one round: requests in a second, processor seconds for each."""

    rate: float
    cost: float


Found = dict[str, list[Turn]]


def run(root: Path) -> None:
    """Print, and write, requests per second side by side."""
    found = measure(root, ROUNDS, SECONDS)
    for yardstick, target in (("file_response", "at least 5, in the end 8"),
                              ("rclone", "at least 1, in the end 1.3")):  # fmt: skip
        if yardstick in found:
            title = f"Hot files of {SIZE} bytes over HTTP, seconds for one request"
            report(f"serve_{yardstick}", title, _lines(found, yardstick))
            ratio = ratio_of(found, "cachestore", yardstick)
            say(f"cachestore is {ratio:.2f} times {_NAMES[yardstick]}; target: {target}")
    ceiling = ratio_of(found, "cachestore", "constant")
    rows = [
        {"server": _NAMES[name],
         "requests/s": round(statistics.median(turn.rate for turn in turns)),
         "processor µs": statistics.median(turn.cost for turn in turns) * 1e6}
        for name, turns in found.items()
    ]  # fmt: skip
    told = f"{ceiling:.2f} of what uvicorn itself can do with one process"
    publish("serve", "Hot files over HTTP", rows, f"cachestore answers {told}")


def measure(root: Path, rounds: int, seconds: float, ask: Ask | None = None) -> Found:
    """What every server did in each round. `ask`: the load, by default the best that is here."""
    make_files(root)
    ask = ask or (_with_wrk if shutil.which("wrk") else load.rate)
    with ExitStack() as stack:
        servers = {name: stack.enter_context(_uvicorn(root, name)) for name in APPS}
        if rclone := _rclone_program():
            servers["rclone"] = stack.enter_context(_rclone(root, rclone))
        for name, server in servers.items():
            _check(name, server.port)
            ask(server.port, _paths(), CONNECTIONS, seconds / 3)  # once, for nothing
        found: Found = {name: [] for name in servers}
        for _ in range(rounds):
            for name, server in servers.items():
                found[name].append(_turn(server, ask, seconds))
    return found


def _turn(server: Server, ask: Ask, seconds: float) -> Turn:
    before, start = server.processor(), time.perf_counter()
    rate = ask(server.port, _paths(), CONNECTIONS, seconds)
    # A load generator needs some time to begin, in which nothing is asked.
    count = rate * min(seconds, time.perf_counter() - start)
    return Turn(rate, (server.processor() - before) / max(1.0, count))


def _paths() -> list[str]:
    return [f"/{prefix(name)}" for name in NAMES]


def ratio_of(found: Found, name: str, yardstick: str) -> float:
    """How many times as many requests `name` answers: the median of the rounds' ratios."""
    pairs = zip(found[name], found[yardstick], strict=True)
    return statistics.median(turn.rate / base.rate for turn, base in pairs)


def _lines(found: Found, yardstick: str) -> list[Line]:
    """Seconds for one request; `ratio` to the yardstick's."""
    lines = []
    for name in [yardstick, *(name for name in found if name != yardstick)]:
        rates = [turn.rate for turn in found[name]]
        ratio = 1 / ratio_of(found, name, yardstick)
        lines.append(Line(_NAMES[name], 1 / max(rates), 1 / statistics.median(rates), ratio))
    return lines


# -- servers ---------------------------------------------------------------------------------------


@contextmanager
def _uvicorn(root: Path, name: str) -> Iterator[Server]:
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", f"benchmarks.serve_apps:{name}", "--factory"]
    command += ["--port", str(port), "--log-level", "warning", "--no-access-log"]
    with _running(command, port, {"SERVE_ROOT": str(root)}) as process:
        yield Server(port, process)


def _rclone_program() -> str | None:
    beside = str(Path(sys.executable).parent)
    return shutil.which("rclone", path=beside) or shutil.which("rclone")


@contextmanager
def _rclone(root: Path, program: str) -> Iterator[Server]:
    port = _free_port()
    command = [program, "serve", "http", str(root / "files"), "--addr", f"127.0.0.1:{port}"]
    command += ["--vfs-cache-mode", "full", "--cache-dir", str(root / "rclone"), "--read-only"]
    command += ["--dir-cache-time", "24h", "--config", os.devnull]
    with _running(command, port, {}) as process:
        yield Server(port, process)


@contextmanager
def _running(
    command: list[str], port: int, env: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A server until the end of the block; it is there when this begins."""
    process = subprocess.Popen(command, env={**os.environ, **env}, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + _START_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[:4]} did not start")
            time.sleep(0.05)  # between two looks, up to the deadline above
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _check(name: str, port: int) -> None:
    """The bytes are right, before anybody counts them."""
    for number, path in enumerate(_paths()):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            body = answer.read()
        if body != bytes([number]) * SIZE:
            raise RuntimeError(f"{name} answers {path} with other bytes")


# -- load ------------------------------------------------------------------------------------------

_SCRIPT = """
local paths = {%s}
local n = 0
request = function()
  n = n %% #paths + 1
  return wrk.format("GET", paths[n])
end
done = function(summary, latency, requests)
  local bad = summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.status + summary.errors.timeout
  io.write(string.format("rate %%f bad %%d\\n", summary.requests / summary.duration * 1e6, bad))
end
"""


def _with_wrk(port: int, paths: list[str], connections: int, seconds: float) -> float:
    """Requests per second by `wrk`, which takes whole seconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT % ", ".join(f'"{path}"' for path in paths))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
        command += ["-s", script.name, f"http://127.0.0.1:{port}/"]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = out.rsplit("rate ", 1)[-1].split()
    if int(words[2]):
        raise RuntimeError(f"{words[2]} requests failed")
    return float(words[0])


if __name__ == "__main__":
    alone(run)
