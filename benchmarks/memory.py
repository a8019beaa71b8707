"""Memory plans for the published models on faked machines; or one plan held against a measurement.

    python benchmarks/memory.py
    python benchmarks/memory.py CHECKPOINT [--embedding memory|disk] [--prompt N] [--tokens N]

Without a checkpoint nothing is loaded: a table of the contexts that fit. With one, it is loaded,
given a prompt of random ids in chunks and some tokens more, and the peaks are printed beside the
plan for that context. The exit code is 1 if a peak lies above its plan.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path
from typing import cast

import mlx.core as mx
from machine import describe, gigabytes, peak_rss, print_table

from gptoss_mlx.ceiling import Ceiling
from gptoss_mlx.convert import Dense
from gptoss_mlx.convert.synthetic import GPT_OSS_20B, GPT_OSS_120B
from gptoss_mlx.memory import EmbeddingPlace, Plan, Use, make_plan, sizes_of
from gptoss_mlx.models import load, plan_for

MODELS = {"20b": GPT_OSS_20B, "120b": GPT_OSS_120B}
WIDTHS: tuple[Dense, ...] = ("bf16", "q8", "q4")
PLACES: tuple[EmbeddingPlace, ...] = ("memory", "disk")
MACHINES = {10.5: 16, 12: 16, 16: 24, 27: 36, 48: 64, 107: 128}  # ceiling, RAM of such a Mac: GiB
SHOWN: tuple[tuple[str, Dense, float], ...] = (
    ("20b", "bf16", 12),
    ("20b", "q8", 12),
    ("120b", "q8", 48),
)
PARALLEL = (1, 4)
CHUNK = 512


def main() -> int:
    """Print the table, or measure."""
    options = _parser().parse_args()
    if options.checkpoint is None:
        _print_plans()
        return 0
    use = Use(context=options.prompt + options.tokens, embedding=options.embedding)
    return _measure(options.checkpoint, use, options.prompt)


def _print_plans() -> None:
    """For each machine, the context that fits with one sequence and with several at once."""
    several = " / ".join(f"{n}x" for n in PARALLEL)
    head = ["model", "dense", "embedding", "weights"]
    rows = [[*head, *(f"{gib} GiB: {several}" for gib in MACHINES)]]
    for name in MODELS:
        for dense in WIDTHS:
            for place in PLACES:
                sizes = sizes_of(MODELS[name], dense)
                weights = sizes.total - sizes.embedding * (place == "disk")
                cells = [_cell(name, dense, place, gib) for gib in MACHINES]
                rows.append([name, dense, place, gigabytes(weights), *cells])
    print_table(rows)
    print()
    for name, dense, gib in SHOWN:
        print(f"{name}, {dense}, {gib} GiB")
        print("\n".join(f"  {row}" for row in _plan(name, dense, "memory", gib, 1).describe()))


def _cell(name: str, dense: Dense, place: EmbeddingPlace, gib: float) -> str:
    contexts = (_plan(name, dense, place, gib, parallel).context for parallel in PARALLEL)
    return " / ".join(f"{context:,}" if context else "-" for context in contexts)


def _plan(name: str, dense: Dense, place: EmbeddingPlace, gib: float, parallel: int) -> Plan:
    config = MODELS[name]
    ceiling = Ceiling(round(gib * 2**30), "faked", MACHINES[gib] << 30)
    use = Use(parallel=parallel, embedding=place)
    return make_plan(config, sizes_of(config, dense), ceiling, use)


def _measure(checkpoint: Path, use: Use, prompt: int) -> int:
    plan = plan_for(checkpoint, use=use)
    print(describe())
    print("\n".join(plan.describe()))
    _run(checkpoint, use, prompt)
    overhead = next(line.nbytes for line in plan.lines if line.name == "overhead")
    peaks = {
        "MLX's arrays": (mx.get_peak_memory(), plan.total - overhead),
        "the process (RSS)": (peak_rss(resource.getrusage(resource.RUSAGE_SELF)), plan.total),
    }
    print_table(
        [[what, gigabytes(peak), "of", gigabytes(at)] for what, (peak, at) in peaks.items()]
    )
    return int(any(peak > planned for peak, planned in peaks.values()))


def _run(checkpoint: Path, use: Use, prompt: int) -> None:
    """Load the model, then prefill and decode up to the use's context."""
    model = load(checkpoint, use=use)
    cache = model.new_cache()
    V = model.config.vocab_size
    for start in range(0, prompt, CHUNK):
        ids = mx.random.randint(0, V, (1, min(CHUNK, prompt - start)))
        hidden = model.hidden_states(ids, cache)
        mx.eval(cache.arrays)
        mx.eval(model.logits(hidden[:, -1]))
    for _ in range(cast("int", use.context) - prompt):
        mx.eval(model.logits(model.hidden_states(mx.random.randint(0, V, (1, 1)), cache)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Plan memory, and perhaps hold a plan to account.")
    parser.add_argument("checkpoint", nargs="?", type=Path, help="what `convert` wrote")
    parser.add_argument("--embedding", choices=PLACES, default="memory")
    parser.add_argument("--prompt", type=int, default=2048, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=8, help="tokens after it")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
