"""An example for each command, shown at the end of its help. A test wants every one."""

from __future__ import annotations

EXAMPLES = {
    "demo": "cachestore demo --files 50",
    "doctor": "cachestore doctor",
    "put": "cachestore put a.wav songs/a.wav --wait",
    "get": "cachestore get songs/a.wav copy.wav",
    "cat": "cachestore cat songs/a.wav | aplay",
    "ls": "cachestore ls songs/ -r",
    "stat": "cachestore stat songs/a.wav",
    "rm": "cachestore rm -r songs/old/",
    "url": "cachestore url songs/a.wav --expires 600",
    "sync": "cachestore sync snapshots/ --prefix snapshots --since 24h --limit 100",
    "export": "cachestore export snapshots/2026/01/ january/",
    "migrate": "cachestore migrate --from-bucket old-bucket --verify",
    "backup": "cachestore backup training.db --prefix database-exports --every daily --keep 8",
    "prune": "cachestore prune snapshots/ --older-than 30d --keep-tagged label=training --dry-run",
    "lifecycle": "cachestore lifecycle apply --expire tmp/=7d --abort-uploads 2d",
    "watch": "cachestore watch snapshots/ --every 15m --upload-hours 20:00-06:00",
    "queue": "cachestore queue",
    "flush": "cachestore flush --timeout 60",
    "retry": "cachestore retry songs/a.wav",
    "stats": "cachestore stats --days 1",
    "dashboard": "cachestore dashboard",
    "clean": "cachestore clean",
    "fsck": "cachestore fsck --deep",
    "flags": "cachestore flags set USE_R2_STORAGE=false UPLOAD_PAUSE=true",
}


def example(name: str) -> str | None:
    """The last paragraph of a command's help."""
    found = EXAMPLES.get(name)
    return None if found is None else f"Example: {found}"
