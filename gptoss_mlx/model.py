"""The gpt-oss transformer and nothing else; read it from top to bottom.

    ids -> embedding -> L x [ x + attention(norm(x)),  x + experts(norm(x)) ] -> norm -> logits

Follows openai/gpt-oss `gpt_oss/torch/model.py`: attention sinks, a window of 128 tokens on every
other layer, YaRN rotary positions, a router that picks 4 experts, clamped SwiGLU. It does not know
text, sampling or files' formats; how an operation is computed is the matter of kernels.py.

Axes: B batch, T new tokens, S tokens so far, H hidden, D head size, V vocabulary.
"""

from __future__ import annotations

import math
from pathlib import Path

import mlx.core as mx
import numpy as np

from gptoss_mlx import kernels
from gptoss_mlx.cache import Cache, LayerCache
from gptoss_mlx.config import ModelConfig
from gptoss_mlx.weights import Weights, load_weights

__all__ = ["Model", "load_model", "yarn_frequencies"]


class Model:
    """A gpt-oss model in memory.

    Calling it with ids (B, T) and perhaps a cache, which then holds T more tokens, gives the logits
    (B, T, V). Generation needs only the last token's: `hidden_states`, then `logits` of the last
    row.
    """

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        H, V = config.hidden_size, config.vocab_size
        self.config = config
        self.dtype = weights.dtype
        self.embedding = weights.matrix("model.embed_tokens", V, H)
        self.blocks = [Block(config, weights, n) for n in range(config.num_hidden_layers)]
        self.norm = RMSNorm(config, weights, "model.norm")
        self.lm_head = weights.matrix("lm_head", V, H)
        weights.finish()

    def __call__(self, ids: mx.array, cache: Cache | None = None) -> mx.array:
        """ids (B, T) -> logits (B, T, V).

        Raises:
            ValueError: not a matrix of whole numbers, all of them in the vocabulary.
        """
        V = self.config.vocab_size
        if ids.ndim != 2 or not mx.issubdtype(ids.dtype, mx.integer) or not ids.size:
            raise ValueError(f"ids must be integers (B, T), not {ids.dtype} {ids.shape}")
        if not mx.all((ids >= 0) & (ids < V)).item():  # MLX's gather reads where it is told to
            raise ValueError(f"ids must lie in 0..{V - 1}")
        return self.logits(self.hidden_states(ids, cache))

    def hidden_states(self, ids: mx.array, cache: Cache | None = None) -> mx.array:
        """ids (B, T), which are trusted -> what the last norm gives, (B, T, H)."""
        x = kernels.embed(ids, self.embedding, self.dtype)
        offset = 0 if cache is None else cache.offset
        for n, block in enumerate(self.blocks):
            x = block(x, offset, None if cache is None else cache.layers[n])
        if cache is not None:
            cache.offset += ids.shape[-1]
        return self.norm(x)

    def logits(self, x: mx.array) -> mx.array:
        """Hidden states (..., H) -> logits (..., V)."""
        return kernels.linear(x, self.lm_head)

    def new_cache(self) -> Cache:
        """An empty cache for this model."""
        return Cache(self.config)

    @property
    def arrays(self) -> list[mx.array]:
        """Every parameter array, for evaluation and for counting bytes."""
        arrays = [*self.embedding.arrays, *self.lm_head.arrays, self.norm.weight]
        return arrays + [array for block in self.blocks for array in block.arrays]


class Block:
    """One layer: attention, then experts, each after a norm and added to what came in."""

    def __init__(self, config: ModelConfig, weights: Weights, n: int) -> None:
        stem = f"model.layers.{n}"
        self.attention_norm = RMSNorm(config, weights, f"{stem}.input_layernorm")
        self.attention = Attention(config, weights, n)
        self.experts_norm = RMSNorm(config, weights, f"{stem}.post_attention_layernorm")
        self.experts = Experts(config, weights, n)

    def __call__(self, x: mx.array, offset: int, cache: LayerCache | None) -> mx.array:
        """x (B, T, H) at positions offset, offset + 1, ... -> (B, T, H)."""
        x = x + self.attention(self.attention_norm(x), offset, cache)
        return x + self.experts(self.experts_norm(x))

    @property
    def arrays(self) -> list[mx.array]:
        """The parameters of the layer."""
        norms = [self.attention_norm.weight, self.experts_norm.weight]
        return norms + self.attention.arrays + self.experts.arrays


class Attention:
    """Grouped-query attention with sinks, over all tokens or over a window of them."""

    def __init__(self, config: ModelConfig, weights: Weights, n: int) -> None:
        H, Q, K = config.hidden_size, config.query_size, config.key_value_size
        stem = f"model.layers.{n}.self_attn"
        self.head_dim = config.head_dim
        self.window = config.sliding_window if config.is_sliding(n) else None
        self.q_proj = Linear(weights, f"{stem}.q_proj", Q, H)
        self.k_proj = Linear(weights, f"{stem}.k_proj", K, H)
        self.v_proj = Linear(weights, f"{stem}.v_proj", K, H)
        self.o_proj = Linear(weights, f"{stem}.o_proj", H, Q)
        self.sinks = weights.vector(f"{stem}.sinks", config.num_attention_heads)
        frequencies, concentration = yarn_frequencies(config)
        self.rope_periods = mx.array(_reciprocal(frequencies))
        # YaRN scales rotated queries and keys alike: once, squared, on the scores is the same
        self.scale = concentration**2 / math.sqrt(config.head_dim)

    def __call__(self, x: mx.array, offset: int, cache: LayerCache | None) -> mx.array:
        """x (B, T, H) -> (B, T, H)."""
        q = self._rotated(self._heads(self.q_proj(x)), offset)
        k = self._rotated(self._heads(self.k_proj(x)), offset)
        v = self._heads(self.v_proj(x))
        if cache is not None:
            k, v = cache.append(k, v)
        y = kernels.attention(q, k, v, self.sinks, self.scale, self.window)
        return self.o_proj(y.swapaxes(1, 2).reshape(*x.shape[:-1], -1))

    def _heads(self, x: mx.array) -> mx.array:
        """(B, T, heads * D) -> (B, heads, T, D)."""
        return x.reshape(*x.shape[:-1], -1, self.head_dim).swapaxes(1, 2)

    def _rotated(self, x: mx.array, offset: int) -> mx.array:
        """x (B, heads, T, D), each turned by its position."""
        return mx.fast.rope(
            x,
            self.head_dim,
            traditional=False,
            base=None,
            scale=1.0,
            offset=offset,
            freqs=self.rope_periods,
        )

    @property
    def arrays(self) -> list[mx.array]:
        """The parameters of the attention."""
        projections = (self.q_proj, self.k_proj, self.v_proj, self.o_proj)
        return [self.sinks] + [array for p in projections for array in p.arrays]


class Experts:
    """A router and its experts: each token goes through the best few, weighted by their scores."""

    def __init__(self, config: ModelConfig, weights: Weights, n: int) -> None:
        E, H, inner = config.num_experts, config.hidden_size, config.intermediate_size
        stem = f"model.layers.{n}.mlp"
        self.experts_per_token = config.experts_per_token
        self.limit = config.swiglu_limit
        self.router = Linear(weights, f"{stem}.router", E, H)
        self.gate = Linear(weights, f"{stem}.experts.gate_proj", E, inner, H)
        self.up = Linear(weights, f"{stem}.experts.up_proj", E, inner, H)
        self.down = Linear(weights, f"{stem}.experts.down_proj", E, H, inner)

    def __call__(self, x: mx.array) -> mx.array:
        """x (B, T, H) -> (B, T, H)."""
        tokens = x.reshape(-1, x.shape[-1])
        ids, scores = kernels.router_topk(self.router(tokens), self.experts_per_token)
        y = kernels.moe_gate_up_swiglu(
            tokens, ids, self.gate.matrix, self.gate.bias, self.up.matrix, self.up.bias, self.limit
        )
        y = kernels.moe_down_combine(y, ids, scores, self.down.matrix, self.down.bias)
        return y.reshape(x.shape)

    @property
    def arrays(self) -> list[mx.array]:
        """The parameters of the router and of all experts."""
        return [a for part in (self.router, self.gate, self.up, self.down) for a in part.arrays]


class Linear:
    """x @ weight.T + bias; for experts a stack of them."""

    def __init__(self, weights: Weights, stem: str, *shape: int) -> None:
        self.matrix = weights.matrix(stem, *shape)
        self.bias = weights.vector(f"{stem}.bias", *shape[:-1])

    def __call__(self, x: mx.array) -> mx.array:
        """x (..., in) -> (..., out)."""
        return kernels.linear(x, self.matrix, self.bias)

    @property
    def arrays(self) -> list[mx.array]:
        """Weight, scales, bias."""
        return [*self.matrix.arrays, self.bias]


class RMSNorm:
    """x / rms(x) * weight, the mean square taken in float32."""

    def __init__(self, config: ModelConfig, weights: Weights, stem: str) -> None:
        self.weight = weights.vector(f"{stem}.weight", config.hidden_size)
        self.eps = config.rms_norm_eps

    def __call__(self, x: mx.array) -> mx.array:
        """x (..., H) -> (..., H)."""
        return mx.fast.rms_norm(x, self.weight, self.eps)


def yarn_frequencies(config: ModelConfig) -> tuple[np.ndarray, float]:
    """Rotations per token (D / 2,) in radians, float32, and YaRN's concentration (attention scale).

    Source: YaRN, arXiv 2309.00071, section 3.2 and 3.4, as in openai/gpt-oss: the bounds of the
    ramp are not rounded (truncate=false). Pairs that turn fast keep their frequency, slow ones are
    stretched.
    """
    half = config.head_dim // 2
    base = np.float32(config.rope_theta)
    periods = base ** (np.arange(0, config.head_dim, 2, dtype=np.float32) / config.head_dim)
    if config.rope_scaling_factor <= 1:
        return (1 / periods).astype(np.float32), 1.0

    def pair_that_turns(rotations: float) -> float:
        """The (fractional) index of the pair with this many rotations in the initial context."""
        length = config.initial_context_length / (rotations * 2 * math.pi)
        return half * math.log(length) / math.log(config.rope_theta)

    low, high = pair_that_turns(config.rope_ntk_beta), pair_that_turns(config.rope_ntk_alpha)
    ramp = np.clip((np.arange(half, dtype=np.float32) - low) / (high - low), 0, 1)
    stretched = 1 / (config.rope_scaling_factor * periods)
    frequencies = stretched * ramp + (1 / periods) * (1 - ramp)
    return frequencies.astype(np.float32), 0.1 * math.log(config.rope_scaling_factor) + 1


def _reciprocal(frequencies: np.ndarray) -> np.ndarray:
    """Float32 periods whose reciprocals, which MLX takes, come nearest to the frequencies."""
    guess = (1 / frequencies.astype(np.float64)).astype(np.float32)
    candidates = np.stack([np.nextafter(guess, -np.inf), guess, np.nextafter(guess, np.inf)])
    miss = np.abs((1 / candidates).astype(np.float64) - frequencies)
    return candidates[miss.argmin(axis=0), np.arange(len(guess))]


def load_model(folder: Path, dtype: mx.Dtype | None = None) -> Model:
    """Read an MLX checkpoint into memory.

    Args:
        folder: what `convert` wrote, or a ready-made MLX conversion.
        dtype: of the activations; by default bfloat16 on a GPU, and float32 on the CPU, where
            MLX's bf16 is several times slower.

    Raises:
        CheckpointError, UsageError: as `load_weights`.
    """
    if dtype is None:
        dtype = mx.float32 if mx.default_device() == mx.Device(mx.cpu) else mx.bfloat16
    model = Model(*load_weights(folder, dtype))
    mx.eval(model.arrays)
    return model
