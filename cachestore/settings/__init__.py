"""Settings: from arguments, live flags, the environment and `.env` to `Options`."""

from cachestore.settings.model import Settings

__all__ = ["Settings"]
