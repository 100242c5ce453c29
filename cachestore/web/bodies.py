"""What the routes take and give, as OpenAPI shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MOST_IN_A_BATCH = 100


class PresignBody(BaseModel):
    """What a client says of the file that it is about to upload, and the app's own fields."""

    model_config = ConfigDict(extra="allow")

    filename: str = Field(min_length=1, max_length=255)
    content_type: str = Field(min_length=1, max_length=255, pattern=r"^[ -~]+$")
    size: int | None = Field(default=None, ge=0)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")


PresignBatch = Annotated[list[PresignBody], Field(min_length=1, max_length=MOST_IN_A_BATCH)]


class Presigned(BaseModel):
    """How to upload: send `method` to `url` with exactly `headers`, then confirm `key`."""

    key: str
    url: str
    method: str
    headers: dict[str, str]
    expires_at: datetime


class ConfirmBody(BaseModel):
    """What the client uploaded."""

    model_config = ConfigDict(extra="allow")

    key: str = Field(min_length=1, max_length=1024)
    size: int | None = Field(default=None, ge=0)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    content_type: str | None = None


class Stored(BaseModel):
    """A file that exists."""

    key: str
    size: int
    etag: str
    content_type: str
    last_modified: datetime


class Status(BaseModel):
    """For probes: `healthy`, `degraded` or, with a 503, `failing`."""

    status: str
    services: dict[str, str] = {}


class SyncCounts(BaseModel):
    """Files of a sync."""

    uploaded: int
    failed: int
    skipped: int


class Synced(BaseModel):
    """What a sync did. `success`: nothing failed, and it went through."""

    success: bool
    message: str
    results: SyncCounts


class Problem(BaseModel):
    """Why not."""

    detail: str
