"""Every setting: its name, type, default, and what it means. The names in capitals are these."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from cachestore.options import MIB
from cachestore.settings.kinds import (
    Aiming,
    AtLeastOne,
    Count,
    EndpointText,
    Evicting,
    Folder,
    Free,
    Hours,
    Jurisdiction,
    Mark,
    MaybeFile,
    MaybeSwitch,
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
    Text,
    Url,
    Verifying,
)

_DAY = 86400.0


class Fields(BaseSettings):
    """The values; `Settings` knows where they come from."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True
    )

    env_file: Annotated[
        MaybeFile,
        Spec(
            "Where settings are read that the environment does not have. As an argument, or in the"
            " environment as CACHESTORE_ENV_FILE only. A file that is named must exist",
            group="Files and folders",
        ),
    ] = None
    cache_dir: Annotated[
        Folder,
        Spec("Clean copies of what the bucket has. May be deleted at any time", option="cache_dir"),
    ] = Path("cache")
    spool_dir: Annotated[
        Folder,
        Spec(
            "What the bucket does not have yet. Never delete it: it is the only copy",
            option="spool_dir",
        ),
    ] = Path("spool")
    local_dir: Annotated[
        Folder, Spec("The storage while R2 is off: plain files", option="local_dir")
    ] = Path("output")
    local_only_prefixes: Annotated[
        Prefixes,
        Spec(
            "Keys that begin with one of these stay in LOCAL_DIR and are never sent",
            option="local_only_prefixes",
        ),
    ] = ()

    r2_mock_mode: Annotated[
        Switch,
        Spec(
            "Private folders stand in for R2 and are gone at exit; wins over all other switches",
            group="Switches",
        ),
    ] = False
    use_r2_storage: Annotated[
        MaybeSwitch,
        Spec("Use the bucket. Not set: when any R2_* credential is set", live=True),
    ] = None
    fallback_to_local: Annotated[
        Switch,
        Spec("Keep files in LOCAL_DIR when the credentials are incomplete; else fail", live=True),
    ] = True

    r2_account_id: Annotated[
        Text, Spec("Cloudflare's account id; makes the endpoint", group="Cloudflare R2")
    ] = None
    cloudflare_account_id: Annotated[Text, Spec("Used where R2_ACCOUNT_ID is not set")] = None
    r2_access_key_id: Annotated[Secret, Spec("The access key's id")] = None
    r2_secret_access_key: Annotated[
        Secret, Spec("The access key's secret, as the dashboard shows it")
    ] = None
    r2_session_token: Annotated[Secret, Spec("Of temporary credentials")] = None
    r2_bucket_name: Annotated[Text, Spec("The bucket", also=("R2_BUCKET",))] = None
    r2_endpoint: Annotated[
        EndpointText,
        Spec(
            "The endpoint, instead of the one made from the account id; {account_id} is filled in"
        ),
    ] = None
    r2_endpoint_url: Annotated[
        EndpointText, Spec("The same; an error if both are set and differ")
    ] = None
    r2_jurisdiction: Annotated[Jurisdiction, Spec("Where the bucket was made")] = None
    r2_region: Annotated[Text, Spec("Not set: `auto`")] = None
    r2_public_url: Annotated[
        Url, Spec("The bucket's public address; `url()` gives links there")
    ] = None

    aws_access_key_id: Annotated[
        Secret,
        Spec("The access key's id; used when no R2_* key or endpoint is set", group="Plain S3"),
    ] = None
    aws_secret_access_key: Annotated[Secret, Spec("The access key's secret")] = None
    aws_session_token: Annotated[Secret, Spec("Of temporary credentials")] = None
    s3_bucket: Annotated[
        Text, Spec("The bucket; not set: R2_BUCKET_NAME", also=("AWS_S3_BUCKET",))
    ] = None
    aws_endpoint_url_s3: Annotated[
        EndpointText, Spec("The endpoint; Amazon's too must be named")
    ] = None
    aws_endpoint_url: Annotated[EndpointText, Spec("Used where AWS_ENDPOINT_URL_S3 is not set")] = (
        None
    )
    aws_default_region: Annotated[
        Text, Spec("Not set: the one in Amazon's endpoint, else `us-east-1`")
    ] = None
    conditional_put: Annotated[
        MaybeSwitch,
        Spec("The host honours If-Match on PUT. Not set: true for R2 and Amazon, false elsewhere"),
    ] = None

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
        Spec("Files that are not kept take at most this", live=True, option="cache_transit_bytes"),
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
            " `lru` is the longest unread",
            live=True,
            option="eviction",
        ),
    ] = "hz"
    cache_objective: Annotated[
        Aiming,
        Spec(
            "What `hz` saves: time that misses take, their number, or their bytes",
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
    alert_queue: Annotated[
        Count, Spec("`health` warns when more operations wait", live=True, option="alert_queue")
    ] = 100
    alert_miss_rate: Annotated[
        Share, Spec("`health` warns when more reads miss", live=True, option="alert_miss_rate")
    ] = 0.5

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
