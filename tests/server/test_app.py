"""What every request passes, and the routes that belong to no API."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from unittest.mock import patch

import pytest
from starlette.testclient import TestClient

from gptoss_mlx.engine import Engine, Health
from gptoss_mlx.server.chat_completions import routes

from .conftest import ANSWER, MakeServed

Client = Callable[..., TestClient]
HELLO = {"messages": [{"role": "user", "content": "my secret"}]}


def test_models(client: Client) -> None:
    """There is one, listed and alone."""
    http = client()
    (model,) = http.get("/v1/models").json()["data"]
    assert (model["id"], model["object"]) == ("replay", "model")
    assert http.get("/v1/models/replay").json() == model


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/models/other", 404, "model_not_found"),
        ("GET", "/v1/models/a/b", 404, "model_not_found"),
        ("GET", "/nothing", 404, None),
        ("GET", "/v1/../etc/passwd", 404, None),
        ("GET", "/v1/%2e%2e/health", 404, None),
        ("GET", "//health", 404, None),
        ("GET", "/v1/chat/completions", 405, None),
        ("DELETE", "/v1/models", 405, None),
    ],
)
def test_what_is_not_there(
    client: Client, method: str, path: str, status: int, code: str | None
) -> None:
    """Each is said in OpenAI's shape."""
    response = client().request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_anthropics_paths_have_anthropics_shape(client: Client) -> None:
    """Also of what is not there, and of what is refused before any route."""
    response = client(api_keys=("k",)).get("/v1/messages/none")
    assert response.status_code == 401
    assert response.json()["error"]["type"] == "authentication_error"
    response = client().get("/v1/messages/none")
    assert response.json()["type"] == "error"


def test_health(client: Client) -> None:
    """Green while requests would be served; red with the reason when not."""
    http = client()
    healthy = http.get("/health")
    assert healthy.status_code == 200
    assert healthy.json() == {"status": "ok", "running": 0, "waiting": 0}
    with patch.object(Engine, "health", Health(False, "the thread died", 0, 1)):
        ill = http.get("/health")
    assert ill.status_code == 503
    assert ill.json() == {
        "status": "failed",
        "running": 0,
        "waiting": 1,
        "problem": "the thread died",
    }


def test_a_line_of_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """One for each request, with what it took, and nothing of what was said."""
    caplog.set_level(logging.INFO, "gptoss_mlx.server")
    response = client(ANSWER).post("/v1/chat/completions?key=secret", json=HELLO)
    (record,) = caplog.records
    fields = record.__dict__["fields"]
    usage = response.json()["usage"]
    assert fields.pop("seconds") > 0
    assert fields == {
        "id": response.headers["x-request-id"],
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
    }
    assert "secret" not in json.dumps(fields)


def test_the_unforeseen_is_a_500_in_shape(
    served: MakeServed, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the program's own tells the client nothing, and the log everything."""
    http = TestClient(served().app, "http://127.0.0.1", raise_server_exceptions=False)
    with patch.object(routes, "read", side_effect=KeyError("inner")):
        response = http.post("/v1/chat/completions", json=HELLO)
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert "inner" not in response.text
    assert "inner" in caplog.text


def test_bodies_are_limited(client: Client) -> None:
    """A larger one is refused in the API's shape."""
    response = client(max_body=1000).post("/v1/chat/completions", content=b"x" * 1001)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


def test_no_page_may_read_answers_by_default(client: Client) -> None:
    """Without --cors nothing is allowed to any page."""
    headers = {"origin": "https://a.com", "access-control-request-method": "POST"}
    response = client().options("/v1/chat/completions", headers=headers)
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers


def test_pages_that_were_named_may(client: Client) -> None:
    """A preflight needs no key; the request does, and its answer may be read."""
    http = client(origins=("https://a.com",), api_keys=("k",))
    preflight = {
        "origin": "https://a.com",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    allowed = http.options("/v1/chat/completions", headers=preflight)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://a.com"
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    origin = {"origin": "https://a.com"}
    refused = http.get("/v1/models", headers=origin)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://a.com"
    seen = http.get("/v1/models", headers={**origin, "authorization": "Bearer k"})
    assert seen.status_code == 200
    assert http.get("/v1/models", headers={"origin": "https://b.com"}).status_code == 403


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/responses", "POST"),
        ("/v1/responses/compact", "POST"),
        ("/v1/responses/resp_1", "DELETE, GET, HEAD"),
    ],
)
def test_methods_of_a_path(client: Callable[..., TestClient], path: str, methods: str) -> None:
    """A client that used another hears which there are; a path with a name is nobody's id."""
    response = client().put(path)
    assert (response.status_code, response.headers["allow"]) == (405, methods)
