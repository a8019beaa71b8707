"""Who may call: the Host, the Origin and the key of a request, before anything reads it.

A web page of anybody's can make its visitor's browser call this machine: by a name of its own that
it lets point here (so names are checked), or directly, without seeing the answer (so origins are).
It does not know routes.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_mlx.server.problems import Problem, anthropic_error, is_anthropics, openai_error
from gptoss_mlx.server.settings import Settings
from gptoss_mlx.server.sse import as_json

__all__ = ["Guard", "KeyGuard", "problem_response"]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_OPEN_PATHS = frozenset({"/health"})  # for whoever watches over processes, and has no key


def problem_response(problem: Problem, path: str) -> Response:
    """The answer that tells a client of a problem, as the API that it called has it."""
    shape = anthropic_error if is_anthropics(path) else openai_error
    return Response(as_json(shape(problem)), problem.status, problem.headers, "application/json")


class Guard:
    """Refuses foreign names and foreign pages; stands before everything else."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._hosts = {*_LOOPBACK, *(name.lower() for name in settings.allowed_hosts)}
        self._hosts.add(settings.host.lower())
        self._is_wildcard = settings.host in ("0.0.0.0", "::", "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on, or refuse it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            problem = self._host_problem(headers) or self._origin_problem(headers)
            if problem is not None:
                return await problem_response(problem, scope["path"])(scope, receive, send)
        return await self._app(scope, receive, send)

    def _host_problem(self, headers: Headers) -> Problem | None:
        host = headers.get("host", "")
        name = _hostname(host)
        if name in self._hosts or (self._is_wildcard and _is_address(name)):
            return None
        return Problem(
            403, f"this server is not called {host[:100]!r}: start it with --allowed-host NAME"
        )

    def _origin_problem(self, headers: Headers) -> Problem | None:
        origin = headers.get("origin")
        own = urlsplit(origin or "").netloc
        allowed = self._settings.origins
        if origin is None or "*" in allowed or origin in allowed or own == headers.get("host"):
            return None
        return Problem(
            403, f"pages of {origin[:100]!r} may not call this server: start it with --cors ORIGIN"
        )


class KeyGuard:
    """Refuses requests without a key, where one is needed; notes whose request it is.

    `scope["caller"]` becomes a digest of the key that came, "" where none is needed.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._keys = [key.encode() for key in settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on, or refuse it."""
        if scope["type"] == "http":
            key = _key_of(Headers(scope=scope))
            known = [hmac.compare_digest(key, other) for other in self._keys]  # all, always
            if self._keys and not any(known) and scope["path"] not in _OPEN_PATHS:
                response = problem_response(_no_key(bool(key)), scope["path"])
                return await response(scope, receive, send)
            scope["caller"] = hashlib.sha256(key).hexdigest() if self._keys else ""
        return await self._app(scope, receive, send)


def _key_of(headers: Headers) -> bytes:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    return key.encode("latin-1", "replace")


def _no_key(has_come: bool) -> Problem:
    message = "this is not the server's API key" if has_come else "an API key is needed"
    return Problem(
        401,
        f"{message}: send Authorization: Bearer KEY, or x-api-key",
        code="invalid_api_key",
        headers={"www-authenticate": "Bearer"},
    )


def _hostname(host: str) -> str:
    """Of a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
