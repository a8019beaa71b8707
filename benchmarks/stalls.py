"""How long an answer stalls while a long prompt arrives: its longest gap, in chunks' time.

    python benchmarks/stalls.py [--prompt N] [--chunk N] [--rounds N]

A small random model with the attention of gpt-oss. In turns: a prompt is prefilled alone, and its
dearest chunk timed, which is the last, with the longest context; then the same length of other
tokens arrives while a short prompt's answer is being decoded. Prints the longest time between two
tokens of that answer, and its share of the chunk's time.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import cast

import mlx.core as mx
from machine import describe, print_table

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(1, str(Path(__file__).parent.parent / "tests"))  # whose modules import each other

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.convert.synthetic import GPT_OSS_20B
from gptoss_mlx.engine import Engine
from gptoss_mlx.generation import Generation
from tests.helpers import random_model

SMALL = replace(
    GPT_OSS_20B,
    num_hidden_layers=2,
    num_experts=8,
    vocab_size=1000,
    hidden_size=64,
    intermediate_size=64,
    num_attention_heads=2,
    num_key_value_heads=1,
)
LEAD = 8  # tokens of the answer before the long prompt arrives
GREEDY = SamplingParams(temperature=0)


@dataclass
class Stream:
    """An answer that a thread of its own reads; `times` of its tokens."""

    generation: Generation
    times: list[float] = field(default_factory=list[float])
    has_begun: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def stop(self) -> None:
        """Cancel it."""
        self.generation.close()
        self._thread.join()

    def _read(self) -> None:
        for _ in self.generation:
            self.times.append(time.perf_counter())
            if len(self.times) == LEAD:
                self.has_begun.set()


@dataclass(frozen=True)
class Round:
    """Seconds: of the dearest chunk alone, of a token alone, and the longest gap between tokens."""

    chunk: float
    token: float
    gap: float
    tokens: int  # of the answer, while the prompt was prefilled


def main() -> None:
    """Measure in turns and print a table."""
    options = _parser().parse_args()
    model = random_model(SMALL)
    rows = [["round", "dearest chunk", "a token alone", "longest gap", "gap / chunk", "tokens"]]
    rounds: list[Round] = []
    for n in range(options.rounds):
        with Engine(model, prefill_chunk=options.chunk) as engine:
            rounds.append(_round(engine, options.prompt))
        rows.append([str(n + 1), *_cells(rounds[-1])])
    print(describe())
    print(f"{options.prompt:,} tokens in chunks of {options.chunk}")
    print_table(rows)
    print(f"median of gap / chunk: {median(r.gap / r.chunk for r in rounds):.2f}")


def _round(engine: Engine, length: int) -> Round:
    chunk = max(_chunk_seconds(engine, length))
    stream = Stream(engine.generate([1, 2, 3], GREEDY))
    stream.has_begun.wait()
    token = median(b - a for a, b in pairwise(stream.times[1:LEAD]))
    started = time.perf_counter()
    _chunk_seconds(engine, length)
    ended = time.perf_counter()
    stream.stop()
    during = [t for t in stream.times if started < t < ended]
    gaps = [b - a for a, b in pairwise([t for t in stream.times if t <= started][-1:] + during)]
    return Round(chunk, token, max(gaps), len(during))


def _chunk_seconds(engine: Engine, length: int) -> list[float]:
    """Prefill a random prompt; seconds from one chunk's end to the next."""
    ends: list[float] = []
    prompt = cast("list[int]", mx.random.randint(0, SMALL.vocab_size, (length,)).tolist())

    def on_prefill(*_: int) -> None:
        ends.append(time.perf_counter())

    list(engine.generate(prompt, replace(GREEDY, max_tokens=1), on_prefill=on_prefill))
    return [b - a for a, b in pairwise(ends)]


def _cells(found: Round) -> list[str]:
    seconds = (found.chunk, found.token, found.gap)
    return [
        *(f"{second * 1e3:.0f} ms" for second in seconds),
        f"{found.gap / found.chunk:.2f}",
        str(found.tokens),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Time an answer's gaps while a prompt arrives.")
    parser.add_argument("--prompt", type=int, default=30_000, help="tokens of the long prompt")
    parser.add_argument("--chunk", type=int, default=512, help="tokens that are prefilled at once")
    parser.add_argument("--rounds", type=int, default=3)
    return parser


if __name__ == "__main__":
    main()
