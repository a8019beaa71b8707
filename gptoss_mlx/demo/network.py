"""gpt-oss as it is trained: a function of a flat dictionary of parameters, on MLX.

Parameters carry OpenAI's original names, but the vocabulary is compact (the tokens that the
dialogues use; one more id, whose embedding is zero, stands for all others) and the experts are
float32, rounded to MXFP4 on the way (straight-through). A row of a batch is one scene and several
branches that continue it independently of each other, so that the scene is computed once.

It does not know about text, losses or optimizers. One KV head only.
"""

from __future__ import annotations

import math
import zlib
from typing import NamedTuple, cast

import mlx.core as mx
import numpy as np

from gptoss_mlx.config import ModelConfig
from gptoss_mlx.model import yarn_frequencies
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.vocabulary import NUM_ORDINARY

Parameters = dict[str, mx.array]
NOWHERE = 1 << 20  # the position of padding: after every query, so that none sees it


class Tokens(NamedTuple):
    """The ids and positions of B scenes (length S) and of R branches of each (length T)."""

    scene: mx.array  # (B, S)
    scene_positions: mx.array  # (B, S), NOWHERE where padded
    branch: mx.array  # (B * R, T)
    branch_positions: mx.array  # (B * R, T), NOWHERE where padded


def initial_parameters(
    config: ModelConfig, tokenizer: Tokenizer, vocabulary: list[int], seed: int
) -> Parameters:
    """Random parameters, with a head start for the embedding (`_initial_embedding`)."""
    rng = np.random.default_rng(seed)
    hidden, inner, experts = config.hidden_size, config.intermediate_size, config.num_experts

    def normal(*shape: int, std: float) -> mx.array:
        return mx.array((rng.standard_normal(shape) * std).astype(np.float32))

    embedding = _initial_embedding(tokenizer, vocabulary, hidden, rng)
    parameters = {
        "embedding.weight": mx.array(embedding),
        "unembedding.weight": mx.array(0.2 * embedding),
        "norm.scale": mx.ones(hidden),
    }
    for layer in range(config.num_hidden_layers):
        heads = config.query_size + 2 * config.key_value_size
        weights = {
            "attn.norm.scale": mx.ones(hidden),
            "attn.qkv.weight": normal(heads, hidden, std=hidden**-0.5),
            "attn.qkv.bias": mx.zeros(heads),
            "attn.sinks": mx.zeros(config.num_attention_heads),
            "attn.out.weight": normal(hidden, config.query_size, std=0.5 * config.query_size**-0.5),
            "attn.out.bias": mx.zeros(hidden),
            "mlp.norm.scale": mx.ones(hidden),
            "mlp.gate.weight": normal(experts, hidden, std=hidden**-0.5),
            "mlp.gate.bias": mx.zeros(experts),
            "mlp.mlp1_weight": normal(experts, 2 * inner, hidden, std=hidden**-0.5),
            "mlp.mlp1_bias": mx.zeros((experts, 2 * inner)),
            "mlp.mlp2_weight": normal(experts, hidden, inner, std=0.5 * inner**-0.5),
            "mlp.mlp2_bias": mx.zeros((experts, hidden)),
        }
        parameters |= {f"block.{layer}.{name}": weight for name, weight in weights.items()}
    return parameters


def _initial_embedding(
    tokenizer: Tokenizer, vocabulary: list[int], hidden: int, rng: np.random.Generator
) -> np.ndarray:
    """(V, hidden): " Paris", "Paris" and "paris" start alike; numbers as Fourier features."""
    rows = np.zeros((len(vocabulary), hidden), np.float32)
    for row, token in enumerate(vocabulary):
        rows[row] = rng.standard_normal(hidden)
        if token < NUM_ORDINARY:
            word = tokenizer.decode([token]).strip().lower()
            same = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(hidden)
            rows[row] = 0.9 * same + 0.45 * rows[row]
            if word.isdecimal() and len(word) <= 2:
                features = _fourier(int(word))
                rows[row, : len(features)] = features
    return rows


def _fourier(number: int) -> list[float]:
    angles = [2 * math.pi * number / period for period in (2, 5, 10, 20, 50, 100)]
    waves = [wave(angle) for angle in angles for wave in (math.cos, math.sin)]
    return [number / 50 - 1, *waves]


def forward(weights: Parameters, config: ModelConfig, tokens: Tokens) -> mx.array:
    """The normalized last hidden states of the branches: (B * R, T, hidden)."""
    flat = mx.concatenate([tokens.scene.reshape(-1), tokens.branch.reshape(-1)])
    positions = mx.concatenate(
        [tokens.scene_positions.reshape(-1), tokens.branch_positions.reshape(-1)]
    )
    unknown = mx.zeros((1, config.hidden_size))
    x = mx.concatenate([weights["embedding.weight"], unknown])[flat]  # (N, hidden)
    rotation = _rotation(config, positions)
    masks = {window: _masks(tokens, window) for window in (config.sliding_window, NOWHERE)}
    for layer in range(config.num_hidden_layers):
        block = _Block(weights, f"block.{layer}.", config)
        window = config.sliding_window if config.is_sliding(layer) else NOWHERE
        x = x + block.attention(x, tokens, rotation, masks[window])
        x = x + block.experts(x)
    x = mx.fast.rms_norm(x, weights["norm.scale"], config.rms_norm_eps)
    return x[tokens.scene.size :].reshape(*tokens.branch.shape, -1)


class _Block:
    """One layer: attention and experts, each on a flat list of tokens (N, hidden)."""

    def __init__(self, weights: Parameters, prefix: str, config: ModelConfig) -> None:
        self.weights = weights
        self.prefix = prefix
        self.config = config

    def __getitem__(self, name: str) -> mx.array:
        return self.weights[self.prefix + name]

    def attention(
        self,
        x: mx.array,
        tokens: Tokens,
        rotation: tuple[mx.array, mx.array],
        masks: tuple[mx.array, mx.array],
    ) -> mx.array:
        config = self.config
        heads, size = config.num_attention_heads, config.head_dim
        z = mx.fast.rms_norm(x, self["attn.norm.scale"], config.rms_norm_eps)
        z = mx.addmm(self["attn.qkv.bias"], z, self["attn.qkv.weight"].T).reshape(
            -1, heads + 2, size
        )
        z = mx.concatenate([_rotate(z[:, : heads + 1], rotation), z[:, heads + 1 :]], axis=1)
        cut = tokens.scene.size
        scene = z[:cut].reshape(*tokens.scene.shape, heads + 2, size).swapaxes(1, 2)
        branch = z[cut:].reshape(*tokens.branch.shape, heads + 2, size).swapaxes(1, 2)
        branches = tokens.branch.shape[0] // tokens.scene.shape[0]
        past = mx.repeat(scene[:, heads:], branches, axis=0)  # (B * R, 2, S, size)
        seen = mx.concatenate([past, branch[:, heads:]], axis=2)
        out = [
            self._attend(scene[:, :heads], scene[:, heads:], masks[0]),
            self._attend(branch[:, :heads], seen, masks[1]),
        ]
        return mx.addmm(self["attn.out.bias"], mx.concatenate(out), self["attn.out.weight"].T)

    def _attend(self, queries: mx.array, seen: mx.array, mask: mx.array) -> mx.array:
        """(B, heads, T, size) over keys and values (B, 2, S, size): (B * T, heads * size)."""
        B, heads, T, size = queries.shape
        scaled = (queries * size**-0.5).reshape(B, heads * T, size)  # one KV head for all
        scores = (scaled @ seen[:, 0].swapaxes(-1, -2)).reshape(B, heads, T, -1) + mask
        sinks = self["attn.sinks"].reshape(1, heads, 1, 1)
        largest = mx.stop_gradient(mx.maximum(scores.max(axis=-1, keepdims=True), sinks))
        weights = fast_exp(scores - largest)
        total = weights.sum(axis=-1, keepdims=True) + mx.exp(sinks - largest)
        out = (weights.reshape(B, heads * T, -1) @ seen[:, 1]).reshape(B, heads, T, size) / total
        return out.swapaxes(1, 2).reshape(-1, self.config.query_size)

    def experts(self, x: mx.array) -> mx.array:
        """All experts for all tokens, weighted by a router that is zero outside the top few."""
        config = self.config
        count, limit = config.num_experts, config.swiglu_limit
        x = mx.fast.rms_norm(x, self["mlp.norm.scale"], config.rms_norm_eps)
        chosen = self._router(x)  # (N, experts)
        up = fake_mxfp4(self["mlp.mlp1_weight"]).reshape(-1, config.hidden_size)
        bias = self["mlp.mlp1_bias"].reshape(-1)
        gate = mx.addmm(bias[0::2], x, up[0::2].T)  # gate and up rows interleave
        linear = mx.addmm(bias[1::2], x, up[1::2].T)
        gate = mx.clip(gate, -30, limit)  # below, the activation is as good as zero
        linear = mx.clip(linear, -limit, limit)
        y = gate / (1 + fast_exp(-1.702 * gate)) * (linear + 1)
        y = (y.reshape(-1, count, config.intermediate_size) * chosen[..., None]).flatten(1)
        down = fake_mxfp4(self["mlp.mlp2_weight"]).swapaxes(1, 2).flatten(0, 1)
        return y @ down + chosen @ self["mlp.mlp2_bias"]

    def _router(self, x: mx.array) -> mx.array:
        logits = mx.addmm(self["mlp.gate.bias"], x, self["mlp.gate.weight"].T)
        least = mx.sort(mx.stop_gradient(logits), axis=-1)[:, -self.config.experts_per_token, None]
        return mx.softmax(mx.where(logits < least, -mx.inf, logits), axis=-1)


def fast_exp(x: mx.array) -> mx.array:
    """The exponential of x in -80..80, several times as fast as MLX's on a CPU, to 1e-5.

    x = n log 2 + r: a polynomial for exp(r), and n put into the exponent's bits.
    """
    return cast("mx.array", _fast_exp(x))


@mx.custom_function
def _fast_exp(x: mx.array) -> mx.array:
    doublings = mx.clip(x, -80.0, 80.0) * (1 / math.log(2))
    whole = mx.round(doublings)
    r = (doublings - whole) * math.log(2)
    power = 1 + r * (1 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120)))))
    return power * ((whole.astype(mx.int32) + 127) << 23).view(mx.float32)


def _fast_exp_vjp(_: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    return cotangent * output


_fast_exp.vjp(_fast_exp_vjp)


def fake_mxfp4(weight: mx.array) -> mx.array:
    """Round to what MXFP4 can hold (blocks of 32 along the last axis); the gradient passes."""
    x = mx.stop_gradient(weight).reshape(*weight.shape[:-1], -1, 32)
    largest = mx.maximum(mx.abs(x).max(axis=-1, keepdims=True), 2.0**-40)
    scale = mx.power(2.0, mx.ceil(mx.log2(largest / 6)))
    size = mx.abs(x / scale)
    step = mx.where(size < 2, 0.5, mx.where(size < 4, 1.0, 2.0))
    rounded = mx.sign(x) * mx.minimum(mx.round(size / step) * step, 6.0) * scale
    return weight + mx.stop_gradient(rounded.reshape(weight.shape) - weight)


def _masks(tokens: Tokens, window: int) -> tuple[mx.array, mx.array]:
    """What the scene sees (B, 1, S, S), and what the branches see (B * R, 1, T, S + T)."""
    branches = tokens.branch.shape[0] // tokens.scene.shape[0]
    past = mx.repeat(tokens.scene_positions, branches, axis=0)
    seen = mx.concatenate([past, tokens.branch_positions], axis=1)
    return (
        _visible(tokens.scene_positions, tokens.scene_positions, window),
        _visible(tokens.branch_positions, seen, window),
    )


def _visible(queries: mx.array, keys: mx.array, window: int) -> mx.array:
    distance = queries[:, None, :, None] - keys[:, None, None, :]
    return mx.where((distance >= 0) & (distance < window), 0.0, -1e9)


def _rotation(config: ModelConfig, positions: mx.array) -> tuple[mx.array, mx.array]:
    """cos and sin (N, 1, head_dim / 2) of YaRN."""
    frequencies, concentration = yarn_frequencies(config)
    angles = positions[:, None, None] * mx.array(frequencies)
    return mx.cos(angles) * concentration, mx.sin(angles) * concentration


def _rotate(x: mx.array, rotation: tuple[mx.array, mx.array]) -> mx.array:
    cos, sin = rotation
    first, second = mx.split(x, 2, axis=-1)
    return mx.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
