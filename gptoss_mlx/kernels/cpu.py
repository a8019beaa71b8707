"""Operations on many tokens for machines without a GPU, in numpy.

MLX's CPU backend decodes quantized weights again for every token, and on Linux its matrix product
has no tuned BLAS, which numpy brings along. Here a matrix is decoded once, some rows at a time, and
multiplied with all tokens. Everything is computed at once and in float32; results are MLX arrays of
the dtype that came in. The definitions are in plain.py.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from typing import cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from gptoss_mlx.kernels.types import Matrix

__all__ = ["attention", "decoded", "expert_products", "is_used", "product"]

Floats = NDArray[np.float32]
_BLOCK = 1 << 20  # weights decoded at a time, which stay in the processor's cache
_QUERIES = 128  # whose scores are held at a time
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def is_used() -> bool:
    """Whether MLX's CPU backend is what computes."""
    return mx.default_device() == mx.Device(mx.cpu)


def product(x: mx.array, matrix: Matrix) -> mx.array:
    """x (..., in) -> x @ weight.T (..., out)."""
    out = _product(_floats(x).reshape(-1, x.shape[-1]), matrix)
    return mx.array(out).reshape(*x.shape[:-1], -1).astype(x.dtype)


def expert_products(rows: mx.array, matrix: Matrix, experts: mx.array) -> mx.array:
    """rows (P, in), experts (P,) ascending -> each row times its own expert's matrix (P, out)."""
    x, parts, start = _floats(rows), list[Floats](), 0
    for expert, pairs in groupby(cast("list[int]", experts.tolist())):
        end = start + len(list(pairs))
        parts.append(_product(x[start:end], matrix[expert]))
        start = end
    return mx.array(np.concatenate(parts)).astype(rows.dtype)


def _product(x: Floats, matrix: Matrix) -> Floats:
    out = np.empty((matrix.rows, len(x)), np.float32)  # transposed: BLAS writes neighbours only
    step = max(1, _BLOCK // matrix.width)
    for start in range(0, matrix.rows, step):
        block = slice(start, start + step)
        np.matmul(decoded(matrix, block), x.T, out=out[block])
    return out.T


def decoded(matrix: Matrix, rows: slice = slice(None)) -> Floats:
    """Some rows of one matrix (rows, in) as numbers."""
    if matrix.scales is None or 32 % matrix.bits:  # such numbers lie across words
        return _floats(matrix[rows].dequantized(mx.float32))
    codes = cast("NDArray[np.uint32]", np.asarray(matrix.weight))[rows]
    groups = matrix.width // matrix.group_size
    if matrix.mode == "mxfp4":
        pairs = _pairs_of_e2m1()[codes.view(np.uint8)]  # one float64 holds two float32
        weight = pairs.view(np.float32).reshape(len(codes), groups, -1)
        exponents = np.asarray(matrix.scales)[rows].astype(np.int32) - 127
        weight *= np.ldexp(np.float32(1), exponents)[..., None]
    else:
        assert matrix.biases is not None
        weight = _integers(codes, matrix.bits).astype(np.float32).reshape(len(codes), groups, -1)
        weight *= _floats(matrix.scales)[rows, :, None]
        weight += _floats(matrix.biases)[rows, :, None]
    return weight.reshape(len(codes), -1)


@lru_cache
def _pairs_of_e2m1() -> NDArray[np.float64]:
    """For each byte the two numbers it holds, low nibble first, in the bits of one float64."""
    values = np.array([*_E2M1, *(-v for v in _E2M1)], np.float32)
    byte = np.arange(256)
    return np.stack([values[byte & 15], values[byte >> 4]], axis=-1).view(np.float64)[:, 0]


def _integers(words: NDArray[np.uint32], bits: int) -> NDArray[np.unsignedinteger]:
    """Packed integers (rows, words), the lowest bits first -> (rows, words * 32 / bits)."""
    if bits == 8:
        return words.view(np.uint8)
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    return ((words[..., None] >> shifts) & np.uint32((1 << bits) - 1)).reshape(len(words), -1)


def attention(
    q: mx.array, k: mx.array, v: mx.array, sinks: mx.array, scale: float, window: int | None
) -> mx.array:
    """`kernels.attention`. Blocks of queries skip keys they cannot see."""
    queries, keys, values = (_floats(x) for x in (q * scale, k, v))
    B, heads, T, D = q.shape
    kv_heads, S = k.shape[1:3]
    grouped = queries.reshape(B, kv_heads, heads // kv_heads, T, D)
    sink = _floats(sinks).reshape(kv_heads, -1)[..., None, None]
    out = np.empty_like(grouped)
    for start in range(0, T, _QUERIES):
        block = slice(start, min(start + _QUERIES, T))
        last = S - T + block.stop
        first = 0 if window is None else max(0, S - T + start - window + 1)
        seen = _visible(np.arange(S - T + start, last), np.arange(first, last), window)
        scores = grouped[..., block, :] @ keys[:, :, None, first:last].swapaxes(-1, -2)
        weights = _softmax_with_sink(np.where(seen, scores, np.float32(-np.inf)), sink)
        out[..., block, :] = weights @ values[:, :, None, first:last]
    return mx.array(out.reshape(q.shape)).astype(q.dtype)


def _visible(
    queries: NDArray[np.int64], keys: NDArray[np.int64], window: int | None
) -> NDArray[np.bool]:
    """(queries, keys): whether the key is not after the query, and in its window."""
    behind = queries[:, None] - keys[None]
    return behind >= 0 if window is None else (behind >= 0) & (behind < window)


def _softmax_with_sink(scores: Floats, sink: Floats) -> Floats:
    """Over the last axis; the sink takes part of the weight."""
    highest = np.maximum(scores.max(axis=-1, keepdims=True), sink)
    scores -= highest
    weights = np.exp(scores, out=scores)
    weights /= weights.sum(axis=-1, keepdims=True) + np.exp(sink - highest)
    return weights


def _floats(x: mx.array) -> Floats:
    """An array's values in float32, without a copy where they are."""
    return cast("Floats", np.asarray(x if x.dtype == mx.float32 else x.astype(mx.float32)))
