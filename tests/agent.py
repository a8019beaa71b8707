"""A scripted agent: conversations with tools, and what an engine prefills for each of its prompts.

The model is random, so what an agent would sample is written here beforehand, and a constraint
makes the engine sample it. It knows neither the prefix cache nor how its prompts are prefilled.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.engine import Engine
from gptoss_mlx.harmony import FunctionTool, Message, Setup, parse, render
from gptoss_mlx.sequence import Request, Token, common_prefix
from gptoss_mlx.tokenizer import START, Tokenizer

__all__ = [
    "Exchange",
    "Replay",
    "Script",
    "exchanges",
    "greedy",
    "new_tokens",
    "renumbered",
    "replay",
]

_WORDS = (
    "cache",
    "window",
    "prompt",
    "layer",
    "token",
    "stream",
    "buffer",
    "segment",
    "branch",
    "offset",
    "worker",
    "queue",
    "reader",
    "lease",
    "error",
    "missing",
    "module",
    "session",
    "handler",
    "parser",
    "schema",
    "timeout",
    "retry",
    "socket",
    "index",
    "commit",
    "record",
)
_EDITED = "Something else instead: "


@dataclass(frozen=True)
class Script:
    """How long a conversation is: turns of the user, calls in each, and words of the texts."""

    turns: int
    calls: tuple[int, ...]  # of the first turn, the second, ...; then again from the first
    tools: int
    user_words: int
    reasoning_words: int
    result_lines: int
    answer_words: int
    seed: int = 0


@dataclass(frozen=True)
class Exchange:
    """A prompt, and what an agent samples for it, its stop token included.

    turn and step count from 1; `system_end` is where the prompt's first user message begins.
    """

    turn: int
    step: int
    kind: str
    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    system_end: int
    ends_with_user: bool


@dataclass(frozen=True)
class Replay:
    """What came of an exchange: prompt tokens computed, and the model's own first choice."""

    prefilled: int
    first_choice: int


class _Forced:
    """A constraint that leaves one id at a time."""

    def __init__(self, ids: Sequence[int], vocab_size: int) -> None:
        self._left = list(reversed(ids))
        self._words = -(-vocab_size // 32)

    def mask(self) -> NDArray[np.uint32]:
        """The next id's bit."""
        bits = np.zeros(self._words, np.uint32)
        bits[self._left[-1] // 32] = 1 << self._left[-1] % 32
        return bits

    def forced(self) -> list[int]:
        """Nothing: it may be anything that the mask allows."""
        return []

    def advance(self, token: int) -> None:
        """It has been drawn."""
        expected = self._left.pop()
        if token != expected:
            raise AssertionError(f"the mask leaves {expected}, and {token} was drawn")


def exchanges(script: Script, tokenizer: Tokenizer) -> Iterator[Exchange]:
    """The conversation's prompts in order; at last one more time, then with the user's text edited.

    The last user message is edited at its beginning, and then once more at its end.
    """
    conversation = _Conversation(script, tokenizer)
    last_turn: list[Message] = []
    exchange: Exchange | None = None
    for turn in range(1, script.turns + 1):
        last_turn = [*conversation.messages, conversation.user_message()]
        conversation.messages = list(last_turn)
        calls = script.calls[(turn - 1) % len(script.calls)]
        for step in range(1, calls + 2):
            kind = "new turn" if step == 1 else "tool result"
            exchange = conversation.exchange(turn, step, kind, is_call=step <= calls)
            yield exchange
    assert exchange is not None
    yield replace(exchange, kind="regenerate")
    text = last_turn[-1].content
    for kind, edited in (
        ("edited, beginning", _EDITED + text),
        ("edited, end", f"{text} {_EDITED}{text[:40]}"),
    ):
        conversation.messages = [*last_turn[:-1], Message("user", edited)]
        yield conversation.exchange(script.turns, 1, kind, is_call=False)


def renumbered(conversation: Sequence[Exchange]) -> list[Exchange]:
    """The same with the few ids that occur numbered from 0, for a model of a small vocabulary."""
    ids = sorted({i for exchange in conversation for i in exchange.prompt + exchange.completion})
    number = {i: n for n, i in enumerate(ids)}
    return [
        replace(
            exchange,
            prompt=tuple(number[i] for i in exchange.prompt),
            completion=tuple(number[i] for i in exchange.completion),
        )
        for exchange in conversation
    ]


def new_tokens(history: Sequence[Exchange], prompt: Sequence[int]) -> int:
    """Tokens of a prompt after the longest beginning it shares with what was there before."""
    known = [common_prefix((*past.prompt, *past.completion), prompt) for past in history]
    return max(1, len(prompt) - max(known, default=0))


def replay(engine: Engine, exchange: Exchange) -> Replay:
    """Let an engine sample the exchange's completion, token by token."""
    params = SamplingParams(temperature=0, max_tokens=len(exchange.completion), logprobs=1)
    generation = engine.submit(
        Request(
            exchange.prompt,
            params,
            stop=exchange.completion[-1:],
            boundaries=frozenset(exchange.prompt[:1]),  # a prompt begins as messages do
            constraint=_Forced(exchange.completion, engine.model.config.vocab_size),
        )
    )
    tokens: list[Token] = list(generation.tokens())
    assert tuple(token.id for token in tokens) == exchange.completion
    prefilled = generation.stats.prompt_tokens - generation.stats.cached_tokens
    return Replay(prefilled, tokens[0].top_logprobs[0][0])


def greedy(engine: Engine, prompt: Sequence[int], tokens: int) -> list[int]:
    """What the model itself says to a prompt."""
    return list(engine.generate(prompt, SamplingParams(temperature=0, max_tokens=tokens)))


class _Conversation:
    """The messages so far, and the texts to come: all from the script's seed."""

    def __init__(self, script: Script, tokenizer: Tokenizer) -> None:
        self.messages: list[Message] = []
        self._script, self._tokenizer = script, tokenizer
        self._random = random.Random(script.seed)
        self._tools = tuple(self._tool(n) for n in range(script.tools))
        self._setup = Setup("medium", self._words(60), self._tools, "2025-08-05")
        empty = render(self._setup, [Message("user", "")], tokenizer)
        self._system_end = empty.index(START, empty.index(START, 1) + 1)

    def user_message(self) -> Message:
        """What the user says next."""
        return Message("user", self._words(self._script.user_words))

    def exchange(self, turn: int, step: int, kind: str, *, is_call: bool) -> Exchange:
        """The prompt for the messages so far; what is sampled joins them, and a tool's result."""
        prompt = render(self._setup, self.messages, self._tokenizer)
        ends_with_user = self.messages[-1].role == "user"
        completion = self._tokenizer.encode_with_special(self._call() if is_call else self._final())
        sampled = parse(completion, self._tokenizer)
        self.messages += sampled
        if is_call:
            self.messages.append(self._result(sampled[-1]))
        ids = (tuple(prompt), tuple(completion))
        return Exchange(turn, step, kind, *ids, self._system_end, ends_with_user)

    def _call(self) -> str:
        name = self._random.choice(self._tools).name
        arguments = json.dumps({"path": self._path(), "query": self._words(4), "limit": 40})
        return (
            f"{self._reasoning()}<|start|>assistant<|channel|>commentary to=functions.{name} "
            f"<|constrain|>json<|message|>{arguments}<|call|>"
        )

    def _final(self) -> str:
        answer = self._words(self._script.answer_words)
        return f"{self._reasoning()}<|start|>assistant<|channel|>final<|message|>{answer}<|return|>"

    def _reasoning(self) -> str:
        thought = self._words(self._script.reasoning_words)
        return f"<|channel|>analysis<|message|>{thought}<|end|>"

    def _result(self, call: Message) -> Message:
        lines = [
            f"{self._path()}:{self._random.randrange(900)}: {self._words(8)}"
            for _ in range(self._script.result_lines)
        ]
        return Message(
            "tool", "\n".join(lines), call.channel, recipient="assistant", name=call.recipient
        )

    def _tool(self, n: int) -> FunctionTool:
        names = {"path": "string", "query": "string", "limit": "integer", "recursive": "boolean"}
        properties = {
            name: {"type": kind, "description": self._words(10)} for name, kind in names.items()
        }
        schema = {"type": "object", "properties": properties, "required": ["path"]}
        return FunctionTool(f"{self._random.choice(_WORDS)}_{n}", self._words(25), schema)

    def _path(self) -> str:
        return f"src/{self._random.choice(_WORDS)}/{self._random.choice(_WORDS)}.py"

    def _words(self, count: int) -> str:
        return " ".join(self._random.choices(_WORDS, k=count))
