"""Settings of folders, switches and the remote; the others are in `fields`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic_settings import BaseSettings, SettingsConfigDict

from cachestore.settings.kinds import (
    EndpointText,
    Folder,
    Jurisdiction,
    MaybeFile,
    MaybeSwitch,
    Prefixes,
    Secret,
    Spec,
    Switch,
    Text,
    Url,
)


class RemoteFields(BaseSettings):
    """The values that say where files are kept."""

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

    r2_shadow: Annotated[
        Switch,
        Spec(
            "With USE_R2_STORAGE=false and complete credentials: LOCAL_DIR stays the storage, and"
            " what is put and deleted is sent to the bucket too (docs/migration.md)",
            live=True,
        ),
    ] = False
    upload_pause: Annotated[
        Switch,
        Spec(
            "Keep what is put in the spool and send nothing for now",
            live=True,
            option="upload_pause",
        ),
    ] = False
    watch_settings: Annotated[
        Switch,
        Spec(
            "Reload by itself when the live flags or the env file change. For development, where"
            " files are edited; elsewhere call `reload()`",
            option="watch",
        ),
    ] = False

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
