"""Stock MLX's MXFP4 matvec beside ours, by the same trace."""

from __future__ import annotations

import mlx.core as mx
import pytest

from .cases import gate_up
from .checks import Reads, traced
from .mlx_matvec import mlx_matvec


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_mlx_touches_more_segments(dtype: mx.Dtype) -> None:
    """It asks for each weight once, too, but 2 bytes at a time, and for each scale 4 times."""
    [theirs] = traced(mlx_matvec(dtype, 64))
    [ours] = traced(gate_up(1, dtype, 4, 32, grouped=False))
    weights, scales = (Reads.of(theirs, [name]) for name in ("w", "w_scales"))
    assert weights.requested == weights.unique == weights.size
    assert scales.requested == 4 * scales.size
    assert Reads.of(ours, ["gate_scales"]).requested == Reads.of(ours, ["gate_scales"]).size
    assert weights.segments > 2 * Reads.of(ours, ["gate"]).segments
