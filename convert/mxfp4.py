"""MXFP4: blocks of 32 four-bit floats (E2M1) that share one eight-bit power-of-two scale (E8M0).

Source: OCP Microscaling Formats (MX) Specification v1.0, sections 5.2 and 5.3. In OpenAI's and
Hugging Face's checkpoints, and in MLX, two values share a byte, the earlier one in the low nibble,
and a scale byte s stands for 2 ** (s - 127). MLX reads the same bytes as little-endian uint32,
eight values each: so carrying a tensor over moves rows and changes no bit.

Pure functions of numpy arrays. It does not know tensors' names.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK_SIZE", "FP4_VALUES", "decode", "encode"]

BLOCK_SIZE = 32
FP4_MAX = 6.0
SCALE_BIAS = 127
_POSITIVE = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=np.float32)
FP4_VALUES = np.concatenate([_POSITIVE, -_POSITIVE])  # indexed by the nibble; bit 3 is the sign


def decode(blocks: NDArray[np.uint8], scales: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The numbers that MXFP4 bytes stand for, exactly.

    Args:
        blocks: (..., G, 16), two values a byte, low nibble first.
        scales: (..., G).

    Returns:
        (..., G * 32) float32.
    """
    nibbles = np.stack([blocks & 0x0F, blocks >> 4], axis=-1)  # (..., G, 16, 2)
    values = FP4_VALUES[nibbles].reshape(*blocks.shape[:-1], BLOCK_SIZE)
    exponents = scales.astype(np.int32)[..., None] - SCALE_BIAS
    return np.ldexp(values, exponents).reshape(*scales.shape[:-1], -1).astype(np.float32)


def encode(weights: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """MXFP4 bytes nearest to the numbers; ties go to the even code, nothing saturates.

    The scale is the smallest power of two under which the block's largest magnitude fits. Used to
    make checkpoints (the demo, random models); `convert` never requantizes experts.

    Args:
        weights: (..., K) with K a multiple of 32.

    Returns:
        blocks (..., K / 32, 16) and scales (..., K / 32).
    """
    grouped = weights.reshape(*weights.shape[:-1], -1, BLOCK_SIZE).astype(np.float64)
    largest = np.maximum(np.abs(grouped).max(axis=-1), 2.0**-120)
    exponents = np.ceil(np.log2(largest / FP4_MAX))
    magnitudes = np.abs(grouped) / np.exp2(exponents)[..., None]
    step = np.where(magnitudes < 2, 0.5, np.where(magnitudes < 4, 1.0, 2.0))
    rounded = np.minimum(np.rint(magnitudes / step) * step, FP4_MAX)
    positive = cast("NDArray[np.intp]", np.searchsorted(_POSITIVE, rounded))
    codes = positive + np.where(grouped < 0, 8, 0)  # bit 3 is the sign
    blocks = codes[..., 0::2] + 16 * codes[..., 1::2]
    return blocks.astype(np.uint8), (exponents + SCALE_BIAS).astype(np.uint8)
