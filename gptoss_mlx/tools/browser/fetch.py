"""One web page over HTTP(S), with limits: addresses, redirects, time, size, media types.

Names are resolved here, once for each connection, and the connection goes to the very address that
was checked: a name that answers otherwise the second time gains nothing. TLS still verifies the
name. No cookies and no `.netrc`; proxies of the environment are not used either, because a proxy
resolves names itself, out of reach of the check. It does not know what a page says.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpcore2
import httpx2

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.browser.addresses import is_public
from gptoss_mlx.tools.browser.decoding import decode
from gptoss_mlx.tools.browser.page import Document, one_line

__all__ = ["Clock", "Fetcher", "Limits", "bounded_body", "system_resolve", "user_agent"]

_SLICE = 0.5  # seconds that a read may block before it looks whether it is still wanted
_CONNECT = 5.0  # seconds for one address of several
_FAILURES = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.TimeoutException,
    httpx2.DecodingError,
    OSError,
)
_TEXTS = (
    "application/json",
    "application/xhtml+xml",
    "application/xml",
    "application/javascript",
    "application/x-ndjson",
)

IsAllowed = Callable[[str], bool]
Resolve = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True)
class Limits:
    """What one page may take; `size` is in bytes, decompressed."""

    seconds: float = 20.0
    size: int = 5_000_000
    redirects: int = 5


class Fetcher:
    """Fetches pages, each over a connection of its own.

    Args:
        limits: what a page may take.
        is_allowed: whether an address may be connected to; public ones by default.
        resolve: a name's addresses; the system's resolver, which alone is not bounded in time.
        ssl_context: whom TLS trusts; the system's authorities, or SSL_CERT_FILE's, by default.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        is_allowed: IsAllowed = is_public,
        resolve: Resolve | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._is_allowed = is_allowed
        self._resolve = resolve or system_resolve
        self._given_ssl_context = ssl_context

    def fetch(self, url: str, stop: threading.Event | None = None) -> Document:
        """The page at a URL, redirects followed.

        `stop`, once set, ends it within a second; while it connects, within five.

        Raises:
            ToolError: it cannot be had, or exceeds a limit.
        """
        clock = Clock(self._limits.seconds, stop)
        target = _parsed(url)
        for _ in range(self._limits.redirects + 1):
            outcome = self._hop(target, clock)
            if isinstance(outcome, Document):
                return outcome
            target = outcome
        raise ToolError(f"{_shown(url)} redirects more than {self._limits.redirects} times")

    def _hop(self, url: httpx2.URL, clock: Clock) -> Document | httpx2.URL:
        """The document at a URL, or where it redirects to."""
        network = _CheckedNetwork(clock, self._resolve, self._is_allowed)
        try:
            with httpcore2.ConnectionPool(self._ssl_context, network_backend=network) as pool:
                core = pool.handle_request(_request(url))
                try:
                    return self._read(url, core, clock)
                finally:
                    core.close()
        except _FAILURES as error:
            reason = one_line(str(error), 200) or type(error).__name__
            raise ToolError(f"{_shown(url)} cannot be reached: {reason}") from None

    @cached_property
    def _ssl_context(self) -> ssl.SSLContext:
        return self._given_ssl_context or httpx2.create_ssl_context()

    def _read(
        self, url: httpx2.URL, core: httpcore2.Response, clock: Clock
    ) -> Document | httpx2.URL:
        content: Any = core.stream
        response = httpx2.Response(core.status, headers=core.headers, content=content)
        if response.has_redirect_location:
            return _joined(url, response.headers["location"])
        if response.status_code >= 400:
            raise ToolError(f"{_shown(url)}: HTTP {response.status_code} {response.reason_phrase}")
        media_type = _media_type(response, url)
        body = bounded_body(response.iter_bytes(), self._limits.size, clock.left)
        if b"\0" in body[:1_024] and not body.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ToolError(f"{_shown(url)} is no text: open another page")
        text = decode(body, response.charset_encoding)
        if not media_type:
            start = text[:500].lstrip().lower()
            is_html = start.startswith(("<!doctype html", "<html", "<head", "<body"))
            media_type = "text/html" if is_html else "text/plain"
        return Document(str(url), text, media_type)


def system_resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, by the system's resolver.

    Raises:
        OSError: there are none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def bounded_body(chunks: Iterable[bytes], size: int, check: Callable[[], object]) -> bytes:
    """All chunks together; `check` is called at each, to raise where time is up.

    Raises:
        ToolError: they are longer than `size`.
    """
    body = bytearray()
    for chunk in chunks:
        check()
        body += chunk
        if len(body) > size:
            raise ToolError(f"the page is larger than {size / 1e6:g} MB: open another one")
    return bytes(body)


def user_agent() -> str:
    """What the servers are told: the program's name and its version."""
    try:
        return f"gptoss-mlx/{version('gptoss-mlx')}"
    except PackageNotFoundError:  # run from a folder that was never installed
        return "gptoss-mlx"


class Clock:
    """The time left of a fetch, for all its parts together; `stop`, once set, is its end."""

    def __init__(self, seconds: float, stop: threading.Event | None = None) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._stop = stop

    def left(self) -> float:
        """Seconds left, more than none.

        Raises:
            ToolError: none is left, or the page is not wanted any more.
        """
        if self._stop is not None and self._stop.is_set():
            raise ToolError("the fetch was stopped")
        left = self._end - time.monotonic()
        if left <= 0:
            raise ToolError(f"the page took longer than {self._seconds:g} s: open another one")
        return left


class _CheckedNetwork(httpcore2.NetworkBackend):
    """Connects to addresses that were checked, and reads by the clock."""

    def __init__(self, clock: Clock, resolve: Resolve, is_allowed: IsAllowed) -> None:
        self._clock = clock
        self._resolve = resolve
        self._is_allowed = is_allowed
        self._network = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002  (the clock has it)
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        error: Exception = httpcore2.ConnectError("the host has no address")
        for address in self._addresses(host, port):
            limit = min(self._clock.left(), _CONNECT)
            try:
                stream = self._network.connect_tcp(
                    address, port, limit, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as failed:
                error = failed
            else:
                return _Stream(stream, self._clock)
        raise error

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = self._resolve(host, port)
        except (OSError, UnicodeError):
            raise ToolError(f"there is no host {one_line(host, 100)!r}") from None
        allowed = [address for address in found if self._is_allowed(address)]
        if found and not allowed:
            raise ToolError(
                f"{one_line(host, 100)} is not on the public internet: private and local addresses"
                " are not opened"
            )
        return allowed


class _Stream(httpcore2.NetworkStream):
    """A stream each of whose steps takes no longer than what the clock has left."""

    def __init__(self, stream: httpcore2.NetworkStream, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        while True:
            try:
                return self._stream.read(max_bytes, min(self._clock.left(), _SLICE))
            except httpcore2.ReadTimeout:
                continue  # the clock says when it is enough

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, self._clock.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore2.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._clock.left())
        return _Stream(stream, self._clock)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _parsed(url: str) -> httpx2.URL:
    url = url.strip()
    if "://" not in url:
        url = f"https://{url}"
    try:
        return _allowed(httpx2.URL(url))
    except (httpx2.InvalidURL, UnicodeError, ValueError):
        raise ToolError(f"{_shown(url)} is no URL: send one as https://example.com/") from None


def _joined(url: httpx2.URL, location: str) -> httpx2.URL:
    try:
        return _allowed(url.join(location))
    except (httpx2.InvalidURL, UnicodeError, ValueError):
        raise ToolError(f"{_shown(url)} redirects to something that is no URL") from None


def _allowed(url: httpx2.URL) -> httpx2.URL:
    if url.scheme not in ("http", "https"):
        raise ToolError(f"{_shown(url)} is neither http nor https: only those are opened")
    if url.userinfo:
        raise ToolError("a URL with a user name or a password is not opened")
    if not url.host:
        raise ToolError(f"{_shown(url)} names no host")
    if url.port is not None and not 0 < url.port < 65_536:
        raise ToolError(f"{_shown(url)} is no URL: there is no such port")
    return url


def _request(url: httpx2.URL) -> httpcore2.Request:
    headers = {
        "Host": url.netloc.decode("ascii"),
        "User-Agent": user_agent(),
        "Accept": "text/html,application/xhtml+xml,text/*;q=0.9,*/*;q=0.5",
        "Accept-Encoding": "gzip, deflate",
        "Connection": "close",
    }
    target = httpcore2.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )
    return httpcore2.Request("GET", target, headers=list(headers.items()))


def _media_type(response: httpx2.Response, url: httpx2.URL) -> str:
    """The media type that a server names, or nothing.

    Raises:
        ToolError: it is none that can be read.
    """
    name = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if name and not (
        name.startswith("text/") or name in _TEXTS or name.endswith(("+json", "+xml"))
    ):
        kind = one_line(name, 60)
        raise ToolError(f"{_shown(url)} is {kind}: only text and HTML can be read")
    return name


def _shown(url: object) -> str:
    return one_line(str(url), 200)
