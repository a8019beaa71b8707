"""Calls of clients' functions over HTTP: what is written arrives, and what is demanded is done."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pytest
from starlette.testclient import TestClient

from gptoss_mlx.model import Model
from gptoss_mlx.tokenizer import Tokenizer

from .chat_completions.streams import Calculator, Toolbox
from .conftest import CALL, THINK, MakeServed

PATH = "/v1/chat/completions"
WRITES = int(os.environ.get("GPTOSS_MLX_WRITES", "20"))
DEMANDS = int(os.environ.get("GPTOSS_MLX_DEMANDS", "2"))  # the demo decodes them
FINAL = "<|channel|>final<|message|>Done.<|return|>"
TEXT = {"type": "string"}
PIECES = (
    *('"', "\\", "\n", "\r\n", "\t", "\\n", "'", "{", "}", "</", "\x00", "\x1b", "\u2028"),
    *("é", "👩‍🚀", "שלום", "< |end|>", "日本", "def f(x):\n    return x\n", '"""doc"""'),
)


def function(name: str, **properties: Any) -> dict[str, Any]:
    """A tool, all of whose arguments must be there."""
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "parameters": schema}}


WRITE = function("Write", file_path=TEXT, content=TEXT)


def body(*tools: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A request."""
    hello = [{"role": "user", "content": "Hi"}]
    return {"messages": hello, "tools": tools, "temperature": 0, **more}


def folded(text: str) -> dict[str, Any]:
    """The call that a stream adds up to, by OpenAI's rules."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n")[:-2]]
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
    pieces = [call for delta in deltas for call in delta.get("tool_calls", ())]
    arguments = "".join(piece["function"]["arguments"] for piece in pieces)
    return {**pieces[0], "function": {**pieces[0]["function"], "arguments": arguments}}


def written(number: int) -> str:
    """The arguments of a call that writes some file."""
    chance = random.Random(number)
    content = "".join(chance.choices(PIECES, k=chance.randrange(1, 30)))
    path = f"/tmp/{number} {chance.choice(PIECES[:3])}.py"
    arguments = {"file_path": path, "content": content}
    return json.dumps(arguments, ensure_ascii=False)


def test_files_that_are_written(served: MakeServed) -> None:
    """Quotes, newlines, control characters, other scripts: arguments arrive as they were said."""
    said = [written(number) for number in range(WRITES)]
    header = "<|channel|>commentary to=functions.Write <|constrain|>json<|message|>"
    made = served(*(f"{THINK}{header}{text}<|call|>" for text in said))
    with TestClient(made.app, "http://127.0.0.1") as http:
        for number, text in enumerate(said):
            asked = body(WRITE, stream=bool(number % 2))
            response = http.post(PATH, json=asked)
            assert response.status_code == 200, response.text
            if number % 2:
                call = folded(response.text)
            else:
                (call,) = response.json()["choices"][0]["message"]["tool_calls"]
            assert call["function"] == {"name": "Write", "arguments": text}


NAMES = ["Web Search", "web.search", "Web_Search", "python", "mcp__x__y.z", "日本"]


def test_names_of_all_kinds(served: MakeServed, tokenizer: Tokenizer) -> None:
    """The model calls what it can write; the client is told its own names, and answers to them."""
    seen = ["Web_Search", "web_search", "Web_Search_2", "python_2", "mcp__x__y_z", "function"]
    scripts = [CALL.replace("functions.f", f"functions.{name}") for name in seen]
    made = served(*(script for call in scripts for script in (call, FINAL)))
    tools = [function(name, a=True) for name in NAMES]
    with TestClient(made.app, "http://127.0.0.1") as http:
        for name in NAMES:
            (choice,) = http.post(PATH, json=body(*tools)).json()["choices"]
            (call,) = choice["message"]["tool_calls"]
            assert call["function"]["name"] == name
            again = body(*tools)
            result = {"role": "tool", "tool_call_id": call["id"], "content": "fine"}
            again["messages"] += [choice["message"], result]
            assert http.post(PATH, json=again).json()["choices"][0]["finish_reason"] == "stop"
    for name, prompt in zip(seen, made.prompts[1::2], strict=True):
        assert f"<|start|>functions.{name} to=assistant" in tokenizer.decode(prompt)


@pytest.mark.parametrize("choice", ["required", "named"])
def test_calls_that_are_demanded(served: MakeServed, demo_model: Model, choice: str) -> None:
    """Whatever is drawn, every one of the replies is the call, with arguments that fit."""
    city = {"type": "string", "maxLength": 20}  # the demo knows no end of what it did not want
    tools = [function("get_weather", city=city), function("get_time", zone={"enum": ["a", "b"]})]
    named = {"type": "function", "function": {"name": "get_time"}}
    asked: Any = named if choice == "named" else "required"
    made = served(model=demo_model)
    together = min(DEMANDS, 5)
    with TestClient(made.app, "http://127.0.0.1") as http:
        for seed in range(0, DEMANDS, together):
            question = [{"role": "user", "content": "What is the capital of France?"}]
            request = body(*tools, tool_choice=asked, temperature=1, seed=seed, max_tokens=500)
            reply = http.post(PATH, json={**request, "messages": question, "n": together}).json()
            assert len(reply["choices"]) == together
            for one in reply["choices"]:
                assert one["finish_reason"] == "tool_calls"
                (call,) = one["message"]["tool_calls"]
                name, arguments = call["function"]["name"], call["function"]["arguments"]
                expected = {"get_weather": ["city"], "get_time": ["zone"]}[name]
                assert list(json.loads(arguments)) == expected
                assert choice == "required" or name == "get_time"


def test_a_demanded_call_is_no_loop(served: MakeServed) -> None:
    """`required` with a tool that the server runs: one call, and then the answer."""
    search = "<|channel|>analysis to=python code<|message|>1<|call|>"
    made = served(
        THINK + search, FINAL, open_tools=lambda _: Toolbox([Calculator()]), tools={"python": ""}
    )
    asked = body({"type": "code_interpreter"}, tool_choice="required")
    with TestClient(made.app, "http://127.0.0.1") as http:
        (choice,) = http.post(PATH, json=asked).json()["choices"]
    assert choice["message"]["content"] == "Done."
    assert len(made.prompts) == 2


def test_a_stop_within_reasoning(served: MakeServed) -> None:
    """Ends nothing: stops are for the answer."""
    script = THINK + "<|channel|>final<|message|>Well. They stop here.<|return|>"
    with TestClient(served(script).app, "http://127.0.0.1") as http:
        reply = http.post(PATH, json=body(stop=["They", "greet"])).json()["choices"][0]
    assert reply["message"]["reasoning"] == "They greet me."
    assert (reply["message"]["content"], reply["finish_reason"]) == ("Well. ", "stop")


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_the_effort_is_told(served: MakeServed, tokenizer: Tokenizer, effort: str) -> None:
    """The prompt says how much to think."""
    made = served(FINAL)
    with TestClient(made.app, "http://127.0.0.1") as http:
        http.post(PATH, json=body(reasoning_effort=effort))
    assert f"Reasoning: {effort}" in tokenizer.decode(made.prompts[0])
