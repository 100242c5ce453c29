"""What a store is built from: plain values, already decided. `settings` makes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cachestore.errors import ConfigError

MIB = 1 << 20
BLOCK_STEP = 64 << 10
Mode = Literal["remote", "local", "mock"]
BackPressure = Literal["block", "through", "raise"]
Eviction = Literal["hz", "gdsf", "lru"]
Objective = Literal["time", "object", "bytes"]
Verify = Literal["never", "sample", "always"]


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """How to reach one bucket. Secrets are never shown by `repr`.

    `conditional`: whether the host honours If-Match and If-None-Match on PUT.
    """

    bucket: str
    endpoint: str
    region: str = "auto"
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    session_token: str | None = field(default=None, repr=False)
    public_url: str | None = None
    conditional: bool = False
    kind: Literal["r2", "s3", "directory", "memory"] = "s3"


@dataclass(frozen=True, slots=True)
class Options:
    """All that the layers below the settings need. Times in seconds, sizes in bytes."""

    cache_dir: Path
    spool_dir: Path
    local_dir: Path
    mode: Mode = "local"
    reason: str = "nothing configured"
    degraded: bool = False
    remote: RemoteOptions | None = None
    shadow: bool = False
    mock_dir: Path | None = None
    mock_private: bool = False
    local_only_prefixes: tuple[str, ...] = ()

    ttl: float | None = 24 * 3600.0
    ttl_by_prefix: tuple[tuple[str, float | None], ...] = ()
    immutable_prefixes: tuple[str, ...] = ()
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 7 * 86400.0
    negative_ttl: float = 5.0
    unused_after: float = 7 * 86400.0
    revalidate_deadline: float = 1.0
    miss_deadline: float = 30.0
    flight_patience: float = 10.0

    verify: Verify = "never"

    eviction: Eviction = "hz"
    objective: Objective = "time"

    cache_max_bytes: int = 5_000_000_000
    cache_transit_bytes: int = 1_000_000_000
    cache_min_free: float = 0.05
    cache_max_entries: int = 0
    cache_high: float = 1.0
    cache_low: float = 1.0
    admit_include: tuple[str, ...] = ()
    admit_exclude: tuple[str, ...] = ()
    admit_max_bytes: int = 0
    admit_min_uses: int = 1
    handout_grace: float = 60.0
    handout_copy_max: int = 64 * MIB
    janitor_interval: float = 3600.0
    sync_after: float = 30.0

    spool_max_bytes: int = 0
    back_pressure: BackPressure = "block"
    back_pressure_timeout: float = 60.0
    lock_timeout: float = 10.0

    upload_pause: bool = False
    watch: bool = False
    workers: int = 4
    in_flight_bytes: int = 48 * MIB
    part_size: int = 8 * MIB
    multipart_threshold: int = 64 * MIB
    download_parts: int = 4
    block_bytes: int = 4 * MIB
    read_ahead_bytes: int = 16 * MIB
    prefetch_head_bytes: int = 0
    prefetch_tail_bytes: int = 0
    retry_base: float = 1.0
    retry_cap: float = 300.0
    key_interval: float = 1.0
    doubt_wait: float = 15.0
    leader_interval: float = 1.0

    upload_max_bytes: int = 10_000_000
    upload_confirm_within: float | None = 86400.0
    web_memory_bytes: int = 32 * MIB
    public_base_url: str | None = None
    url_secret: str | None = field(default=None, repr=False)
    own_urls: bool = False
    watch_active_hours: bool = True
    watch_ingest_hours: str | None = None
    watch_upload_hours: str | None = None

    alert_cache_bytes: int = 5_000_000_000
    alert_spool_bytes: int = 5_000_000_000
    alert_queue: int = 100
    alert_miss_rate: float = 0.5
    alert_miss_requests: int = 100
    alert_failed_uploads: int = 1
    alert_window: float = 900.0
    bucket_count_interval: float = 86400.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0:
                raise ConfigError(f"{name} is {value}; it cannot be negative")
        for prefix, ttl in self.ttl_by_prefix:
            if ttl is not None and not ttl >= 0:
                raise ConfigError(f"the ttl of {prefix} is {ttl} seconds; it cannot be negative")
        if not self.cache_low <= self.cache_high <= 1:
            raise ConfigError("the low watermark is at most the high one, and that at most 100 %")
        if self.workers < 1:
            raise ConfigError("workers must be at least 1")
        if self.block_bytes % BLOCK_STEP:
            raise ConfigError(f"block_bytes must be a multiple of {BLOCK_STEP} bytes, or 0")
        if self.part_size < 5 * MIB:
            raise ConfigError("part_size must be at least 5 MiB, the smallest part S3 takes")
