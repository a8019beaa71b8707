"""qkv_affine and qkv_bf16: queries, keys and values in one launch, rotated."""

from __future__ import annotations

import mlx.core as mx
import pytest

from . import cases
from .cases import TOKENS
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


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("batch", TOKENS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_right(kind: str, dtype: mx.Dtype, batch: int) -> None:
    """Each sequence's own token, with few heads."""
    assert_right(cases.qkv(kind, batch, dtype, 2, 1))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_right_with_all_heads(kind: str, dtype: mx.Dtype) -> None:
    """64 heads of queries, 8 of keys and values."""
    assert_right(cases.qkv(kind, 1, dtype, 64, 8))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_same_in_every_order(kind: str, dtype: mx.Dtype) -> None:
    """Bit by bit, whichever thread comes first."""
    assert_same_in_every_order(cases.qkv(kind, 2, dtype, 2, 1))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("kind", KINDS)
def test_reads_each_weight_once(kind: str) -> None:
    """Once for a token, in whole segments, but for rows of 1440 bytes that begin within one."""
    [launch] = traced(cases.qkv(kind, 1, mx.bfloat16, 2, 1))
    assert_reads_once(launch, "w")
    assert Reads.of(launch, ["w"]).segments <= SEGMENTS


@pytest.mark.usefixtures("clang")
@pytest.mark.parametrize("kind", KINDS)
def test_lint(kind: str) -> None:
    """The lint finds nothing."""
    assert_clean(cases.qkv(kind, 1, mx.bfloat16, 64, 8))
