"""The operations a gpt-oss model is made of, and the one place that decides how each is computed.

Each stands in plain.py in plain MLX; some have a Metal kernel of ours in metal.py too, whose twin
that is: what the kernel must equal. Here shapes say which kernels could serve, and choice.py which
of them does. It does not know layers, caches or checkpoints.

Axes: B batch, T tokens, N = B * T tokens in a row, H hidden, I intermediate, E experts, K chosen
experts, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from gptoss_mlx.kernels import metal, plain
from gptoss_mlx.kernels.choice import fastest
from gptoss_mlx.kernels.plain import embed
from gptoss_mlx.kernels.types import (
    KV,
    Matrix,
    QuantizedKV,
    Rotary,
    Rotation,
    Routing,
    concatenated,
)

__all__ = [
    "KV",
    "Matrix",
    "QuantizedKV",
    "Rotary",
    "Rotation",
    "Routing",
    "attention",
    "concatenated",
    "embed",
    "linear",
    "moe_down_combine",
    "moe_gate_up_swiglu",
    "qkv",
    "router_topk",
]


def linear(
    x: mx.array, matrix: Matrix, bias: mx.array | None = None, residual: mx.array | None = None
) -> mx.array:
    """x (..., in) -> x @ weight.T + bias + residual (..., out), in x's dtype."""
    rows = x.size // x.shape[-1]
    if metal.qmv_fits(matrix) and fastest((f"qmv_{_format(matrix)}",), rows):
        flat = None if residual is None else residual.reshape(rows, -1)
        y = metal.qmv(x.reshape(rows, -1), matrix, bias, flat)
        return y.reshape(*x.shape[:-1], -1)
    return plain.linear(x, matrix, bias, residual)


def qkv(
    x: mx.array, matrix: Matrix, bias: mx.array, rotation: Rotation, heads: int, kv_heads: int
) -> tuple[mx.array, mx.array, mx.array]:
    """Queries, keys and values in one product, queries and keys rotated to their positions.

    Args:
        x: (B, T, H).
        matrix: ((heads + 2 * kv_heads) * D, H): the rows of queries, keys, values.
        bias: one for each row.
        rotation: of the sequences' T tokens.
        heads: of queries.
        kv_heads: of keys, and of values.

    Returns:
        (B, heads, T, D), (B, kv heads, T, D), (B, kv heads, T, D).
    """
    B, T, _ = x.shape
    fits = T == 1 and metal.qkv_fits(matrix, rotation.head_dim)
    if fits and fastest((f"qkv_{_format(matrix)}",), B):
        return metal.qkv(x, matrix, bias, rotation, heads, kv_heads)
    return plain.qkv(x, matrix, bias, rotation, heads, kv_heads)


def router_topk(logits: mx.array, k: int) -> Routing:
    """Router logits (N, E) -> the K experts with the largest, and the softmax over those K."""
    N, E = logits.shape
    if metal.router_fits(E, k) and fastest(("router_topk",), N):
        return metal.router_topk(logits, k)
    return plain.router_topk(logits, k)


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
    few = ("moe_gate_up_swiglu",) if metal.matvec_fits(gate) else ()
    many = ("moe_gemm_gate_up",) if metal.gemm_fits(gate, 32) else ()
    match fastest(few + many, len(x)):
        case "moe_gate_up_swiglu":
            product = metal.moe_gate_up_swiglu
        case "moe_gemm_gate_up":
            product = metal.moe_gemm_gate_up
        case _:
            product = plain.moe_gate_up_swiglu
    return product(x, routing, gate, gate_bias, up, up_bias, limit)


def moe_down_combine(
    y: mx.array, routing: Routing, down: Matrix, down_bias: mx.array, residual: mx.array
) -> mx.array:
    """The experts' second half: y (N, K, I), residual (N, H) -> (N, H).

    Each expert's bias is added before its output is weighted.
    """
    few = ("moe_down_combine",) if metal.matvec_fits(down) else ()
    many = ("moe_gemm_down",) if metal.gemm_fits(down, 64) else ()
    match fastest(few + many, len(y)):
        case "moe_down_combine":
            product = metal.moe_down_combine
        case "moe_gemm_down":
            product = metal.moe_gemm_down
        case _:
            product = plain.moe_down_combine
    return product(y, routing, down, down_bias, residual)


def attention(
    q: mx.array,
    parts: Sequence[KV | QuantizedKV],
    sinks: mx.array,
    scale: float,
    window: int | None,
) -> mx.array:
    """Softmax attention in which each head's sink takes part of the weight and adds nothing.

    Args:
        q: (B, heads, T, D), the last T of the S positions.
        parts: the keys and values of the S positions, in one piece or in several, in order; all
            of them quantized or none.
        sinks: (heads,), a logit that every query of the head also sees.
        scale: multiplies the scores.
        window: how many positions a query sees, its own included; None: all up to its own.

    Returns:
        (B, heads, T, D).
    """
    S = sum(part.length for part in parts)
    sees_all = window is None or window >= S
    if metal.attention_fits(parts, q) and sees_all and fastest(("attention_decode",), S):
        return metal.attention_decode(q, parts, sinks, scale)
    return plain.attention(q, parts, sinks, scale, window)


def _format(matrix: Matrix) -> str:
    return f"q{matrix.bits}" if matrix.mode == "affine" else "bf16"
