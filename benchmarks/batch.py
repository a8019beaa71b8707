"""Batches of 1, 2, 4 and 8 sequences: tokens a second, here and in mlx-lm, on one checkpoint.

    python benchmarks/batch.py CHECKPOINT [--tokens N] [--prompt N] [--rounds N] [--sizes 1,2,4,8]

Both decode the same random prompts greedily, in turns: this engine, and mlx-lm's BatchGenerator.
Rates are of all sequences together, over the time in which all of them decode: after the last one's
first token, until the first one ends. Medians of `--rounds`, and their ratio to a batch of one.
Then every sequence of the largest batch is held against the same request alone, greedy and drawn at
temperature 1 with a seed; the exit code is 1 if one of ours differs. mlx-lm computes in the
checkpoint's dtype (bfloat16), or with `--float32` in float32 as ours does where there is no GPU.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, cast

import mlx.core as mx
import mlx_lm
from machine import describe, print_table
from mlx_lm.generate import BatchGenerator

from gptoss_mlx import load
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.engine import Engine
from gptoss_mlx.models import resolve

Prompts = Sequence[list[int]]


@dataclass
class Completion:
    """Ids of a sequence, and when each came."""

    ids: list[int] = field(default_factory=list[int])
    times: list[float] = field(default_factory=list[float])

    def add(self, token: int) -> None:
        """A token comes now."""
        self.ids.append(token)
        self.times.append(time.perf_counter())


Decode = Callable[[Prompts], list[Completion]]


def main() -> int:
    """Measure both in turns, compare, and print."""
    options = _parser().parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    model = load(options.checkpoint)
    theirs = cast("Any", mlx_lm).load(str(resolve(options.checkpoint)))[0]
    if options.float32:
        theirs.set_dtype(mx.float32)
    mx.random.seed(options.seed)
    shape = (max(sizes), options.prompt)
    prompts = cast("Prompts", mx.random.randint(0, model.config.vocab_size, shape).tolist())
    greedy = SamplingParams(temperature=0, max_tokens=options.tokens)
    sides: dict[str, Decode] = {
        "gptoss-mlx": lambda some: _ours(Engine(model), some, [greedy] * len(some)),
        "mlx-lm": lambda some: _theirs(theirs, some, options.tokens),
    }
    rates: dict[str, dict[int, list[float]]] = {name: {n: [] for n in sizes} for name in sides}
    for _ in range(options.rounds):
        for size in sizes:
            for name, decode in sides.items():
                rates[name][size].append(_rate(decode(prompts[:size])))
    print(describe())
    _print_rates(rates, sizes)
    return 0 if options.no_check else _check(sides, Engine(model), prompts, options.tokens)


def _ours(engine: Engine, prompts: Prompts, params: Sequence[SamplingParams]) -> list[Completion]:
    """Decode all at once; a fresh engine has nothing cached."""
    found = [Completion() for _ in prompts]
    with engine:
        generations = [engine.generate(*pair) for pair in zip(prompts, params, strict=True)]

        def read(n: int) -> None:
            for token in generations[n]:
                found[n].add(token)

        threads = [threading.Thread(target=read, args=(n,)) for n in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return found


def _theirs(model: Any, prompts: Prompts, tokens: int) -> list[Completion]:
    generator: Any = BatchGenerator(model, max_tokens=tokens)
    uids = generator.insert([list(prompt) for prompt in prompts])
    found: dict[int, Completion] = {uid: Completion() for uid in uids}
    while any(len(completion.ids) < tokens for completion in found.values()):
        for response in generator.next_generated():
            found[response.uid].add(response.token)
    generator.close()
    return list(found.values())


def _rate(completions: list[Completion]) -> float:
    """Tokens a second of all, while all decode."""
    start = max(completion.times[0] for completion in completions)
    end = min(completion.times[-1] for completion in completions)
    if end <= start:
        raise SystemExit("the first sequence ends before the last begins: pass more --tokens")
    return sum(start < t <= end for c in completions for t in c.times) / (end - start)


def _check(sides: dict[str, Decode], engine: Engine, prompts: Prompts, tokens: int) -> int:
    """Compare a whole batch with each of its requests alone; the exit code."""
    params = {
        "greedy": [SamplingParams(temperature=0, max_tokens=tokens)] * len(prompts),
        "seeded": [SamplingParams(seed=n, max_tokens=tokens) for n in range(len(prompts))],
    }
    rows = [["batch against alone", "equal"]]
    equal: list[int] = []
    for kind, some in params.items():
        batched = _ours(Engine(engine.model), prompts, some)
        alone = [
            _ours(Engine(engine.model), [prompt], [one])[0]
            for prompt, one in zip(prompts, some, strict=True)
        ]
        equal.append(_count_equal(batched, alone))
        rows.append([f"gptoss-mlx, {kind}", f"{equal[-1]} of {len(prompts)}"])
    decode = sides["mlx-lm"]
    theirs = _count_equal(decode(prompts), [decode([prompt])[0] for prompt in prompts])
    print_table([*rows, ["mlx-lm, greedy", f"{theirs} of {len(prompts)}"]])
    return int(any(count < len(prompts) for count in equal))


def _count_equal(some: list[Completion], others: list[Completion]) -> int:
    return sum(a.ids == b.ids for a, b in zip(some, others, strict=True))


def _print_rates(rates: dict[str, dict[int, list[float]]], sizes: list[int]) -> None:
    rows = [["batch", *(f"{name}, tok/s (to batch {sizes[0]})" for name in rates), "ours / theirs"]]
    medians = {name: {n: median(found[n]) for n in sizes} for name, found in rates.items()}
    for n in sizes:
        cells = [f"{found[n]:.2f} ({found[n] / found[sizes[0]]:.2f})" for found in medians.values()]
        ours, theirs = (found[n] for found in medians.values())
        rows.append([str(n), *cells, f"{ours / theirs:.2f}"])
    print_table(rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Time batches here and in mlx-lm.")
    parser.add_argument("checkpoint", help="what `convert` wrote, or demo")
    parser.add_argument("--tokens", type=int, default=16, help="to decode, of each")
    parser.add_argument("--prompt", type=int, default=16, help="tokens of each prompt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="1,2,4,8", help="of the batches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--float32", action="store_true", help="mlx-lm in float32, too")
    parser.add_argument("--no-check", action="store_true", help="only the times")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
