"""Random inputs of the kernels, and their values in float64.

It does not know any kernel: matrices as they are stored, which experts tokens go to.
"""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
from helpers import array
from numpy.typing import NDArray

from gptoss_mlx.kernels import Matrix, Routing

__all__ = [
    "TOP",
    "Floats",
    "dense",
    "experts",
    "normal",
    "product",
    "routing",
    "values",
    "with_scale",
]

Floats = NDArray[np.float64]
TOP = 4  # experts a token
_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
_ROWS = 4096  # of a matrix that are values at a time


def normal(
    *shape: int, seed: int = 0, scale: float = 1.0, dtype: mx.Dtype = mx.float32
) -> mx.array:
    """Random floats."""
    numbers = np.random.default_rng(seed).standard_normal(shape, np.float32) * np.float32(scale)
    return mx.array(numbers).astype(dtype)


def dense(kind: str, rows: int, width: int, dtype: mx.Dtype, seed: int = 0) -> Matrix:
    """A matrix in bf16, q8 or q4; dtype is that of the activations, and so of its scales."""
    weight = normal(rows, width, seed=seed, scale=0.05)
    if kind == "bf16":
        return Matrix(weight.astype(mx.bfloat16))
    bits = int(kind[1:])
    packed, scales, biases = mx.quantize(weight.astype(dtype), group_size=64, bits=bits)
    return Matrix(packed, scales, biases, 64, bits, "affine")


def experts(number: int, rows: int, width: int, seed: int = 0) -> Matrix:
    """A matrix for each expert in MXFP4: any codes, scales of 2^-8 to 2^-5."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 1 << 32, (number, rows, width // 8), dtype=np.uint32)
    scales = rng.integers(119, 123, (number, rows, width // 32), dtype=np.uint8)
    return Matrix(mx.array(words), mx.array(scales), None, 32, 4, "mxfp4")


def with_scale(matrix: Matrix, scale: int) -> Matrix:
    """The same codes, with scales that are all the same."""
    assert matrix.scales is not None
    return replace(matrix, scales=mx.full(matrix.scales.shape, scale, mx.uint8))


def routing(tokens: int, number: int, ids: NDArray[np.int64] | None = None) -> Routing:
    """TOP distinct experts of so many for each token, or those of ids (tokens, TOP)."""
    if ids is None:
        rng = np.random.default_rng(tokens)
        ids = np.stack([rng.permutation(number)[:TOP] for _ in range(tokens)])
    scores = mx.softmax(normal(*ids.shape, seed=1), axis=-1)
    return Routing(mx.array(ids.astype(np.uint32)), scores)


def values(matrix: Matrix) -> Floats:
    """The weight (..., out, in) as numbers, low bits first."""
    if matrix.scales is None:
        return array(matrix.weight)
    words = np.array(matrix.weight, dtype=np.uint32)
    shifts = np.arange(0, 32, matrix.bits, dtype=np.uint32)
    codes = ((words[..., None] >> shifts) & np.uint32((1 << matrix.bits) - 1)).astype(np.uint8)
    groups = codes.reshape(*matrix.scales.shape, matrix.group_size)
    scales = array(matrix.scales)[..., None]
    if matrix.biases is None:
        numbers = np.where(groups & 8, -1, 1) * _E2M1[groups & 7] * 2.0 ** (scales - 127)
    else:
        numbers = groups * scales + array(matrix.biases)[..., None]
    return numbers.reshape(*words.shape[:-1], matrix.width)


def product(x: Floats, matrix: Matrix) -> Floats:
    """x (N, in) @ weight.T (N, out), some rows of the weight at a time.

    Not by BLAS, whose threads wait for each other on a machine that does other work.
    """
    starts = range(0, matrix.rows, _ROWS)
    parts = [np.einsum("ni,oi->no", x, values(matrix[i : i + _ROWS])) for i in starts]
    return np.concatenate(parts, axis=-1)
