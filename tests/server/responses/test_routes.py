"""The Responses API over HTTP, with OpenAI's client and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest
from helpers import ReplayModel
from pydantic import BaseModel

from gptoss_mlx.server.responses.store import ResponseStore
from gptoss_mlx.tokenizer import Tokenizer

from .checking import check_response, check_stream
from .conftest import URL, MakeHttp, client_of, events_of
from .scenes import CALL, CODE, FINAL, FUNCTION, OPEN, PYTHON, SEARCH, THINK, WEB

TEXT = "It rains in São Paulo 🫠."


class Place(BaseModel):
    """What an answer is parsed as."""

    city: str


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
    client = client_of(http(FINAL, FINAL, THINK + json_answer, THINK + CALL, FINAL))
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
    with pytest.raises(openai.NotFoundError, match="there is no response"):
        yours.responses.create(model="m", input="Go on", previous_response_id=response.id)
    mine.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        mine.responses.retrieve(response.id)


def test_store_false(http: MakeHttp) -> None:
    """Then it is nowhere."""
    server = http(FINAL)
    response = server.post(URL, json={"input": "Rain?", "store": False}).json()
    assert server.get(f"{URL}/{response['id']}").status_code == 404


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
        ({"input": "Hi", "background": True, "store": False}, "background"),
        ({"input": "Hi", "conversation": "conv_0"}, "conversation"),
        ({"input": "Hi", "prompt": {"id": "pmpt_0"}}, "prompt"),
        ({"input": "Hi", "max_tool_calls": 0}, "max_tool_calls"),
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


def test_calls_are_counted(http: MakeHttp) -> None:
    """What is called beyond `max_tool_calls` is not run, and the model is told so."""
    server = http(PYTHON, PYTHON, SEARCH, FINAL)
    asked: dict[str, Any] = {"input": "Rain?", "tools": [CODE, WEB], "max_tool_calls": 1}
    asked["include"] = ["code_interpreter_call.outputs"]
    response = server.post(URL, json=asked).json()
    assert response["max_tool_calls"] == 1
    first, second, search, answer = response["output"]
    assert first["outputs"][0]["logs"] == "42\n"
    assert "no more calls" in second["outputs"][0]["logs"]
    assert (search["status"], answer["status"]) == ("failed", "completed")


def test_input_tokens(http: MakeHttp) -> None:
    """The number that the response itself tells of its prompt, tools and history included."""
    server = http(PYTHON, FINAL)
    asked: dict[str, Any] = {"input": "Rain?", "instructions": "I.", "tools": [CODE, FUNCTION]}
    counted = server.post(f"{URL}/input_tokens", json=asked)
    assert counted.json()["object"] == "response.input_tokens"
    long = server.post(f"{URL}/input_tokens", json={**asked, "input": "Rain? " * 9}).json()
    assert long["input_tokens"] > counted.json()["input_tokens"]
    asked["tool_choice"] = "none"
    usage = server.post(URL, json={**asked, "max_output_tokens": 1}).json()["usage"]
    assert usage["input_tokens"] == counted.json()["input_tokens"]
    client = client_of(server)
    typed = client.responses.input_tokens.count(input="Rain?", instructions="I.")
    assert 0 < typed.input_tokens < counted.json()["input_tokens"]
