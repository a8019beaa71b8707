"""What an agent's loop of tool calls prefills, here and with the prompt cache of mlx-lm's server.

    python benchmarks/tool_loop.py [--turns N] [--lines N] [--cold N]

A scripted agent (tests/agent.py) holds a conversation in harmony, reasoning of finished turns left
out; its last answer is regenerated, and its last question edited. The model is small and random,
and what the agent samples is forced on it. For each request: the prompt, what is new in it (after
the longest beginning it shares with any earlier prompt and completion), what was prefilled, and the
ratio. After each, or only the last `--cold`, the model's own greedy answer is held against that
of a fresh engine.

mlx-lm's column is its own LRUPromptCache and BatchGenerator, used as its server uses them, with the
caches of gpt-oss and the same ids, but with a model that computes nothing. Prompts that its chat
template renders otherwise than they were sampled would cost it more.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from machine import describe, gigabytes, peak_rss, print_table
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import KVCache, LRUPromptCache, RotatingKVCache

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(1, str(Path(__file__).parent.parent / "tests"))  # whose modules import each other

from gptoss_mlx.convert.synthetic import GPT_OSS_20B
from gptoss_mlx.engine import Engine
from gptoss_mlx.tokenizer import load_tokenizer
from tests.agent import (
    Exchange,
    Replay,
    Script,
    exchanges,
    greedy,
    new_tokens,
    renumbered,
    replay,
)
from tests.helpers import random_model

SMALL = replace(
    GPT_OSS_20B,
    num_hidden_layers=2,
    num_experts=4,
    experts_per_token=2,
    vocab_size=1024,  # the conversation's few ids are numbered anew
    hidden_size=64,
    intermediate_size=64,
    num_attention_heads=1,
    num_key_value_heads=1,
)
GREEDY_TOKENS = 8
TITLES = ("turn", "request", "prompt", "new", "prefilled", "ratio", "mlx-lm", "ratio", "greedy")
_Prefill = Callable[[Exchange], int]


@dataclass(frozen=True)
class Row:
    """One request: tokens prefilled here and by mlx-lm, and whether the answer is the cold one."""

    exchange: Exchange
    new: int
    ours: int
    theirs: int
    is_equal: bool | None
    seconds: float


def main() -> int:
    """Replay the conversation; the exit code is 1 if an answer differs from a cold start's."""
    options = _parser().parse_args()
    script = Script(
        turns=options.turns,
        calls=(2, 3, 2),
        tools=40,
        user_words=120,
        reasoning_words=60,
        result_lines=options.lines,
        answer_words=60,
    )
    conversation = renumbered(list(exchanges(script, load_tokenizer())))
    model, stock = random_model(SMALL), StockServer()
    with Engine(model) as engine:
        rows = _rows(engine, stock.prefilled, conversation, options.cold)
        held = engine.prefix.nbytes
    _print(rows)
    print(
        f"here: {gigabytes(held)} cached, {held // engine.prefix.position_bytes:,} positions' worth"
    )
    print(f"mlx-lm: {stock.positions:,} positions cached, in {len(stock.cache)} copies")
    return int(any(row.is_equal is False for row in rows))


def _rows(engine: Engine, stock: _Prefill, conversation: list[Exchange], cold: int) -> list[Row]:
    rows: list[Row] = []
    for n, exchange in enumerate(conversation):
        new = new_tokens(conversation[:n], exchange.prompt)
        started = time.perf_counter()
        ours = replay(engine, exchange)
        seconds = time.perf_counter() - started
        is_held = n >= len(conversation) - cold
        is_equal = _is_cold_answer(engine, exchange, ours) if is_held else None
        rows.append(Row(exchange, new, ours.prefilled, stock(exchange), is_equal, seconds))
        print(f"{n + 1} of {len(conversation)}", end="\r", file=sys.stderr, flush=True)
    return rows


def _is_cold_answer(engine: Engine, exchange: Exchange, ours: Replay) -> bool:
    """Whether the model says the same to a prompt with the cache and without."""
    warm = greedy(engine, exchange.prompt, GREEDY_TOKENS)
    with Engine(engine.model) as fresh:
        cold = greedy(fresh, exchange.prompt, GREEDY_TOKENS)
    return warm == cold and ours.first_choice == cold[0]


class StockServer:
    """The prompt cache of mlx-lm's server and its batch generator, by the server's own rules."""

    def __init__(self) -> None:
        self.cache: Any = LRUPromptCache(10)  # the server's default
        self._generator: Any = BatchGenerator(cast("Any", _NoModel()))

    def prefilled(self, exchange: Exchange) -> int:
        """Serve one request; how many tokens of its prompt were not cached."""
        prompt = list(exchange.prompt)
        cache, rest = self.cache.fetch_nearest_cache("model", prompt)
        kinds = self._insert(exchange, cache, len(prompt) - len(rest))
        finished: Any = None
        while finished is None:
            prompted, generated = self._generator.next()
            ends = [r.uid for r in prompted if r.end_of_segment and not r.end_of_prompt and kinds]
            for cache, key in self._generator.extract_cache(ends).values():
                self.cache.insert_cache("model", key[:], cache, cache_type=kinds.pop(0))
            finished = next((r for r in generated if r.finish_reason), None)
        self.cache.insert_cache("model", finished.all_tokens[:], finished.prompt_cache)
        return len(rest)

    @property
    def positions(self) -> int:
        """Tokens that all its copies hold in a full layer."""
        model = self.cache._trie._trie["model"]
        return sum(entry.prompt_cache[1].offset for entry in _values(model))

    def _insert(self, exchange: Exchange, cache: Any, cached: int) -> list[str]:
        """Queue the prompt in the server's segments; the kinds of those that are left."""
        ends, kinds = [len(exchange.prompt)], ["assistant"]
        if exchange.ends_with_user:
            ends, kinds = [exchange.system_end, len(exchange.prompt)], ["system", "user"]
        starts = [0, *ends[:-1]]
        segments = [
            list(exchange.prompt[max(start, cached) : end])
            for start, end in zip(starts, ends, strict=True)
        ]
        self._generator.insert_segments(
            segments=[[segment for segment in segments if segment]],
            max_tokens=[len(exchange.completion)],
            caches=[cache],
            all_tokens=[list(exchange.prompt[:cached])],
            samplers=[_sampler(exchange.completion)],
        )
        return [kind for kind, segment in zip(kinds, segments, strict=True) if segment]


def _sampler(ids: Sequence[int]) -> Callable[[mx.array], mx.array]:
    """Draws these ids, whatever the logits; and then 0, since it is asked once too often."""
    left = iter(ids)

    def draw(logits: mx.array) -> mx.array:
        return mx.array([next(left, 0)] * len(logits))

    return draw


class _NoModel:
    """Fills caches like gpt-oss's, a full and a sliding layer, with one number a token."""

    def make_cache(self) -> list[Any]:
        """An empty cache."""
        return [RotatingKVCache(max_size=SMALL.sliding_window), KVCache()]

    def __call__(self, ids: mx.array, cache: list[Any]) -> mx.array:
        """ids (B, T) -> logits (B, T, 1)."""
        for layer in cache:
            layer.update_and_fetch(*[mx.zeros((ids.shape[0], 1, ids.shape[1], 1))] * 2)
        return mx.zeros((*ids.shape, 1))


def _values(node: dict[Any, Any]) -> list[Any]:
    """The entries of a trie of tokens."""
    found: list[Any] = []
    stack = [node]
    while stack:
        for token, child in stack.pop().items():
            (found if token == "__value__" else stack).append(child)
    return found


def _print(rows: list[Row]) -> None:
    print(describe())
    table: list[list[str]] = [list(TITLES)]
    for row in rows:
        at = row.exchange
        counts = [len(at.prompt), row.new, row.ours]
        table.append(
            [
                f"{at.turn}.{at.step}",
                at.kind,
                *(f"{count:,}" for count in counts),
                f"{row.ours / row.new:.3f}",
                f"{row.theirs:,}",
                f"{row.theirs / row.new:.3f}",
                {True: "equal", False: "DIFFERENT", None: ""}[row.is_equal],
            ]
        )
    new, ours, theirs = (
        sum(getattr(row, name) for row in rows) for name in ("new", "ours", "theirs")
    )
    total = ["", "all", "", f"{new:,}", f"{ours:,}", f"{ours / new:.3f}"]
    print_table([*table, [*total, f"{theirs:,}", f"{theirs / new:.3f}", ""]])
    rss = peak_rss(resource.getrusage(resource.RUSAGE_SELF))
    seconds = sum(row.seconds for row in rows)
    print(f"{seconds:.0f} s for all requests, completions included; peak RSS {gigabytes(rss)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Count what an agent's loop prefills.")
    parser.add_argument("--turns", type=int, default=8, help="of the user")
    parser.add_argument("--lines", type=int, default=80, help="of each tool's result")
    parser.add_argument("--cold", type=int, default=1 << 30, help="fresh engines, for the last N")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
