"""What keys and values in 8 bits change, and what they cost: the logits of both, compared.

    python benchmarks/kv_quality.py CHECKPOINT|demo|random [--context N] [--positions N]

The same ids go through both caches: all but the last in chunks, the last ones one at a time, and
there the logits are compared and the steps timed. The ids are a text's (`--text FILE`), for the
demo a long dialogue of its own kind, else random. `random` is a model with random weights, which
is made for the occasion, with heads as gpt-oss has them; `--sharpen` makes attention sharper
than chance does. Prints a table; the exit code is 1 if what the engine asks of 8 bits is missed.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory

import mlx.core as mx
import numpy as np
from machine import describe, print_table
from numpy.typing import NDArray

from gptoss_mlx.cache import Cache
from gptoss_mlx.convert import convert
from gptoss_mlx.convert.synthetic import GPT_OSS_20B, write_random_checkpoint
from gptoss_mlx.demo.dialogues import draw_dialogue
from gptoss_mlx.demo.scenes import draw_scene
from gptoss_mlx.demo.spelling import expected_ids, prompt_ids
from gptoss_mlx.model import Model, load_model
from gptoss_mlx.models import load
from gptoss_mlx.segment import KVBits, Segment, position_bytes
from gptoss_mlx.tokenizer import END, load_tokenizer

BITS: tuple[KVBits, KVBits] = (16, 8)
MOST_MEAN_KL = 1e-3  # nats
LEAST_TOP1 = 0.99
CHUNK = 512
RANDOM = replace(
    GPT_OSS_20B,
    num_hidden_layers=8,
    num_experts=4,  # all of them chosen: a random router is so often undecided that any rounding,
    experts_per_token=4,  # bfloat16's too, sends some tokens elsewhere, and hides the cache's part
    vocab_size=8192,
    hidden_size=512,
    intermediate_size=512,
    num_attention_heads=16,
    num_key_value_heads=2,
)


def main() -> int:
    """Run both caches, print the table."""
    options = _parser().parse_args()
    model = _load(options.checkpoint, getattr(mx, options.dtype))
    for block in model.blocks:
        block.attention.scale *= options.sharpen
    ids = _ids(options, model)
    if len(ids) < options.context:
        raise SystemExit(f"the text has {len(ids)} tokens, --context {options.context} needs more")
    found = measure(model, ids[: options.context], options.positions)
    print(describe())
    print_table(list(_rows(found, model, options.context)))
    return int(found.kl.mean() > MOST_MEAN_KL or found.top1 < LEAST_TOP1)


@dataclass(frozen=True)
class Found:
    """For each position: the divergence in nats, whether the likeliest id is the same, seconds."""

    kl: NDArray[np.float64]
    agrees: NDArray[np.bool]
    seconds: dict[KVBits, list[float]]

    @property
    def top1(self) -> float:
        """The share of positions with the same likeliest id."""
        return float(self.agrees.mean())


def measure(model: Model, ids: list[int], positions: int) -> Found:
    """Compare the logits of the last positions."""
    caches: list[tuple[KVBits, Cache]] = [
        (bits, prefilled(model, ids[:-positions], bits)) for bits in BITS
    ]
    seconds: dict[KVBits, list[float]] = {bits: [] for bits in BITS}
    kl: list[float] = []
    agrees: list[bool] = []
    for i in ids[-positions:]:
        logits: list[NDArray[np.float64]] = []
        for bits, cache in caches:  # in turns, so that both times are of the same minutes
            started = time.perf_counter()
            x = model.logits(model.hidden_states(mx.array([[i]]), cache)[0, -1])
            mx.eval(x, cache.arrays)
            seconds[bits].append(time.perf_counter() - started)
            logits.append(np.array(x.astype(mx.float32), np.float64))
        kl.append(divergence(*logits))
        agrees.append(bool(logits[0].argmax() == logits[1].argmax()))
    return Found(np.array(kl), np.array(agrees), seconds)


def prefilled(model: Model, ids: list[int], bits: KVBits) -> Cache:
    """A cache that holds these tokens."""
    cache = Cache(model.config, Segment(model.config.num_hidden_layers // 2, bits))
    for start in range(0, len(ids), CHUNK):
        model.hidden_states(mx.array([ids[start : start + CHUNK]]), cache)
        mx.eval(cache.arrays)
    return cache


def divergence(logits: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """KL(p || q) in nats, p and q the softmax of the first and of the second (V,)."""
    p, q = (x - x.max() - np.log(np.exp(x - x.max()).sum()) for x in (logits, others))
    return float((np.exp(p) * (p - q)).sum())


def _rows(found: Found, model: Model, context: int) -> list[list[str]]:
    milliseconds = [1000 * median(found.seconds[bits]) for bits in BITS]
    nbytes = [position_bytes(model.config, model.dtype, bits) for bits in BITS]
    return [
        ["positions", f"the last {len(found.kl)} of {context:,}, {model.dtype}", ""],
        ["mean KL", f"{found.kl.mean():.2e} nats", f"at most {MOST_MEAN_KL:g}"],
        ["median KL", f"{np.median(found.kl):.2e} nats", ""],
        ["max KL", f"{found.kl.max():.2e} nats", ""],
        ["same top-1", f"{found.top1:.1%}", f"at least {LEAST_TOP1:.0%}"],
        ["decode step", "{:.1f} -> {:.1f} ms".format(*milliseconds), _ratio(*milliseconds)],
        ["bytes a position", "{:,} -> {:,}".format(*nbytes), _ratio(*nbytes)],
    ]


def _ratio(before: float, after: float) -> str:
    return f"x {after / before:.2f}"


def _load(name: str, dtype: mx.Dtype) -> Model:
    if name != "random":
        return load(name, dtype=dtype)
    with TemporaryDirectory() as folder:
        write_random_checkpoint(Path(folder, "original"), RANDOM)
        convert(Path(folder, "original"), Path(folder, "mlx"))
        return load_model(Path(folder, "mlx"), dtype)


def _ids(options: argparse.Namespace, model: Model) -> list[int]:
    if options.text is not None:
        return load_tokenizer().encode(options.text.read_text())
    if options.checkpoint == "demo":
        return dialogue_ids(options.context)
    r, V = Random(options.seed), model.config.vocab_size
    return [r.randrange(V) for _ in range(options.context)]


def dialogue_ids(length: int) -> list[int]:
    """At least so many ids of one dialogue as the demo knows them, with all that is asked there."""
    r, tokenizer = Random(0), load_tokenizer()
    scene = draw_scene(r)
    turns: list[list[int]] = []
    while sum(map(len, turns)) < length:
        dialogue = draw_dialogue(r, scene)
        begin, question = prompt_ids(tokenizer, dialogue)
        answer = [*expected_ids(tokenizer, dialogue)[:-1], END]
        turns.append([*([] if turns else begin), *question, *answer])
    return list(chain.from_iterable(turns))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compare logits with kv_bits 16 and 8.")
    parser.add_argument("checkpoint", help="what `convert` wrote, demo, or random")
    parser.add_argument("--context", type=int, default=8192, help="tokens in all")
    parser.add_argument("--positions", type=int, default=256, help="of them compared, the last")
    parser.add_argument("--text", type=Path, help="what is read, instead of random ids")
    parser.add_argument("--sharpen", type=float, default=1, help="multiplies attention's scores")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="of activations"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
