"""Every setting: its name, type, default, and what it means. The names in capitals are these."""

from __future__ import annotations

from typing import Annotated

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from cachestore.options import MIB
from cachestore.settings.kinds import (
    Aiming,
    AtLeastOne,
    BlockSize,
    ConfirmHours,
    Count,
    Evicting,
    Free,
    Hours,
    Mark,
    PartSize,
    Patterns,
    Prefixes,
    PrefixHours,
    Pressure,
    Seconds,
    Secret,
    Share,
    Size,
    Spec,
    Switch,
    Url,
    Verifying,
)
from cachestore.settings.watch_fields import WatchFields

_DAY = 86400.0


class Fields(WatchFields):
    """The values; `Settings` knows where they come from."""

    cache_ttl_hours: Annotated[
        Hours,
        Spec(
            "How long a copy is fresh after the bucket last confirmed it. 0: ask every time;"
            " `none`: never expires",
            live=True,
            option="ttl",
            group="How long copies are served",
        ),
    ] = 24.0
    cache_ttl_by_prefix: Annotated[
        PrefixHours,
        Spec(
            "Other times for keys that begin with a prefix, the longest one that fits, such as"
            " `segments/=6, renders/=30m`. What a put says comes first",
            live=True,
            option="ttl_by_prefix",
        ),
    ] = ()
    cache_immutable_prefixes: Annotated[
        Prefixes,
        Spec(
            "Keys that begin with one of these never change once written: their copies are never"
            " asked about, whatever else is said",
            live=True,
            option="immutable_prefixes",
        ),
    ] = ()
    cache_stale_while_revalidate: Annotated[
        Seconds,
        Spec(
            "For so long after that it is served at once and checked in the background",
            live=True,
            option="stale_while_revalidate",
        ),
    ] = 0.0
    cache_stale_if_error: Annotated[
        Seconds,
        Spec(
            "For so long it is served when the bucket cannot be asked",
            live=True,
            option="stale_if_error",
        ),
    ] = 7 * _DAY
    cache_negative_ttl: Annotated[
        Seconds,
        Spec("How long `no such key` is remembered", live=True, option="negative_ttl"),
    ] = 5.0
    cache_unused_after: Annotated[
        Seconds,
        Spec(
            "Copies that nobody read for the TTL and this time are removed",
            live=True,
            option="unused_after",
        ),
    ] = 7 * _DAY
    cache_revalidate_deadline: Annotated[
        Seconds,
        Spec(
            "How long a reader who has an expired copy waits for the bucket",
            live=True,
            option="revalidate_deadline",
        ),
    ] = 1.0
    cache_miss_deadline: Annotated[
        Seconds,
        Spec("How long a reader without a copy waits", live=True, option="miss_deadline"),
    ] = 30.0
    cache_verify: Annotated[
        Verifying,
        Spec(
            "Hash copies again before they are served: one in 64 looks, or at every read",
            live=True,
            option="verify",
        ),
    ] = "never"

    cache_max_bytes: Annotated[
        Size,
        Spec(
            "The cache takes at most this, downloads under way and the catalog included",
            live=True,
            option="cache_max_bytes",
            group="Space",
        ),
    ] = 5_000_000_000
    cache_transit_bytes: Annotated[
        Size,
        Spec(
            "Files that are handed out and not kept take at most this, besides",
            live=True,
            option="cache_transit_bytes",
        ),
    ] = 1_000_000_000
    cache_high_watermark: Annotated[
        Mark,
        Spec(
            "Copies are removed in the background when more of the limit is used. At 100 % each"
            " new one makes room for itself",
            live=True,
            option="cache_high",
        ),
    ] = 1.0
    cache_low_watermark: Annotated[
        Mark, Spec("They are removed until only this is used", live=True, option="cache_low")
    ] = 1.0
    cache_min_free: Annotated[
        Free,
        Spec(
            "Copies are removed when less of the disk is free: a share, or a size",
            live=True,
            option="cache_min_free",
        ),
    ] = 0.05
    cache_max_entries: Annotated[
        Count, Spec("At most so many copies; 0: no limit", live=True, option="cache_max_entries")
    ] = 0
    cache_admit_include: Annotated[
        Patterns,
        Spec(
            "Only files whose key matches one of these are kept (`*` is any text, `/` too)."
            " Others are handed out all the same",
            live=True,
            option="admit_include",
        ),
    ] = ()
    cache_admit_exclude: Annotated[
        Patterns,
        Spec(
            "Files whose key matches one of these are not kept", live=True, option="admit_exclude"
        ),
    ] = ()
    cache_admit_max_bytes: Annotated[
        Size,
        Spec("Larger files are not kept; 0: no limit", live=True, option="admit_max_bytes"),
    ] = 0
    cache_admit_min_uses: Annotated[
        AtLeastOne,
        Spec("A file is kept when it is asked for so often", live=True, option="admit_min_uses"),
    ] = 1
    cache_eviction: Annotated[
        Evicting,
        Spec(
            "What leaves when there is no room: `hz` learns which files are asked for again,"
            " `gdsf` counts requests, over bytes, fading; `lru` is the longest unread",
            live=True,
            option="eviction",
        ),
    ] = "hz"
    cache_objective: Annotated[
        Aiming,
        Spec(
            "What `hz` and `gdsf` save: time that misses take, their number, or their bytes",
            live=True,
            option="objective",
        ),
    ] = "time"
    cache_clean_interval: Annotated[
        Seconds, Spec("Time between clean-ups", live=True, option="janitor_interval")
    ] = 3600.0
    handout_grace: Annotated[
        Seconds,
        Spec("How long a path from `get()` stays readable", live=True, option="handout_grace"),
    ] = 60.0
    handout_copy_max: Annotated[
        Size,
        Spec(
            "Larger pending files are not copied for `get()`", live=True, option="handout_copy_max"
        ),
    ] = 64 * MIB
    spool_max_bytes: Annotated[
        Size,
        Spec("Pending bytes at most; 0: what the disk has", live=True, option="spool_max_bytes"),
    ] = 0
    spool_back_pressure: Annotated[
        Pressure,
        Spec(
            "What a put does when the spool is full: wait for space, go to the bucket itself, fail",
            live=True,
            option="back_pressure",
        ),
    ] = "block"
    spool_back_pressure_timeout: Annotated[
        Seconds,
        Spec("How long a put waits then", live=True, option="back_pressure_timeout"),
    ] = 60.0
    spool_lock_timeout: Annotated[
        Seconds,
        Spec("How long a put waits for another process", live=True, option="lock_timeout"),
    ] = 10.0

    upload_workers: Annotated[
        AtLeastOne,
        Spec("Uploads at a time", live=True, option="workers", group="Transfers"),
    ] = 4
    upload_in_flight_bytes: Annotated[
        Size, Spec("Memory for all transfers", live=True, option="in_flight_bytes")
    ] = 48 * MIB
    upload_part_size: Annotated[
        PartSize, Spec("Large files go in parts of this size", live=True, option="part_size")
    ] = 8 * MIB
    upload_multipart_threshold: Annotated[
        Size,
        Spec("Files from this size on go in parts", live=True, option="multipart_threshold"),
    ] = 64 * MIB
    download_parts: Annotated[
        AtLeastOne,
        Spec("Parts of one large file at a time", live=True, option="download_parts"),
    ] = 4
    block_bytes: Annotated[
        BlockSize,
        Spec(
            "Files larger than this are read block by block when a part is asked for; 0: never",
            live=True,
            option="block_bytes",
        ),
    ] = 4 * MIB
    read_ahead_bytes: Annotated[
        Size, Spec("Fetched at most ahead of who reads on", live=True, option="read_ahead_bytes")
    ] = 16 * MIB
    prefetch_head_bytes: Annotated[
        Size,
        Spec("Fetched too, from a file's beginning", live=True, option="prefetch_head_bytes"),
    ] = 0
    prefetch_tail_bytes: Annotated[
        Size,
        Spec(
            "The same from its end, where some formats keep their index",
            live=True,
            option="prefetch_tail_bytes",
        ),
    ] = 0
    upload_retry_base: Annotated[
        Seconds, Spec("The first pause after a failure; it doubles", live=True, option="retry_base")
    ] = 1.0
    upload_retry_cap: Annotated[
        Seconds, Spec("The longest pause", live=True, option="retry_cap")
    ] = 300.0
    upload_key_interval: Annotated[
        Seconds,
        Spec("Least time between two uploads of one key", live=True, option="key_interval"),
    ] = 1.0

    upload_max_bytes: Annotated[
        Size,
        Spec(
            "Uploads over HTTP may be at most this large",
            live=True,
            option="upload_max_bytes",
            group="Web",
        ),
    ] = 10_000_000
    upload_confirm_within: Annotated[
        ConfirmHours,
        Spec(
            "Direct uploads that were not confirmed so long after their URL's end are deleted (at"
            " least 2). `none`: never",
            live=True,
            option="upload_confirm_within",
        ),
    ] = 24.0
    web_memory_bytes: Annotated[
        Size,
        Spec(
            "Small files that are asked for over HTTP again are kept in each process's memory, at"
            " most this much; 0: none",
            live=True,
            option="web_memory_bytes",
        ),
    ] = 32 * MIB
    public_base_url: Annotated[
        Url,
        Spec(
            "Where the app's routes of cachestore.web are reached, for links to files that are not"
            " in the bucket",
            option="public_base_url",
        ),
    ] = None
    url_secret: Annotated[
        Secret,
        Spec("Signs those links; not set: one is made and kept in SPOOL_DIR", option="url_secret"),
    ] = None
    own_urls: Annotated[
        Switch,
        Spec(
            "`url()` always leads through the app (PUBLIC_BASE_URL), not only while a file waits"
            " for its upload",
            live=True,
            option="own_urls",
        ),
    ] = False

    alert_cache_bytes: Annotated[
        Size,
        Spec(
            "`health` warns when the cache holds more",
            live=True,
            option="alert_cache_bytes",
            group="Alerts",
        ),
    ] = 5_000_000_000
    alert_spool_bytes: Annotated[
        Size,
        Spec(
            "`health` warns when more waits for its upload; and when 90 % of SPOOL_MAX_BYTES do",
            live=True,
            option="alert_spool_bytes",
        ),
    ] = 5_000_000_000
    alert_queue: Annotated[
        Count, Spec("`health` warns when more operations wait", live=True, option="alert_queue")
    ] = 100
    alert_miss_rate: Annotated[
        Share,
        Spec(
            "`health` warns when more reads of the last ALERT_WINDOW missed",
            live=True,
            option="alert_miss_rate",
        ),
    ] = 0.5
    alert_miss_requests: Annotated[
        Count,
        Spec("It does so when there were so many reads", live=True, option="alert_miss_requests"),
    ] = 100
    alert_failed_uploads: Annotated[
        Count,
        Spec(
            "`health` warns when an upload is parked, and when in the last ALERT_WINDOW so many"
            " tries failed, and more than in the one before; 0: never",
            live=True,
            option="alert_failed_uploads",
        ),
    ] = 1
    alert_window: Annotated[
        Seconds, Spec("How far back these look", live=True, option="alert_window")
    ] = 900.0
    bucket_count_interval: Annotated[
        Seconds,
        Spec(
            "`health` tells what the bucket holds; it is listed so often, by one process for all"
            " (a billed request for each 1,000 objects). 0: never",
            live=True,
            option="bucket_count_interval",
        ),
    ] = 86400.0

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `sources` found: it knows several names per value and where each came from."""
        return (init_settings,)
