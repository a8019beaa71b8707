"""Requests and what the model says to them, run through a real chat to the events of a response."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from helpers import ReplayModel

from gptoss_mlx.chat import Chat, Event, Options
from gptoss_mlx.engine import Engine
from gptoss_mlx.errors import ToolError
from gptoss_mlx.server.responses.reading import Context, History, Reading, read
from gptoss_mlx.server.responses.schema import CreateRequest
from gptoss_mlx.server.responses.writing import Numbered, ResponseWriter
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.tools import Preview, Tool, Toolbox
from gptoss_mlx.tools.browser import BrowserTool
from gptoss_mlx.tools.browser.backends import Result
from gptoss_mlx.tools.browser.page import Document

__all__ = [
    "SCENES",
    "FakePages",
    "FakePython",
    "JsonObject",
    "Run",
    "Scene",
    "make_writer",
    "run",
    "talk",
]

JsonObject = dict[str, Any]
THINK = "<|channel|>analysis<|message|>Hm, São?<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>It rains in São Paulo 🫠.<|return|>"
CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'
SEARCH = '<|channel|>analysis to=browser.search code<|message|>{"query": "rain"}<|call|>'
OPEN = '<|channel|>analysis to=browser.open code<|message|>{"id": 0, "cursor": 0}<|call|>'
FIND = '<|channel|>analysis to=browser.find code<|message|>{"pattern": "wet"}<|call|>'
PYTHON = "<|channel|>analysis to=python code<|message|>print(6 * 7)<|call|>"
FUNCTION: JsonObject = {
    "type": "function",
    "name": "f",
    "parameters": {"type": "object", "properties": {}},
}
WEB: JsonObject = {"type": "web_search"}
CODE: JsonObject = {"type": "code_interpreter", "container": {"type": "auto"}}
SPAWN: JsonObject = {
    "type": "namespace",
    "name": "agents",
    "description": "Agents.",
    "tools": [{"type": "function", "name": "spawn", "strict": False, "parameters": None}],
}
PATCH: JsonObject = {"type": "custom", "name": "apply_patch", "description": "Patches."}
SUMMARY: JsonObject = {"reasoning": {"summary": "auto", "effort": "low"}}
SEALED: JsonObject = {"store": False, "include": ["reasoning.encrypted_content"]}


@dataclass(frozen=True)
class Scene:
    """A request, the model's completions, and the events' names."""

    request: dict[str, Any]
    completions: tuple[str, ...]
    open_responses: bool = False
    max_rounds: int = 50
    cancel_after: int | None = None  # events of the chat


SCENES: dict[str, Scene] = {
    "answer": Scene({"instructions": "Be brief."}, (THINK + FINAL,)),
    "summary": Scene(SUMMARY, (THINK + FINAL,)),
    "sealed": Scene(SEALED, (THINK + FINAL,)),
    "open-responses": Scene({}, (THINK + FINAL,), open_responses=True),
    "preamble-and-call": Scene(
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "f"}},
        (f"{THINK}<|channel|>commentary<|message|>I look.<|end|><|start|>assistant{CALL}",),
    ),
    "call-on-analysis": Scene(
        {"tools": [FUNCTION]}, ("<|channel|>analysis to=functions.f<|message|>{}<|call|>",)
    ),
    "several-calls": Scene(
        {"tools": [FUNCTION, SPAWN]},
        (
            CALL.replace("<|call|>", "<|end|>")
            + "<|start|>assistant<|channel|>commentary to=functions.agents_spawn<|message|>"
            "<|end|><|start|>assistant" + CALL,
        ),
    ),
    "custom-tool": Scene(
        {"tools": [PATCH]},
        (CALL.replace("functions.f", "functions.apply_patch").replace('"a": 1', '"input": "+x"'),),
    ),
    "builtin-tools": Scene(
        {
            "tools": [WEB, CODE, FUNCTION],
            "include": ["web_search_call.action.sources", "code_interpreter_call.outputs"],
        },
        (
            THINK + SEARCH,
            OPEN,
            FIND,
            THINK + PYTHON,
            "<|channel|>final<|message|>It is wet.【1†L0】 Yes【9†L1】. 【1<|return|>",
        ),
    ),
    "failing-search": Scene(
        {"tools": [WEB]}, (SEARCH.replace("rain", "fail"), OPEN.replace("0", "7"), FINAL)
    ),
    "unknown-call": Scene({"tools": [FUNCTION, WEB]}, (CALL.replace("functions.f", "g"), FINAL)),
    "endless": Scene({"tools": [CODE]}, (PYTHON, PYTHON, PYTHON), max_rounds=2),
    "length": Scene({"max_output_tokens": 12}, (THINK + FINAL,)),
    "length-in-a-call": Scene({"max_output_tokens": 9, "tools": [FUNCTION]}, (CALL,)),
    "length-in-a-search": Scene({"max_output_tokens": 9, "tools": [WEB]}, (SEARCH,)),
    "interrupted": Scene({}, (THINK + FINAL,), cancel_after=9),
    "empty": Scene({}, ("<|return|>",)),
    "empty-answer": Scene({}, ("<|channel|>final<|message|><|return|>",)),
    "bare-text": Scene({}, ("It rains.<|return|>",)),
    "hallucinated-tool": Scene(
        {"tools": [FUNCTION]},
        (
            CALL.replace("<|call|>", "<|end|>")
            + "<|start|>functions.f to=assistant<|channel|>commentary<|message|>7<|end|>"
            "<|start|>assistant" + FINAL,
        ),
    ),
    "hallucinated-user": Scene(
        {},
        (
            "<|channel|>analysis<|message|>Ask.<|end|>"
            "<|start|>user<|message|>Rio?<|end|><|start|>assistant" + FINAL,
        ),
    ),
    "logprobs": Scene({"top_logprobs": 2}, (THINK + FINAL,)),
    "json": Scene(
        {
            "text": {
                "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}},
                "verbosity": "low",
            },
            "metadata": {"k": "v"},
        },
        ("<|channel|>final <|constrain|>json<|message|>{}<|return|>",),
    ),
}


@dataclass
class Run:
    """What came of a scene."""

    reading: Reading
    writer: ResponseWriter
    chat: Chat
    model: ReplayModel
    wires: list[Numbered]
    events: list[Event] = field(default_factory=list[Event])

    @property
    def output(self) -> list[dict[str, Any]]:
        """The items of the response."""
        return self.writer.result()["output"]

    @property
    def prompts(self) -> list[list[int]]:
        """What the model was given, turn by turn."""
        return [self.model.prompts[n] for n in sorted(self.model.prompts)]

    def names(self, prefix: str = "") -> list[str]:
        """The events' names that begin so, without what they have in common."""
        names = (data["type"].removeprefix("response.") for _, data in self.wires)
        return [name for name in names if name.startswith(prefix)]


class FakePages:
    """A web of two pages."""

    is_local = True

    def search(self, query: str, topn: int) -> Sequence[Result]:
        """Both pages, whatever is asked."""
        if query == "fail":
            raise ToolError("no net")
        found = [Result("https://a.example/rain", "Rain", "Wet."), Result("https://b.example", "B")]
        return found[:topn]

    def fetch(self, url: str, stop: threading.Event) -> Document:
        """A page that says its own address."""
        assert not stop.is_set()
        return Document(url, f"<title>Page</title><p>It is wet at {url}.", "text/html")


class FakePython(Tool):
    """Knows one answer."""

    name = "python"
    builtin = "python"

    @property
    def recipients(self) -> Sequence[str]:
        """One."""
        return ("python",)

    def preview(self, recipient: str, content: str) -> Preview:
        """The call."""
        return Preview(f"{recipient}: {content}")

    def run(self, recipient: str, content: str) -> str:
        """42."""
        assert recipient == "python"
        assert content
        return "42\n"


def talk(
    tokenizer: Tokenizer,
    request: dict[str, Any],
    *completions: str,
    context: Context | None = None,
    history: History | None = None,
) -> Run:
    """Run a request, `input` "Rain?" by default, that the model answers with these completions."""
    return run(Scene(request, completions), tokenizer, context, history)


def run(
    scene: Scene,
    tokenizer: Tokenizer,
    context: Context | None = None,
    history: History | None = None,
) -> Run:
    """Run a scene through a chat; ids and times are the same each time."""
    context = context or Context(builtins=("browser", "python"))
    request = CreateRequest.model_validate({"input": "Rain?", **scene.request})
    reading = read(request, context, history)
    model = ReplayModel(*map(tokenizer.encode_with_special, scene.completions))
    browser = BrowserTool(FakePages(), encode=tokenizer.encode)
    tools = {"browser": browser, "python": FakePython()}
    toolbox = Toolbox([tools[name] for name in reading.job.builtins])
    job = reading.job
    engine = Engine(model)
    chat = Chat(engine, tokenizer, job.setup, toolbox=toolbox, max_rounds=scene.max_rounds)
    chat.messages = list(job.messages)
    writer = make_writer(
        reading,
        context,
        tokenizer,
        source=browser.source if "browser" in job.builtins else None,
        open_responses=scene.open_responses,
    )
    result = Run(reading, writer, chat, model, writer.begin())
    with engine:
        for number, event in enumerate(chat.send(options=Options(job.params))):
            if number == scene.cancel_after:
                chat.cancel()
            result.events.append(event)
            result.wires += writer.push(0, event)
    result.wires += writer.end()
    return result


def make_writer(
    reading: Reading, context: Context, tokenizer: Tokenizer, **options: Any
) -> ResponseWriter:
    """A writer whose ids are counted, and whose clock stands still."""
    numbers = count()

    def make_id(prefix: str) -> str:
        return f"{prefix}_{next(numbers)}"

    return ResponseWriter(
        reading,
        context,
        tokenizer,
        model="gpt-oss-20b",
        make_id=make_id,
        clock=lambda: 1_800_000_000.5,
        **options,
    )
