"""What kernels read at the sizes of the published models, traced on the host: rows of a table.

Weights are asked for once and in whole segments where "asked" and "read" are their size and
"segments" is 1: 64-byte segments that a load of 32 lanes touches, for one that it would fill.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import metal_host
import mlx.core as mx

from . import cases
from .cases import HIDDEN, Case, Q
from .checks import Reads, error_of, traced
from .mlx_matvec import mlx_matvec

__all__ = ["HEAD", "KERNELS", "MLX", "Kernel", "error_row", "experts", "on_host", "traced_row"]

HEAD = ("kernel", "activations", "tokens", "error", "MB", "asked", "read", "segments")


@dataclass(frozen=True)
class Kernel:
    """A kernel at one size: its case for (tokens, dtype of the activations), what it reads."""

    name: str
    case: Callable[[int, mx.Dtype], Case]
    weights: tuple[str, ...] = ("w",)


def _dense(name: str, rows: int, width: int = HIDDEN) -> list[Kernel]:
    def kernel(kind: str) -> Kernel:
        return Kernel(f"qmv_{kind} {name}", lambda n, d: cases.qmv(kind, n, d, rows, width))

    return [kernel(kind) for kind in ("q8", "q4", "bf16")]


def _qkv(kind: str) -> Kernel:
    return Kernel(f"qkv_{kind}", lambda n, d: cases.qkv(kind, n, d, 64, 8))


def experts(number: int, *, grouped: bool) -> list[Kernel]:
    """Both halves, for few tokens or (grouped) for many."""
    names = ("gemm_gate_up", "gemm_down") if grouped else ("gate_up_swiglu", "down_combine")
    first, second = (f"moe_{name} {number} experts" for name in names)
    return [
        Kernel(
            first,
            lambda n, d: cases.gate_up(n, d, number, HIDDEN, grouped=grouped),
            ("gate", "up"),
        ),
        Kernel(second, lambda n, d: cases.down(n, d, number, HIDDEN, grouped=grouped)),
    ]


KERNELS = [
    *_dense("router, 20b", 32),
    *_dense("router, 120b", 128),
    *_dense("o_proj", HIDDEN, Q),
    *(_qkv(kind) for kind in ("q8", "q4", "bf16")),
    *experts(32, grouped=False),
    *experts(32, grouped=True),
    Kernel("router_topk 32 experts", lambda n, d: cases.router(n, d, 32), ("logits",)),
    Kernel("router_topk 128 experts", lambda n, d: cases.router(n, d, 128), ("logits",)),
]
MLX = Kernel("MLX's fp_qmv (mxfp4)", lambda _, d: mlx_matvec(d, HIDDEN))


def on_host() -> None:
    """From here on, kernels run on the host."""
    mx.fast.metal_kernel = metal_host.metal_kernel


def traced_row(kernel: Kernel, dtype: mx.Dtype) -> tuple[Reads, list[str]]:
    """How one token's weights are read, and the row that says so.

    Where a token goes to few of many experts, the size is that of the experts that it goes to.
    """
    case = kernel.case(1, dtype)
    [launch] = traced(case)
    reads = Reads.of(launch, kernel.weights)
    size = reads.unique if "experts" in kernel.name and "moe" in kernel.name else reads.size
    shares = [f"{reads.requested / size:.3f}", f"{reads.unique / size:.3f}"]
    cells = [f"{size / 1e6:.1f}", *shares, f"{reads.segments:.3f}"]
    return reads, [kernel.name, _name(dtype), "1", f"{error_of(case.run(), case):.1e}", *cells]


def error_row(kernel: Kernel, dtype: mx.Dtype, tokens: int) -> tuple[float, list[str]]:
    """The error for so many tokens, and the row that says so."""
    case = kernel.case(tokens, dtype)
    error = error_of(case.run(), case)
    return error, [kernel.name, _name(dtype), str(tokens), f"{error:.1e}", *"----"]


def _name(dtype: mx.Dtype) -> str:
    return str(dtype).removeprefix("mlx.core.")
