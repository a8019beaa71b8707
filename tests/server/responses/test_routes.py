"""The Responses API over HTTP, with OpenAI's client and without."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import openai
import pytest
from helpers import ReplayModel
from openai import OpenAI
from pydantic import BaseModel
from starlette.testclient import TestClient

from gptoss_mlx.engine import Engine
from gptoss_mlx.server.app import make_app
from gptoss_mlx.server.context import Context
from gptoss_mlx.server.host import ModelHost, OpenModel
from gptoss_mlx.server.responses.routes import routes
from gptoss_mlx.server.responses.store import ResponseStore
from gptoss_mlx.server.settings import Settings
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.tools import Toolbox
from gptoss_mlx.tools.browser import BrowserTool

from .checking import check_response, check_stream
from .scenes import CALL, FINAL, FUNCTION, OPEN, SEARCH, THINK, WEB, FakePages

TEXT = "It rains in São Paulo 🫠."
URL = "/v1/responses"
KEYS = ("mine", "yours")


class MakeHttp(Protocol):
    """Makes a client of a server whose model replays scripts, or is the one that is given."""

    def __call__(
        self, *scripts: str, model: ReplayModel | None = None, **options: Any
    ) -> TestClient:
        """The client, which has the first key."""
        ...


class SlowModel(ReplayModel):
    """Takes its time."""

    def next_id(self, number: int, n: int) -> int:
        """The script's next id, after a while."""
        time.sleep(0.02)
        return super().next_id(number, n)


class Place(BaseModel):
    """What an answer is parsed as."""

    city: str


@pytest.fixture
def http(tokenizer: Tokenizer) -> Iterator[MakeHttp]:
    """Makes clients, which have the first key."""
    with ExitStack() as stack:

        def make(*scripts: str, model: ReplayModel | None = None, **options: Any) -> TestClient:
            model = model or ReplayModel(*map(tokenizer.encode_with_special, scripts))
            engine = stack.enter_context(Engine(model))
            host = ModelHost(lambda: OpenModel(engine, tokenizer))
            host.open()
            settings = Settings("gpt-oss", api_keys=KEYS, tools={"browser": "browser"})
            app = make_app(settings, host)

            def open_tools(_: object) -> Toolbox:
                return Toolbox([BrowserTool(FakePages(), encode=tokenizer.encode)])

            app.router.routes[:0] = routes(Context(settings, host, open_tools), **options)
            client = TestClient(app, "http://127.0.0.1", headers={"x-api-key": "mine"})
            return stack.enter_context(client)

        yield make


def client_of(http: TestClient, key: str = "mine") -> OpenAI:
    """OpenAI's client of the same server."""
    return OpenAI(base_url="http://127.0.0.1/v1", api_key=key, http_client=http, max_retries=0)


def events_of(body: str) -> list[tuple[str | None, dict[str, Any]]]:
    """The events of a stream, by the letter."""
    events: list[tuple[str | None, dict[str, Any]]] = []
    for block in body.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


def soon(found: Callable[[], bool]) -> bool:
    """Whether it comes true within seconds."""
    end = time.monotonic() + 10
    while not found():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_whole_and_streamed(http: MakeHttp) -> None:
    """The events of a stream add up to a response like the one in one piece."""
    server = http(THINK + FINAL, THINK + FINAL)
    whole = server.post(URL, json={"input": "Rain?"})
    assert whole.status_code == 200
    assert check_response(whole.json()).output_text == TEXT
    streamed = server.post(URL, json={"input": "Rain?", "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    events = events_of(streamed.text)
    final = events[-1][1]["response"]
    check_stream(events, final)
    changing = ("id", "output", "created_at", "completed_at", "usage")
    same = {key: value for key, value in final.items() if key not in changing}
    assert same == {key: value for key, value in whole.json().items() if key not in changing}
    assert server.get(f"{URL}/{final['id']}").json() == final


def test_openai_python(http: MakeHttp) -> None:
    """create, stream, parse, and a function called and answered by previous_response_id."""
    json_answer = FINAL.replace(TEXT, '{"city": "São Paulo"}')
    client = client_of(http(FINAL, FINAL, json_answer, THINK + CALL, FINAL))
    assert client.responses.create(model="m", input="Rain?").output_text == TEXT
    with client.responses.stream(model="m", input="Rain?") as stream:
        deltas = [e.delta for e in stream if e.type == "response.output_text.delta"]
        assert "".join(deltas) == stream.get_final_response().output_text == TEXT
    parsed = client.responses.parse(model="m", input="Rain?", text_format=Place)
    assert parsed.output_parsed == Place(city="São Paulo")
    tools: Any = [FUNCTION]
    first = client.responses.create(model="m", input="Rain?", tools=tools)
    call = first.output[-1]
    assert call.type == "function_call"
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "wet"}
    second = client.responses.create(
        model="m", input=[output], tools=tools, previous_response_id=first.id
    )
    assert second.output_text == TEXT
    assert second.previous_response_id == first.id


def test_a_chain_prefills_new_tokens_only(http: MakeHttp, tokenizer: Tokenizer) -> None:
    """The second prompt begins with the first and what was sampled."""
    said = THINK + CALL.replace("commentary to=", "analysis to=")
    model = ReplayModel(*map(tokenizer.encode_with_special, (said, FINAL)))
    server = http(model=model)
    first = server.post(URL, json={"input": "Rain?", "tools": [FUNCTION]}).json()
    output = {
        "type": "function_call_output",
        "call_id": first["output"][1]["call_id"],
        "output": "wet",
    }
    asked = {"input": [output], "tools": [FUNCTION], "previous_response_id": first["id"]}
    second = server.post(URL, json=asked).json()
    sampled = model.prompts[0] + tokenizer.encode_with_special(said)
    assert model.prompts[1][: len(sampled)] == sampled
    assert second["usage"]["input_tokens_details"]["cached_tokens"] >= len(model.prompts[0])


def test_a_browser_with_citations(http: MakeHttp) -> None:
    """The server runs it; what is cited becomes links."""
    cited = FINAL.replace("<|return|>", "【1†L0】<|return|>")
    server = http(SEARCH, OPEN, cited)
    response = server.post(URL, json={"input": "Rain?", "tools": [WEB]}).json()
    kinds = [item["type"] for item in response["output"]]
    assert kinds == ["web_search_call", "web_search_call", "message"]
    (annotation,) = response["output"][-1]["content"][0]["annotations"]
    assert annotation["url"] == "https://a.example/rain"


def test_stored_responses(http: MakeHttp) -> None:
    """They are had, listed and deleted by their owner; others are told that there is nothing."""
    server = http(FINAL, FINAL)
    mine, yours = client_of(server), client_of(server, "yours")
    response = mine.responses.create(model="m", input="Rain?")
    assert mine.responses.retrieve(response.id).output_text == TEXT
    (item,) = mine.responses.input_items.list(response.id).data
    assert item.type == "message"
    attempts: list[Callable[[], object]] = [
        lambda: yours.responses.retrieve(response.id),
        lambda: yours.responses.delete(response.id),
        lambda: yours.responses.cancel(response.id),
        lambda: yours.responses.input_items.list(response.id),
    ]
    for attempt in attempts:
        with pytest.raises(openai.NotFoundError):
            attempt()
    with pytest.raises(openai.BadRequestError, match="there is no response"):
        yours.responses.create(model="m", input="Go on", previous_response_id=response.id)
    mine.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        mine.responses.retrieve(response.id)


def test_store_false(http: MakeHttp) -> None:
    """Then it is nowhere."""
    server = http(FINAL)
    response = server.post(URL, json={"input": "Rain?", "store": False}).json()
    assert server.get(f"{URL}/{response['id']}").status_code == 404


def test_in_the_background(http: MakeHttp) -> None:
    """Queued at once, complete later, and a part of a conversation then."""
    client = client_of(http(FINAL, FINAL))
    response = client.responses.create(model="m", input="Rain?", background=True)
    assert (response.status, response.output) == ("queued", [])
    assert soon(lambda: client.responses.retrieve(response.id).status == "completed")
    assert client.responses.retrieve(response.id).output_text == TEXT
    assert client.responses.cancel(response.id).status == "completed"
    following = client.responses.create(model="m", input="?", previous_response_id=response.id)
    assert following.output_text == TEXT


def test_cancelled_in_the_background(http: MakeHttp, tokenizer: Tokenizer) -> None:
    """What had come by then stays; the model is free again."""
    long = FINAL.replace(TEXT, "word " * 500)
    scripts = map(tokenizer.encode_with_special, (long, FINAL))
    model = SlowModel(*scripts)
    client = client_of(http(model=model))
    response = client.responses.create(model="m", input="Rain?", background=True)
    assert soon(lambda: client.responses.retrieve(response.id).status == "in_progress")
    assert soon(lambda: bool(model.prompts) and len(model.seen[0]) > len(model.prompts[0]) + 20)
    assert client.responses.cancel(response.id).status == "cancelled"
    assert soon(lambda: client.responses.retrieve(response.id).output_text.startswith("word "))
    assert client.responses.create(model="m", input="Rain?").output_text == TEXT
    assert client.responses.retrieve(response.id).status == "cancelled"


def test_failed_in_the_background(http: MakeHttp) -> None:
    """It says why."""
    server = http()
    long = {"input": "word " * 70_000, "background": True}
    response = server.post(URL, json=long).json()
    found: list[dict[str, Any]] = []

    def has_ended() -> bool:
        found.append(server.get(f"{URL}/{response['id']}").json())
        return found[-1]["status"] not in ("queued", "in_progress")

    assert soon(has_ended)
    assert found[-1]["status"] == "failed"
    assert found[-1]["error"]["code"] == "context_length_exceeded"


def test_a_prompt_that_is_too_long(http: MakeHttp) -> None:
    """A status, or an event that Codex waits for; with truncation, turns are left out instead."""
    server = http(FINAL)
    long = {"input": "word " * 70_000}
    response = server.post(URL, json=long)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    events = events_of(server.post(URL, json={**long, "stream": True}).text)
    assert [name for name, _ in events] == [
        "response.created",
        "response.in_progress",
        "response.failed",
    ]
    failed = events[-1][1]["response"]
    assert failed["error"]["code"] == "context_length_exceeded"
    turns = [{"role": "user", "content": "word " * 30_000}] * 3
    dropped = server.post(URL, json={"input": turns, "truncation": "auto"})
    assert check_response(dropped.json()).output_text == TEXT


def test_a_disk_that_fails(http: MakeHttp) -> None:
    """The client has its answer, which cannot be asked for again."""
    store = ResponseStore()
    server = http(FINAL, FINAL, store=store)
    store.close()
    response = server.post(URL, json={"input": "Rain?"})
    assert check_response(response.json()).output_text == TEXT
    streamed = server.post(URL, json={"input": "Rain?", "stream": True})
    assert events_of(streamed.text)[-1][0] == "response.completed"
    assert server.get(f"{URL}/{response.json()['id']}").status_code == 500


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": 7}, "input"),
        ({"input": ""}, "input"),
        ({"input": "Hi", "background": True, "stream": True}, "stream"),
        ({"input": "Hi", "previous_response_id": "resp_0"}, "previous_response_id"),
        ({"input": [{"type": "item_reference", "id": "msg_0"}]}, "input.0.id"),
        ({"input": "Hi", "top_p": 7}, "top_p"),
    ],
)
def test_bad_requests(http: MakeHttp, body: dict[str, Any], param: str) -> None:
    """In OpenAI's shape, naming the parameter."""
    response = http().post(URL, json=body)
    assert response.status_code in (400, 404)
    assert response.json()["error"]["param"].startswith(param)


def test_bad_pages(http: MakeHttp) -> None:
    """What is no number, and what cannot be streamed."""
    server = http(FINAL)
    identity = server.post(URL, json={"input": "Rain?"}).json()["id"]
    for query in ("input_items?limit=x", "input_items?limit=0", "?stream=true"):
        assert server.get(f"{URL}/{identity}/{query}".replace("/?", "?")).status_code == 400


def test_open_responses(http: MakeHttp) -> None:
    """The specification's names, and its end."""
    server = http(THINK + FINAL, open_responses=True)
    body = server.post(URL, json={"input": "Rain?", "stream": True}).text
    assert "event: response.reasoning.delta" in body
    assert body.endswith("data: [DONE]\n\n")
