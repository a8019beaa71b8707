"""moe_gate_up_swiglu and moe_down_combine: the experts of few tokens."""

from __future__ import annotations

from collections.abc import Callable

import metal_host
import mlx.core as mx
import numpy as np
import pytest

from gptoss_mlx.kernels import metal
from gptoss_mlx.kernels.types import Routing

from . import cases
from .cases import HIDDEN, TOKENS, Case
from .checks import (
    SEGMENTS,
    Reads,
    assert_clean,
    assert_reads_once,
    assert_right,
    assert_same_in_every_order,
    traced,
)
from .inputs import experts, with_scale

DTYPES = (mx.float32, mx.bfloat16)
E, ROWS = 8, 36  # 36 rows do not fill the last threadgroup


def gate_up(tokens: int, dtype: mx.Dtype, number: int = E) -> Case:
    """The first half, with few rows."""
    return cases.gate_up(tokens, dtype, number, ROWS, grouped=False)


def down(tokens: int, dtype: mx.Dtype, number: int = E) -> Case:
    """The second half, with few rows."""
    return cases.down(tokens, dtype, number, ROWS, grouped=False)


HALVES = pytest.mark.parametrize("half", [gate_up, down])
Half = Callable[..., Case]


@pytest.mark.usefixtures("host")
@HALVES
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_right(half: Half, dtype: mx.Dtype, tokens: int) -> None:
    """Each pair of a token and an expert by that expert's matrices."""
    assert_right(half(tokens, dtype))


@pytest.mark.usefixtures("host")
@HALVES
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_in_every_order(half: Half, dtype: mx.Dtype) -> None:
    """Bit by bit, whichever thread comes first."""
    assert_same_in_every_order(half(2, dtype))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("dtype", DTYPES)
def test_gate_up_reads_each_weight_once(dtype: mx.Dtype) -> None:
    """Once for a token; rows have 1440 bytes, so that every other one begins within a segment."""
    [launch] = traced(gate_up(1, dtype, number=4))  # a token goes to all of them
    assert_reads_once(launch, "gate", "gate_scales", "up", "up_scales")
    assert Reads.of(launch, ["gate", "up"]).segments <= SEGMENTS


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("dtype", DTYPES)
def test_down_reads_each_weight_once(dtype: mx.Dtype) -> None:
    """Once for a token."""
    [launch] = traced(down(1, dtype, number=4))
    assert_reads_once(launch, "w", "w_scales")


@pytest.mark.usefixtures("host")
def test_down_reads_whole_segments() -> None:
    """As few segments as gate and up take."""
    # One expert: 26 lanes have a third block of a row, and from the second expert on the trace
    # would take their loads to be together with the other lanes' next ones.
    matrix, ids = experts(1, ROWS, HIDDEN, seed=1), mx.zeros((1, 1), mx.uint32)
    y, row = mx.ones((1, 1, HIDDEN)), mx.zeros((1, ROWS))
    with metal_host.running(trace=True) as launches:
        metal.moe_down_combine(y, Routing(ids, mx.ones((1, 1))), matrix, row, row)
    assert Reads.of(launches[0], ["w"]).segments <= SEGMENTS


@pytest.mark.usefixtures("clang")
@HALVES
@pytest.mark.parametrize("tokens", [1, 3])
def test_lint(half: Half, tokens: int) -> None:
    """The lint finds nothing; one token's ids and scores lie in constant memory."""
    assert_clean(half(tokens, mx.bfloat16))


@pytest.mark.usefixtures("host")
def test_swiglu_limit() -> None:
    """Large sums are clamped: the gate from above, the linear part on both sides."""
    case = cases.gate_up(5, mx.float32, E, ROWS, grouped=False, scale=10.0)
    assert np.abs(case.expected[0]).max() <= 7 * 8
    assert (np.abs(case.expected[0]) == 7 / (1 + np.exp(-1.702 * 7)) * 8).mean() > 0.05
    assert_right(case)


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(("scale", "factor"), [(0, 1.0), (1, 1.0), (127, 1e-2), (240, 2.0**-120)])
def test_extreme_scales(scale: int, factor: float) -> None:
    """2^-127 may count as nothing; up to 2^113 the result is right."""
    first, second = (with_scale(experts(E, ROWS, HIDDEN, seed), scale) for seed in (0, 1))
    matrices = first, second
    assert_right(
        cases.gate_up(1, mx.float32, E, ROWS, grouped=False, matrices=matrices, scale=factor)
    )
    assert_right(
        cases.down(1, mx.float32, E, ROWS, grouped=False, matrix=matrices[0], scale=factor)
    )
