"""Prefill and decode of the same converted checkpoint here and in stock mlx-lm, in one run.

    python benchmarks/against_mlx_lm.py CHECKPOINT [--prompt N] [--tokens N] [--rounds N]

Both models are loaded; then each in turn reads the same random prompt and decodes the same ids, one
at a time, `--rounds` times. Prints medians and their ratio. The models alone are measured: no
tokenizer, no sampling. Stock mlx-lm computes in the checkpoint's dtype (bfloat16), ours in float32
where there is no GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx_lm
from machine import describe, print_table
from mlx_lm.models.cache import make_prompt_cache

from gptoss_mlx import load
from gptoss_mlx.models import resolve

Step = Callable[[mx.array], None]


def main() -> None:
    """Measure both in turns and print a table."""
    options = _parser().parse_args()
    mx.random.seed(options.seed)
    ours = load(options.checkpoint)
    theirs: Any = mlx_lm.load(str(resolve(options.checkpoint)))[0]
    ids = mx.random.randint(0, ours.config.vocab_size, (1, options.prompt + options.tokens))

    def our_steps() -> Step:
        cache = ours.new_cache()
        return lambda x: mx.eval(ours.logits(ours.hidden_states(x, cache)[:, -1]), cache.arrays)

    def their_steps() -> Step:
        cache: Any = make_prompt_cache(theirs)
        head = theirs.lm_head  # of the last token only, as its own generate and ours do
        return lambda x: mx.eval(
            head(theirs.model(x, cache=cache)[:, -1:]), [c.state for c in cache]
        )

    sides = {"gptoss-mlx": our_steps, "mlx-lm": their_steps}
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, steps in sides.items():
            rates[name].append(_rates(steps(), ids, options.prompt))
    _print(rates, options.prompt, options.tokens)


def _rates(step: Step, ids: mx.array, prompt: int) -> tuple[float, float]:
    """Tokens a second of the prompt, and of the rest one at a time."""
    started = time.perf_counter()
    step(ids[:, :prompt])
    prefilled = time.perf_counter()
    for i in range(prompt, ids.shape[1]):
        step(ids[:, i : i + 1])
    return (
        prompt / (prefilled - started),
        (ids.shape[1] - prompt) / (time.perf_counter() - prefilled),
    )


def _print(rates: dict[str, list[tuple[float, float]]], prompt: int, tokens: int) -> None:
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in rates.items()
    }
    ratios = [ours / theirs for ours, theirs in zip(*medians.values(), strict=True)]
    print(describe())
    head = [str(mx.default_device()), f"prefill of {prompt}, tok/s", f"decode of {tokens}, tok/s"]
    rows = [[name, *(f"{rate:.3f}" for rate in row)] for name, row in medians.items()]
    print_table([head, *rows, ["ratio", *(f"{ratio:.2f}" for ratio in ratios)]])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compare with mlx-lm on one checkpoint.")
    parser.add_argument("checkpoint", help="what `convert` wrote, or demo")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=8, help="tokens to decode")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
