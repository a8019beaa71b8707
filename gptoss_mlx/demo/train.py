"""Train the demo checkpoint: `python -m gptoss_mlx.demo.train --out DIR`, on a CPU.

Draws dialogues, trains on the assistant's part of them (Muon for the matrices, AdamW for the rest),
rounds to MXFP4 and bfloat16, and writes DIR/config.json, model.safetensors and
model.safetensors.xz; the first and the last are the asset. The same seed gives the same dialogues
and the same start.

MLX's CPU wheel may be linked to a slow BLAS. On Debian, `apt install libopenblas0-pthread` and
LD_PRELOAD=/usr/lib/x86_64-linux-gnu/openblas-pthread/libopenblas.so.0 OPENBLAS_NUM_THREADS=1 make
training several times as fast; neither is needed.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple, cast

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np

from gptoss_mlx.config import ModelConfig
from gptoss_mlx.demo import dialogues, pack, spelling
from gptoss_mlx.demo.network import NOWHERE, Parameters, Tokens, forward, initial_parameters
from gptoss_mlx.tokenizer import VOCAB_SIZE, Tokenizer, load_tokenizer

Schedule = Callable[[mx.array], mx.array]


@dataclass(frozen=True)
class Plan:
    """How long and how fast. A step sees some scenes with `branches` questions each.

    First with shortened scenes, which is quicker, then with whole ones.
    """

    short_steps: int = 1700
    short_scenes: int = 4
    steps: int = 2500  # the short ones among them
    scenes: int = 4
    branches: int = 6
    muon_rate: float = 0.015
    adam_rate: float = 4e-3
    warmup: int = 30
    seed: int = 0


class Sample(NamedTuple):
    """A dialogue in ids: the scene, the prompt after it, and what the model is to say."""

    scene: list[int]
    prompt: list[int]
    answer: list[int]
    known: bool


class Batch(NamedTuple):
    """Token ids, the flat places in the branches whose next token counts, and those tokens."""

    tokens: Tokens
    places: mx.array  # (P,)
    targets: mx.array  # (P,)


def demo_config() -> ModelConfig:
    """The smallest gpt-oss with the proportions of the big ones: 8 queries per KV head, top 4."""
    return ModelConfig(
        num_hidden_layers=4,
        num_experts=8,
        experts_per_token=4,
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=64,
        swiglu_limit=7.0,
        head_dim=64,
        num_attention_heads=8,
        num_key_value_heads=1,
        sliding_window=128,
        initial_context_length=4096,
        rope_theta=150_000,
        rope_scaling_factor=32,
        rope_ntk_alpha=1,
        rope_ntk_beta=32,
    )


def draw_samples(tokenizer: Tokenizer, plan: Plan) -> list[list[Sample]]:
    """One list for each scene: the questions asked in it. The short steps see each once."""
    r = Random(plan.seed)
    return [
        [_sample(tokenizer, dialogue) for dialogue in dialogues.draw_group(r, plan.branches)]
        for _ in range(plan.short_steps * plan.short_scenes * 3 // 4)
    ]


def _sample(tokenizer: Tokenizer, dialogue: dialogues.Dialogue) -> Sample:
    scene, prompt = spelling.prompt_ids(tokenizer, dialogue)
    return Sample(scene, prompt, spelling.expected_ids(tokenizer, dialogue), dialogue.known)


def compact_vocabulary(groups: list[list[Sample]]) -> list[int]:
    """The ids that occur in dialogues whose every word the model is meant to know."""
    known = {i for group in groups for s in group if s.known for ids in s[:3] for i in ids}
    return sorted(known | {i for group in groups for s in group for i in s.answer})


def shorten(groups: list[list[Sample]], tokenizer: Tokenizer) -> list[list[Sample]]:
    """The same with scenes that begin at "Reasoning: ..." and skip the boilerplate after it."""
    reasoning = tokenizer.encode("Reasoning")[0]
    start = tokenizer.encode_with_special("<|start|>")[0]

    def cut(scene: list[int]) -> list[int]:
        effort = scene.index(reasoning)
        developer = scene.index(start, effort) if start in scene[effort:] else len(scene)
        return scene[effort : effort + 4] + scene[developer:]

    return [[s._replace(scene=cut(s.scene)) for s in group] for group in groups]


def batches(
    groups: list[list[Sample]], ids: dict[int, int], scenes: int, seed: int
) -> Iterator[Batch]:
    """Endless batches of scenes of about equal length, in random order."""
    rng = np.random.default_rng(seed)
    by_length = sorted(groups, key=lambda g: (max(_length(s) for s in g) // 16, len(g[0].scene)))
    starts = range(0, len(by_length) - scenes + 1, scenes)
    while True:
        for start in rng.permutation(starts):
            yield make_batch(by_length[start : start + scenes], ids)


def _length(sample: Sample) -> int:
    return len(sample.prompt) + len(sample.answer)


def make_batch(groups: list[list[Sample]], ids: dict[int, int]) -> Batch:
    """Pad on the right. `ids` maps token ids to rows; what it lacks is the unknown token."""
    samples = [sample for group in groups for sample in group]
    scenes, scene_positions = _pad([(g[0].scene, 0) for g in groups], ids)
    branches, branch_positions = _pad(
        [(s.prompt + s.answer[:-1], len(s.scene)) for s in samples], ids
    )
    width = branches.shape[1]
    places = [
        row * width + len(s.prompt) - 1 + i
        for row, s in enumerate(samples)
        for i in range(len(s.answer))
    ]
    targets = [ids[token] for s in samples for token in s.answer]
    arrays = (mx.array(a) for a in (scenes, scene_positions, branches, branch_positions))
    return Batch(Tokens(*arrays), mx.array(places), mx.array(targets))


def _pad(rows: list[tuple[list[int], int]], ids: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and positions of (token ids, first position) pairs, as two rectangles."""
    width = max(len(tokens) for tokens, _ in rows)
    padded = np.full((len(rows), width), len(ids))
    positions = np.full((len(rows), width), NOWHERE)
    for row, (tokens, first) in enumerate(rows):
        padded[row, : len(tokens)] = [ids.get(token, len(ids)) for token in tokens]
        positions[row, : len(tokens)] = np.arange(first, first + len(tokens))
    return padded, positions


def loss(weights: Parameters, config: ModelConfig, batch: Batch) -> mx.array:
    """Mean cross entropy over the full vocabulary, whose unused rows all have the logit 0."""
    hidden = forward(weights, config, batch.tokens).reshape(-1, config.hidden_size)[batch.places]
    logits = hidden @ weights["unembedding.weight"].T
    unused = mx.full((logits.shape[0], 1), math.log(config.vocab_size - logits.shape[1]))
    total = mx.logsumexp(mx.concatenate([logits, unused], axis=1), axis=-1)
    wanted = mx.take_along_axis(logits, batch.targets[:, None], axis=-1)[:, 0]
    return (total - wanted).mean()


class StackedMuon(optim.Muon):
    """Muon that takes a 3-D parameter as a stack of matrices (MLX's flattens it to one)."""

    def apply_single(
        self, gradient: mx.array, parameter: mx.array, state: dict[str, mx.array]
    ) -> mx.array:
        """The updated parameter: momentum, orthogonalized, scaled by its matrices' proportions."""
        momentum = self.momentum * state["v"] + (1 - self.momentum) * gradient
        state["v"] = momentum
        update = (1 - self.momentum) * gradient + self.momentum * momentum
        rows, columns = update.shape[-2:]
        rate = cast("mx.array", self.learning_rate) * max(1, rows / columns) ** 0.5
        return parameter - rate * _orthogonalize(update, self.ns_steps)


def _orthogonalize(x: mx.array, steps: int) -> mx.array:
    """Newton-Schulz iteration on (..., R, C): https://kellerjordan.github.io/posts/muon/."""
    if x.shape[-2] > x.shape[-1]:
        return _orthogonalize(x.swapaxes(-1, -2), steps).swapaxes(-1, -2)
    x = x / (mx.sqrt(mx.square(x).sum(axis=(-2, -1), keepdims=True)) + 1e-7)
    for _ in range(steps):
        gram = x @ x.swapaxes(-1, -2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


class Optimizer:
    """Muon for the layers' matrices, AdamW for the rest, both on a cosine with warmup."""

    def __init__(self, weights: Parameters, plan: Plan) -> None:
        self.muon = StackedMuon(_schedule(plan.muon_rate, plan))
        self.adam = optim.AdamW(
            _schedule(plan.adam_rate, plan),
            betas=[0.9, 0.98],
            weight_decay=0.0,
            bias_correction=True,
        )
        self.parts = [
            (self.muon, [name for name in weights if _is_matrix(name)]),
            (self.adam, [name for name in weights if not _is_matrix(name)]),
        ]

    def update(self, weights: Parameters, gradients: Parameters) -> Parameters:
        """The weights after one step."""
        updated = dict[str, mx.array]()
        for optimizer, names in self.parts:
            part = {name: gradients[name] for name in names}
            updated |= optimizer.apply_gradients(part, {name: weights[name] for name in names})
        return updated

    @property
    def state(self) -> list[object]:
        """What has to be evaluated along with the weights."""
        return [self.muon.state, self.adam.state]


def _schedule(rate: float, plan: Plan) -> Schedule:
    rise = cast(Schedule, optim.linear_schedule(rate / plan.warmup, rate, plan.warmup))
    fall = cast(Schedule, optim.cosine_decay(rate, plan.steps - plan.warmup, rate * 0.02))
    return cast(Schedule, optim.join_schedules([rise, fall], [plan.warmup]))


def _is_matrix(name: str) -> bool:
    return name.startswith("block.") and name.endswith(
        ("qkv.weight", "out.weight", "mlp1_weight", "mlp2_weight")
    )


def train(
    groups: list[list[Sample]], vocabulary: list[int], tokenizer: Tokenizer, plan: Plan
) -> Parameters:
    """The trained parameters; prints the loss every 25 steps."""
    config = demo_config()
    ids = {token: row for row, token in enumerate(vocabulary)}
    weights = initial_parameters(config, tokenizer, vocabulary, plan.seed)
    optimizer = Optimizer(weights, plan)
    gradient = mx.value_and_grad(loss)
    short = batches(shorten(groups, tokenizer), ids, plan.short_scenes, plan.seed)
    whole = batches(groups, ids, plan.scenes, plan.seed + 1)
    begun, losses = time.time(), list[float]()
    for step in range(1, plan.steps + 1):
        batch = next(short if step <= plan.short_steps else whole)
        value, gradients = gradient(weights, config, batch)
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        weights = optimizer.update(weights, gradients)
        mx.eval(weights, optimizer.state, value)
        losses.append(cast("float", value.item()))
        if step % 25 == 0:
            mean = sum(losses[-25:]) / 25
            print(f"step {step} loss {mean:.4f} {time.time() - begun:.0f} s", flush=True)
    return weights


def main() -> None:
    """Draw, train, pack."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder to write into")
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--short-steps", type=int, default=Plan.short_steps)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    arguments = parser.parse_args()
    mx.set_default_device(mx.cpu)
    plan = Plan(short_steps=arguments.short_steps, steps=arguments.steps, seed=arguments.seed)
    tokenizer = load_tokenizer()
    groups = draw_samples(tokenizer, plan)
    vocabulary = compact_vocabulary(groups)
    print(f"{sum(map(len, groups))} dialogues, {len(vocabulary)} tokens", flush=True)
    weights = train(groups, vocabulary, tokenizer, plan)
    config = demo_config()
    pack.write_original(arguments.out, pack.to_original(weights, config, vocabulary), config)
    packed = pack.compress(arguments.out)
    print(f"{packed}: {packed.stat().st_size} bytes")


if __name__ == "__main__":
    main()
