"""Replies of a replaying model, as the writer puts them: for the tests and the golden file."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from helpers import ReplayModel

from gptoss_mlx.chat import Chat, Event, Options
from gptoss_mlx.engine import Engine
from gptoss_mlx.server.chat_completions.reading import Reading, read
from gptoss_mlx.server.chat_completions.schema import ChatRequest
from gptoss_mlx.server.chat_completions.writing import ChatWriter
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.tools import Tool, Toolbox

THINK = "<|channel|>analysis<|message|>They ask.<|end|><|start|>assistant"
PREAMBLE = "<|channel|>commentary<|message|>I look it up.<|end|><|start|>assistant"
ANSWER = "<|channel|>final<|message|>Ça va 👩‍🚀!<|return|>"
CALL = '<|channel|>commentary to=functions.my_tool <|constrain|>json<|message|>{"a": 1}<|call|>'
EMPTY_CALL = "<|channel|>commentary to=functions.my_tool<|message|><|call|>"
TWO_CALLS = CALL.replace("<|call|>", "<|end|><|start|>assistant") + CALL.replace("1", "2")
OUR_CALL = "<|channel|>analysis to=python code<|message|>1 + 1<|call|>"
UNKNOWN_CALL = "<|channel|>commentary to=functions.nothing<|message|>{}<|call|>"
OTHERS = "<|channel|>final<|message|>A<|end|><|start|>user<|message|>B<|end|><|start|>assistant"

REQUEST: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hi"}],
    "temperature": 0,
    "tools": [{"type": "function", "function": {"name": "my tool"}}],
    "stream_options": {"include_usage": True},
}
# name -> (what the request says beside that, scripts of the model's turns)
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "answer": ({}, (THINK + ANSWER,)),
    "answer without usage": ({"stream_options": None}, (THINK + ANSWER,)),
    "preamble and call": ({}, (THINK + PREAMBLE + CALL,)),
    "two calls": ({}, (TWO_CALLS,)),
    "empty call": ({}, (EMPTY_CALL,)),
    "tool of the server": ({}, (THINK + OUR_CALL, THINK + ANSWER)),
    "unknown function": ({}, (UNKNOWN_CALL, ANSWER)),
    "in others' names": ({}, (OTHERS + ANSWER,)),
    "preamble and answer": ({"logprobs": True, "top_logprobs": 1}, (PREAMBLE + ANSWER,)),
    "stopped": ({"stop": "va", "logprobs": True}, (THINK + ANSWER,)),
    "cut off in reasoning": ({"max_tokens": 4}, (THINK + ANSWER,)),
    "cut off in a call": ({"max_tokens": 10}, (CALL,)),
    "nothing": ({}, ("<|return|>",)),
}


class Calculator(Tool):
    """A tool that the server runs."""

    name = "python"

    @property
    def recipients(self) -> Sequence[str]:
        """One."""
        return ("python",)

    def preview(self, recipient: str, content: str) -> Any:
        """Nobody asks."""
        raise NotImplementedError

    def run(self, recipient: str, content: str) -> str:
        """Always the same."""
        return f"2 = {recipient}({content})"


def replaying(scripts: Sequence[str], tokenizer: Tokenizer) -> Engine:
    """An engine that answers with these, one after the other."""
    return Engine(ReplayModel(*(tokenizer.encode_with_special(script) for script in scripts)))


def events_of(reading: Reading, engine: Engine, tokenizer: Tokenizer) -> list[Event]:
    """What a model's turns give, without a grammar, which would not let it err."""
    job = reading.jobs[0]
    chat = Chat(engine, tokenizer, job.setup, toolbox=Toolbox([Calculator()]))
    chat.messages = list(job.messages)
    return list(chat.send(options=Options(job.params, stop=job.stop)))


def reading_of(extra: dict[str, Any]) -> Reading:
    """The case's request, read."""
    return read(ChatRequest.model_validate({**REQUEST, **extra}))


def writer_of(reading: Reading, tokenizer: Tokenizer) -> ChatWriter:
    """A writer whose ids are counted."""
    numbers = itertools.count(1)
    return ChatWriter(reading, "replay", tokenizer, 1_700_000_000, lambda p: f"{p}{next(numbers)}")


def written(
    reading: Reading, events: Sequence[Event], tokenizer: Tokenizer
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(chunks, completion)."""
    writer = writer_of(reading, tokenizer)
    wires = writer.begin()
    for event in events:
        wires += writer.push(0, event)
    wires += writer.end()
    return [data for _, data in wires], writer.result()


def case(name: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """What the golden file holds of a case."""
    extra, scripts = CASES[name]
    reading = reading_of(extra)
    with replaying(scripts, tokenizer) as engine:
        events = events_of(reading, engine, tokenizer)
    chunks, completion = written(reading, events, tokenizer)
    deltas = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    return {"first": chunks[0], "choices": deltas, "last": chunks[-1], "completion": completion}


def folded(chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a client makes of the chunks of one choice, by OpenAI's rules."""
    message: dict[str, Any] = {}
    tokens: list[Any] = []
    finish_reason = None
    for choice in (chunk["choices"][0] for chunk in chunks if chunk["choices"]):
        delta = dict(choice["delta"])
        for call in delta.pop("tool_calls", ()):
            calls = message.setdefault("tool_calls", [])
            if call["index"] == len(calls):
                calls.append(
                    {"id": call["id"], "type": call["type"], "function": {"arguments": ""}}
                )
                calls[-1]["function"]["name"] = call["function"]["name"]
            calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
        for key, value in delta.items():
            is_text = key in ("content", "reasoning")
            message[key] = message.get(key, "") + value if is_text else value
        if choice["logprobs"] is not None:
            tokens += choice["logprobs"]["content"]
        finish_reason = choice["finish_reason"] or finish_reason
    return {"message": message, "tokens": tokens, "finish_reason": finish_reason}
