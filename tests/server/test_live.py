"""A real server under clients that go away, come all at once, or send what they should not."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest
import uvicorn

from gptoss_mlx.engine import Engine
from gptoss_mlx.server.serving import listen, serve, url_of
from gptoss_mlx.tokenizer import Tokenizer

from .conftest import ANSWER, EndlessModel, MakeServed, live, soon

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1000}
TALK = "<|channel|>final<|message|>word word"
CHAT = "/v1/chat/completions"


def endless(tokenizer: Tokenizer) -> EndlessModel:
    """A model that never stops."""
    return EndlessModel(tokenizer.encode_with_special(TALK))


def is_at_rest(engine: Engine) -> bool:
    """Whether nothing runs, and nobody's thread is left."""
    names = [thread.name for thread in threading.enumerate()]
    busy = engine.health.running + engine.health.waiting
    return not busy and not any(name.startswith("gptoss-mlx reply") for name in names)


def begun(lines: Iterator[str]) -> None:
    """Read until the model has said something."""
    assert any('"word"' in line for line in lines)


@pytest.mark.parametrize("body", [{}, {"n": 3}], ids=["one", "several"])
def test_a_stream_that_is_left_ends(
    served: MakeServed, tokenizer: Tokenizer, body: dict[str, Any]
) -> None:
    """A client that goes away takes its replies, all of them, with it."""
    made = served(model=endless(tokenizer))
    with live(made.app) as url:
        request = httpx.stream("POST", url + CHAT, json={**HELLO, "stream": True, **body})
        with request as response:
            begun(response.iter_lines())
            assert made.engine.health.running == body.get("n", 1)
        assert soon(lambda: is_at_rest(made.engine))


def test_a_request_that_is_left_ends(served: MakeServed, tokenizer: Tokenizer) -> None:
    """Also where no stream would show that nobody listens."""
    made = served(model=endless(tokenizer))
    with live(made.app) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url + CHAT, json=HELLO, timeout=0.3)
        assert soon(lambda: is_at_rest(made.engine))
        assert httpx.get(url + "/health").json()["status"] == "ok"


def test_raw_completions_that_are_left_end(served: MakeServed, tokenizer: Tokenizer) -> None:
    """They have no conversation, and end as well."""
    made = served(model=endless(tokenizer))
    with live(made.app) as url:
        body = {"prompt": "Hi", "max_tokens": 1000}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url + "/v1/completions", json=body, timeout=0.3)
        assert soon(lambda: is_at_rest(made.engine))


def test_too_many_are_told_to_come_back(served: MakeServed, tokenizer: Tokenizer) -> None:
    """Those that find no place get 429 before any stream begins; the others are served on."""
    made = served(model=endless(tokenizer), max_running=2, max_waiting=0)
    with live(made.app) as url, ExitStack() as stack:
        streams: list[Iterator[str]] = []  # forgotten, they would be closed
        for _ in range(2):
            stream = httpx.stream("POST", url + CHAT, json={**HELLO, "stream": True})
            streams.append(stack.enter_context(stream).iter_lines())
            begun(streams[-1])
        refused = httpx.post(url + CHAT, json={**HELLO, "stream": True})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert made.engine.health.running == 2
        stack.close()
        assert soon(lambda: is_at_rest(made.engine))


def test_heartbeats(served: MakeServed, tokenizer: Tokenizer) -> None:
    """While nothing comes, chunks that say nothing keep the connection."""

    class Silent(EndlessModel):
        def next_id(self, number: int, n: int) -> int:
            time.sleep(0.3 if n == 3 else 0)
            return super().next_id(number, n)

    ids = tokenizer.encode_with_special(ANSWER)
    made = served(model=Silent(ids), heartbeat=0.05)
    with live(made.app) as url:
        response = httpx.post(url + CHAT, json={**HELLO, "stream": True})
    data = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert data.pop() == "[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"] for line in data]
    assert deltas[1:-1].count({}) >= 3
    assert "".join(d.get("content", "") for d in deltas) == "Hello there, friend!"


def test_an_error_within_a_stream(served: MakeServed, tokenizer: Tokenizer) -> None:
    """What goes wrong once a stream has begun is its last event, and ends it in order."""

    class Broken(EndlessModel):
        def next_id(self, number: int, n: int) -> int:
            if n == 5:
                raise ValueError("the model broke")
            return super().next_id(number, n)

    made = served(model=Broken(tokenizer.encode_with_special(ANSWER)))
    with live(made.app) as url:
        response = httpx.post(url + CHAT, json={**HELLO, "stream": True})
        assert response.status_code == 200
        *_, error, done = [line for line in response.text.splitlines() if line]
        assert done == "data: [DONE]"
        assert json.loads(error.removeprefix("data: "))["error"]["type"] == "server_error"
        whole = httpx.post(url + CHAT, json=HELLO)
        assert whole.status_code == 500


def test_the_server_waits_for_answers_when_it_ends(
    served: MakeServed, tokenizer: Tokenizer
) -> None:
    """Told to end, it lets no new client in, and the answer under way is complete."""
    texts: list[str] = []
    made = served(model=EndlessModel(tokenizer.encode_with_special(ANSWER)))

    def ask(url: str) -> None:
        texts.append(httpx.post(url + CHAT, json=HELLO).text)

    with live(made.app) as url:
        thread = threading.Thread(target=ask, args=(url,))
        thread.start()
        assert soon(lambda: made.engine.health.running == 1)
    thread.join(5)
    assert "Hello there, friend!" in texts[0]
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/health")


def test_an_answer_that_never_ends_is_ended_in_order(
    served: MakeServed, tokenizer: Tokenizer
) -> None:
    """When the server ends and has waited long enough: by an event that says so, as any error."""
    made = served(model=endless(tokenizer))
    servers: list[uvicorn.Server] = []
    with listen("127.0.0.1", 0) as listener:
        options: dict[str, Any] = {"cut": made.host.cut, "grace": 0.3}
        arguments = (made.app, listener, servers.append)
        thread = threading.Thread(target=serve, args=arguments, kwargs=options)
        thread.start()
        with httpx.stream(
            "POST", url_of(listener) + CHAT, json={**HELLO, "stream": True}
        ) as answer:
            lines = answer.iter_lines()
            begun(lines)
            servers[0].should_exit = True
            *_, error, done = [line for line in lines if line]
        thread.join(10)
    assert not thread.is_alive()
    assert done == "data: [DONE]"
    assert "closed" in json.loads(error.removeprefix("data: "))["error"]["message"]


def raw(url: str, data: bytes) -> bytes:
    """What a server says to bytes that no client would send."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port or 0), 5) as connection:
        connection.sendall(data)
        return connection.recv(65536)


def test_bytes_that_no_client_sends(served: MakeServed) -> None:
    """No HTTP, endless headers, two hosts: refused, and the server lives on."""
    with live(served().app) as url:
        assert b" 400 " in raw(url, b"\x16\x03\x01 hello\r\n\r\n")
        assert b" 400 " in raw(url, b"GET /health HTTP/1.1\r\nA: " + b"x" * 100_000)
        hosts = b"Host: 127.0.0.1\r\nHost: evil.com\r\n"
        assert b" 400 " in raw(url, b"GET /health HTTP/1.1\r\n" + hosts + b"\r\n")
        assert b" 403 " in raw(url, b"GET /health HTTP/1.0\r\n\r\n")
        assert httpx.get(url + "/health").status_code == 200


def test_headers_are_limited(served: MakeServed) -> None:
    """In all, not only each; and a path is as long as a line may be."""
    with live(served().app) as url:
        many = b"".join(b"a%d: %s\r\n" % (n, b"x" * 100) for n in range(1000))
        assert b" 400 " in raw(url, b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n" + many)
        assert b" 400 " in raw(url, b"GET /" + b"x" * 100_000)
        few = httpx.get(f"{url}/health", headers={f"a{n}": "x" * 100 for n in range(100)})
        assert few.status_code == 200


def test_health_after_the_generation_thread_died(served: MakeServed, tokenizer: Tokenizer) -> None:
    """Red with the reason until a request succeeds again; the one it had fails, no other."""

    class Deadly(EndlessModel):
        def next_id(self, number: int, n: int) -> int:
            if number == 0 and n == 3:
                raise SystemExit("the thread's end")
            return super().next_id(number, n)

    ids = tokenizer.encode_with_special(ANSWER)
    made = served(model=Deadly(ids, ids))
    with live(made.app) as url:
        assert httpx.post(url + CHAT, json=HELLO).status_code == 500
        assert soon(lambda: httpx.get(f"{url}/health").status_code == 503)
        ill = httpx.get(f"{url}/health").json()
        assert ill["status"] == "failed"
        assert "the thread's end" in ill["problem"]
        assert "gptoss_mlx_ready 0.0" in httpx.get(f"{url}/metrics").text
        assert httpx.post(url + CHAT, json=HELLO).status_code == 200
        assert httpx.get(f"{url}/health").json()["status"] == "ok"


def test_a_hundred_megabytes(served: MakeServed) -> None:
    """Refused with an answer that the client gets to see."""

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * (1 << 20)

    with live(served().app) as url:
        response = httpx.post(url + CHAT, content=chunks())
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "request_too_large"
