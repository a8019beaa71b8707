"""The gpt-oss transformer and nothing else; read it from top to bottom.

    ids -> embedding -> L x [ x + attention(norm(x)),  x + experts(norm(x)) ] -> norm -> logits

Follows openai/gpt-oss `gpt_oss/torch/model.py`: attention sinks, a window of 128 tokens on every
other layer, YaRN rotary positions, a router that picks 4 experts, clamped SwiGLU. It does not know
text, sampling or files' formats; how an operation is computed is the matter of kernels/.

Axes: B batch, T new tokens, S tokens so far, H hidden, D head size, V vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from gptoss_mlx import kernels
from gptoss_mlx.cache import Cache, LayerCache
from gptoss_mlx.config import ModelConfig
from gptoss_mlx.kernels import KV, Rotary, Rotation
from gptoss_mlx.weights import Weights, load_weights

__all__ = ["Model", "load_model", "yarn_frequencies"]


class Model:
    """A gpt-oss model in memory.

    Calling it with ids (B, T) and perhaps a cache for each row, which then hold T more tokens,
    gives the logits (B, T, V). Generation needs only the last token's: `hidden_states`, then
    `logits` of the last position.
    """

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        H, V = config.hidden_size, config.vocab_size
        self.config = config
        self.dtype = weights.dtype
        self.embedding = weights.embedding("model.embed_tokens", V, H)
        self.rotary = Rotary.of(yarn_frequencies(config)[0])
        self.blocks = [Block(config, weights, n) for n in range(config.num_hidden_layers)]
        self.norm = RMSNorm(config, weights, "model.norm")
        self.lm_head = weights.matrix("lm_head", V, H)
        weights.finish()

    def __call__(self, ids: mx.array, *caches: Cache) -> mx.array:
        """ids (B, T), no cache or B of them -> logits (B, T, V).

        Raises:
            ValueError: not a matrix of whole numbers, all of them in the vocabulary.
        """
        V = self.config.vocab_size
        if ids.ndim != 2 or not mx.issubdtype(ids.dtype, mx.integer) or not ids.size:
            raise ValueError(f"ids must be integers (B, T), not {ids.dtype} {ids.shape}")
        wide = ids.astype(mx.int64)
        if not mx.all((wide >= 0) & (wide < V)).item():  # MLX's gather reads where it is told to
            raise ValueError(f"ids must lie in 0..{V - 1}")
        return self.logits(self.hidden_states(ids, *caches))

    def hidden_states(self, ids: mx.array, *caches: Cache) -> mx.array:
        """ids (B, T), which are trusted, no cache or B -> what the last norm gives, (B, T, H)."""
        B, T = ids.shape
        x = kernels.embed(ids, self.embedding, self.dtype)
        rotation = self.rotary.at([cache.offset for cache in caches] or [0] * B, T)
        for n, block in enumerate(self.blocks):
            x = block(x, rotation, [cache.layers[n] for cache in caches])
        for cache in caches:
            cache.advance(T)
        return self.norm(x)

    def logits(self, x: mx.array) -> mx.array:
        """Hidden states (..., H) -> logits (..., V)."""
        return kernels.linear(x, self.lm_head)

    def new_cache(self) -> Cache:
        """An empty cache for this model."""
        return Cache(self.config)

    @property
    def fingerprint(self) -> str:
        """Differs between models, conversions and dtypes: of what a cache of one can be used for.

        Every shape and dtype counts, and every number of the small arrays (norms, biases, sinks).
        """
        digest = hashlib.blake2b(repr(self.config).encode(), digest_size=16)
        for array in self.arrays:
            digest.update(f"{array.shape}{array.dtype}".encode())
            if array.ndim == 1:
                digest.update(np.array(array.view(mx.uint8)).tobytes())
        return digest.hexdigest()

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

    def __call__(self, x: mx.array, rotation: Rotation, caches: Sequence[LayerCache]) -> mx.array:
        """x (B, T, H), the rotation of its tokens, no cache or B -> (B, T, H)."""
        x = self.attention(self.attention_norm(x), rotation, caches, residual=x)
        return self.experts(self.experts_norm(x), residual=x)

    @property
    def arrays(self) -> list[mx.array]:
        """The parameters of the layer."""
        norms = [self.attention_norm.weight, self.experts_norm.weight]
        return norms + self.attention.arrays + self.experts.arrays


class Attention:
    """Grouped-query attention with sinks, over all tokens or over a window of them."""

    def __init__(self, config: ModelConfig, weights: Weights, n: int) -> None:
        H, Q = config.hidden_size, config.query_size
        stem = f"model.layers.{n}.self_attn"
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.window = config.sliding_window if config.is_sliding(n) else None
        rows = {f"{stem}.q_proj": Q} | {
            f"{stem}.{name}": config.key_value_size for name in ("k_proj", "v_proj")
        }
        self.qkv_proj = weights.stacked(rows, H)
        self.qkv_bias = mx.concatenate([weights.vector(f"{s}.bias", n) for s, n in rows.items()])
        self.o_proj = Linear(weights, f"{stem}.o_proj", H, Q)
        self.sinks = weights.vector(f"{stem}.sinks", self.heads)
        # YaRN scales rotated queries and keys alike: once, squared, on the scores is the same
        self.scale = yarn_frequencies(config)[1] ** 2 / math.sqrt(config.head_dim)

    def __call__(
        self, x: mx.array, rotation: Rotation, caches: Sequence[LayerCache], residual: mx.array
    ) -> mx.array:
        """x and residual (B, T, H), the rotation of the tokens, no cache or B -> (B, T, H)."""
        q, k, v = kernels.qkv(
            x, self.qkv_proj, self.qkv_bias, rotation, self.heads, self.kv_heads
        )  # (B, heads, T, D), (B, kv heads, T, D) twice
        y = self._attend(q, KV(k, v), caches)
        return self.o_proj(y.swapaxes(1, 2).reshape(*x.shape[:-1], -1), residual)

    def _attend(self, q: mx.array, new: KV, caches: Sequence[LayerCache]) -> mx.array:
        """Sequences differ in length, so that each attends to its own positions by itself."""
        if not caches:
            return kernels.attention(q, [new], self.sinks, self.scale, self.window)
        rows: list[mx.array] = []
        for b, cache in enumerate(caches):
            parts = cache.append(*(new if len(caches) == 1 else (x[b : b + 1] for x in new)))
            one = q if len(caches) == 1 else q[b : b + 1]
            rows.append(kernels.attention(one, parts, self.sinks, self.scale, self.window))
        return rows[0] if len(rows) == 1 else mx.concatenate(rows)

    @property
    def arrays(self) -> list[mx.array]:
        """The parameters of the attention."""
        return [self.sinks, *self.qkv_proj.arrays, self.qkv_bias, *self.o_proj.arrays]


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

    def __call__(self, x: mx.array, residual: mx.array) -> mx.array:
        """x and residual (B, T, H) -> (B, T, H)."""
        tokens, residual = (a.reshape(-1, a.shape[-1]) for a in (x, residual))
        routing = kernels.router_topk(self.router(tokens), self.experts_per_token)
        gate, up, down = self.gate, self.up, self.down
        y = kernels.moe_gate_up_swiglu(
            tokens, routing, gate.matrix, gate.bias, up.matrix, up.bias, self.limit
        )
        y = kernels.moe_down_combine(y, routing, down.matrix, down.bias, residual)
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

    def __call__(self, x: mx.array, residual: mx.array | None = None) -> mx.array:
        """x (..., in), residual (..., out) -> (..., out)."""
        return kernels.linear(x, self.matrix, self.bias, residual)

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


def load_model(
    folder: Path, dtype: mx.Dtype | None = None, *, embedding_on_disk: bool = False
) -> Model:
    """Read an MLX checkpoint into memory.

    Args:
        folder: what `convert` wrote, or a ready-made MLX conversion.
        dtype: of the activations; by default bfloat16 on a GPU, and float32 on the CPU, where
            MLX's bf16 is several times slower.
        embedding_on_disk: leave that table there, and read the rows of each token from it.

    Raises:
        CheckpointError, UsageError: as `load_weights`.
    """
    if dtype is None:
        dtype = mx.float32 if mx.default_device() == mx.Device(mx.cpu) else mx.bfloat16
    model = Model(*load_weights(folder, dtype, embedding_on_disk=embedding_on_disk))
    mx.eval(model.arrays)
    return model
