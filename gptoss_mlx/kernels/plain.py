"""Every operation in plain MLX: runs where no kernel of ours does, and is what a kernel must equal.

Each is a few of MLX's own operations; on MLX's CPU backend cpu.py has what is slow there with many
tokens. Arguments are explained in __init__.py. It does not know which kernels exist.

Axes: B batch, T tokens, N = B * T tokens in a row, H hidden, I intermediate, E experts, K chosen
experts, P = N * K pairs of a token and an expert, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import mlx.core as mx

from gptoss_mlx.kernels import cpu
from gptoss_mlx.kernels.types import KV, Matrix, QuantizedKV, Rotation, Routing, Table

__all__ = [
    "attention",
    "embed",
    "linear",
    "moe_down_combine",
    "moe_gate_up_swiglu",
    "qkv",
    "rotate",
    "router_topk",
]

SWIGLU_ALPHA = 1.702
# Rows sorted by expert let MLX read each expert's weights once; for fewer the sort costs more.
_SORT_THRESHOLD = 64
_MANY_TOKENS = 4  # from here on, a matrix decoded for the occasion is faster on the CPU


def linear(
    x: mx.array, matrix: Matrix, bias: mx.array | None = None, residual: mx.array | None = None
) -> mx.array:
    """x (..., in) -> x @ weight.T + bias + residual (..., out), in x's dtype."""
    if cpu.is_used() and x.size // x.shape[-1] >= _MANY_TOKENS:
        y = cpu.product(x, matrix)
    elif matrix.scales is None:
        y = x @ matrix.weight.astype(x.dtype).swapaxes(-1, -2)
    else:
        y = _quantized_product(x, matrix)
    y = y if bias is None else y + bias
    return y if residual is None else y + residual


def embed(ids: mx.array, table: Table, dtype: mx.Dtype) -> mx.array:
    """ids (B, T) -> rows of the table (B, T, H); only those rows are dequantized."""
    return table[ids].dequantized(dtype)


def qkv(
    x: mx.array, matrix: Matrix, bias: mx.array, rotation: Rotation, heads: int, kv_heads: int
) -> tuple[mx.array, mx.array, mx.array]:
    """`kernels.qkv` in MLX's operations."""
    B, T, _ = x.shape
    y = linear(x, matrix, bias).reshape(B, T, heads + 2 * kv_heads, -1).swapaxes(1, 2)
    q, k, v = mx.split(y, [heads, heads + kv_heads], axis=1)
    return rotate(q, rotation), rotate(k, rotation), v


def rotate(x: mx.array, rotation: Rotation) -> mx.array:
    """x (..., T, D) turned: dimension i with i + D / 2, by the angle of that pair (RoPE)."""
    if not cpu.is_used():
        return mx.fast.rope(
            x,
            rotation.head_dim,
            traditional=False,
            base=None,
            scale=1.0,
            offset=rotation.starts[0] if len(rotation.starts) == 1 else rotation.offsets,
            freqs=rotation.rotary.periods,
        )
    cosine, sine = mx.split(rotation.table[:, None], 2, axis=-1)  # made once for all layers
    a, b = mx.split(x, 2, axis=-1)
    turned = mx.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)
    return turned.astype(x.dtype)


def router_topk(logits: mx.array, k: int) -> Routing:
    """Router logits (N, E) -> the K experts with the largest, and the softmax over those K."""
    ids = mx.argpartition(-logits, kth=k - 1, axis=-1)[..., :k]
    chosen = mx.take_along_axis(logits, ids, axis=-1).astype(mx.float32)
    return Routing(ids, mx.softmax(chosen, axis=-1, precise=True))


def moe_gate_up_swiglu(
    x: mx.array,
    routing: Routing,
    gate: Matrix,
    gate_bias: mx.array,
    up: Matrix,
    up_bias: mx.array,
    limit: float,
) -> mx.array:
    """The experts' first half: x (N, H) -> activations (N, K, I)."""
    order, inverse, experts = _order(routing)
    rows = x[order // routing.ids.shape[-1]]  # (P, H), each token once per chosen expert
    gated = _expert_products(rows, gate, experts) + gate_bias[experts]
    linear_part = _expert_products(rows, up, experts) + up_bias[experts]
    y = _swiglu(gated, linear_part, limit)
    return y[inverse].reshape(*routing.ids.shape, -1)


def moe_down_combine(
    y: mx.array, routing: Routing, down: Matrix, down_bias: mx.array, residual: mx.array
) -> mx.array:
    """The experts' second half: y (N, K, I), residual (N, H) -> (N, H).

    Each expert's bias is added before its output is weighted.
    """
    order, inverse, experts = _order(routing)
    rows = y.reshape(-1, y.shape[-1])[order]
    out = _expert_products(rows, down, experts) + down_bias[experts]
    out = out[inverse].reshape(*routing.ids.shape, -1)  # (N, K, H)
    return residual + (out * routing.scores[..., None].astype(out.dtype)).sum(axis=-2)


def _quantized_product(x: mx.array, matrix: Matrix, *, transpose: bool = True) -> mx.array:
    """x @ weight.T, or x @ weight."""
    assert matrix.scales is not None
    return mx.quantized_matmul(
        x,
        matrix.weight,
        scales=matrix.scales,
        biases=matrix.biases,
        transpose=transpose,
        group_size=matrix.group_size,
        bits=matrix.bits,
        mode=matrix.mode,
    )


def attention(
    q: mx.array,
    parts: Sequence[KV | QuantizedKV],
    sinks: mx.array,
    scale: float,
    window: int | None,
) -> mx.array:
    """`kernels.attention` in MLX's operations.

    Quantized keys and values are multiplied as they are for one token. For several they become
    numbers first: that is little beside the products, and MLX's attention, which needs numbers,
    never holds all scores at once.
    """
    T, S = q.shape[-2], sum(part.length for part in parts)
    quantized = [part for part in parts if isinstance(part, QuantizedKV)]
    if T == 1 and len(quantized) == len(parts) and (window is None or window >= S):
        return _quantized_attention(q, quantized, sinks, scale)
    k, v = parts[0].keys, parts[0].values
    if len(parts) > 1:
        k = mx.concatenate([part.keys for part in parts], axis=-2)
        v = mx.concatenate([part.values for part in parts], axis=-2)
    if cpu.is_used() and T > 1:
        return cpu.attention(q, k, v, sinks, scale, window)
    mask: mx.array | str | None = None
    if window is not None and window < S:
        mask = _window_mask(T, S, window)
    elif T > 1:
        mask = "causal"
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask, sinks=sinks)


def _quantized_attention(
    q: mx.array, parts: Sequence[QuantizedKV], sinks: mx.array, scale: float
) -> mx.array:
    """q (B, heads, 1, D) sees all positions of all parts; all in float32, as the scales are."""
    B, _, _, D = q.shape
    kv_heads = parts[0].packed_keys.weight.shape[1]
    queries = (q.astype(mx.float32) * scale).reshape(B, kv_heads, -1, D)  # a group's are rows
    scores = [_quantized_product(queries, part.packed_keys) for part in parts]
    sink = sinks.astype(mx.float32).reshape(1, kv_heads, -1, 1)
    sink = mx.broadcast_to(sink, (*queries.shape[:3], 1))
    weights = mx.softmax(mx.concatenate([*scores, sink], axis=-1), axis=-1)
    *seen, _ = mx.split(weights, list(accumulate(part.length for part in parts)), axis=-1)
    pairs = zip(seen, parts, strict=True)
    outs = [_quantized_product(w, part.packed_values, transpose=False) for w, part in pairs]
    return sum(outs[1:], outs[0]).reshape(q.shape).astype(q.dtype)


def _window_mask(T: int, S: int, window: int) -> mx.array:
    """(T, S): True where key j is at most window - 1 positions before query i, and not after it."""
    behind = mx.arange(S - T, S)[:, None] - mx.arange(S)[None]
    return (behind >= 0) & (behind < window)


def _order(routing: Routing) -> tuple[mx.array, mx.array, mx.array]:
    """An order of the pairs, by expert if that pays, its inverse, and the experts in it."""
    flat = routing.ids.reshape(-1)
    if flat.size >= _SORT_THRESHOLD:
        return routing.by_expert
    order = mx.arange(flat.size)
    return order, order, flat


def _expert_products(rows: mx.array, matrix: Matrix, experts: mx.array) -> mx.array:
    """rows (P, in), experts (P,) -> each row times its own expert's matrix (P, out)."""
    assert matrix.scales is not None, "experts are stored in MXFP4"
    if cpu.is_used() and len(experts) >= _SORT_THRESHOLD:
        return cpu.expert_products(rows, matrix, experts)
    y = mx.gather_qmm(
        rows[:, None],
        matrix.weight,
        scales=matrix.scales,
        biases=matrix.biases,
        rhs_indices=experts,
        group_size=matrix.group_size,
        bits=matrix.bits,
        mode=matrix.mode,
        sorted_indices=len(experts) >= _SORT_THRESHOLD,
    )
    return y[:, 0]


def _swiglu(gate: mx.array, up: mx.array, limit: float) -> mx.array:
    """Clamped SwiGLU as in openai/gpt-oss: the gate from above, the linear part on both sides."""
    gate = mx.minimum(gate, limit)
    up = mx.clip(up, -limit, limit)
    return gate * mx.sigmoid(SWIGLU_ALPHA * gate) * (up + 1)
