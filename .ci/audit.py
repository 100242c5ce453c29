"""Ask for known vulnerabilities of what a user of the package installs (not of test tools).

Exits 1 if there is one, 0 if there is none or, loudly, when nobody could be asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib import metadata

from packaging.requirements import Requirement

# diskcache unpickles what is in its folder; our `Disk` refuses pickle, so it does not apply.
IGNORED = ["CVE-2025-69872", "GHSA-w8v5-vhqr-4h9v"]
SECONDS = 60


def shipped(root: str = "cachestore-r2[all]") -> dict[str, str]:
    """Name and version of every installed package that `root` needs."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    todo = [Requirement(root)]
    while todo:
        wanted = todo.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        package = metadata.distribution(wanted.name)
        found[package.name] = package.version
        for extra in ["", *wanted.extras]:
            for text in package.requires or []:
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    todo.append(needed)
    del found[Requirement(root).name]
    return found


def audit(packages: dict[str, str]) -> list[dict[str, object]]:
    """What pip-audit says of each package; empty if it could not say anything."""
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "-f", "json"]
    for name in IGNORED:
        command += ["--ignore-vuln", name]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listing:
        listing.writelines(f"{name}=={version}\n" for name, version in packages.items())
        listing.flush()
        try:
            run = subprocess.run(
                [*command, "-r", listing.name], capture_output=True, text=True, timeout=SECONDS
            )
            answer = json.loads(run.stdout)
        except (subprocess.TimeoutExpired, ValueError):
            return []
    # A service that knows no package at all is not one that found nothing.
    return [entry for entry in answer["dependencies"] if "skip_reason" not in entry]


def main() -> int:
    packages = shipped()
    answered = audit(packages)
    bad = [entry for entry in answered if entry["vulns"]]
    for entry in bad:
        print(f"vulnerable: {entry['name']} {entry['version']}: {json.dumps(entry['vulns'])}")
    if not answered:
        print("skipped: pip-audit, its vulnerability service cannot be reached")
    else:
        print(
            f"pip-audit: {len(answered)} of {len(packages)} packages asked, {len(bad)} vulnerable"
        )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
