"""A web server on 127.0.0.1 for tests: a function for each path."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Route = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers by the routes of its server; keeps what it was asked."""

    timeout = 10

    @property
    def site(self) -> Server:
        """The server of the test."""
        assert isinstance(self.server, Server)
        return self.server

    def do_GET(self) -> None:
        """Answer a GET."""
        path = self.path.partition("?")[0]
        length = int(self.headers.get("Content-Length", 0))
        self.site.requests.append(
            (f"{self.command} {self.path}", dict(self.headers), self.rfile.read(length))
        )
        route = self.site.routes.get(path)
        if route is None:
            self.reply(b"no such page", status=404)
            return
        try:
            route(self)
        except OSError:
            self.site.cut_off.set()  # the client has had enough

    do_POST = do_GET  # noqa: N815

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        """Send a whole answer; `content_type="..."` becomes Content-Type."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet."""


class Server(ThreadingHTTPServer):
    """The server, what it was asked, and whether a client went away in the middle."""

    daemon_threads = True

    def __init__(self, routes: Mapping[str, Route]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes = routes
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.cut_off = threading.Event()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server_address[1]

    def url(self, path: str = "/") -> str:
        """The URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away, or refuse its certificate, are part of the tests."""


@contextmanager
def serving(routes: Mapping[str, Route], tls: ssl.SSLContext | None = None) -> Generator[Server]:
    """A server that runs while the block does."""
    server = Server(routes)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
