"""Every kernel against MLX's own operation, at the sizes of gpt-oss-20b.

    python benchmarks/kernels.py [NAME ...] [--rounds N]

On a Mac: the error against the twin, and the median time of each in turns, with their ratio; what
is found is printed and not kept (`gptoss-mlx doctor` keeps it). Elsewhere there is no Metal, and so
no time: the kernels run on the CPU, traced, and what one token reads of the weights is printed,
stock MLX's matvec beside ours. That takes minutes, and needs the tests' packages and a compiler.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
from machine import describe, print_table

from gptoss_mlx.kernels import check, choice


def main() -> None:
    """Time the kernels, or else trace them."""
    options = _parser().parse_args()
    print(describe())
    here = choice.device()
    if here is None:
        print(
            "No Metal GPU here, so no times. What one token reads, traced on the CPU:", flush=True
        )
        _trace(options.kernels)
    else:
        print(here)
        _time(options.kernels, options.rounds)


def _time(names: list[str], rounds: int) -> None:
    plan = replace(check.THOROUGH, rounds=rounds)
    rows = [["kernel", "size", "error", "ms", "MLX's ms", "ratio"]]
    for name in names or choice.CHOICES:
        trial = check.try_kernel(name, plan)
        if trial.problem:
            rows.append([name, "", "", "", "", trial.problem])
        rows += [
            [name, str(size), f"{trial.error:.1e}", *_figures(ours, mlx)]
            for size, ours, mlx in trial.times
        ]
    print_table(rows)


def _figures(ours: float, mlx: float) -> list[str]:
    return [f"{ours * 1e3:.3f}", f"{mlx * 1e3:.3f}", f"{ours / mlx:.2f}"]


def _trace(names: list[str]) -> None:
    root = Path(__file__).parent.parent
    sys.path[:0] = [str(root), str(root / "tests")]  # whose modules import each other from there
    from tests.metal.figures import HEAD, KERNELS, MLX, on_host, traced_row

    on_host()
    kernels = [k for k in KERNELS if not names or k.name.startswith(tuple(names))]
    rows = [traced_row(kernel, mx.bfloat16)[1] for kernel in [*kernels, MLX]]
    print_table([list(HEAD), *rows])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Time the kernels against MLX's operations.")
    parser.add_argument("kernels", nargs="*", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of which the median counts")
    return parser


if __name__ == "__main__":
    main()
