"""moe_gemm_gate_up and moe_gemm_down: the experts of many tokens."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from . import cases
from .cases import HIDDEN, TOKENS, Case
from .checks import (
    Reads,
    assert_clean,
    assert_reads_once,
    assert_right,
    assert_same_in_every_order,
    traced,
)
from .inputs import TOP, experts, with_scale

DTYPES = (mx.float32, mx.bfloat16)
E = 8
# With 8 experts: tiles of 8 pairs up to 16 tokens, of 16 up to 32, of 32 from there on.
SIZES = sorted({*TOKENS, 24})
GATE_UP_ROWS, DOWN_ROWS = 32, 64  # what one threadgroup computes


def gate_up(
    tokens: int, dtype: mx.Dtype, number: int = E, ids: NDArray[np.int64] | None = None
) -> Case:
    """The first half, with few rows."""
    return cases.gate_up(tokens, dtype, number, 2 * GATE_UP_ROWS, grouped=True, ids=ids)


def down(
    tokens: int, dtype: mx.Dtype, number: int = E, ids: NDArray[np.int64] | None = None
) -> Case:
    """The second half, with few rows."""
    return cases.down(tokens, dtype, number, DOWN_ROWS, grouped=True, ids=ids)


HALVES = pytest.mark.parametrize("half", [gate_up, down])
Half = Callable[..., Case]


@pytest.mark.usefixtures("host")
@HALVES
@pytest.mark.parametrize("tokens", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_right(half: Half, dtype: mx.Dtype, tokens: int) -> None:
    """Each pair of a token and an expert by that expert's matrices, in tiles of 8, 16, 32 pairs."""
    assert_right(half(tokens, dtype))


@pytest.mark.usefixtures("host")
@HALVES
@pytest.mark.parametrize(("tokens", "dtype"), [(5, mx.float32), (33, mx.bfloat16)])
def test_same_in_every_order(half: Half, dtype: mx.Dtype, tokens: int) -> None:
    """Bit by bit, whichever thread comes first."""
    assert_same_in_every_order(half(tokens, dtype))


@pytest.mark.usefixtures("host")
@HALVES
@pytest.mark.parametrize(("tokens", "dtype"), [(1, mx.float32), (8, mx.bfloat16)])
def test_reads_each_weight_once(half: Half, dtype: mx.Dtype, tokens: int) -> None:
    """Once for all of an expert's tokens, if they are one tile: here for 1 token and for 8.

    A row gives a step the 32 bytes of two blocks, so that 32 lanes read 16 rows and touch a half of
    16 segments, twice as many as their bytes would fill; the next step reads the other halves. A
    row's two scales are two bytes in a segment of their own.
    """
    [launch] = traced(half(tokens, dtype, number=4))  # each token goes to all of them
    names = ["gate", "up"] if half is gate_up else ["w"]
    scales = [f"{name}_scales" for name in names]
    assert_reads_once(launch, *names, *scales)
    assert Reads.of(launch, names).segments == 2
    assert Reads.of(launch, scales).segments == 32


@pytest.mark.usefixtures("host")
@HALVES
def test_tiles_read_again(half: Half) -> None:
    """An expert's next tile reads its matrix again: 33 tokens are two tiles of 32."""
    [launch] = traced(half(33, mx.bfloat16, number=4))
    reads = Reads.of(launch, ["gate", "up"] if half is gate_up else ["w"])
    assert reads.requested == 2 * reads.size == 2 * reads.unique


@pytest.mark.usefixtures("clang")
@HALVES
@pytest.mark.parametrize("tokens", [1, 3])
def test_lint(half: Half, tokens: int) -> None:
    """The lint finds nothing; one token's ids and scores lie in constant memory."""
    assert_clean(half(tokens, mx.bfloat16))


UNEVEN = {
    "experts without tokens": np.tile([2, 3, 5, 6], (9, 1)),
    "all tokens to the first four": np.tile([0, 1, 2, 3], (34, 1)),
    "all tokens to the last four": np.tile([7, 6, 5, 4], (34, 1)),
    "one token to experts of its own": np.array([[0, 1, 2, 3]] * 33 + [[4, 5, 6, 7]]),
}


@pytest.mark.usefixtures("host")
@HALVES
@pytest.mark.parametrize("case", UNEVEN)
def test_uneven_experts(half: Half, case: str) -> None:
    """Experts with no pairs, with one, and with more than a tile."""
    ids = UNEVEN[case]
    assert ids.shape[1] == TOP
    assert_right(half(len(ids), mx.bfloat16, ids=ids))


@pytest.mark.usefixtures("host")
def test_swiglu_limit() -> None:
    """Large sums are clamped: the gate from above, the linear part on both sides."""
    case = cases.gate_up(5, mx.float32, E, GATE_UP_ROWS, grouped=True, scale=10.0)
    assert (np.abs(case.expected[0]) == 7 / (1 + np.exp(-1.702 * 7)) * 8).mean() > 0.05
    assert_right(case)


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(("scale", "factor"), [(0, 1.0), (1, 1.0), (127, 1e-2), (240, 2.0**-120)])
def test_extreme_scales(scale: int, factor: float) -> None:
    """2^-127 may count as nothing; up to 2^113 the result is right."""
    first, second = (with_scale(experts(E, DOWN_ROWS, HIDDEN, seed), scale) for seed in (0, 1))
    matrices = first, second
    assert_right(
        cases.gate_up(5, mx.float32, E, DOWN_ROWS, grouped=True, matrices=matrices, scale=factor)
    )
    assert_right(
        cases.down(5, mx.float32, E, DOWN_ROWS, grouped=True, matrix=matrices[0], scale=factor)
    )
