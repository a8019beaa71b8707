"""What a request asks for."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.errors import UsageError
from gptoss_mlx.grammar import json_object, json_schema
from gptoss_mlx.harmony import FunctionTool, Message
from gptoss_mlx.server.chat_completions.reading import Reading, read
from gptoss_mlx.server.chat_completions.schema import ChatRequest
from gptoss_mlx.server.job import Job
from gptoss_mlx.server.problems import Problem

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def reading(builtins: tuple[str, ...] = (), **fields: Any) -> Reading:
    """What a request with these fields says."""
    fields.setdefault("messages", [{"role": "user", "content": "Hi"}])
    return read(ChatRequest.model_validate(fields), builtins, "2026-01-01")


def job(builtins: tuple[str, ...] = (), **fields: Any) -> Job:
    """Its one job."""
    (only,) = reading(builtins, **fields).jobs
    return only


def function(name: str, **fields: Any) -> dict[str, Any]:
    """A tool."""
    return {"type": "function", "function": {"name": name, **fields}}


def test_the_least_there_is() -> None:
    """One message, and OpenAI's recommendations for the rest."""
    made = reading()
    assert made.jobs == (job(),)
    assert job().messages == (Message("user", "Hi"),)
    assert job().params == SamplingParams()
    assert (job().setup.reasoning, job().setup.date) == ("medium", "2026-01-01")
    assert (made.is_streamed, made.includes_usage) == (False, False)
    assert made.top_logprobs is None


def test_how_to_draw() -> None:
    """Every knob under its name."""
    params = job(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        seed=7,
        max_completion_tokens=9,
        max_tokens=1,
        presence_penalty=1,
        frequency_penalty=-1,
        repetition_penalty=1.1,
        logit_bias={"5": -100, "6": 1.5},
        logprobs=True,
        top_logprobs=3,
    ).params
    assert params == SamplingParams(0.5, 0.9, 7, 9, 40, 0.1, 1.1, 1, -1, ((5, -100), (6, 1.5)), 3)


@pytest.mark.parametrize(
    ("fields", "attribute", "value"),
    [
        ({"max_tokens": 5}, "max_tokens", 5),
        ({"max_tokens": -1}, "max_tokens", None),
        ({"top_k": -1}, "top_k", 0),
        ({"seed": -1}, "seed", 2**64 - 1),
        ({"logprobs": True}, "logprobs", 0),
        ({"logprobs": False}, "logprobs", None),
        ({"temperature": None, "top_p": None}, "temperature", 1.0),
        ({"temperature": 0}, "temperature", 0),
    ],
)
def test_spellings(fields: dict[str, Any], attribute: str, value: object) -> None:
    """Null is the default, and some say -1 for no limit."""
    assert getattr(job(**fields).params, attribute) == value


@pytest.mark.parametrize(
    ("stop", "stops"), [(None, ()), ("a", ("a",)), (["a", "b"], ("a", "b")), ("", ()), ([""], ())]
)
def test_stops(stop: Any, stops: tuple[str, ...]) -> None:
    """One text or several; empty ones say nothing."""
    assert job(stop=stop).stop == stops


@pytest.mark.parametrize(
    ("asked", "effort"),
    [
        ("none", "low"),
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "high"),
    ],
)
def test_effort(asked: str, effort: str) -> None:
    """Under either name."""
    assert job(reasoning_effort=asked).setup.reasoning == effort
    assert job(reasoning={"effort": asked}).setup.reasoning == effort


def test_functions() -> None:
    """Under names that the model can write; strict ones are remembered."""
    made = job(
        tools=[
            function("my tool", description="Does it.", parameters=SCHEMA, strict=True),
            function("my.tool"),
        ]
    )
    assert made.setup.functions == (
        FunctionTool("my_tool", "Does it.", SCHEMA),
        FunctionTool("my_tool_2"),
    )
    assert made.strict == {"my_tool"}
    assert made.tool_choice == "auto"


def test_the_model_is_shown_no_references() -> None:
    """Definitions are written out where they are used."""
    parameters = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/A"}},
        "$defs": {"A": {"type": "integer"}},
    }
    (shown,) = job(tools=[function("f", parameters=parameters)]).setup.functions
    assert shown.parameters == {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "function": {"name": "my tool"}}, "my_tool"),
        ({"type": "custom", "custom": {"name": "other"}}, "auto"),
    ],
)
def test_tool_choice(choice: Any, expected: str) -> None:
    """As the job has it."""
    assert job(tools=[function("my tool")], tool_choice=choice).tool_choice == expected


def test_allowed_tools() -> None:
    """Only these are described."""
    allowed = {"mode": "required", "tools": [function("b")]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    made = job(tools=[function("a"), function("b")], tool_choice=choice)
    assert [f.name for f in made.setup.functions] == ["b"]
    assert made.tool_choice == "required"


def test_none_of_no_tools() -> None:
    """Needs no grammar."""
    assert job(tool_choice="none").tool_choice == "auto"


def test_tools_of_unknown_types_are_left_out() -> None:
    """They are no error: clients offer what they have."""
    made = job(tools=[{"type": "custom", "custom": {"name": "x"}}, {"type": "mcp"}, function("f")])
    assert [f.name for f in made.setup.functions] == ["f"]


@pytest.mark.parametrize(
    ("fields", "builtins"),
    [
        ({}, ()),
        ({"tools": [{"type": "web_search"}]}, ("browser",)),
        ({"tools": [{"type": "web_search_preview"}]}, ("browser",)),
        ({"web_search_options": {}}, ("browser",)),
        ({"tools": [{"type": "code_interpreter"}, {"type": "browser"}]}, ("browser", "python")),
        ({"tools": [{"type": "python"}], "tool_choice": "none"}, ()),
    ],
)
def test_builtins(fields: dict[str, Any], builtins: tuple[str, ...]) -> None:
    """Only where they are asked for, and where the server has them."""
    assert job(("browser", "python"), **fields).builtins == builtins
    assert job((), **fields).builtins == ()


def test_formats() -> None:
    """The schema is enforced, and the model is told of it where it was trained to look."""
    assert job(response_format={"type": "text"}).answer is None
    assert job(response_format={"type": "json_object"}).answer == json_object()
    for strict in (True, False):
        named = {"name": "thing", "description": "A thing.", "schema": SCHEMA, "strict": strict}
        made = job(
            messages=[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
            response_format={"type": "json_schema", "json_schema": named},
        )
        assert made.answer == json_schema(SCHEMA, strict=strict)
        instructions = made.setup.instructions or ""
        assert instructions.startswith(
            "Be kind.\n\n# Response Formats\n\n## thing\n\n// A thing.\n{"
        )


def test_choices() -> None:
    """As many jobs, which a seed does not make the same."""
    assert reading(n=3).jobs == (job(),) * 3
    assert [made.params.seed for made in reading(n=2, seed=2**64 - 1).jobs] == [2**64 - 1, 0]


def test_streams() -> None:
    """What the writer must know."""
    made = reading(stream=True, stream_options={"include_usage": True}, logprobs=True)
    assert made.is_streamed
    assert made.includes_usage
    assert made.top_logprobs == 0


def test_unknown_fields_are_ignored() -> None:
    """Whatever else clients send."""
    extra: dict[str, Any] = {
        "store": True,
        "metadata": {},
        "service_tier": "auto",
        "user": "u",
        "foo": [1],
    }
    assert job(**extra) == job()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"tool_choice": "required"}, "tools"),
        ({"tool_choice": {"function": {"name": "f"}}}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
    ],
)
def test_what_makes_no_sense(fields: dict[str, Any], param: str) -> None:
    """Is a 400 that names the field."""
    with pytest.raises(Problem) as caught:
        reading(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_two_functions_of_one_name() -> None:
    """Could not be told apart."""
    with pytest.raises(UsageError, match="two functions"):
        reading(tools=[function("f"), function("f")])


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": "Hi"},
        {"messages": [{"role": "robot", "content": "Hi"}]},
        {"messages": [{"content": "Hi"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"temperature": 101},
        {"temperature": "hot"},
        {"n": 0},
        {"n": 1000},
        {"top_p": 0},
        {"max_tokens": -2},
        {"logit_bias": {"1": 101}},
        {"stop": ["x"] * 17},
        {"stream": "perhaps"},
        {"tools": [{"type": "function", "function": {"name": ""}}]},
        {"tools": {"type": "function"}},
        {"tool_choice": "perhaps"},
        {"response_format": {"type": "xml"}},
        {"reasoning_effort": "extreme"},
        {"seed": 2**70},
    ],
)
def test_wrong_types(fields: dict[str, Any]) -> None:
    """Are found by the schema."""
    with pytest.raises(ValidationError):
        reading(**fields)
