"""What a request asks for: instructions, effort, formats, limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from gptoss_mlx.errors import GptOssError
from gptoss_mlx.server.messages.reading import Reading, read, read_count
from gptoss_mlx.server.messages.schema import CountRequest, MessagesRequest
from gptoss_mlx.server.problems import Problem

from .scenes import TOOL, USER, JsonObject

SCHEMA: JsonObject = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def reading(**request: Any) -> Reading:
    """The request, read."""
    return read(MessagesRequest.model_validate({"messages": [USER], **request}))


def text(value: str, **more: Any) -> JsonObject:
    """A block."""
    return {"type": "text", "text": value, **more}


@pytest.mark.parametrize(
    ("system", "instructions"),
    [
        (None, None),
        ("", None),
        ("Be kind.", "Be kind."),
        ([text("a", cache_control={"type": "ephemeral"}), text("b")], "a\n\nb"),
        ([text("x-anthropic-billing-header: cch=1;"), text("b")], "b"),
    ],
)
def test_system(system: Any, instructions: str | None) -> None:
    """A text or blocks; what Claude Code writes for a bill would only spoil the prompt cache."""
    assert reading(system=system).job.setup.instructions == instructions


def test_system_messages() -> None:
    """Those that stand first are instructions, the others stay in their place."""
    messages = [
        {"role": "system", "content": "One."},
        USER,
        {"role": "system", "content": [text("Two.")]},
    ]
    job = reading(system="Zero.", messages=messages).job
    assert job.setup.instructions == "Zero.\n\nOne."
    assert [(m.role, m.content) for m in job.messages] == [
        ("user", "Rain?"),
        ("developer", "# Instructions\n\nTwo."),
    ]


@pytest.mark.parametrize(
    ("thinking", "effort", "expected", "is_shown"),
    [
        (None, None, "medium", False),
        (None, "low", "low", False),
        (None, "max", "high", False),
        ({"type": "disabled"}, None, "low", False),
        ({"type": "disabled"}, "high", "low", False),
        ({"type": "adaptive"}, None, "medium", True),
        ({"type": "adaptive"}, "xhigh", "high", True),
        ({"type": "between_tools"}, "medium", "medium", True),
        ({"type": "enabled", "budget_tokens": 1024}, None, "low", True),
        ({"type": "enabled", "budget_tokens": 4096}, None, "medium", True),
        ({"type": "enabled", "budget_tokens": 16384}, None, "high", True),
        ({"type": "enabled", "budget_tokens": 31999}, "low", "low", True),
    ],
)
def test_effort(thinking: Any, effort: str | None, expected: str, is_shown: bool) -> None:
    """As documented beside the rule; thoughts are shown to those who ask for them."""
    config = {"effort": effort} if effort else None
    found = reading(thinking=thinking, output_config=config)
    assert found.job.setup.reasoning == expected
    assert found.shows_thinking == is_shown


def test_numbers() -> None:
    """What is not said is OpenAI's recommendation for the model."""
    params = reading(max_tokens=7, temperature=0.5, top_p=0.9, top_k=40).job.params
    assert (params.max_tokens, params.temperature, params.top_p, params.top_k) == (7, 0.5, 0.9, 40)
    params = reading().job.params
    assert (params.max_tokens, params.temperature, params.top_p, params.top_k) == (None, 1, 1, 0)


def test_stop_sequences() -> None:
    """Empty ones would end anything."""
    assert reading(stop_sequences=["a", "", "b"]).job.stop == ("a", "b")


@pytest.mark.parametrize("key", ["output_format", "output_config"])
def test_formats(key: str) -> None:
    """The answer follows the schema, and the model is told of it."""
    form = {"type": "json_schema", "schema": SCHEMA}
    job = reading(**{key: form if key == "output_format" else {"format": form}}, system="S.").job
    assert job.answer is not None
    assert '"city"' in job.answer.text
    assert job.setup.instructions is not None
    assert job.setup.instructions.startswith("S.\n\n# Response Formats\n\n## response\n\n")
    assert json.loads(job.setup.instructions.rpartition("\n")[2]) == SCHEMA


def test_other_formats_are_none() -> None:
    """Of a type that this server does not know."""
    assert reading(output_format={"type": "xml"}).job.answer is None


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"output_format": {"type": "json_schema"}}, "needs a schema"),
        ({"messages": [{"role": "user", "content": ""}]}, "nothing is said"),
        ({"messages": [{"role": "system", "content": "x"}]}, "nothing is said"),
        ({"messages": [USER, {"role": "assistant", "content": "{"}]}, "must end with the user"),
        ({"tool_choice": {"type": "any"}}, "no tool here"),
        ({"tool_choice": {"type": "tool", "name": "g"}, "tools": [TOOL]}, "names 'g'"),
        ({"tools": [TOOL, TOOL]}, "two functions named 'f'"),
        ({"temperature": 1.0, "top_p": 0}, "top_p"),
    ],
)
def test_refused(request_: JsonObject, message: str) -> None:
    """What makes no sense is said in one line."""
    with pytest.raises((Problem, GptOssError, ValidationError), match=message):
        reading(**request_)


def test_a_count_may_end_anywhere() -> None:
    """Its messages are those so far, whoever was the last; it has the same prompt."""
    body: JsonObject = {"messages": [USER], "system": "S.", "tools": [TOOL]}
    counted = read_count(CountRequest.model_validate(body), date="2026-01-01")
    asked = read(MessagesRequest.model_validate({**body, "max_tokens": 5}), date="2026-01-01").job
    assert (counted.messages, counted.setup) == (asked.messages, asked.setup)
    messages = [USER, {"role": "assistant", "content": "No."}]
    job = read_count(CountRequest.model_validate({"messages": messages}))
    assert job.messages[-1].is_final
