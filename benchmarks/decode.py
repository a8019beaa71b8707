"""How fast a converted checkpoint loads, prefills and decodes here, with random ids.

    python benchmarks/decode.py CHECKPOINT [--prompt N] [--tokens N]

Measures the model alone: no tokenizer, no sampling but the largest logit, no server.
"""

from __future__ import annotations

import argparse
import resource
import time

import mlx.core as mx
from machine import describe, gigabytes, peak_rss, print_table

from gptoss_mlx.model import Model
from gptoss_mlx.models import load


def main() -> None:
    """Load, prefill, decode; print what each took."""
    options = _parser().parse_args()
    mx.random.seed(options.seed)
    started = time.monotonic()
    model = load(options.checkpoint)
    loading = time.monotonic() - started
    prompt = mx.random.randint(0, model.config.vocab_size, (1, options.prompt))
    _generate(model, prompt[:, :1], 1)  # first calls compile and allocate
    prefill, decode = _generate(model, prompt, options.tokens)
    weights = sum(array.nbytes for array in model.arrays)
    print(describe())
    print_table(
        [
            ["device", str(mx.default_device())],
            ["activations", str(model.dtype)],
            ["weights in memory", gigabytes(weights)],
            ["load", f"{loading:.1f} s"],
            ["prefill", f"{options.prompt / prefill:.2f} tok/s ({options.prompt} tokens)"],
            ["decode", f"{options.tokens / decode:.2f} tok/s ({options.tokens} tokens)"],
            ["peak RSS", gigabytes(peak_rss(resource.getrusage(resource.RUSAGE_SELF)))],
        ]
    )


def _generate(model: Model, prompt: mx.array, tokens: int) -> tuple[float, float]:
    """Seconds for the prompt (and the first token), and for `tokens` more, one at a time."""
    cache = model.new_cache()
    started = time.monotonic()
    last = _next_id(model.logits(model.hidden_states(prompt, cache)[:, -1:]))
    prefilled = time.monotonic()
    for _ in range(tokens):
        last = _next_id(model(last, cache))
    return prefilled - started, time.monotonic() - prefilled


def _next_id(logits: mx.array) -> mx.array:
    """logits (1, 1, V) -> the id of the largest, (1, 1); computed when this returns."""
    if not mx.isfinite(logits).all().item():
        raise SystemExit("logits are not finite: the checkpoint or the model is broken")
    return logits.argmax(axis=-1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Time load, prefill and decode of a checkpoint.")
    parser.add_argument("checkpoint", help="what `convert` wrote, or demo")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=16, help="tokens to decode")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
