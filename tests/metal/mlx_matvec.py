"""Stock MLX's MXFP4 matvec on the host, read from the headers that the mlx package ships.

MLX takes `fp_qmv_fast` where the width is a multiple of 512 and `fp_qmv` elsewhere, as for 2880.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import metal_host
import mlx.core as mx
from helpers import array

from .cases import HIDDEN, Case
from .inputs import experts, normal, product

__all__ = ["mlx_matvec"]

_HEADERS = "include/mlx/backend/metal/kernels"
_BODY = """
uint3 group = threadgroup_position_in_grid;
fp_qmv_impl<T, 32, 4>(w, w_scales, (const device float*)x, x, y, width, rows, group,
                      simdgroup_index_in_threadgroup, thread_index_in_simdgroup);
"""


def mlx_matvec(dtype: mx.Dtype, rows: int, width: int = HIDDEN) -> Case:
    """One token by an MXFP4 matrix with so many rows, a multiple of 8."""
    [matrix], x = [experts(1, rows, width)[0]], normal(1, width, dtype=dtype)
    kernel = metal_host.metal_kernel(
        "mlx_fp_qmv", ["x", "w", "w_scales", "width", "rows"], ["y"], _BODY, _header()
    )

    def run() -> list[mx.array]:
        return kernel(
            inputs=[x, *matrix.arrays, width, rows],
            template=[("T", dtype)],
            grid=(32, rows // 8 * 2, 1),
            threadgroup=(32, 2, 1),
            output_shapes=[(1, rows)],
            output_dtypes=[dtype],
        )

    return Case(run, [product(array(x), matrix)], dtype)


def _header() -> str:
    """The number formats, and fp_quantized.h up to the matvec; quad_sum is not called."""
    quantized = _text("fp_quantized.h")
    end = quantized.index("METAL_FUNC void fp_qmv_wide_impl")
    quantized = quantized[: quantized.rindex("template <", 0, end)]
    quantized = re.sub(r"^constant bool align_.*$", "", quantized, flags=re.MULTILINE)
    quantized = quantized.replace("constexpr const", "constexpr")
    parts = {name: _text(name) for name in ("fp4.h", "fp8.h")} | {"fp_quantized.h": quantized}
    return "template <class T> T quad_sum(T);\n" + "".join(
        f'#line 1 "{name}"\n{text}\n' for name, text in parts.items()
    )


def _text(name: str) -> str:
    spec = find_spec("mlx.core")
    assert spec is not None
    assert spec.origin is not None
    text = (Path(spec.origin).parent / _HEADERS / name).read_text("utf-8")
    return text.encode("ascii", "replace").decode()  # of its comments
