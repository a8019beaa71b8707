"""Requests and what the model says to them, run through a real chat to the events of a message."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

from helpers import ReplayModel

from gptoss_mlx.chat import Chat, Event, Options
from gptoss_mlx.engine import Engine
from gptoss_mlx.harmony import Message
from gptoss_mlx.server.answer import Wire
from gptoss_mlx.server.messages.memory import Memory
from gptoss_mlx.server.messages.reading import Reading, read
from gptoss_mlx.server.messages.schema import MessagesRequest
from gptoss_mlx.server.messages.writing import MessageWriter
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.sealing import Seal
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.tools import Toolbox
from gptoss_mlx.tools.browser import BrowserTool
from server.responses.scenes import (
    CALL,
    FINAL,
    FIND,
    OPEN,
    PYTHON,
    SEARCH,
    THINK,
    FakePages,
    FakePython,
)

__all__ = [
    "CALL",
    "CODE",
    "FINAL",
    "PREAMBLE",
    "SCENES",
    "THINK",
    "THINKING",
    "TOOL",
    "USER",
    "WEB",
    "JsonObject",
    "Run",
    "Scene",
    "make_writer",
    "run",
    "talk",
]

JsonObject = dict[str, Any]
PREAMBLE = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
USER: JsonObject = {"role": "user", "content": "Rain?"}
TOOL: JsonObject = {"name": "f", "input_schema": {"type": "object", "properties": {}}}
WEB: JsonObject = {"type": "web_search_20250305", "name": "web_search"}
CODE: JsonObject = {"type": "code_execution_20250522", "name": "code_execution"}
THINKING: JsonObject = {"thinking": {"type": "enabled", "budget_tokens": 5000}}
TWO_CALLS = CALL.replace("<|call|>", "<|end|><|start|>assistant") + CALL.replace("1", "2")


class ReadableSeal(Seal):
    """Signatures that are the same wherever they are made, and are not signed."""

    def seal(self, message: Message) -> str:
        """What it says."""
        return f"sealed: {message.content}"


@dataclass(frozen=True)
class Scene:
    """A request, the model's completions, and what goes wrong after some of the chat's events."""

    request: JsonObject
    completions: tuple[str, ...]
    fails_after: int | None = None
    max_rounds: int = 50


SCENES: dict[str, Scene] = {
    "text": Scene({"system": "Be brief."}, (THINK + FINAL,)),
    "thinking-and-text": Scene(THINKING, (THINK + FINAL,)),
    "thinking-omitted": Scene(
        {"thinking": {"type": "adaptive", "display": "omitted"}}, (THINK + FINAL,)
    ),
    "thinking-and-tool": Scene({**THINKING, "tools": [TOOL]}, (THINK + PREAMBLE + CALL,)),
    "hidden-thinking-and-tool": Scene({"tools": [TOOL]}, (THINK + CALL,)),
    "two-calls": Scene({"tools": [TOOL]}, (TWO_CALLS,)),
    "empty-call": Scene(
        {"tools": [TOOL]}, ("<|channel|>commentary to=functions.f<|message|><|call|>",)
    ),
    "server-tools": Scene(
        {**THINKING, "tools": [TOOL, WEB, CODE]},
        (
            THINK + SEARCH,
            OPEN,
            FIND,
            THINK + PYTHON,
            "<|channel|>final<|message|>It is wet.【1†L0】 Yes【9†L1】. 【1<|return|>",
        ),
    ),
    "failing-search": Scene({"tools": [WEB]}, (SEARCH.replace("rain", "fail"), FINAL)),
    "server-tool-then-call": Scene({"tools": [TOOL, WEB]}, (THINK + SEARCH, THINK + CALL)),
    "unknown-call": Scene({"tools": [TOOL, WEB]}, (CALL.replace("functions.f", "g"), FINAL)),
    "endless": Scene({"tools": [CODE]}, (PYTHON, PYTHON, PYTHON), max_rounds=2),
    "max-tokens": Scene({**THINKING, "max_tokens": 12}, (THINK + FINAL,)),
    "max-tokens-in-a-call": Scene({"tools": [TOOL], "max_tokens": 10}, (CALL,)),
    "stop-sequence": Scene({**THINKING, "stop_sequences": ["Paulo", "São"]}, (THINK + FINAL,)),
    "error": Scene(THINKING, (THINK + FINAL,), fails_after=8),
    "empty": Scene(THINKING, ("<|return|>",)),
    "empty-answer": Scene(
        THINKING,
        (
            "<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|><|return|>",
        ),
    ),
    "hallucinated-user": Scene(
        THINKING,
        (
            "<|channel|>analysis<|message|>Ask.<|end|>"
            "<|start|>user<|message|>Rio?<|end|><|start|>assistant" + FINAL,
        ),
    ),
}


@dataclass
class Run:
    """What came of a scene."""

    reading: Reading
    writer: MessageWriter
    chat: Chat
    model: ReplayModel
    wires: list[Wire]
    events: list[Event] = field(default_factory=list[Event])

    @property
    def content(self) -> list[JsonObject]:
        """The blocks of the message."""
        return self.writer.result()["content"]

    @property
    def prompts(self) -> list[list[int]]:
        """What the model was given, turn by turn."""
        return [self.model.prompts[n] for n in sorted(self.model.prompts)]

    @property
    def data(self) -> list[JsonObject]:
        """The events as they are sent."""
        return [data for _, data in self.wires]


def talk(
    tokenizer: Tokenizer, request: JsonObject, *completions: str, memory: Memory | None = None
) -> Run:
    """Run a request, whose messages are `USER` by default, that the model answers with these."""
    return run(Scene(request, completions), tokenizer, memory)


def run(scene: Scene, tokenizer: Tokenizer, memory: Memory | None = None) -> Run:
    """Run a scene through a chat; ids are the same each time."""
    memory = memory or Memory(seal=ReadableSeal())
    body = {"messages": [USER], "model": "claude-x", "max_tokens": 1000, **scene.request}
    reading = read(MessagesRequest.model_validate(body), ("browser", "python"), None, memory)
    job = reading.job
    model = ReplayModel(*map(tokenizer.encode_with_special, scene.completions))
    browser = BrowserTool(FakePages(), encode=tokenizer.encode)
    tools = {"browser": browser, "python": FakePython()}
    toolbox = Toolbox([tools[name] for name in job.builtins])
    with Engine(model) as engine:
        chat = Chat(engine, tokenizer, job.setup, toolbox=toolbox, max_rounds=scene.max_rounds)
        chat.messages = list(job.messages)
        events = chat.send(options=Options(job.params, stop=job.stop))
        source = browser.source if "browser" in job.builtins else None
        writer = make_writer(reading, memory, tokenizer, chat.prompt_tokens, source=source)
        result = Run(reading, writer, chat, model, writer.begin())
        for number, event in enumerate(events):
            if number == scene.fails_after:
                result.wires += writer.fail(Problem(503, "no memory"))
                return result
            result.events.append(event)
            result.wires += writer.push(0, event)
    result.wires += writer.end()
    return result


def make_writer(
    reading: Reading, memory: Memory, tokenizer: Tokenizer, prompt_tokens: int, **options: Any
) -> MessageWriter:
    """A writer whose ids are counted; those of a later turn are others."""
    numbers = count(100 * len(reading.job.messages))

    def make_id(prefix: str) -> str:
        return f"{prefix}_{next(numbers)}"

    return MessageWriter(
        reading, memory, "claude-x", tokenizer, prompt_tokens, make_id=make_id, **options
    )
