"""Bodies that no client should send, to every route that reads one: an error of the API, no 5xx."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from starlette.testclient import TestClient

from .conftest import ANSWER, MakeServed, live
from .every import ROUTES, Called, message_of, unloaded

READING = [route for route in ROUTES if route.body is not None]
HUGE = 10**30
ODD: tuple[Any, ...] = ({"bad": 1}, [{"bad": [None]}], HUGE, -1.5, True, "\x00")
each = pytest.mark.parametrize("route", READING, ids=str)


def nested(depth: int, opening: str, closing: str) -> bytes:
    """JSON so deep, in a key that nobody reads."""
    return f'{{"deep": {opening * depth}1{closing * depth}}}'.encode()


BODIES: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n",
    "array": b"[]",
    "string": b'"text"',
    "number": b"5",
    "null": b"null",
    "empty object": b'{"model": 5}',
    "truncated": b'{"model": "m", "messages": [{"role": "us',
    "two values": b'{"model": "m"} {"model": "m"}',
    "trailing comma": b'{"model": "m",}',
    "single quotes": b"{'model': 'm'}",
    "duplicate keys": b'{"model": "a", "model": "b"}',
    "duplicate keys within": b'{"model": "a", "x": [{"a": 1, "a": 1}]}',
    "100,000 brackets": nested(100_000, "[", "]"),
    "100,000 open brackets": b'{"deep": ' + b"[" * 100_000,
    "100,000 objects": nested(100_000, '{"a":', "}"),
    "1,000 brackets": nested(1_000, "[", "]"),
    "101 brackets": nested(101, "[", "]"),
    "a million pieces": b'{"many": [' + b"1," * 1_000_000 + b"1]}",
    "invalid UTF-8": b'{"model": "\xff"}',
    "invalid UTF-8 in a key": b'{"\xc3\x28": 1}',
    "a surrogate in UTF-8": b'{"model": "\xed\xa0\x80"}',
    "overlong UTF-8": b'{"model": "\xc0\xaf"}',
    "UTF-16": '{"model": "m"}'.encode("utf-16"),
    "UTF-32": '{"model": "m"}'.encode("utf-32"),
    "NaN": b'{"temperature": NaN}',
    "Infinity": b'{"temperature": Infinity}',
    "-Infinity": b'{"x": [-Infinity]}',
    "1e999": b'{"temperature": 1e999}',
    "5,000 digits": b'{"max_tokens": ' + b"9" * 5000 + b"}",
    "a raw NUL": b'{"model": "\x00"}',
    "only NULs": b"\x00" * 1000,
    "a control character": b'{"model": "a\nb"}',
    "half an escape": b'{"model": "\\ud8"}',
    "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>',
    "a form": b"model=m&messages=hi",
    "gzip": gzip.compress(b'{"model": "m"}'),
}


@pytest.fixture(scope="module")
def http() -> TestClient:
    """A client of a server whose model no bad request may need."""
    return TestClient(unloaded(), "http://127.0.0.1")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The same on a socket."""
    with live(unloaded()) as address:
        yield address


def check(http: TestClient, route: Called, response: Any, *statuses: int) -> str:
    """An error in the API's shape, and a server that is as well as before; what the error says."""
    assert response.status_code in statuses, response.text[:500]
    assert response.headers["content-type"] == "application/json"
    assert http.get("/health").json()["status"] in ("unloaded", "ok")
    message = message_of(route.path, response.json())
    assert len(message) < 500
    return message


def asking(route: Called, text: str) -> dict[str, Any]:
    """A good body of this route, in which somebody says this."""
    assert route.body is not None
    field = next(f for f in ("messages", "input", "prompt") if f in route.body.model_fields)
    said = [{"role": "user", "content": text}] if field == "messages" else text
    return {"model": "m", field: said}


def test_every_api_reads_bodies() -> None:
    """The tests below are about something."""
    paths = {route.path for route in READING}
    assert {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"} < paths


@each
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_no_json_object(http: TestClient, route: Called, body: bytes) -> None:
    """Whatever the bytes are, the client is told that they cannot be read."""
    headers = {"content-type": "application/json"}
    check(http, route, http.post(route.path, content=body, headers=headers), 400, 413)


@each
@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_wrong_types(http: TestClient, route: Called, odd: Any) -> None:
    """All fields of a wrong type at once: the field that is named is one of them."""
    assert route.body is not None
    body = dict.fromkeys(route.body.model_fields, odd)
    message = check(http, route, http.post(route.path, json=body), 400)
    assert message.split(".")[0].split(":")[0] in body


@each
def test_each_field_of_a_wrong_type(served: MakeServed, route: Called) -> None:
    """One after the other, beside what a request needs: served or refused, never a 5xx."""
    http = TestClient(served(*[ANSWER] * 1000).app, "http://127.0.0.1")
    assert route.body is not None
    good = asking(route, "Hi")
    assert http.post(route.path, json={**good, "max_tokens": 2}).status_code == 200
    refused = 0
    for name in route.body.model_fields:
        for odd in ODD[:3]:
            body = {**good, "max_tokens": 2, "max_output_tokens": 2, "stream": False, name: odd}
            response = http.post(route.path, json=body)
            if response.status_code != 200:
                refused += 1
                check(http, route, response, 400, 404)
    assert refused > len(route.body.model_fields)


@each
@pytest.mark.parametrize(
    "text", [r"\ud800", r"\udc00 x", r"\u0000", r"\uffff", "\u202e", "<|start|>system<|message|>"]
)
def test_odd_texts(served: MakeServed, route: Called, text: str) -> None:
    """What JSON can spell is a text like others, half a surrogate pair too: it is answered."""
    http = TestClient(served(ANSWER, ANSWER).app, "http://127.0.0.1")
    body = json.dumps({**asking(route, "TEXT"), "max_tokens": 9}).replace("TEXT", text)
    response = http.post(route.path, content=body.encode())
    assert response.status_code == 200, response.text
    assert http.get("/health").json()["status"] == "ok"


@each
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content-type", "text/plain"),
        ("content-type", "multipart/form-data; boundary=x"),
        ("content-type", "application/jsonp"),
        ("content-type", ""),
        ("content-encoding", "gzip"),
        ("content-encoding", "br, identity"),
    ],
)
def test_other_kinds_of_bodies(http: TestClient, route: Called, name: str, value: str) -> None:
    """Only JSON as it is is read."""
    response = http.post(route.path, content=b'{"model": "m"}', headers={name: value})
    assert "send" in check(http, route, response, 415)


@each
@pytest.mark.parametrize(
    "kind",
    [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/x-www-form-urlencoded",  # curl's, if it is not told
        None,
    ],
)
def test_json_by_its_names(http: TestClient, route: Called, kind: str | None) -> None:
    """JSON is read by any of its names, and without one: it is the content that is refused."""
    headers = {} if kind is None else {"content-type": kind}
    response = http.post(route.path, content=b'{"tools": 5}', headers=headers)
    assert "cannot be read" not in check(http, route, response, 400)


@each
def test_a_hundred_megabytes(url: str, route: Called) -> None:
    """In chunks, so that nothing tells before how much it is: refused, and the client hears."""

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * (1 << 20)

    response = httpx.post(url + route.path, content=chunks(), timeout=30)
    assert response.status_code == 413
    message_of(route.path, response.json())
    assert httpx.get(f"{url}/health").json()["status"] == "unloaded"


@each
def test_chunks(url: str, route: Called) -> None:
    """A body in chunks is a body like others, where they are cut in the middle of a letter too."""
    body = json.dumps({"tools": "ä"}, ensure_ascii=False).encode()
    response = httpx.post(url + route.path, content=iter(body[i : i + 1] for i in range(len(body))))
    assert response.status_code == 400
    assert "cannot be read" not in message_of(route.path, response.json())
