"""A conversation over several requests: each prompt goes on from what was sampled before it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from gptoss_mlx.harmony import Message, Setup, render
from gptoss_mlx.tokenizer import Tokenizer

from .chat_completions.streams import (
    ANSWER,
    CALL,
    OUR_CALL,
    PREAMBLE,
    THINK,
    Calculator,
    Toolbox,
    folded,
)
from .conftest import MakeServed, Served

PATH = "/v1/chat/completions"
HELLO = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "my tool"}}
# Spelled as a model may, and as nothing renders it; the call on the channel of the reasoning.
ODD_CALL = '<|channel|>analysis to=functions.my_tool code<|message|>{"a" : %d}<|call|>'
TURNS = 8

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def ask(request: pytest.FixtureRequest) -> Iterator[Ask]:
    """Asks an application; returns the choice and the usage."""

    def post(made: Served, *messages: dict[str, Any], key: str = "", **more: Any) -> dict[str, Any]:
        http = TestClient(made.app, "http://127.0.0.1", headers={"authorization": f"Bearer {key}"})
        body = {"messages": messages, "tools": [TOOL], **more}
        if not request.param:
            answer = http.post(PATH, json=body).json()
            return {**answer["choices"][0], "usage": answer["usage"]}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        lines = http.post(PATH, json=body).text.split("\n\n")
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
        return {**folded(chunks), "usage": chunks[-1]["usage"]}

    return post  # type: ignore[return-value]


def result_of(message: dict[str, Any], text: str = "fine") -> dict[str, Any]:
    """The result of its only call."""
    (call,) = message["tool_calls"]
    return {"role": "tool", "tool_call_id": call["id"], "content": text}


def without_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """As most clients return it."""
    return {key: value for key, value in message.items() if key != "reasoning"}


def dated(prompt: list[int], tokenizer: Tokenizer) -> str:
    """The date that a prompt names."""
    (found,) = re.findall(r"Current date: ([0-9-]+)", tokenizer.decode(prompt))
    return found


def test_a_loop_of_tools(served: MakeServed, tokenizer: Tokenizer, ask: Ask) -> None:
    """However odd the model's spelling, and without the reasoning: only what is new is computed."""
    scripts = [THINK + PREAMBLE + ODD_CALL % n for n in range(TURNS)]
    made = served(*scripts, THINK + ANSWER)
    messages: list[dict[str, Any]] = [HELLO]
    for n in range(TURNS + 1):
        choice = ask(made, *messages)
        usage = choice["usage"]
        if n:
            so_far = made.prompts[n - 1] + tokenizer.encode_with_special(scripts[n - 1])
            assert made.prompts[n][: len(so_far)] == so_far
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            assert len(so_far) - 2 <= cached < usage["prompt_tokens"]
        messages.append(without_reasoning(choice["message"]))
        if n < TURNS:
            messages.append(result_of(messages[-1], f"result {n}"))
    assert messages[-1]["content"] == "Ça va 👩‍🚀!"


def test_only_the_current_loop_has_reasoning(
    served: MakeServed, tokenizer: Tokenizer, ask: Ask
) -> None:
    """Two finished turns and an open loop: no old chain of thought, and all of this one."""
    made = served(
        *(THINK.replace("They ask", f"Old {n}") + ANSWER for n in range(2)),
        *(THINK.replace("They ask", f"New {n}") + CALL for n in range(2)),
        ANSWER,
    )
    messages: list[dict[str, Any]] = []
    for n in range(4):
        messages += [HELLO] if n < 3 else []
        message = ask(made, *messages)["message"]
        messages += [without_reasoning(message)] + ([result_of(message)] if n >= 2 else [])
    ask(made, *messages)
    prompt = tokenizer.decode(made.prompts[-1])
    assert "Old" not in prompt
    assert [prompt.count(f"New {n}.") for n in range(2)] == [1, 1]


def test_an_answer_is_cached(served: MakeServed, tokenizer: Tokenizer, ask: Ask) -> None:
    """A finished turn goes back as it was sampled, without its reasoning."""
    final = ANSWER.replace("final", "final <|constrain|>json")
    made = served(final, ANSWER)
    message = ask(made, HELLO, tools=[])["message"]
    second = ask(made, HELLO, message, HELLO, tools=[])
    sampled = tokenizer.encode_with_special(final.replace("<|return|>", "<|end|>"))
    so_far = made.prompts[0] + sampled
    assert made.prompts[1][: len(so_far)] == so_far
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= len(so_far) - 2


def test_another_key_is_another_client(served: MakeServed, tokenizer: Tokenizer, ask: Ask) -> None:
    """It gets nothing of what was not in the message that it sends."""
    made = served(THINK + CALL, ANSWER, ANSWER, api_keys=("one", "two"))
    message = ask(made, HELLO, key="one")["message"]
    history = [HELLO, without_reasoning(message), result_of(message)]
    for key in ("one", "two"):
        ask(made, *history, key=key)
    own, others = (tokenizer.decode(prompt) for prompt in made.prompts[1:])
    assert "They ask." in own
    assert "They ask." not in others


def test_reasoning_that_was_changed(served: MakeServed, tokenizer: Tokenizer, ask: Ask) -> None:
    """The model is told what the client says it has thought."""
    made = served(THINK + CALL, ANSWER)
    message = ask(made, HELLO)["message"]
    ask(made, HELLO, {**message, "reasoning": "Otherwise."}, result_of(message))
    prompt = tokenizer.decode(made.prompts[1])
    assert "Otherwise." in prompt
    assert "They ask." not in prompt


def test_a_reply_that_was_cut_off(served: MakeServed, tokenizer: Tokenizer, ask: Ask) -> None:
    """Is rendered as its text says, in a prompt that is well-formed."""
    made = served(ANSWER, ANSWER)
    message = ask(made, HELLO, max_tokens=5, tools=[])["message"]
    ask(made, HELLO, message, HELLO, tools=[])
    hello = Message("user", "Hi")
    said = [hello, Message("assistant", message["content"], "final"), hello]
    day = dated(made.prompts[1], tokenizer)
    assert made.prompts[1] == render(Setup(date=day), said, tokenizer)


def test_what_the_server_ran_is_remembered(
    served: MakeServed, tokenizer: Tokenizer, ask: Ask
) -> None:
    """A calculation, then a call that the client answers: the model sees both again."""
    made = served(
        THINK + OUR_CALL,
        CALL,
        ANSWER,
        open_tools=lambda _: Toolbox([Calculator()]),
        tools={"python": "python"},
    )
    tools = [TOOL, {"type": "code_interpreter"}]
    message = ask(made, HELLO, tools=tools)["message"]
    ask(made, HELLO, without_reasoning(message), result_of(message), tools=tools)
    so_far = made.prompts[1] + tokenizer.encode_with_special(CALL)
    assert made.prompts[2][: len(so_far)] == so_far
    assert "2 = python(1 + 1)" in tokenizer.decode(so_far)
