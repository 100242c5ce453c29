"""Settings of watched folders; they stand with those of the remote."""

from __future__ import annotations

from typing import Annotated

from cachestore.settings.kinds import DayHours, Spec, Switch
from cachestore.settings.remote_fields import RemoteFields


class WatchFields(RemoteFields):
    """When a watched folder's files are taken, and when they are sent."""

    watch_active_hours: Annotated[
        Switch,
        Spec(
            "Watched folders keep to their hours. Off: files are taken and sent at any time",
            live=True,
            option="watch_active_hours",
            group="Watched folders",
        ),
    ] = True
    watch_ingest_hours: Annotated[
        DayHours,
        Spec(
            "Only files whose own time is in these hours are taken: `20:00-06:00`, a time zone"
            " behind it or not. `none`: all",
            live=True,
            option="watch_ingest_hours",
        ),
    ] = None
    watch_upload_hours: Annotated[
        DayHours,
        Spec(
            "They are sent in these hours only. `none`: at once",
            live=True,
            option="watch_upload_hours",
        ),
    ] = None
