"""Large files pass through a bounded amount of memory, in both directions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1 << 20
SIZE = 200 * MIB
LIMIT = 64 * MIB

SCRIPT = """
import hashlib, json, os, resource, sys
from cachestore.model import Attributes
from cachestore.remote.budget import Budget
from cachestore.remote.directory import DirectoryRemote
from cachestore.remote.fetching import fetch, verify_digest
from cachestore.remote.sending import send

folder, size, threshold = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def peak():
    try:  # what getrusage says includes the process that started this one
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

source, target = os.path.join(folder, "source"), os.path.join(folder, "target")
digest, block = hashlib.sha256(), os.urandom(1 << 20)
with open(source, "wb") as file:
    for _ in range(size >> 20):
        file.write(block)
        digest.update(block)
remote, budget = DirectoryRemote(os.path.join(folder, "bucket"), durable=False), Budget(48 << 20)
before = peak()
send(
    remote, "k", source, size=size, sha256=digest.hexdigest(), attributes=Attributes("a/b"),
    budget=budget, threshold=threshold, part_size=8 << 20, state={}, save_state=lambda _: None,
)
sent = peak()
fd = os.open(target, os.O_RDWR | os.O_CREAT)
fetched = fetch(
    remote, "k", lambda offset, data: os.pwrite(fd, data, offset), part_size=8 << 20, budget=budget
)
verify_digest(fd, fetched.info)
print(json.dumps({"sent": sent - before, "fetched": peak() - before, "size": fetched.info.size}))
"""


@pytest.mark.parametrize("threshold", [64 * MIB, 2 * SIZE])
def test_a_large_file_adds_little_memory(tmp_path: Path, threshold: int) -> None:
    pytest.importorskip("resource")
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(SIZE), str(threshold)],
        check=True,
        capture_output=True,
        text=True,
    )
    said = json.loads(run.stdout)
    assert said["size"] == SIZE
    assert said["sent"] < LIMIT
    assert said["fetched"] < LIMIT
