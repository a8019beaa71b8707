"""Who is let in: names, pages, keys."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from gptoss_mlx.server.guarding import Guard, KeyGuard
from gptoss_mlx.server.settings import Settings


async def hello(request: Request) -> Response:
    """Says who asks."""
    return PlainTextResponse(request.scope["caller"])


def client(**settings: Any) -> TestClient:
    """Of an application behind both guards."""
    made = Settings("m", **settings)
    routes = [Route(path, hello, methods=["GET", "POST"]) for path in ("/x", "/health")]
    app = Starlette(routes=routes, middleware=[Middleware(Guard, made), Middleware(KeyGuard, made)])
    return TestClient(app, "http://127.0.0.1")


@pytest.mark.parametrize(
    ("host", "settings", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("127.0.0.1:8080", {}, 200),
        ("localhost:8080", {}, 200),
        ("LOCALHOST", {}, 200),
        ("localhost.:8080", {}, 200),
        ("[::1]:8080", {}, 200),
        ("evil.com", {}, 403),
        ("evil.com:8080", {}, 403),
        ("localhost.evil.com", {}, 403),
        ("127.0.0.1.evil.com", {}, 403),
        ("localhost@evil.com", {}, 403),
        ("192.168.1.5", {}, 403),
        ("[", {}, 403),
        ("", {}, 403),
        ("mac.local", {"allowed_hosts": ("Mac.local",)}, 200),
        ("192.168.1.5", {"host": "192.168.1.5", "is_open": True}, 200),
        ("192.168.1.5", {"host": "0.0.0.0", "is_open": True}, 200),
        ("evil.com", {"host": "0.0.0.0", "is_open": True}, 403),
    ],
)
def test_names(host: str, settings: dict[str, Any], status: int) -> None:
    """A name that somebody else can let point here is refused, an address is not."""
    response = client(**settings).get("/x", headers={"host": host})
    assert response.status_code == status
    if status == 403:
        assert "--allowed-host" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("origin", "origins", "status"),
    [
        (None, (), 200),
        ("http://127.0.0.1", (), 200),  # the server's own page
        ("http://127.0.0.1:3000", (), 403),
        ("https://evil.com", (), 403),
        ("null", (), 403),
        ("https://good.com", ("https://good.com",), 200),
        ("https://good.com.evil.com", ("https://good.com",), 403),
        ("https://any.com", ("*",), 200),
    ],
)
def test_pages(origin: str | None, origins: tuple[str, ...], status: int) -> None:
    """A page of somebody else's may not even send a request, whose answer it would not see."""
    headers = {} if origin is None else {"origin": origin}
    response = client(origins=origins).post("/x", headers=headers)
    assert response.status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer one"}, 200),
        ({"authorization": "bearer  two"}, 200),
        ({"x-api-key": "two"}, 200),
        ({"authorization": "Bearer three"}, 401),
        ({"authorization": "Bearer on"}, 401),
        ({"authorization": "one"}, 401),
        ({"authorization": "Basic one"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Bearer onetwo"}, 401),
        ({"x-api-key": "öne"}, 401),
    ],
)
def test_keys(headers: dict[str, str], status: int) -> None:
    """One of the keys, in one of the two places."""
    encoded = [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
    response = client(api_keys=("one", "two")).get("/x", headers=encoded)
    assert response.status_code == status
    if status == 401:
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"


def test_keys_stand_for_callers() -> None:
    """Each key is a caller of its own, which does not give it away; without keys all are one."""
    guarded = client(api_keys=("one", "two"))
    callers = {guarded.get("/x", headers={"x-api-key": key}).text for key in ("one", "two", "one")}
    assert len(callers) == 2
    assert not any(key in caller for key in ("one", "two") for caller in callers)
    assert client().get("/x", headers={"x-api-key": "any"}).text == ""


def test_health_needs_no_key() -> None:
    """But a name that is ours."""
    guarded = client(api_keys=("one",))
    assert guarded.get("/health").status_code == 200
    assert guarded.get("/health", headers={"host": "evil.com"}).status_code == 403


def test_other_scopes_pass() -> None:
    """Start and end of the server are no requests."""

    async def app(scope: Any, *_: Any) -> None:
        seen.append(scope["type"])

    seen: list[str] = []
    settings = Settings("m", api_keys=("k",))
    guarded = Guard(KeyGuard(app, settings), settings)

    async def nothing(*_: Any) -> Any: ...

    asyncio.run(guarded({"type": "lifespan"}, nothing, nothing))
    assert seen == ["lifespan"]
