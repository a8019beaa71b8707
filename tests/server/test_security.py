"""Who is not let in, on every route: keys, pages, names, spellings, other clients' data."""

from __future__ import annotations

import hmac
import logging
import socket
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest
from starlette.testclient import TestClient

from gptoss_mlx.cli import run
from gptoss_mlx.engine import Engine
from gptoss_mlx.server.chat_completions import routes as chat

from .conftest import ANSWER, MakeServed, live
from .every import ROUTES, Called, message_of, unloaded

KEY = "sk-the-right-key"
RIGHT = {"authorization": f"Bearer {KEY}"}
CLOSED = [route for route in ROUTES if route.path != "/health"]
WITH_ID = [route for route in ROUTES if route.path.startswith("/v1/responses/some")]
SECRET = "my-secret-words"
each = pytest.mark.parametrize("route", ROUTES, ids=str)
each_closed = pytest.mark.parametrize("route", CLOSED, ids=str)


def test_there_are_routes() -> None:
    """The tests below are about something: each API has a route among them."""
    paths = {route.path for route in ROUTES}
    apis = {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"}
    assert apis < paths
    assert {"/metrics", "/openapi.json", "/v1/models"} < paths
    assert len(WITH_ID) >= 4


@pytest.fixture(scope="module")
def http() -> TestClient:
    """A client of a server with a key, whose model nobody may reach."""
    return TestClient(unloaded(api_keys=(KEY, "another")), "http://127.0.0.1")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The same on a socket."""
    with live(unloaded(api_keys=(KEY, "another"))) as address:
        yield address


@each_closed
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY.upper()}"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": KEY},
        {"authorization": "Bearer "},
        {"x-api-key": "wrong"},
        {"x-api-key": ""},
        {"x-api-key": f"{KEY}, another"},
        {"authorization": "Bearer wrong", "x-api-key": KEY},
        {"cookie": f"authorization=Bearer {KEY}"},
    ],
    ids=str,
)
def test_no_key(http: TestClient, route: Called, headers: dict[str, str]) -> None:
    """Without a right key there is nothing but the error, whatever the method."""
    for method in (route.method, "HEAD", "OPTIONS", "PUT"):
        response = http.request(method, route.path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    response = http.request(route.method, f"{route.path}?api_key={KEY}", headers=headers)
    assert response.status_code == 401
    message_of(route.path, response.json())
    assert KEY not in response.text


@each
@pytest.mark.parametrize(
    "origin", ["https://evil.com", "null", "http://127.0.0.1:9", "http://127.0.0.1.evil.com", ""]
)
def test_other_pages(http: TestClient, route: Called, origin: str) -> None:
    """A page of somebody else's is refused, though it has the key, and may read nothing."""
    response = http.request(route.method, route.path, headers={**RIGHT, "origin": origin})
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers
    assert "--cors ORIGIN" in message_of(route.path, response.json())


@each
@pytest.mark.parametrize("host", ["evil.com", "127.0.0.1.evil.com", "localhost.evil.com:80", ""])
def test_rebinding(http: TestClient, route: Called, host: str) -> None:
    """A name that somebody lets point here is refused, though the key has come with it."""
    response = http.request(route.method, route.path, headers={**RIGHT, "host": host})
    assert response.status_code == 403
    assert "--allowed-host NAME" in message_of(route.path, response.json())


def spellings(path: str) -> list[str]:
    """Of a path: what a careless comparison takes for it, or for a path that is open."""
    slash = path.replace("/", "%2f")
    return [
        f"/{path}",
        f"//{path}",
        f"{path}/",
        f"{path}//",
        f"/.{path}",
        f"/..{path}",
        f"/x/..{path}",
        f"/health/..{path}",
        f"/health/%2e%2e{path}",
        f"/health%2f..{path}",
        f"/health{path}",
        f"/{slash}",
        f"/health/{slash}",
        f"/health%00{path}",
        f"/health;{path}",
        f"{path}%00",
        f"{path}%2e",
        f"{path};/health",
        f"{path}?/health",
        f"{path}#/health",
        f"{path}%3f/health",
        f"{path.upper()}",
        path.replace("/v1", "/V1"),
        path.replace("/", "\\"),
        f"http://127.0.0.1{path}",
        f"http://127.0.0.1/health/..{path}",
    ]


def raw(url: str, lines: list[str]) -> bytes:
    """What a server answers to a request by the letter."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port or 0), 10) as connection:
        connection.sendall("\r\n".join([*lines, "connection: close", "", ""]).encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


@each_closed
def test_spellings(url: str, route: Called) -> None:
    """No spelling of a path gets past the key, which is asked for before any path is looked at."""
    for path in spellings(route.path):
        answer = raw(url, [f"{route.method} {path} HTTP/1.1", "host: 127.0.0.1"])
        assert answer.split(b" ", 2)[1] in (b"401", b"400"), path


@each_closed
def test_spellings_lead_nowhere(url: str, route: Called) -> None:
    """And with a key there is no second way to any route: other paths are not there."""
    for path in spellings(route.path):
        if path == route.path or "?" in path or "#" in path or path.startswith("/v1/models/"):
            continue  # the same path, or the name of a model, which may hold anything
        lines = [f"{route.method} {path} HTTP/1.1", "host: 127.0.0.1", f"x-api-key: {KEY}"]
        status = raw(url, lines).split(b" ", 2)[1]
        assert status in (b"400", b"404", b"405"), path


def test_health_is_open_and_says_little(http: TestClient) -> None:
    """Whoever watches over processes needs no key, and learns nothing but how it does."""
    response = http.get("/health")
    assert response.status_code == 200
    assert set(response.json()) == {"status", "running", "waiting"}


@pytest.mark.parametrize("key", [KEY, KEY[:-1], "", "another"])
def test_keys_are_compared_in_constant_time(http: TestClient, key: str) -> None:
    """Each of them, by the function that is made for it, also when one is right already."""
    with patch.object(hmac, "compare_digest", wraps=hmac.compare_digest) as compare:
        http.get("/v1/models", headers={"x-api-key": key})
    assert [call.args[1] for call in compare.call_args_list] == [KEY.encode(), b"another"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "mac.local", ""])
def test_no_key_where_others_reach_it(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The server does not start, and nothing is loaded or bound."""
    with patch.object(Engine, "load", side_effect=AssertionError("loaded")):
        assert run(["serve", "-m", "demo", "--host", host, "--port", "0"]) == 2
    assert "--api-key KEY, or --open" in capsys.readouterr().err


@each
def test_no_pages_by_default(route: Called) -> None:
    """Without --cors a preflight is refused, so that no page may send anything."""
    http = TestClient(unloaded(), "http://127.0.0.1")
    headers = {"origin": "https://a.com", "access-control-request-method": route.method}
    response = http.options(route.path, headers=headers)
    assert response.status_code == 403
    assert not any(name.startswith("access-control") for name in response.headers)


@each
def test_pages_that_were_named(route: Called) -> None:
    """With --cors that page may, and no other; the key is needed nevertheless."""
    http = TestClient(unloaded(origins=("https://a.com",), api_keys=(KEY,)), "http://127.0.0.1")
    asked = {"access-control-request-method": route.method}
    good = http.options(route.path, headers={"origin": "https://a.com", **asked})
    assert good.status_code == 200
    assert good.headers["access-control-allow-origin"] == "https://a.com"
    assert "access-control-allow-credentials" not in good.headers
    assert http.options(route.path, headers={"origin": "https://b.com", **asked}).status_code == 403
    response = http.request(route.method, route.path, headers={"origin": "https://a.com"})
    assert response.status_code == (200 if route.path == "/health" else 401)


def test_another_clients_response(served: MakeServed) -> None:
    """Whoever has another key is told the same as of a response that never was, everywhere."""
    http = TestClient(served(ANSWER, api_keys=(KEY, "another")).app, "http://127.0.0.1")
    mine = http.post("/v1/responses", json={"input": SECRET}, headers=RIGHT).json()["id"]
    other = {"x-api-key": "another"}
    for route in WITH_ID:
        theirs = http.request(route.method, route.path.replace("some", mine), headers=other)
        none = http.request(route.method, route.path, headers=other)
        assert theirs.status_code == none.status_code == 404
        assert theirs.text.replace(mine, "some") == none.text
    for field in ("previous_response_id", "input"):
        theirs, none = (
            http.post("/v1/responses", json=referring(field, identity), headers=other)
            for identity in (mine, "resp_none")
        )
        assert theirs.status_code == none.status_code
        assert theirs.status_code in (400, 404)
        assert theirs.text.replace(mine, "resp_none") == none.text
    assert http.get(f"/v1/responses/{mine}", headers=RIGHT).status_code == 200


def referring(field: str, identity: str) -> dict[str, Any]:
    """A request that goes on from a response, or names it as an item."""
    item = [{"type": "item_reference", "id": identity}]
    return {"input": "Hi", field: item if field == "input" else identity}


@each
def test_nothing_said_is_logged(
    served: MakeServed, route: Called, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither keys nor prompts, also where a request is wrong or fails, at any level."""
    caplog.set_level(logging.DEBUG)
    app = served(*[ANSWER] * 20, api_keys=(KEY,)).app
    http = TestClient(app, "http://127.0.0.1", raise_server_exceptions=False)
    said = dict.fromkeys(("input", "prompt", "instructions", "user", "system"), SECRET)
    message = {"role": "user", "content": SECRET}
    bodies: list[Any] = [
        {**said, "messages": [message], "max_tokens": 5},
        {**said, "messages": [message], "max_tokens": SECRET},
        {"messages": [{**message, "role": SECRET}], "input": [{**message, "role": SECRET}]},
        {"model": SECRET, "tools": [{"type": "function", "name": SECRET}]},
    ]
    for body in bodies:
        for headers in (RIGHT, {"x-api-key": f"not-{KEY}"}):
            http.request(route.method, f"{route.path}?q={SECRET}", json=body, headers=headers)
    http.request(route.method, route.path, content=f'{{"a": "{SECRET}', headers=RIGHT)
    with patch.object(chat, "read", side_effect=KeyError("a bug")):
        http.request(route.method, route.path, json=bodies[0], headers=RIGHT)
    ours = [r for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    formatter = logging.Formatter()
    text = "\n".join(formatter.format(record) + repr(record.__dict__) for record in ours)
    assert route.path in text
    assert SECRET not in text
    assert KEY not in text


def test_a_client_that_shows_its_key_to_a_page(url: str) -> None:
    """An error page of a wrong path does not repeat what headers held."""
    response = httpx.get(f"{url}/nothing", headers={**RIGHT, "x-other": SECRET})
    assert response.status_code == 404
    assert KEY not in response.text
    assert SECRET not in response.text
