"""A hundred schemas: what is drawn under them validates, by chance and from the demo model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from gptoss_mlx.engine import Engine
from gptoss_mlx.grammar import GrammarSpec, Tool, compile_grammar, json_schema
from gptoss_mlx.harmony import Effort, Message, Setup, parse, render
from gptoss_mlx.models import load
from gptoss_mlx.tokenizer import Tokenizer

from .schemas import SCHEMAS, arguments_schema
from .walks import generate, stroll

pytestmark = pytest.mark.slow

EFFORTS: tuple[Effort, ...] = ("low", "medium", "high")


@pytest.fixture(scope="module")
def demo() -> Iterator[Engine]:
    """The demo model's engine."""
    with Engine(load("demo")) as engine:
        yield engine


def validate(text: str, schema: dict[str, Any]) -> None:
    """Raise unless the text is JSON that the schema describes."""
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    validator.validate(json.loads(text))


@pytest.mark.parametrize("n", range(len(SCHEMAS)))
def test_chance_validates(tokenizer: Tokenizer, n: int) -> None:
    """An answer, or the arguments of a call, of tokens drawn uniformly satisfy the schema."""
    form = json_schema(SCHEMAS[n])
    tool = GrammarSpec(tools=(Tool("f", form),), tool_choice="f")
    spec = tool if n % 5 == 0 else GrammarSpec(form)
    walk = stroll(compile_grammar(spec, tokenizer), tokenizer, seed=n)
    assert walk.is_finished
    message = parse(walk.ids, tokenizer)[-1]
    assert message.is_tool_call == (spec is tool)
    validate(message.content, SCHEMAS[n])


@pytest.mark.parametrize("n", range(5, 100, 10))
def test_the_demo_validates(tokenizer: Tokenizer, demo: Engine, n: int) -> None:
    """It has never seen a schema, and reasons first; benchmarks/structured.py does them all."""
    prompt = render(Setup(EFFORTS[n // 10 % 3]), [Message("user", "Hello!")], tokenizer)
    grammar = compile_grammar(GrammarSpec(json_schema(SCHEMAS[n])), tokenizer)
    walk = generate(demo, prompt, grammar, seed=n)
    assert walk.is_finished
    *reasoning, answer = parse(walk.ids, tokenizer)
    assert all(message.is_reasoning for message in reasoning)
    assert answer.is_final
    validate(answer.content, SCHEMAS[n])


@pytest.mark.parametrize("n", range(3))
def test_the_demo_calls(tokenizer: Tokenizer, demo: Engine, n: int) -> None:
    """A call that must come does come, to the tool that was named, with valid arguments."""
    schema = arguments_schema(7 * n)
    tools = (Tool("functions.first", json_schema(schema)), Tool("functions.other"))
    spec = GrammarSpec(tools=tools, tool_choice="functions.first", preambles=False)
    prompt = render(Setup(), [Message("user", "Hello!")], tokenizer)
    walk = generate(demo, prompt, compile_grammar(spec, tokenizer), seed=n)
    assert walk.is_finished
    call = parse(walk.ids, tokenizer)[-1]
    assert call.recipient == "functions.first"
    validate(call.content, schema)
