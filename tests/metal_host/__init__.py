"""Runs Metal kernels on the CPU of a Linux or macOS machine, from the text that MLX would compile.

    with metal_host.running(order="random", trace=True) as launches:
        [y] = metal_host.metal_kernel(...)(inputs=..., grid=..., threadgroup=..., ...)
    assert launches[0].problems == []
    assert metal_host.lint(...) == []

    signature.py        the text that MLX generates around a body; tested against MLX itself
    source.py           Metal -> C++, by a few substitutions that keep lines
    metal_stdlib.h      Metal's words, in two readings: to run and to lint; it includes
    metal_types.h         numbers and vectors
    metal_math.h          functions of them
    metal_simdgroup.h     barriers, simd operations, simdgroup_matrix
    runtime.cpp         a fiber a thread, in forward, reverse or random order
    trace.h             races, accesses out of bounds, bytes and segments of a traced kernel
    compiler.py         g++ >= 12 or clang++, and a cache of what they built (METAL_HOST_CACHE)
    execute.py          one launch in the runtime, buffers between guard zones
    launch.py           metal_kernel and how launches run
    lint.py             a kernel with real address spaces, checked by clang or PyPI's ziglang
    trace.py            the records of a traced launch

What it cannot show: what Apple's compiler accepts and makes of a kernel, registers and occupancy,
any speed, the error of fast math, the order of writes between threadgroups, and how MLX launches.
A launch that is not traced reads NaN outside of its buffers. On macOS a trace names no lines.
It has no textures, atomics, quad operations or packed types.
"""

from __future__ import annotations

from .compiler import available
from .errors import CompileError, KernelError
from .launch import Launch, metal_kernel, running
from .lint import lint, lint_available
from .trace import Accesses, Buffer, Segments

__all__ = [
    "Accesses",
    "Buffer",
    "CompileError",
    "KernelError",
    "Launch",
    "Segments",
    "available",
    "lint",
    "lint_available",
    "metal_kernel",
    "running",
]
