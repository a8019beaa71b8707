"""Tests of gptoss_mlx.server.responses.schema."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from gptoss_mlx.errors import GptOssError
from gptoss_mlx.server.problems import Problem, problem_of
from gptoss_mlx.server.responses.reading import Context, read
from gptoss_mlx.server.responses.schema import CreateRequest
from gptoss_mlx.server.responses.tools import ToolSet

FIELDS = list(CreateRequest.model_fields)


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"input": 7}, "input"),
        ({"input": [7]}, "input"),
        ({"input": [{"role": "wizard", "content": "Hi"}]}, "input"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tools": [7]}, "tools"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"metadata": {str(i): "x" for i in range(17)}}, "metadata"),
        ({"metadata": {"k": "x" * 513}}, "metadata"),
        ({"text": {"format": {"type": "xml"}}}, "text"),
        ({"reasoning": {"effort": "extreme"}}, "reasoning"),
        ({"stream": "perhaps"}, "stream"),
    ],
)
def test_what_is_refused(request_: dict[str, Any], param: str) -> None:
    """The parameter is named, and the value not repeated."""
    with pytest.raises(ValidationError) as caught:
        CreateRequest.model_validate(request_)
    problem = problem_of(caught.value)
    assert problem.status == 400
    assert (problem.param or "").startswith(param)


def test_nulls_are_defaults() -> None:
    """Clients send them for what they do not set."""
    nulls = CreateRequest.model_validate({**dict.fromkeys(FIELDS), "input": "Hi"})
    assert read(nulls, Context()).job == read(CreateRequest(input="Hi"), Context()).job
    assert read(nulls, Context()).tools.echo == ToolSet().echo


def test_there_is_an_openapi_schema() -> None:
    """With every kind of item and tool in it."""
    definitions = CreateRequest.model_json_schema()["$defs"]
    assert {"InputMessage", "FunctionCall", "NamespaceTool", "TextFormat"} <= set(definitions)


def test_random_requests() -> None:
    """Whatever JSON comes, it is read or refused, and nothing else is raised."""
    rng = random.Random(20261123)
    for _ in range(3_000):
        body = {name: random_json(rng, 4) for name in rng.sample(FIELDS, rng.randrange(5))}
        assert status_of(body) in (200, 400, 404), body


def status_of(body: dict[str, Any]) -> int:
    """What reading it comes to."""
    try:
        read(CreateRequest.model_validate(body), Context(builtins=("python",)))
    except (ValidationError, GptOssError, Problem) as error:
        return problem_of(error).status
    return 200


def random_json(rng: random.Random, depth: int) -> Any:
    """Values of the kinds and with the keys that requests have, in any order."""
    leaves: list[Callable[[], Any]] = [
        lambda: None,
        lambda: rng.choice((True, False)),
        lambda: rng.choice((-1, 0, 1, 7, 1e300, 10**30)),
        lambda: rng.choice(WORDS),
    ]
    if not depth or rng.random() < 0.4:
        return rng.choice(leaves)()
    if rng.random() < 0.4:
        return [random_json(rng, depth - 1) for _ in range(rng.randrange(4))]
    keys = rng.sample(KEYS, rng.randrange(5))
    known = {"type": rng.choice(WORDS)} if rng.random() < 0.8 else {}
    return {**{key: random_json(rng, depth - 1) for key in keys}, **known}


WORDS = [
    "message",
    "function_call",
    "function_call_output",
    "reasoning",
    "item_reference",
    "custom_tool_call",
    "custom_tool_call_output",
    "web_search_call",
    "code_interpreter_call",
    "additional_tools",
    "function",
    "custom",
    "namespace",
    "web_search",
    "code_interpreter",
    "allowed_tools",
    "user",
    "assistant",
    "developer",
    "system",
    "auto",
    "required",
    "none",
    "low",
    "high",
    "text",
    "json_object",
    "json_schema",
    "input_text",
    "input_image",
    "output_text",
    "f",
    "�",
    "object",
    "string",
]
KEYS = [
    "type",
    "role",
    "content",
    "id",
    "call_id",
    "name",
    "namespace",
    "arguments",
    "output",
    "input",
    "tools",
    "text",
    "summary",
    "encrypted_content",
    "phase",
    "status",
    "action",
    "outputs",
    "code",
    "format",
    "schema",
    "strict",
    "description",
    "parameters",
    "properties",
    "mode",
    "effort",
]
