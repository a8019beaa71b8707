"""Whether constrained completions are valid, and what the constraint costs: the demo, 100 schemas.

    python benchmarks/structured.py [--schemas N] [--limit TOKENS]

Each schema at each reasoning effort, then each as the arguments of a call that must come.
The demo knows nothing of schemas, so what is valid here is so by the grammar alone. The engine runs
eight at a time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, get_args

import jsonschema
from machine import describe, print_table

from gptoss_mlx.engine import Engine
from gptoss_mlx.grammar import GrammarSpec, Tool, choice, compile_grammar, json_schema
from gptoss_mlx.harmony import Effort, Message, Setup, parse, render
from gptoss_mlx.models import load
from gptoss_mlx.tokenizer import Tokenizer, load_tokenizer

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.grammar.schemas import SCHEMAS, arguments_schema
from tests.grammar.walks import Walk, generate

EFFORTS: tuple[Effort, ...] = get_args(Effort)
TOOLS = ("functions.first", "functions.second")
QUESTIONS = (
    "Hello!",
    "What is the capital of France?",
    "What is 3 + 4?",
    "How is the weather in Rome?",
)


def main() -> None:
    """Draw, validate, print."""
    options = _parser().parse_args()
    tokenizer, model = load_tokenizer(), load("demo")
    started = time.perf_counter()
    compile_grammar(GrammarSpec(answer=choice(["first"])), tokenizer)
    print(describe())
    print(f"vocabulary for grammars, once: {time.perf_counter() - started:.2f} s")
    with Engine(model) as engine, ThreadPoolExecutor(8) as pool:
        bench = Bench(engine, tokenizer, options.limit)
        numbers = range(options.schemas)
        for effort in EFFORTS:
            list(pool.map(partial(bench.answer, effort), numbers))
        list(pool.map(bench.call, numbers))
    print_table([bench.TITLES, *bench.rows()])


@dataclass
class Kind:
    """The completions of one row."""

    valid: int = 0
    walks: list[Walk] = field(default_factory=list[Walk])
    builds: list[float] = field(default_factory=list[float])


class Bench:
    """What has been drawn so far."""

    TITLES = (
        "completion",
        "valid",
        "tokens",
        "build ms: median / max",
        "mask ms: median / p99 / max",
    )

    def __init__(self, engine: Engine, tokenizer: Tokenizer, limit: int) -> None:
        self._engine, self._tokenizer, self._limit = engine, tokenizer, limit
        self._kinds: dict[str, Kind] = {}

    def answer(self, effort: Effort, seed: int) -> None:
        """An answer that must validate."""
        schema = SCHEMAS[seed]
        kind = f"answer, {effort} effort"
        message = self._draw(kind, GrammarSpec(answer=json_schema(schema)), effort, seed)
        self._kinds[kind].valid += message.is_final and _is_valid(message, schema)

    def call(self, seed: int) -> None:
        """A call that must come, and validate; every other one is of a tool that is named."""
        schema = arguments_schema(seed)
        tools = tuple(Tool(name, json_schema(schema)) for name in TOOLS)
        wanted = "required" if seed % 2 else TOOLS[seed // 2 % 2]
        kind = "call, required" if seed % 2 else "call, named"
        spec = GrammarSpec(tools=tools, tool_choice=wanted)
        message = self._draw(kind, spec, EFFORTS[seed % 3], seed)
        is_right = message.recipient in (TOOLS if wanted == "required" else (wanted,))
        self._kinds[kind].valid += is_right and _is_valid(message, schema)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The table."""
        for name, kind in self._kinds.items():
            tokens = [len(walk.ids) for walk in kind.walks]
            masks = sorted(second for walk in kind.walks for second in walk.seconds)
            yield (
                name,
                f"{kind.valid} of {len(kind.walks)}",
                f"{median(tokens):.0f}, at most {max(tokens)}",
                _milliseconds(median(kind.builds), max(kind.builds)),
                _milliseconds(median(masks), masks[len(masks) * 99 // 100], masks[-1]),
            )

    def _draw(self, kind: str, spec: GrammarSpec, effort: Effort, seed: int) -> Message:
        """The last message of a completion, which is noted."""
        noted = self._kinds.setdefault(kind, Kind())
        started = time.perf_counter()
        grammar = compile_grammar(spec, self._tokenizer)
        noted.builds.append(time.perf_counter() - started)
        question = Message("user", QUESTIONS[seed % len(QUESTIONS)])
        prompt = render(Setup(effort), [question], self._tokenizer)
        walk = generate(self._engine, prompt, grammar, seed, self._limit)
        noted.walks.append(walk)
        return parse(walk.ids, self._tokenizer)[-1]


def _is_valid(message: Message, schema: dict[str, Any]) -> bool:
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    try:
        return validator.is_valid(json.loads(message.content))
    except json.JSONDecodeError:
        return False


def _milliseconds(*seconds: float) -> str:
    return " / ".join(f"{1000 * second:.2f}" for second in seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schemas", type=int, default=100, help="of the 100, how many")
    parser.add_argument("--limit", type=int, default=1500, help="tokens a completion, at most")
    return parser


if __name__ == "__main__":
    main()
