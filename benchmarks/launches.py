"""Launches for one decoded token, ours and stock mlx-lm's, on the same converted checkpoint.

    python benchmarks/launches.py [CHECKPOINT] [--context N]

Both graphs are built as MLX builds them for a GPU, and counted; none is run, so this works without
one. An operation counts as one launch; reshapes, transposes and slices launch nothing. What mlx-lm
compiles into one kernel (its SwiGLU) counts as one too, and so do those of MLX's operations that
need two. A layer is what a model has more than the same model with two layers only.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx_lm
from machine import describe, print_table
from mlx_lm.models import activations
from mlx_lm.models.cache import make_prompt_cache

from gptoss_mlx import load
from gptoss_mlx.kernels.choice import VARIABLE
from gptoss_mlx.models import resolve

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.metal.launches import launches

SwigluOAI: Any = cast("Any", activations).SwigluOAI
Counter = Callable[[int], int]  # layers -> launches


def main() -> None:
    """Count both and print a table."""
    options = _parser().parse_args()
    folder = str(resolve(options.checkpoint))
    ours, theirs = load(folder), cast("Any", mlx_lm).load(folder)[0]
    layers = ours.config.num_hidden_layers
    prompt = mx.zeros((1, options.context), mx.int32)

    def with_kernels(setting: str) -> Counter:
        return lambda count: _ours(ours, count, prompt, setting)

    counted: dict[str, Counter] = {
        "mlx-lm": lambda count: _theirs(theirs, count, prompt),
        "gptoss-mlx, kernels off": with_kernels("off"),
        "gptoss-mlx": with_kernels("all"),
    }
    rows = [[f"{layers} layers, after {options.context} tokens", "a token", "a layer"]]
    for name, count in counted.items():
        rows.append([name, str(count(layers)), f"{(count(layers) - count(2)) / (layers - 2):.1f}"])
    print(describe())
    print_table(rows)


def _ours(model: Any, layers: int, prompt: mx.array, setting: str) -> int:
    """The launches of a decoded token through so many of the layers."""
    blocks, model.blocks = model.blocks, model.blocks[:layers]
    cache = model.new_cache()
    del cache.layers[layers:]
    os.environ[VARIABLE] = "off"
    mx.eval(model.hidden_states(prompt, cache), cache.arrays)
    os.environ[VARIABLE] = setting
    found = launches(lambda i: [model.logits(model.hidden_states(i, cache)), *cache.arrays])
    model.blocks = blocks
    return found.total()


def _theirs(model: Any, layers: int, prompt: mx.array) -> int:
    """The same of mlx-lm's model."""
    cache: Any = make_prompt_cache(model)[:layers]
    kept, model.model.layers = model.model.layers, model.model.layers[:layers]
    mx.eval(model(prompt, cache=cache), [c.state for c in cache])
    swiglu, SwigluOAI.__call__ = SwigluOAI.__call__, _one_launch
    found = launches(
        lambda ids: [model(ids, cache=cache), *(x for c in cache for x in (c.keys, c.values))]
    )
    SwigluOAI.__call__ = swiglu
    model.model.layers = kept
    return found.total()


def _one_launch(_: object, linear: mx.array, gate: mx.array) -> mx.array:
    """Stands for mlx-lm's compiled SwiGLU, which is taken apart while a graph is exported."""
    factory: Any = mx.fast.metal_kernel
    kernel = factory(name="swiglu", input_names=["a", "b"], output_names=["y"], source=";")
    return kernel(
        inputs=[linear, gate],
        grid=(1, 1, 1),
        threadgroup=(1, 1, 1),
        output_shapes=[linear.shape],
        output_dtypes=[linear.dtype],
    )[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Count the launches of a decoded token.")
    parser.add_argument("checkpoint", nargs="?", default="demo", help="what `convert` wrote")
    parser.add_argument("--context", type=int, default=100, help="tokens before the one decoded")
    return parser


if __name__ == "__main__":
    main()
