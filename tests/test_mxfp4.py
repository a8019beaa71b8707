"""MXFP4 bytes against the format's definition, one element at a time, and against MLX."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from gptoss_mlx.convert.mxfp4 import BLOCK_SIZE, FP4_VALUES, decode, encode


def _element(code: int) -> float:
    """An E2M1 number by the OCP MX specification, 5.3.3: sign, two exponent bits, mantissa."""
    sign, exponent, mantissa = code >> 3, (code >> 1) & 3, code & 1
    magnitude = 2.0 ** (exponent - 1) * (1 + mantissa / 2) if exponent else mantissa / 2
    return -magnitude if sign else magnitude


def _all_codes_block() -> NDArray[np.uint8]:
    """(16,) bytes in which each of the sixteen codes is once a low and once a high nibble."""
    return np.array([code | (15 - code) << 4 for code in range(16)], dtype=np.uint8)


def _random_bytes(*shape: int, low: int = 0, high: int = 256) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(low, high, shape, dtype=np.uint8)


def test_values_follow_the_definition_of_e2m1() -> None:
    """All sixteen codes stand for what their bits say, the zeros' signs included."""
    expected = np.array([_element(code) for code in range(16)], dtype=np.float32)
    assert FP4_VALUES.tobytes() == expected.tobytes()


@pytest.mark.parametrize("scale", [0, 1, 63, 119, 126, 127, 128, 200, 252])
def test_decode_is_exact_at_every_code_and_scale(scale: int) -> None:
    """Low nibble first, times two to the scale minus 127, down to where float32 is subnormal."""
    block = _all_codes_block()
    decoded = decode(block[None], np.array([scale], dtype=np.uint8))
    expected = [
        _element(int(nibble)) * 2.0 ** (scale - 127)
        for byte in block
        for nibble in (byte & 15, byte >> 4)
    ]
    assert decoded.dtype == np.float32
    assert decoded.tolist() == expected


def test_decode_keeps_leading_axes_and_concatenates_blocks() -> None:
    """(2, 3, G, 16) with (2, 3, G) gives (2, 3, G * 32), block by block."""
    blocks, scales = _random_bytes(2, 3, 5, 16), _random_bytes(2, 3, 5, low=100, high=150)
    decoded = decode(blocks, scales)
    assert decoded.shape == (2, 3, 160)
    one = decode(blocks[1, 2, 4][None], scales[1, 2, 4][None])
    assert decoded[1, 2, 128:].tolist() == one.tolist()


@pytest.mark.parametrize(("low", "high"), [(64, 192), (120, 135)])
def test_decode_agrees_with_mlx(low: int, high: int) -> None:
    """mx.dequantize sees the same numbers in the same bytes, read as little-endian uint32."""
    blocks, scales = _random_bytes(8, 3, 16), _random_bytes(8, 3, low=low, high=high)
    packed = mx.array(blocks.reshape(8, -1).view("<u4"))
    theirs = mx.dequantize(
        packed, mx.array(scales), group_size=32, bits=4, mode="mxfp4", dtype=mx.float32
    )
    assert decode(blocks, scales).tolist() == theirs.tolist()


def test_encode_inverts_decode() -> None:
    """Numbers that are MXFP4 already come back unchanged, whatever the scale."""
    blocks = _random_bytes(4, 64, 16)
    scales = _random_bytes(4, 64, low=20, high=250)
    numbers = decode(blocks, scales)
    assert decode(*encode(numbers)).tolist() == numbers.tolist()


def test_encode_gives_back_the_bytes_of_full_blocks() -> None:
    """Where a block holds a magnitude of 6 only one scale is possible, so bytes are equal."""
    blocks = _random_bytes(64, 16)
    blocks[:, 0] = 0x17  # codes 7 and 1: 6 and 0.5
    blocks[blocks & 0x0F == 0x08] ^= 0x08  # -0 encodes as 0
    blocks[blocks & 0xF0 == 0x80] ^= 0x80
    scales = _random_bytes(64, low=60, high=200)
    again, scales_again = encode(decode(blocks[:, None], scales[:, None]))
    assert again[:, 0].tolist() == blocks.tolist()
    assert scales_again[:, 0].tolist() == scales.tolist()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (0.24, 0),
        (0.25, 0),  # tie between 0 and 0.5: the even code
        (0.26, 1),
        (0.75, 2),  # tie between 0.5 and 1
        (1.25, 2),
        (1.75, 4),
        (2.5, 4),
        (3.5, 6),
        (5.0, 6),
        (5.01, 7),
        (-0.3, 9),
        (-5.0, 14),
    ],
)
def test_encode_rounds_to_nearest_and_ties_to_even(number: float, code: int) -> None:
    """Beside a 6, which fixes the scale at one, every number goes to its nearest code."""
    weights = np.zeros(BLOCK_SIZE, dtype=np.float32)
    weights[:2] = 6.0, number
    blocks, scales = encode(weights)
    assert scales.tolist() == [127]
    assert blocks[0, 0] == 7 | code << 4


@pytest.mark.parametrize("largest", [1e-30, 3e-5, 0.7, 6.0, 6.0001, 1e9, 2e38])
def test_encode_never_saturates(largest: float) -> None:
    """The largest magnitude of a block keeps its place within a rounding step: no clipping."""
    weights = np.linspace(-largest, largest, BLOCK_SIZE, dtype=np.float32)
    blocks, scales = encode(weights)
    decoded = decode(blocks, scales)
    step = 2.0 ** (int(scales[0]) - 127)  # half of the widest gap between codes, 4 and 6
    assert np.abs(decoded.astype(np.float64) - weights).max() <= step


def test_encode_of_zeros_is_zero() -> None:
    """An all-zero block has zero codes, and a scale that decodes to zeros."""
    blocks, scales = encode(np.zeros((2, 64), dtype=np.float32))
    assert not blocks.any()
    assert decode(blocks, scales).tolist() == np.zeros((2, 64)).tolist()
