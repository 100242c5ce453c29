"""The response that a route of Starlette or FastAPI returns for a file of a store."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cachestore.web.asgi import Serving


class StoreResponse(Response):
    """Sends a file of a store; what to send is decided when it is sent.

    Headers and cookies that the route sets on it are sent with the file.
    """

    def __init__(self, serving: Serving, key: str) -> None:
        super().__init__()
        self._serving = serving
        self._key = key
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        own = list(self.raw_headers)

        async def with_own(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                said = message["headers"]
                names = {name for name, _ in said}
                said.extend(
                    pair for pair in own if pair[0] not in names or pair[0] == b"set-cookie"
                )
            await send(message)

        await self._serving.serve(self._key, scope, receive, with_own)
        if self.background is not None:
            await self.background()
