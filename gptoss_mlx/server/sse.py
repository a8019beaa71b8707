"""Server-sent events, and answers that end when the client goes away.

It does not know what the events say.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import Receive

__all__ = ["DONE", "as_json", "sse", "unless_disconnected"]

T = TypeVar("T")
DONE = b"data: [DONE]\n\n"


def as_json(value: object) -> bytes:
    """Compact JSON in ASCII, which any text can be written in, half a surrogate pair too."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def sse(data: object, name: str | None = None) -> bytes:
    """One event, with a name where the API has names."""
    head = b"event: %s\n" % name.encode() if name else b""
    return b"%sdata: %s\n\n" % (head, as_json(data))


async def unless_disconnected(receive: Receive, work: Callable[[], Awaitable[T]]) -> T:
    """What the work returns; cancelled when the client goes away. The body must have been read.

    Raises:
        ClientDisconnect: it has gone away.
    """
    results: list[T] = []
    errors: list[Exception] = []
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            results.append(await work())
        except Exception as error:  # as it is, and not in an ExceptionGroup
            errors.append(error)
        group.cancel_scope.cancel()
    for error in errors:
        raise error
    if not results:
        raise ClientDisconnect
    return results[0]
