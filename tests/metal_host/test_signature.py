"""The text around a kernel's body, against what MLX itself generates."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from .signature import generate

BODY = "; ".join(
    [
        "x_shape; x_strides; c_ndim; c_shape; s_shape; thread_position_in_grid",
        "simdgroup_index_in_threadgroup; grid_size; threads_per_threadgroup",
        "dispatch_threads_per_threadgroup; thread_index_in_simdgroup;",
    ]
)
ALL_INTEGERS = [mx.int8, mx.int16, mx.int32, mx.int64, mx.uint8, mx.uint16, mx.uint32, mx.uint64]
CASES: dict[str, tuple[str, list[mx.array], list[mx.Dtype], list[tuple[str, Any]] | None]] = {
    "everything": (
        BODY,
        [
            mx.zeros((4, 4), mx.bfloat16),
            mx.array(3.0),
            mx.zeros((7,), mx.uint8),
            mx.zeros((8,), mx.float16),
        ],
        [mx.float32, mx.bfloat16],
        [("T", mx.bfloat16), ("N", -3), ("B", False), ("C", True)],
    ),
    "no template": ("o[0] = x;", [mx.array(1.5)], [mx.float32], None),
    "empty and bool": (
        "o[0] = x[0];",
        [mx.zeros((16,), mx.int64), mx.zeros((0,), mx.uint32), mx.zeros((2, 2), mx.bool_)],
        [mx.int64],
        [("A", mx.int8)],
    ),
    "integers": ("o;", [mx.zeros((9,), t) for t in ALL_INTEGERS], ALL_INTEGERS, None),
}
NAMES = ["x", "s", "c", "e", "f", "g", "h", "i"]


def mlx_source(
    capfd: pytest.CaptureFixture[str],
    folder: Path,
    body: str,
    inputs: Sequence[mx.array],
    output_dtypes: Sequence[mx.Dtype],
    template: list[tuple[str, Any]] | None,
) -> str:
    """What MLX prints when a function that calls the kernel is traced, even without a GPU."""
    names, outputs = NAMES[: len(inputs)], [f"o{i}" for i in range(len(output_dtypes))]
    kernel: Any = mx.fast.metal_kernel("name", names, outputs, body, "// header\n")

    def call(*arrays: mx.array) -> list[mx.array]:
        return kernel(
            inputs=list(arrays),
            output_shapes=[(1,)] * len(outputs),
            output_dtypes=output_dtypes,
            template=template,
            grid=(1, 1, 1),
            threadgroup=(1, 1, 1),
            verbose=True,
        )

    capfd.readouterr()
    mx.export_function(str(folder / "traced.mlxfn"), call, *inputs)
    ctypes.CDLL(None).fflush(None)
    return capfd.readouterr().out.split("```\n", 1)[1].rsplit("```", 1)[0]


@pytest.mark.parametrize("case", CASES)
def test_source_is_what_mlx_generates(
    case: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Names, template, address spaces, the order of parameters: all of it, to the letter."""
    body, inputs, output_dtypes, template = CASES[case]
    expected = mlx_source(capfd, tmp_path, body, inputs, output_dtypes, template)
    kernel = generate(
        "name",
        NAMES[: len(inputs)],
        [f"o{i}" for i in range(len(output_dtypes))],
        body,
        "// header\n",
        [(x.dtype, x.shape) for x in inputs],
        output_dtypes,
        template or (),
    )
    assert kernel.source.rstrip("\n") == expected.rstrip("\n")
