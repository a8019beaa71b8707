"""One line of the log for each request: what was asked for, how it went, never what was said."""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["AccessLog", "note"]

_log = logging.getLogger(__name__)


class AccessLog:
    """Logs each request when its answer is complete, and gives the answer its id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on, and log it whatever happens."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        entry: dict[str, Any] = {"id": f"req_{secrets.token_hex(8)}"}
        entry.update(method=scope["method"], path=scope["path"], status=None)
        scope["log"] = entry
        start = time.perf_counter()

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry["status"] = message["status"]
                identity = (b"x-request-id", entry["id"].encode())
                message = {**message, "headers": [*message.get("headers", ()), identity]}
            await send(message)

        try:
            return await self._app(scope, receive, send_noted)
        finally:
            entry["seconds"] = round(time.perf_counter() - start, 3)
            _log.info("request", extra={"fields": entry})


def note(scope: Scope, **values: object) -> None:
    """Add to the line of this request; nothing that a user or a model has said."""
    scope.get("log", {}).update(values)
