"""Launches the kernels of `metal/`: for each a function that takes and gives MLX arrays.

It knows what a kernel needs of shapes and dtypes (`*_fits`), how its grid is laid out, and nothing
of whether it is right or fast here: that is choice.py's. The arguments are those of the twin of the
same name in plain.py, for one new token of each sequence where the kernel is for decode only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypedDict, TypeGuard

import mlx.core as mx

from gptoss_mlx.kernels.build import Constants, launch
from gptoss_mlx.kernels.types import KV, Matrix, QuantizedKV, Rotation, Routing

__all__ = [
    "attention_decode",
    "attention_fits",
    "gemm_fits",
    "matvec_fits",
    "moe_down_combine",
    "moe_gate_up_swiglu",
    "moe_gemm_down",
    "moe_gemm_gate_up",
    "qkv",
    "qkv_fits",
    "qmv",
    "qmv_fits",
    "router_fits",
    "router_topk",
]

HEAD = 64  # the head size that the attention kernels are written for
_SIMDGROUPS = 2  # of a threadgroup, in the matrix-vector kernels
_LANES = 32
_ATTENTION_SLICES = 2
# Positions up to which so many threadgroups share a KV head's; more wait for more to read.
_SPLITS = ((512, 1), (8192, 8), (1 << 30, 32))
_GEMM_THREADS = 128
# Average pairs of an expert up to which a tile of so many rows wastes least.
_GEMM_ROWS = ((8, 8), (16, 16))


class _Grid(TypedDict):
    grid: tuple[int, int, int]  # threads
    threadgroup: tuple[int, int, int]


@lru_cache
def _scalar(value: float) -> mx.array:
    return mx.array(value, mx.float32)


def qmv_fits(matrix: Matrix) -> bool:
    """Whether the matrix-vector kernels read this matrix."""
    return matrix.rows % 4 == 0 and (
        (matrix.mode == "affine" and _affine_fits(matrix))
        or (matrix.mode == "dense" and matrix.weight.dtype == mx.bfloat16 and matrix.width % 8 == 0)
    )


def _affine_fits(matrix: Matrix) -> bool:
    return matrix.bits in (4, 8) and matrix.group_size == 64 and matrix.width % 64 == 0


def qmv(
    x: mx.array, matrix: Matrix, bias: mx.array | None = None, residual: mx.array | None = None
) -> mx.array:
    """x (M, in) -> x @ weight.T + bias + residual (M, out). The matrix is read for each token."""
    M, K = x.shape
    N = matrix.rows
    rows = 1 if N <= 256 else 4  # few rows: better that each has a simdgroup of its own
    absent = x  # what a kernel does not read must still be an array
    [y] = launch(
        _of_format("qmv", matrix),
        inputs=[
            x,
            *matrix.arrays,
            absent if bias is None else bias,
            absent if residual is None else residual,
        ],
        template=[
            ("T", x.dtype),
            ("K", K),
            ("N", N),
            ("ROWS", rows),
            *_bits(matrix),
            ("BIAS", bias is not None),
            ("RESIDUAL", residual is not None),
        ],
        **_rows_grid(N, rows, M),
        output_shapes=[(M, N)],
        output_dtypes=[x.dtype],
    )
    return y


def qkv_fits(matrix: Matrix, head_dim: int) -> bool:
    """Whether the kernel reads this matrix and knows heads of this size."""
    return qmv_fits(matrix) and head_dim == HEAD


def qkv(
    x: mx.array, matrix: Matrix, bias: mx.array, rotation: Rotation, heads: int, kv_heads: int
) -> tuple[mx.array, mx.array, mx.array]:
    """x (B, 1, H): one new token of each sequence."""
    B, _, K = x.shape
    parts = (heads + 2 * kv_heads) * 16  # each of four rows
    q, k, v = launch(
        _of_format("qkv", matrix),
        inputs=[x, *matrix.arrays, bias, rotation.table],
        template=[
            ("T", x.dtype),
            ("K", K),
            ("HEADS", heads),
            ("KV_HEADS", kv_heads),
            *_bits(matrix),
        ],
        **_rows_grid(parts, 1, B),
        output_shapes=[(B, heads, 1, HEAD), (B, kv_heads, 1, HEAD), (B, kv_heads, 1, HEAD)],
        output_dtypes=[x.dtype] * 3,
    )
    return q, k, v


def router_fits(num_experts: int, k: int) -> bool:
    """Whether a simdgroup finds the best K of so many."""
    return k <= num_experts <= 8 * _LANES


def router_topk(logits: mx.array, k: int) -> Routing:
    """Router logits (N, E) -> the K experts with the largest, the largest first."""
    N, E = logits.shape
    ids, scores = launch(
        "router_topk",
        inputs=[logits],
        template=[("E", E), ("TOP", k)],
        grid=(N * _LANES, 1, 1),
        threadgroup=(_LANES, 1, 1),
        output_shapes=[(N, k)] * 2,
        output_dtypes=[mx.uint32, mx.float32],
    )
    return Routing(ids, scores)


def matvec_fits(matrix: Matrix) -> bool:
    """Whether the experts' kernels for few tokens read this matrix."""
    return matrix.mode == "mxfp4" and matrix.rows % 4 == 0 and matrix.width % 32 == 0


def moe_gate_up_swiglu(
    x: mx.array,
    routing: Routing,
    gate: Matrix,
    gate_bias: mx.array,
    up: Matrix,
    up_bias: mx.array,
    limit: float,
) -> mx.array:
    """x (N, H) -> (N, K, I). Each (token, expert) pair reads its expert's matrices."""
    K, I = x.shape[-1], gate.rows  # noqa: E741  I is the intermediate size here as elsewhere
    N, top = routing.ids.shape
    rows = 2  # of gate and as many of up: four loads under way at once
    [y] = launch(
        "moe_gate_up_swiglu",
        inputs=[
            x,
            routing.ids,
            *(*gate.arrays, gate_bias),
            *(*up.arrays, up_bias),
            _scalar(limit),
        ],
        template=[("T", x.dtype), ("K", K), ("I", I), ("TOP", top), ("ROWS", rows)],
        **_rows_grid(I, rows, N * top),
        output_shapes=[(N, top, I)],
        output_dtypes=[x.dtype],
    )
    return y


def moe_down_combine(
    y: mx.array, routing: Routing, down: Matrix, down_bias: mx.array, residual: mx.array
) -> mx.array:
    """y (N, K, I), residual (N, H) -> (N, H). Each pair reads its expert's matrix."""
    N, top, K = y.shape
    H, rows = down.rows, 4
    [out] = launch(
        "moe_down_combine",
        inputs=[y, routing.ids, routing.scores, *down.arrays, down_bias, residual],
        template=[("T", y.dtype), ("K", K), ("H", H), ("TOP", top), ("ROWS", rows)],
        **_rows_grid(H, rows, N),
        output_shapes=[(N, H)],
        output_dtypes=[y.dtype],
    )
    return out


def gemm_fits(matrix: Matrix, rows: int) -> bool:
    """Whether the experts' kernel for many tokens, which takes so many rows at once, reads this."""
    return matrix.mode == "mxfp4" and matrix.rows % rows == 0 and matrix.width % 64 == 0


def moe_gemm_gate_up(
    x: mx.array,
    routing: Routing,
    gate: Matrix,
    gate_bias: mx.array,
    up: Matrix,
    up_bias: mx.array,
    limit: float,
) -> mx.array:
    """x (N, H) -> (N, K, I). Each expert's matrices are read once for every few of its tokens."""
    K, I = x.shape[-1], gate.rows  # noqa: E741
    E, P, top = len(gate.weight), routing.ids.size, routing.ids.shape[-1]
    rows = _gemm_rows(P, E)
    [y] = launch(
        "moe_gemm_gate_up",
        inputs=[
            x,
            routing.by_expert.order,
            routing.offsets(E),
            *(*gate.arrays, gate_bias),
            *(*up.arrays, up_bias),
            _scalar(limit),
        ],
        template=[("T", x.dtype), ("K", K), ("I", I), ("E", E), ("TOP", top), ("ROWS", rows)],
        **_gemm_grid(I // 32, P, E, rows),
        output_shapes=[(*routing.ids.shape, I)],
        output_dtypes=[x.dtype],
    )
    return y


def moe_gemm_down(
    y: mx.array, routing: Routing, down: Matrix, down_bias: mx.array, residual: mx.array
) -> mx.array:
    """y (N, K, I), residual (N, H) -> (N, H). Each expert's matrix is read once for every few."""
    P, K, H, E = routing.ids.size, y.shape[-1], down.rows, len(down.weight)
    rows = _gemm_rows(P, E)
    [out] = launch(
        "moe_gemm_down",
        inputs=[
            y,
            routing.by_expert.order,
            routing.offsets(E),
            routing.scores,
            *(*down.arrays, down_bias),
        ],
        template=[("T", y.dtype), ("K", K), ("H", H), ("E", E), ("ROWS", rows)],
        **_gemm_grid(H // 64, P, E, rows),
        output_shapes=[(*routing.ids.shape, H)],
        output_dtypes=[mx.float32],  # rounded once, when all are added up
    )
    return (residual + out.sum(axis=-2)).astype(y.dtype)


def attention_fits(parts: Sequence[KV | QuantizedKV], q: mx.array) -> TypeGuard[Sequence[KV]]:
    """Whether this is one new token of each sequence, and KV and heads as the kernel knows them."""
    _, heads, T, D = q.shape
    are_numbers = all(isinstance(part, KV) for part in parts)
    return are_numbers and T == 1 and D == HEAD and heads == 8 * parts[0].keys.shape[1]


def attention_decode(q: mx.array, parts: Sequence[KV], sinks: mx.array, scale: float) -> mx.array:
    """q (B, heads, 1, D) sees all positions of all parts -> (B, heads, 1, D).

    Keys and values may be views of a longer cache; the D numbers of a position, and the positions
    of a head, must follow each other. Several parts cost a launch each, and no copy.
    """
    splits = [next(n for positions, n in _SPLITS if kv.length <= positions) for kv in parts]
    if splits == [1]:
        return _attend(q, parts[0], sinks, scale, 1)
    pairs = zip(parts, splits, strict=True)
    partials = [_attend(q, kv, sinks, scale, max(2, n)) for kv, n in pairs]
    return _attention_merge(
        partials[0] if len(parts) == 1 else mx.concatenate(partials, axis=2), sinks, q.dtype
    )


def _attend(q: mx.array, kv: KV, sinks: mx.array, scale: float, splits: int) -> mx.array:
    """What q sees of one part: (B, heads, 1, D), or that many partial softmaxes (..., D + 2)."""
    B, heads, _, _ = q.shape
    k, v = kv
    threads = heads // k.shape[1] * _ATTENTION_SLICES * _LANES
    shape = (B, heads, 1, HEAD) if splits == 1 else (B, heads, splits, HEAD + 2)
    dtype = q.dtype if splits == 1 else mx.float32
    [out] = launch(
        "attention_decode",
        inputs=[q, k, v, sinks, _scalar(scale)],
        template=[
            ("T", q.dtype),
            ("OUT", dtype),
            ("HEADS", heads),
            ("GROUP", heads // k.shape[1]),
            ("SLICES", _ATTENTION_SLICES),
            ("SPLITS", splits),
        ],
        grid=(splits * threads, k.shape[1], B),
        threadgroup=(threads, 1, 1),
        output_shapes=[shape],
        output_dtypes=[dtype],
    )
    return out


def _attention_merge(partials: mx.array, sinks: mx.array, dtype: mx.Dtype) -> mx.array:
    """The softmaxes of several splits (B, heads, splits, D + 2) become one (B, heads, 1, D)."""
    B, heads, splits, _ = partials.shape
    [out] = launch(
        "attention_merge",
        inputs=[partials, sinks],
        template=[("T", dtype), ("HEADS", heads), ("SPLITS", splits)],
        grid=(B * heads * _LANES, 1, 1),
        threadgroup=(_LANES, 1, 1),
        output_shapes=[(B, heads, 1, HEAD)],
        output_dtypes=[dtype],
    )
    return out


def _of_format(kernel: str, matrix: Matrix) -> str:
    return f"{kernel}_affine" if matrix.mode == "affine" else f"{kernel}_bf16"


def _bits(matrix: Matrix) -> Constants:
    return [("BITS", matrix.bits)] if matrix.mode == "affine" else []


def _rows_grid(rows: int, rows_each: int, tokens: int) -> _Grid:
    """A simdgroup for so many rows of each token."""
    threadgroups = -(-rows // (rows_each * _SIMDGROUPS))
    threads = _SIMDGROUPS * _LANES
    return {"grid": (threadgroups * threads, tokens, 1), "threadgroup": (threads, 1, 1)}


def _gemm_rows(pairs: int, num_experts: int) -> int:
    return next((rows for limit, rows in _GEMM_ROWS if pairs <= limit * num_experts), 32)


def _gemm_grid(columns: int, pairs: int, num_experts: int, rows: int) -> _Grid:
    """A threadgroup for each tile of columns and of pairs; experts' last tiles are not full."""
    tiles = pairs // rows + min(num_experts, pairs)
    return {
        "grid": (columns * _GEMM_THREADS, tiles, 1),
        "threadgroup": (_GEMM_THREADS, 1, 1),
    }
