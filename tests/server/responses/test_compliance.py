"""The cases of the Open Responses compliance suite that go over HTTP, in our own words.

Each is a request as that suite sends it, an answer that keeps to the specification, and what the
model was told.
"""

from __future__ import annotations

from typing import Any

import pytest
from helpers import ReplayModel
from starlette.testclient import TestClient

from gptoss_mlx.tokenizer import Tokenizer

from .checking import check_items
from .conftest import URL, MakeHttp, events_of
from .scenes import CALL, FINAL, THINK
from .specification import EVENTS, Resource

ANSWER = THINK + FINAL
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "What the weather is in a place.",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "As `Oslo, Norway`."}},
        "required": ["location"],
    },
}
CALL_WEATHER = THINK + CALL.replace("functions.f", "functions.get_weather").replace(
    '"a": 1', '"location": "Oslo"'
)
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9aw"
    "AAAABJRU5ErkJggg=="
)


def message(role: str, content: Any, **fields: Any) -> dict[str, Any]:
    """An item of a conversation."""
    return {"type": "message", "role": role, "content": content, **fields}


# The name that the suite has for it: (the request, what the model says, what it was told)
CASES: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "basic-response": (
        {"input": [message("user", "Greet me in three words.")]},
        ANSWER,
        ["Greet me in three words."],
    ),
    "assistant-phase": (
        {
            "input": [
                message("assistant", "I should say the number.", phase="commentary"),
                message("assistant", "It is four.", phase="final_answer"),
                message("user", "The number alone, please."),
            ]
        },
        ANSWER,
        ["<|channel|>commentary<|message|>I should", "<|channel|>final<|message|>It is four."],
    ),
    "system-prompt": (
        {"input": [message("system", "You are a pirate."), message("user", "Say hello.")]},
        ANSWER,
        ["# Instructions\n\nYou are a pirate.", "<|start|>user<|message|>Say hello."],
    ),
    "tool-calling": (
        {"input": [message("user", "How is the weather in Oslo?")], "tools": [WEATHER]},
        CALL_WEATHER,
        ["type get_weather = (_: {"],
    ),
    "image-input": (
        {
            "input": [
                message(
                    "user",
                    [
                        {"type": "input_text", "text": "What is in this image?"},
                        {"type": "input_image", "image_url": PIXEL},
                    ],
                )
            ]
        },
        ANSWER,
        ["What is in this image?\n[an image, which this model cannot see]"],
    ),
    "file-input": (
        {
            "input": [
                message(
                    "user",
                    [
                        {"type": "input_text", "text": "What is its title?"},
                        {
                            "type": "input_file",
                            "filename": "one.pdf",
                            "file_data": "data:application/pdf;base64,JVBERi0xLjEK",
                        },
                    ],
                )
            ]
        },
        ANSWER,
        ["[the file 'one.pdf', which cannot be read here]"],
    ),
    "multi-turn": (
        {
            "input": [
                message("user", "I am Alice."),
                message("assistant", "Hello Alice!"),
                message("user", "Who am I?"),
            ]
        },
        ANSWER,
        ["I am Alice.<|end|>", "Hello Alice!<|end|>", "Who am I?<|end|>"],
    ),
}


def whole(server: TestClient, request: dict[str, Any]) -> dict[str, Any]:
    """The answer in one piece, which keeps to the specification."""
    answer = server.post(URL, json={"model": "m", **request})
    assert answer.status_code == 200, answer.text
    Resource.model_validate(answer.json())
    return answer.json()


def streamed(server: TestClient, request: dict[str, Any]) -> dict[str, Any]:
    """The last event's answer; each event keeps to the specification, and so do all together."""
    answer = server.post(URL, json={"model": "m", **request, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    events = events_of(answer.text)
    for number, (name, data) in enumerate(events):
        assert (data["type"], data["sequence_number"]) == (name, number)
        EVENTS[data["type"]].model_validate(data)
    final = events[-1][1]["response"]
    check_items([data for _, data in events], final)
    return final


@pytest.mark.parametrize("name", CASES)
def test_cases(http: MakeHttp, tokenizer: Tokenizer, name: str) -> None:
    """Answered as the specification has it, whole and streamed; the model knew what was said."""
    request, said, told = CASES[name]
    ids = tokenizer.encode_with_special(said)
    model = ReplayModel(ids, ids)
    server = http(model=model, open_responses=True)
    for response in (whole(server, request), streamed(server, request)):
        kinds = [item["type"] for item in response["output"]]
        assert kinds == ["reasoning", "function_call" if "tools" in request else "message"]
        assert response["status"] == "completed"
    for ids in model.prompts.values():
        prompt = tokenizer.decode(ids)
        assert [text for text in told if text not in prompt] == []


@pytest.mark.parametrize("ask", [whole, streamed])
def test_function_call_roundtrip(http: MakeHttp, tokenizer: Tokenizer, ask: Any) -> None:
    """A call that is demanded, and the answer that its output leads to."""
    scripts = map(tokenizer.encode_with_special, (CALL_WEATHER, ANSWER))
    model = ReplayModel(*scripts)
    server = http(model=model, open_responses=True)
    choice = {"type": "function", "name": "get_weather"}
    request = {"input": "Weather in Oslo?", "tools": [WEATHER], "tool_choice": choice}
    first = ask(server, request)
    call = first["output"][-1]
    assert (call["name"], call["arguments"]) == ("get_weather", '{"location": "Oslo"}')
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "14 °C"}
    items = [message("user", "Weather in Oslo?"), *first["output"], output]
    second = ask(server, {"input": items, "tools": [WEATHER]})
    assert second["output"][-1]["content"][0]["type"] == "output_text"
    assert "14 °C" in tokenizer.decode(model.prompts[1])


def test_previous_response_id(http: MakeHttp, tokenizer: Tokenizer) -> None:
    """The server knows what was said."""
    model = ReplayModel(*map(tokenizer.encode_with_special, (ANSWER, ANSWER)))
    server = http(model=model, open_responses=True)
    first = whole(server, {"input": "The word is papaya."})
    second = whole(server, {"input": "Which word?", "previous_response_id": first["id"]})
    assert second["previous_response_id"] == first["id"]
    assert "The word is papaya." in tokenizer.decode(model.prompts[1])


def test_summaries_keep_their_names(http: MakeHttp) -> None:
    """Only the events of the reasoning itself have other names than OpenAI's."""
    request = {"input": "Rain?", "reasoning": {"summary": "auto"}, "top_logprobs": 1}
    response = streamed(http(ANSWER, open_responses=True), request)
    assert response["output"][0]["summary"][0]["text"] == "Hm, São?"


def test_compact_response(http: MakeHttp, tokenizer: Tokenizer) -> None:
    """What the model writes of a conversation stands for it afterwards, and only that."""
    summary = THINK + FINAL.replace("It rains in São Paulo 🫠.", "The launch is on Tuesday.")
    model = ReplayModel(*map(tokenizer.encode_with_special, (summary, ANSWER)))
    server = http(model=model, open_responses=True)
    items = [message("user", "We launch on Tuesday, agreed?"), message("assistant", "Agreed.")]
    asked = {"model": "m", "prompt_cache_key": "k", "input": items}
    compaction = server.post(f"{URL}/compact", json=asked).json()
    assert compaction["object"] == "response.compaction"
    (item,) = compaction["output"]
    assert item["type"] == "compaction"
    usage = compaction["usage"]
    assert usage["input_tokens"] == len(model.prompts[0])
    assert "We launch on Tuesday" in tokenizer.decode(model.prompts[0])
    response = whole(server, {"input": [item, message("user", "When?")]})
    asked_then = tokenizer.decode(model.prompts[1])
    assert "The launch is on Tuesday." in asked_then
    assert "agreed?" not in asked_then
    listed = server.get(f"{URL}/{response['id']}/input_items?order=asc").json()["data"]
    assert [entry["type"] for entry in listed] == ["compaction", "message"]


def test_compact_missing_model(http: MakeHttp) -> None:
    """There the name of a model is demanded."""
    answer = http().post(f"{URL}/compact", json={"input": "Compact this."})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "model"


def test_a_compaction_of_somebody_else(http: MakeHttp) -> None:
    """To go on without what was said would be worse than to say so."""
    item = {"type": "compaction", "encrypted_content": "b3RoZXI="}
    answer = http().post(URL, json={"input": [item, message("user", "When?")]})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input.0.encrypted_content"


def test_a_model_that_writes_no_summary(http: MakeHttp, tokenizer: Tokenizer) -> None:
    """The end of the conversation stands for it."""
    model = ReplayModel(*map(tokenizer.encode_with_special, ("<|return|>", ANSWER)))
    server = http(model=model)
    asked = {"model": "m", "input": "word " * 2_000 + "We launch on Tuesday."}
    (item,) = server.post(f"{URL}/compact", json=asked).json()["output"]
    server.post(URL, json={"input": [item, message("user", "When?")]})
    told = tokenizer.decode(model.prompts[1])
    assert "We launch on Tuesday." in told
    assert len(told) < 6_000
