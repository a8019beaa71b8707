"""Tests of gptoss_mlx.server.job: which completions a job allows."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_mlx.errors import GrammarError
from gptoss_mlx.grammar import json_schema
from gptoss_mlx.harmony import FunctionTool, Message, Setup
from gptoss_mlx.sequence import Constraint
from gptoss_mlx.server.job import Job, ToolNames, constraint
from gptoss_mlx.tokenizer import Tokenizer

THINK = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>{}<|return|>"
PYTHON = "<|channel|>analysis to=python code<|message|>1<|call|>"
HELLO = (Message("user", "Hi"),)
RESULT = Message("tool", "2", "commentary", "assistant", name="functions.f")
A_IS_ONE = {"properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False}
NO_SCHEMA: dict[str, Any] = {"type": "objekt"}
TOO_LARGE = {"properties": {f"p{n}": {"type": "string"} for n in range(5000)}}


def call(arguments: str, name: str = "f") -> str:
    """A call of a function."""
    return (
        f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{arguments}<|call|>"
    )


def job(*schemas: dict[str, Any] | None, **fields: Any) -> Job:
    """A job with functions f, g, ... that have these schemas."""
    functions = (FunctionTool("fgh"[n], "", schema) for n, schema in enumerate(schemas))
    given: dict[str, Any] = {"messages": HELLO, "setup": Setup(functions=tuple(functions))}
    return Job(**{**given, **fields})


def turns(of: Job, tokenizer: Tokenizer, *builtins: str) -> list[Constraint]:
    """What its first two turns may say."""
    make = constraint(of, builtins, tokenizer)
    assert make is not None
    return [make(), make()]


def allows(matcher: Constraint, text: str, tokenizer: Tokenizer) -> bool:
    """Whether a completion may be this text."""
    try:
        for i in tokenizer.encode_with_special(text):
            matcher.advance(i)
    except GrammarError:
        return False
    return matcher.mask() is None


def may(of: Job, text: str, tokenizer: Tokenizer) -> bool:
    """The same of a job's first turn."""
    return allows(turns(of, tokenizer)[0], text, tokenizer)


def test_no_demands_are_no_grammar(tokenizer: Tokenizer) -> None:
    """Where anything may come, nothing needs to be compiled."""
    assert constraint(job(), (), tokenizer) is None


def test_arguments_follow_their_schema(tokenizer: Tokenizer) -> None:
    """Each function its own; without a schema they are an object."""
    made = job(A_IS_ONE, None)
    assert may(made, call('{"a": 1}'), tokenizer)
    assert not may(made, call('{"a": 2}'), tokenizer)
    assert may(made, call('{"a": 2}', "g"), tokenizer)
    assert not may(made, call("[1]", "g"), tokenizer)


@pytest.mark.parametrize("extra", [{}, {"type": ["object", "null"]}, {"type": "array"}])
def test_arguments_are_an_object(tokenizer: Tokenizer, extra: dict[str, Any]) -> None:
    """Whatever a schema leaves open, or demands: nothing else could be called with."""
    made = job({**A_IS_ONE, **extra})
    assert may(made, call('{"a": 1}'), tokenizer)
    assert not any(may(made, call(text), tokenizer) for text in ("1", "null", "[]"))


@pytest.mark.parametrize("schema", [NO_SCHEMA["type"], TOO_LARGE, {"properties": None}])
def test_a_schema_that_cannot_be_used(tokenizer: Tokenizer, schema: Any) -> None:
    """Costs only its own tool the schema."""
    bad = {"properties": {"a": {"type": schema}}} if isinstance(schema, str) else schema
    made = job(bad, A_IS_ONE)
    assert may(made, call('{"a": 2}'), tokenizer)
    assert not may(made, call("[]"), tokenizer)
    assert not may(made, call('{"a": 2}', "g"), tokenizer)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"properties": {"a": NO_SCHEMA}}, "Invalid type"),
        (TOO_LARGE, "5,000 properties: at most 1,000"),
        ({"not": {"required": ["a"]}}, "not"),
        ({"properties": {"a": {"const": "x" * 400_000}}}, "300,000 characters"),
    ],
)
def test_a_strict_schema_that_cannot_be_used(
    tokenizer: Tokenizer, schema: dict[str, Any], why: str
) -> None:
    """Is an error that names the tool and says why."""
    made = job(A_IS_ONE, schema, strict=frozenset("g"))
    with pytest.raises(GrammarError, match=rf"functions\.g.*{why}"):
        constraint(made, (), tokenizer)


def test_schemas_that_are_too_much_together(tokenizer: Tokenizer) -> None:
    """Those that come first are enforced, and strict ones among them."""
    long = {"properties": {"a": {"enum": ["x" * 160_000, "y"]}}}
    made = job(A_IS_ONE, long, {**long, "description": "another"})
    assert not may(made, call('{"a": 2}'), tokenizer)
    assert not may(made, call('{"a": 2}', "g"), tokenizer)
    assert may(made, call('{"a": 2}', "h"), tokenizer)


def test_two_hundred_tools(tokenizer: Tokenizer) -> None:
    """Are as many as MCP servers bring along: each may be called, and is held to its schema."""
    functions = tuple(FunctionTool(f"f{n}", "", A_IS_ONE) for n in range(200))
    made = Job(HELLO, Setup(functions=functions))
    assert may(made, call('{"a": 1}', "f199"), tokenizer)
    assert not may(made, call('{"a": 2}', "f17"), tokenizer)


@pytest.mark.parametrize("choice", ["required", "f"])
def test_a_call_is_demanded_once(tokenizer: Tokenizer, choice: str) -> None:
    """After a call of the server's own tool comes whatever the model likes."""
    made = job(None, tool_choice=choice)
    first, second = turns(made, tokenizer, "python")
    assert not allows(first, FINAL, tokenizer)
    assert allows(second, FINAL, tokenizer)
    first, second = turns(made, tokenizer, "python")
    assert allows(first, PYTHON, tokenizer) == (choice == "required")
    assert allows(second, PYTHON, tokenizer)


def test_a_client_is_called_whenever_that_is_demanded(tokenizer: Tokenizer) -> None:
    """Without tools of the server's, every turn is a reply's first."""
    for matcher in turns(job(None, tool_choice="required"), tokenizer):
        assert not allows(matcher, FINAL, tokenizer)


def test_no_call_stays_no_call(tokenizer: Tokenizer) -> None:
    """In later turns too."""
    for matcher in turns(job(None, tool_choice="none"), tokenizer, "python"):
        assert not allows(matcher, PYTHON, tokenizer)


def test_what_follows_a_schema_was_thought_about(tokenizer: Tokenizer) -> None:
    """A chain of thought comes first, though not once more after a tool's result."""
    made = job(answer=json_schema({"type": "object"}))
    assert not may(made, FINAL, tokenizer)
    assert not may(made, THINK.replace("Hm.", "") + FINAL, tokenizer)
    assert may(made, THINK + FINAL, tokenizer)
    after = job(None, answer=json_schema({"type": "object"}), messages=(*HELLO, RESULT))
    assert may(after, FINAL, tokenizer)
    assert allows(turns(made, tokenizer, "python")[1], FINAL, tokenizer)


@pytest.mark.parametrize(
    "names",
    [
        ["Web Search", "web.search", "web_search"],
        ["python", "browser", "browser.search"],
        ["f f", "f_f", "f.f", "f/f"],
        ["日本", "€", "日本語"],
        ["a" * 200],
    ],
)
def test_names_go_round(names: list[str]) -> None:
    """Whatever clients call their functions: the model's name is one it can write, and one only."""
    made = ToolNames(names)
    seen = [made.to_model(name) for name in names]
    assert len({*seen, "python", "browser"}) == len(seen) + 2
    assert all(name.replace("_", "").replace("-", "").isalnum() for name in seen)
    assert [made.to_client(f"functions.{name}") for name in seen] == names
