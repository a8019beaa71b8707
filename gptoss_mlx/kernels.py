"""The operations a gpt-oss model is made of, and the one place that decides how each is computed.

Today each is plain MLX. Kernels of our own will stand beside these functions, which remain as their
twins: what a kernel must equal. The module knows shapes and dtypes; it does not know layers, caches
or checkpoints.

Axes: B batch, T tokens, N = B * T tokens in a row, H hidden, I intermediate, E experts, K chosen
experts, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import mlx.core as mx

__all__ = [
    "Matrix",
    "attention",
    "embed",
    "linear",
    "moe_down_combine",
    "moe_gate_up_swiglu",
    "router_topk",
]

# Rows sorted by expert let MLX read each expert's weights once; for fewer the sort costs more.
_SORT_THRESHOLD = 64
SWIGLU_ALPHA = 1.702


@dataclass(frozen=True)
class Matrix:
    """The weight of `x @ weight.T`, or a stack of them with one for each expert, as it is stored.

    Dense: `weight` (..., out, in). Quantized: uint32 `weight` (..., out, in * bits / 32) with
    `scales` (..., out, in / group_size), in affine mode `biases` of the same shape too.
    """

    weight: mx.array
    scales: mx.array | None = None
    biases: mx.array | None = None
    group_size: int = 0
    bits: int = 16
    mode: Literal["dense", "affine", "mxfp4"] = "dense"

    @property
    def arrays(self) -> list[mx.array]:
        """The arrays that hold it."""
        return [a for a in (self.weight, self.scales, self.biases) if a is not None]


def linear(x: mx.array, matrix: Matrix, bias: mx.array | None = None) -> mx.array:
    """x (..., in) -> x @ weight.T + bias (..., out), in x's dtype."""
    if matrix.scales is None:
        y = x @ matrix.weight.astype(x.dtype).swapaxes(-1, -2)
    else:
        y = mx.quantized_matmul(
            x,
            matrix.weight,
            scales=matrix.scales,
            biases=matrix.biases,
            group_size=matrix.group_size,
            bits=matrix.bits,
            mode=matrix.mode,
        )
    return y if bias is None else y + bias


def embed(ids: mx.array, matrix: Matrix, dtype: mx.Dtype) -> mx.array:
    """ids (B, T) -> rows of the table (B, T, H); only those rows are dequantized."""
    if matrix.scales is None:
        return matrix.weight[ids].astype(dtype)
    rows = mx.dequantize(
        matrix.weight[ids],
        scales=matrix.scales[ids],
        biases=None if matrix.biases is None else matrix.biases[ids],
        group_size=matrix.group_size,
        bits=matrix.bits,
        mode=matrix.mode,
    )
    return rows.astype(dtype)


def router_topk(logits: mx.array, k: int) -> tuple[mx.array, mx.array]:
    """Router logits (N, E) -> ids (N, K) of the largest and the softmax over those K (N, K)."""
    ids = mx.argpartition(-logits, kth=k - 1, axis=-1)[..., :k]
    chosen = mx.take_along_axis(logits, ids, axis=-1)
    return ids, mx.softmax(chosen, axis=-1, precise=True)


def moe_gate_up_swiglu(
    x: mx.array,
    ids: mx.array,
    gate: Matrix,
    gate_bias: mx.array,
    up: Matrix,
    up_bias: mx.array,
    limit: float,
) -> mx.array:
    """The experts' first half: x (N, H), ids (N, K) -> activations (N, K, I)."""
    order, inverse = _sorted_by_expert(ids)
    rows = x[order // ids.shape[-1]]  # (N * K, H), each token once per chosen expert
    experts = ids.reshape(-1)[order]
    gated = _gather_matmul(rows, gate, experts) + gate_bias[experts]
    linear_part = _gather_matmul(rows, up, experts) + up_bias[experts]
    y = _swiglu(gated, linear_part, limit)
    return y[inverse].reshape(*ids.shape, -1)


def moe_down_combine(
    y: mx.array, ids: mx.array, scores: mx.array, down: Matrix, down_bias: mx.array
) -> mx.array:
    """The experts' second half: y (N, K, I), ids and scores (N, K) -> (N, H).

    Each expert's bias is added before its output is weighted.
    """
    order, inverse = _sorted_by_expert(ids)
    experts = ids.reshape(-1)[order]
    rows = y.reshape(-1, y.shape[-1])[order]
    out = _gather_matmul(rows, down, experts) + down_bias[experts]
    out = out[inverse].reshape(*ids.shape, -1)  # (N, K, H)
    return (out * scores[..., None].astype(out.dtype)).sum(axis=-2)


def attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    sinks: mx.array,
    scale: float,
    window: int | None,
) -> mx.array:
    """Softmax attention in which each head's sink takes part of the weight and adds nothing.

    Args:
        q: (B, heads, T, D), the last T of the S positions.
        k: (B, kv heads, S, D).
        v: (B, kv heads, S, D).
        sinks: (heads,), a logit that every query of the head also sees.
        scale: multiplies the scores.
        window: how many positions a query sees, its own included; None: all up to its own.

    Returns:
        (B, heads, T, D).
    """
    T, S = q.shape[-2], k.shape[-2]
    mask: mx.array | str | None = None
    if window is not None and window < S:
        mask = _window_mask(T, S, window)
    elif T > 1:
        mask = "causal"
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask, sinks=sinks)


def _window_mask(T: int, S: int, window: int) -> mx.array:
    """(T, S): True where key j is at most window - 1 positions before query i, and not after it."""
    behind = mx.arange(S - T, S)[:, None] - mx.arange(S)[None]
    return (behind >= 0) & (behind < window)


def _sorted_by_expert(ids: mx.array) -> tuple[mx.array, mx.array]:
    """An order of the N * K (token, expert) pairs, by expert if that pays, and its inverse."""
    if ids.size < _SORT_THRESHOLD:
        order = mx.arange(ids.size)
        return order, order
    order = mx.argsort(ids.reshape(-1))
    return order, mx.argsort(order)


def _gather_matmul(rows: mx.array, matrix: Matrix, experts: mx.array) -> mx.array:
    """rows (M, in), experts (M,) -> each row times its own expert's matrix (M, out)."""
    assert matrix.scales is not None, "experts are stored in MXFP4"
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
