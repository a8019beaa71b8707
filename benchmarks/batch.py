"""Batches of several sequences: tokens a second, and whether each says what it says alone.

    python benchmarks/batch.py CHECKPOINT [--tokens N] [--prompt N] [--rounds N] [--sizes 1,2,4,8]

Both sides are those of `gptoss-mlx bench`: this package's engine, and mlx-lm's BatchGenerator; here
in one process, with our limits of MLX's command buffers. Medians of `--rounds`, and their
ratio to the first size. Then every sequence of the largest batch is held against the same request
alone, greedy and drawn at temperature 1 with a seed; the exit code is 1 if one of ours differs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from statistics import median

from machine import describe, print_table

from gptoss_mlx.bench.ours import Ours
from gptoss_mlx.bench.sides import SIDES, Completion, Ids, Side, SideName, rate_together
from gptoss_mlx.bench.theirs import Theirs
from gptoss_mlx.bench.workload import Workload
from gptoss_mlx.config import SamplingParams, read_config_file
from gptoss_mlx.models import resolve

Batch = Callable[[Sequence[Ids]], list[Completion]]


def main() -> int:
    """Measure both in turns, compare, and print."""
    options = _parser().parse_args()
    sizes = tuple(int(size) for size in options.sizes.split(","))
    folder = resolve(options.checkpoint)
    vocabulary = int(read_config_file(folder / "config.json")["vocab_size"])
    workload = Workload(
        str(folder), vocabulary, (options.prompt,), sizes, options.tokens, seed=options.seed
    )
    ours, theirs = Ours(workload), Theirs(workload)
    sides: dict[SideName, Side] = dict(zip(SIDES, (ours, theirs), strict=True))
    rates: dict[SideName, dict[int, list[float]]] = {name: {n: [] for n in sizes} for name in sides}
    for _ in range(options.rounds):
        for size in sizes:
            for name, side in sides.items():
                rates[name][size].append(_rate(side, workload, size))
    print(describe())
    _print_rates(rates, sizes)
    return 0 if options.no_check else _check(ours, theirs, workload)


def _rate(side: Side, workload: Workload, size: int) -> float:
    # one more: of the step with which the last sequence begins, other ids may be there already
    rate = rate_together(side.batch(workload.prompts(size), workload.tokens + 1))
    if rate is None:
        raise SystemExit("the first sequence ends before the last begins: pass a shorter --prompt")
    return rate


def _check(ours: Ours, theirs: Theirs, workload: Workload) -> int:
    """Compare a whole batch with each of its requests alone; the exit code."""
    prompts, tokens = workload.prompts(max(workload.batches)), workload.tokens
    rows = [["batch against alone", "equal"]]
    equal: list[int] = []
    for kind in ("greedy", "seeded"):
        params = [_params(kind, n, tokens) for n in range(len(prompts))]
        batched = ours.batch(prompts, tokens, params)
        alone = [
            ours.batch([prompt], tokens, [one])[0]
            for prompt, one in zip(prompts, params, strict=True)
        ]
        equal.append(_count_equal(batched, alone, tokens))
        rows.append([f"gptoss-mlx, {kind}", f"{equal[-1]} of {len(prompts)}"])
    alone = [theirs.batch([prompt], tokens)[0] for prompt in prompts]
    count = _count_equal(theirs.batch(prompts, tokens), alone, tokens)
    print_table([*rows, ["mlx-lm, greedy", f"{count} of {len(prompts)}"]])
    return int(any(count < len(prompts) for count in equal))


def _params(kind: str, seed: int, tokens: int) -> SamplingParams:
    if kind == "greedy":
        return SamplingParams(temperature=0, max_tokens=tokens)
    return SamplingParams(seed=seed, max_tokens=tokens)


def _count_equal(some: list[Completion], others: list[Completion], tokens: int) -> int:
    return sum(a.ids[:tokens] == b.ids[:tokens] for a, b in zip(some, others, strict=True))


def _print_rates(rates: dict[SideName, dict[int, list[float]]], sizes: Sequence[int]) -> None:
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
    parser.add_argument("--no-check", action="store_true", help="only the times")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
