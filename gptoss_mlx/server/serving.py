"""The application on a socket, until a signal ends it.

Then answers under way are waited for, up to a limit; those that go on are ended in order. It does
not know how an answer is ended.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from gptoss_mlx.errors import UsageError

__all__ = ["listen", "serve", "url_of"]

_GRACE = 30.0  # seconds that answers under way are given when the server ends
_CUT = 5  # seconds more for those that were ended to say so
_KEEP_ALIVE = 75  # seconds: longer than clients keep connections, who then meet no closed one
_MAX_HEADERS = 64 << 10  # bytes of a request's first line and headers


def listen(host: str, port: int) -> socket.socket:
    """A socket on the address; port 0 takes a free one.

    Raises:
        UsageError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "is taken: --port chooses another" if taken else f"cannot be had: {error}"
        raise UsageError(f"{host}:{port} {reason}") from None


def url_of(listener: socket.socket) -> str:
    """Where a client on this machine finds it."""
    name, port = cast("tuple[str, int]", listener.getsockname()[:2])
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Calls `cut` when answers go on after their time."""

    def __init__(self, config: uvicorn.Config, cut: Callable[[], object], grace: float) -> None:
        super().__init__(config)
        self._cut, self._grace = cut, grace

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for answers."""
        timer = asyncio.get_running_loop().call_later(self._grace, self._cut)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()


def serve(
    app: ASGIApp,
    listener: socket.socket,
    on_server: Callable[[uvicorn.Server], object] | None = None,
    *,
    cut: Callable[[], object] = lambda: None,
    grace: float = _GRACE,
) -> None:
    """Serve until SIGINT or SIGTERM; then answers under way are waited for, `grace` seconds.

    `on_server` is given the server before it runs, to end it by `should_exit`. `cut` is called in
    the server's event loop, and ends the answers that still go on.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        http="h11",  # the one whose limits are known, whatever else is installed
        h11_max_incomplete_event_size=_MAX_HEADERS,
        server_header=False,
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=int(grace) + _CUT,
    )
    server = _Server(config, cut, grace)
    if on_server is not None:
        on_server(server)
    server.run(sockets=[listener])
