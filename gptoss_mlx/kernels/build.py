"""The kernels' texts, and their way to the GPU: what `mx.fast.metal_kernel` is given for each.

MLX writes the function around a kernel's body, compiles it when it is first evaluated, and gives it
the constants in `template`. It does not know what a kernel computes: that is metal.py's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import resources
from typing import NamedTuple, cast

import mlx.core as mx

__all__ = ["KERNELS", "Constants", "KernelText", "kernel_text", "launch"]

Constants = list[tuple[str, mx.Dtype | int | bool]]  # names and values of template parameters
_AFFINE = ["x", "w", "scales", "biases", "bias"]
_EXPERTS = ["gate", "gate_scales", "gate_bias", "up", "up_scales", "up_bias"]


class _Signature(NamedTuple):
    inputs: list[str]
    outputs: list[str]
    contiguous: bool = True


KERNELS: dict[str, _Signature] = {
    "attention_decode": _Signature(["q", "k", "v", "sinks", "scale"], ["out"], contiguous=False),
    "attention_merge": _Signature(["partials", "sinks"], ["out"]),
    "moe_down_combine": _Signature(
        ["y", "ids", "scores", "w", "w_scales", "bias", "residual"], ["out"]
    ),
    "moe_gate_up_swiglu": _Signature(["x", "ids", *_EXPERTS, "limit"], ["y"]),
    "moe_gemm_down": _Signature(
        ["y", "order", "offsets", "scores", "w", "w_scales", "bias"], ["out"]
    ),
    "moe_gemm_gate_up": _Signature(["x", "order", "offsets", *_EXPERTS, "limit"], ["y"]),
    "qkv_affine": _Signature([*_AFFINE, "rotation"], ["q", "k", "v"]),
    "qkv_bf16": _Signature(["x", "w", "bias", "rotation"], ["q", "k", "v"]),
    "qmv_affine": _Signature([*_AFFINE, "residual"], ["y"]),
    "qmv_bf16": _Signature(["x", "w", "bias", "residual"], ["y"]),
    "router_topk": _Signature(["logits"], ["ids", "scores"]),
}


class KernelText(NamedTuple):
    """What `mx.fast.metal_kernel` is given."""

    header: str
    body: str


@lru_cache
def kernel_text(name: str) -> KernelText:
    """The body of `metal/<name>.metal`, and the headers it includes pasted into one text."""
    headers: list[str] = []
    body = _paste(f"{name}.metal", headers)
    return KernelText("\n".join(headers), body)


_INCLUDE = re.compile(r'^#include "(\w+\.h)"$', re.MULTILINE)


def _paste(file: str, headers: list[str]) -> str:
    """A file's text without its includes, whose texts join `headers` once, deepest first."""
    text = resources.files("gptoss_mlx.metal").joinpath(file).read_text("ascii")
    for included in _INCLUDE.findall(text):
        pasted = _paste(included, headers)
        if pasted not in headers:
            headers.append(pasted)
    return f'#line 1 "{file}"\n' + _INCLUDE.sub("", text)


_Kernel = Callable[..., list[mx.array]]


@lru_cache
def _built(name: str, factory: Callable[..., _Kernel]) -> _Kernel:
    inputs, outputs, contiguous = KERNELS[name]
    header, body = kernel_text(name)
    return factory(
        name=f"gptoss_{name}",
        input_names=inputs,
        output_names=outputs,
        header=header,
        source=body,
        ensure_row_contiguous=contiguous,
    )


def launch(
    name: str,
    *,
    inputs: list[mx.array],
    template: Constants,
    grid: tuple[int, int, int],
    threadgroup: tuple[int, int, int],
    output_shapes: Sequence[Sequence[int]],
    output_dtypes: Sequence[mx.Dtype],
) -> list[mx.array]:
    """The outputs of a kernel, not yet evaluated.

    Args:
        name: one of `KERNELS`.
        inputs: in the order that stands there.
        template: the constants.
        grid: threads, and not threadgroups.
        threadgroup: threads of one.
        output_shapes: in the order that stands in `KERNELS`.
        output_dtypes: likewise.
    """
    factory = cast("Callable[..., _Kernel]", mx.fast.metal_kernel)
    return _built(name, factory)(
        inputs=inputs,
        template=template,
        grid=grid,
        threadgroup=threadgroup,
        output_shapes=output_shapes,
        output_dtypes=output_dtypes,
    )
