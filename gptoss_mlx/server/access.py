"""One line of the log for each request: what was asked for, how it went, never what was said."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["AccessLog", "note"]

_log = logging.getLogger(__name__)


class AccessLog:
    """Logs each request when its answer is complete, and gives the answer its id.

    `on_answer` is told of the request, and of the status that it got, if any.
    """

    def __init__(self, app: ASGIApp, on_answer: Callable[[Scope, int | None], object]) -> None:
        self._app, self._on_answer = app, on_answer

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
        except Exception:
            entry["status"] = entry["status"] or 500  # which is answered further out
            raise
        finally:
            entry["seconds"] = round(time.perf_counter() - start, 3)
            self._on_answer(scope, entry["status"])
            _log.info("request", extra={"fields": entry})


def note(scope: Scope, **values: object) -> None:
    """Add to the line of this request; nothing that a user or a model has said."""
    scope.get("log", {}).update(values)
