"""qmv_affine and qmv_bf16: dense products for few tokens."""

from __future__ import annotations

import mlx.core as mx
import pytest

from . import cases
from .cases import HIDDEN, TOKENS, Q
from .checks import (
    SEGMENTS,
    Reads,
    assert_clean,
    assert_reads_once,
    assert_right,
    assert_same_in_every_order,
    traced,
)

KINDS = ("bf16", "q8", "q4")
DTYPES = (mx.float32, mx.bfloat16)
FEW, MANY = 32, 260  # rows: a simdgroup for each, as in the router; for four, the last one alone


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_right(kind: str, dtype: mx.Dtype, tokens: int) -> None:
    """x @ weight.T + bias + residual."""
    for rows in (FEW, MANY):
        assert_right(cases.qmv(kind, tokens, dtype, rows))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_right_after_attention(kind: str, dtype: mx.Dtype) -> None:
    """The same at the width of o_proj."""
    for tokens in (1, 5, 33):
        assert_right(cases.qmv(kind, tokens, dtype, MANY, Q))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("kind", KINDS)
def test_without_bias_and_residual(kind: str) -> None:
    """What stands in for the absent is not added."""
    assert_right(cases.qmv(kind, 2, mx.float32, MANY, plain=True))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_same_in_every_order(kind: str, dtype: mx.Dtype) -> None:
    """Bit by bit, whichever thread comes first."""
    assert_same_in_every_order(cases.qmv(kind, 2, dtype, MANY))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(("rows", "width"), [(FEW, HIDDEN), (MANY, HIDDEN), (MANY, Q)])
@pytest.mark.parametrize("kind", KINDS)
def test_reads_each_weight_once(kind: str, rows: int, width: int) -> None:
    """Once for a token, in whole segments, but for rows of 1440 bytes that begin within one."""
    [launch] = traced(cases.qmv(kind, 1, mx.bfloat16, rows, width, plain=True))
    assert_reads_once(launch, "w")
    assert Reads.of(launch, ["w"]).segments <= SEGMENTS
    if kind != "bf16":  # lanes share a scale: what they ask for together is one segment or two
        scales = Reads.of(launch, ["scales", "biases"])
        assert scales.unique == scales.size
        assert scales.requested == scales.size * (4 if kind == "q8" else 2)


@pytest.mark.usefixtures("clang")
@pytest.mark.parametrize("kind", KINDS)
def test_lint(kind: str) -> None:
    """The lint finds nothing."""
    assert_clean(cases.qmv(kind, 1, mx.bfloat16, MANY))


@pytest.mark.usefixtures("clang")
def test_lint_of_few_rows() -> None:
    """A bias and a residual of 4 numbers lie in constant memory."""
    assert_clean(cases.qmv("q8", 1, mx.bfloat16, 4))
