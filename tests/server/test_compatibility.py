"""What OpenAI's compatibility test of gpt-oss servers asks, of a model that makes no mistakes.

Its six tools by name and shape, in words of our own: an agent asks, the model calls the tool, the
agent answers, the model concludes; over both APIs, streamed and not, with reasoning in its place.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx2 as httpx
import pytest
from agents import (
    Agent,
    FunctionTool,
    Model,
    ModelResponse,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    RunResult,
    RunResultStreaming,
    ToolCallItem,
)
from jsonschema import Draft202012Validator
from openai import AsyncOpenAI
from openai.types.responses import ResponseFunctionToolCall, ResponseReasoningItem

from gptoss_mlx.tokenizer import Tokenizer

from .conftest import MakeServed, Served

Api = Literal["chat", "responses"]
TEXT = {"type": "string"}
NUMBERS = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
LABEL = {"type": "string", "default": ""}
LIMIT = {"type": "integer", "minimum": 1, "maximum": 10000, "default": 100}


@dataclass(frozen=True)
class Case:
    """A tool: its arguments, those that must be there, what it returns, and what is asked of it."""

    properties: dict[str, Any]
    required: Sequence[str]
    output: dict[str, Any]
    asked: dict[str, dict[str, Any]]  # a prompt -> the arguments that it should lead to

    @property
    def schema(self) -> dict[str, Any]:
        """Of the arguments."""
        if not self.properties:
            return {"type": "object", "properties": {}}
        return {
            "type": "object",
            "properties": self.properties,
            "required": list(self.required),
            "additionalProperties": False,
        }


CASES = {
    "get_weather": Case(
        {"location": TEXT},
        ["location"],
        {"weather": "rain"},
        {
            "Do I need an umbrella in Oslo?": {"location": "Oslo"},
            "And at 90210?": {"location": "90210"},
        },
    ),
    "get_system_health": Case(
        {}, [], {"status": "ok", "uptime_seconds": 12}, {"Are you well?": {}, "Health, please.": {}}
    ),
    "markdown_to_html": Case(
        {"markdown": TEXT},
        ["markdown"],
        {"html": "<h2>To do</h2>"},
        {
            "As HTML:\n\n## To do\n\n- *one*\n- `two`": {
                "markdown": "## To do\n\n- *one*\n- `two`"
            },
            'What is > "quoted" <b> in HTML?': {"markdown": '> "quoted" <b>'},
        },
    ),
    "detect_language": Case(
        {"text": TEXT},
        ["text"],
        {"language": "pt", "confidence": 0.9},
        {
            "Which language is 'Não há de quê'?": {"text": "Não há de quê"},
            "これは何語ですか：おはよう": {"text": "おはよう"},
            "Say what this is: 👩‍🚀 שלום": {"text": "👩‍🚀 שלום"},
        },
    ),
    "generate_chart": Case(
        {
            "data": NUMBERS,
            "chart_type": {"type": "string", "enum": ["line", "bar", "scatter"]},
            "title": LABEL,
            "x_label": LABEL,
            "y_label": LABEL,
        },
        ["data", "chart_type"],
        {"image_png_base64": "iVBOR"},
        {
            "Draw a line from 0,1 to 2.5,-3.": {
                "data": [[0, 1], [2.5, -3]],
                "chart_type": "line",
            },
            "Bars of 7 and 9, called Rain, by Day.": {
                "data": [[1, 7], [2, 9]],
                "chart_type": "bar",
                "title": "Rain",
                "x_label": "Day",
            },
        },
    ),
    "query_database": Case(
        {
            "table": TEXT,
            "columns": {"type": "array", "items": TEXT},
            "filters": LABEL,
            "limit": LIMIT,
            "order_by": LABEL,
        },
        ["table", "columns"],
        {"rows": [{"id": 1}], "row_count": 1},
        {
            "The ids of boats, please.": {"table": "boats", "columns": ["id"]},
            "Names and ages of captains over 60, the 3 oldest.": {
                "table": "captains",
                "columns": ["name", "age"],
                "filters": "age > 60 AND name <> 'O''Brian'",
                "limit": 3,
                "order_by": "age DESC",
            },
        },
    ),
}
THINK = "<|channel|>analysis<|message|>I need the tool.<|end|><|start|>assistant"
DONE = "<|channel|>analysis<|message|>I have it.<|end|><|start|>assistant"
ANSWER = "<|channel|>final<|message|>There you are ✓.<|return|>"


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("name", CASES)
def test_a_tool(
    served: MakeServed, tokenizer: Tokenizer, name: str, api: Api, is_streamed: bool
) -> None:
    """Called with arguments that its schema allows, answered, and its answer put into words."""
    case, header = CASES[name], f"<|channel|>commentary to=functions.{name} <|constrain|>json"
    made = served(
        *(
            script
            for arguments in case.asked.values()
            for script in (
                f"{THINK}{header}<|message|>{json.dumps(arguments, ensure_ascii=False)}<|call|>",
                DONE + ANSWER,
            )
        )
    )
    outputs = [json.dumps(case.output)] * len(case.asked)
    results = asyncio.run(run_all(made, name, api, is_streamed))
    for result, arguments in zip(results, case.asked.values(), strict=True):
        assert result.final_output == "There you are ✓."
        (call,) = calls_of(result)
        assert call.name == name
        assert json.loads(call.arguments) == arguments
        Draft202012Validator(case.schema).validate(json.loads(call.arguments))
        reasoning = ["I need the tool.", "I have it."]
        assert [reasoning_of(response) for response in result.raw_responses] == reasoning
    told = [tokenizer.decode(prompt) for prompt in made.prompts[1::2]]
    assert all(output in prompt for output, prompt in zip(outputs, told, strict=True))


def calls_of(result: RunResult | RunResultStreaming) -> list[ResponseFunctionToolCall]:
    """The calls that the agent has seen."""
    items = [item.raw_item for item in result.new_items if isinstance(item, ToolCallItem)]
    return [item for item in items if isinstance(item, ResponseFunctionToolCall)]


def reasoning_of(response: ModelResponse) -> str:
    """What a turn has thought, from wherever the client puts it."""
    (item,) = (item for item in response.output if isinstance(item, ResponseReasoningItem))
    return "".join(part.text for part in item.content or item.summary)


async def run_all(
    made: Served, name: str, api: Api, is_streamed: bool
) -> list[RunResult | RunResultStreaming]:
    """What comes of each prompt of a tool."""
    transport = httpx.ASGITransport(app=made.app)
    async with httpx.AsyncClient(transport=transport) as http:
        client = AsyncOpenAI(
            base_url="http://127.0.0.1/v1", api_key="none", http_client=http, max_retries=0
        )
        kind = OpenAIChatCompletionsModel if api == "chat" else OpenAIResponsesModel
        agent = agent_of(name, kind("gpt-oss", client))
        return [await run(agent, prompt, is_streamed) for prompt in CASES[name].asked]


def agent_of(name: str, model: Model) -> Agent[None]:
    """An agent with one tool."""

    async def output(*_: object) -> str:
        return json.dumps(CASES[name].output)

    schema = CASES[name].schema
    tool = FunctionTool(name, f"Does {name}.", schema, output, strict_json_schema=False)
    greedy = ModelSettings(temperature=0)  # quicker than drawing one id of one
    return Agent(name=name, model=model, model_settings=greedy, tools=[tool])


async def run(agent: Agent[None], prompt: str, is_streamed: bool) -> RunResult | RunResultStreaming:
    """One conversation; streamed, its reasoning comes in pieces and ends."""
    config = RunConfig(tracing_disabled=True)
    if not is_streamed:
        return await Runner.run(agent, prompt, run_config=config)
    result = Runner.run_streamed(agent, prompt, run_config=config)
    kinds = [
        event.data.type
        async for event in result.stream_events()
        if event.type == "raw_response_event"
    ]
    reasoning = [kind for kind in kinds if kind.startswith("response.reasoning_")]
    assert sum(kind.endswith("delta") for kind in reasoning) > 2
    assert reasoning[-1].endswith("done")
    return result
