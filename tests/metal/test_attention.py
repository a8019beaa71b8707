"""attention_decode and attention_merge: one new token over a cache."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from . import cases
from .checks import (
    SEGMENTS,
    Reads,
    assert_clean,
    assert_right,
    assert_same_in_every_order,
    traced,
)

DTYPES = (mx.float32, mx.bfloat16)
# One tile is 64 positions; more than 512 are split 8 times, more than 8192 32 times.
POSITIONS = (1, 31, 64, 128, 129, 512, 700, 9000)


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_right(dtype: mx.Dtype, positions: int) -> None:
    """64 heads of queries on 8 of keys and values, or fewer, that lie within a longer buffer."""
    heads, kv_heads = (64, 8) if positions < 1000 else (16, 2)
    assert_right(cases.attention(positions, dtype, heads, kv_heads))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("positions", [1, 129, 700])
def test_several_sequences(positions: int) -> None:
    """Each sequence sees its own keys."""
    assert_right(cases.attention(positions, mx.float32, 16, 2, batch=3))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("cuts", [(40,), (1, 64, 690)])
def test_parts(cuts: tuple[int, ...]) -> None:
    """Positions in several buffers count as if they were in one."""
    assert_right(cases.attention(700, mx.float32, 16, 2, cuts=cuts))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("positions", [129, 700])
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_in_every_order(dtype: mx.Dtype, positions: int) -> None:
    """Bit by bit, whichever thread comes first."""
    assert_same_in_every_order(cases.attention(positions, dtype, 16, 2))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("positions", [1, 129, 700, 9000])
def test_reads_keys_and_values_once(positions: int) -> None:
    """Once for the 8 heads that share them, in whole segments, and nothing besides."""
    heads, kv_heads = (16, 2) if positions < 1000 else (8, 1)
    launch, *merge = traced(cases.attention(positions, mx.bfloat16, heads, kv_heads))
    reads = Reads.of(launch, ["k", "v"])
    assert reads.requested == reads.unique == 2 * kv_heads * positions * 64 * 2
    assert reads.segments <= SEGMENTS
    assert len(merge) == (positions > 512)
    if merge:  # the maximum and the sum are read by all lanes
        partials = Reads.of(merge[0], ["partials"])
        assert partials.unique == partials.size


@pytest.mark.usefixtures("clang")
@pytest.mark.parametrize("positions", [128, 700])
def test_lint(positions: int) -> None:
    """The lint finds nothing, in neither kernel."""
    assert_clean(cases.attention(positions, mx.bfloat16))


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("positions", [1, 128, 700])
def test_sinks(positions: int) -> None:
    """Huge ones take all weight, tiny ones and minus infinity none."""
    sinks = np.resize([1e4, 80, 0, -80, -1e4, -np.inf], 16).astype(np.float32)
    case = cases.attention(positions, mx.float32, 16, 2, sinks=mx.array(sinks))
    assert np.isfinite(case.expected[0]).all()
    assert not case.expected[0][:, 0].any()
    assert_right(case)
