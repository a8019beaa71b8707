"""metal_kernel: what mx.fast.metal_kernel does, at once and on the CPU; and how launches run.

What Metal would refuse, and what would write outside of a buffer, raises KernelError; what only a
trace finds is listed in the Launch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from . import compiler, trace
from .errors import KernelError
from .execute import UNTOUCHED, GuardedBuffer, Outcome, Size, execute
from .signature import Kernel, Parameter, Template, generate
from .source import to_cpp

__all__ = ["Launch", "metal_kernel", "running"]

Order = Literal["forward", "reverse", "random"]
Bytes = NDArray[np.uint8]
_ORDERS: tuple[Order, ...] = ("forward", "reverse", "random")
_MAX_BUFFERS = 31
_MAX_THREADS = 1024


@dataclass(frozen=True)
class Launch:
    """A launch that has run; `buffers`, `problems` and `sites` are filled if it was traced."""

    name: str
    source: str
    grid: Size
    threadgroup: Size
    threadgroup_bytes: int
    seconds: float
    buffers: list[trace.Buffer]
    problems: list[str]
    sites: list[trace.Site]

    def loads(self, buffer: str) -> trace.Accesses:
        """Segments that sampled loads of a buffer touched."""
        return trace.count(s for s in self.sites if s.buffer == buffer and not s.is_store)

    def stores(self, buffer: str) -> trace.Accesses:
        """Segments that sampled stores to a buffer touched."""
        return trace.count(s for s in self.sites if s.buffer == buffer and s.is_store)


@dataclass(frozen=True)
class _Options:
    order: Order = "forward"
    seed: int = 0
    trace: bool = False
    strict: bool = True
    launches: list[Launch] = field(default_factory=list[Launch])


_options: ContextVar[_Options | None] = ContextVar("options", default=None)


@contextmanager
def running(
    order: Order = "forward", seed: int = 0, trace: bool = False, strict: bool = True
) -> Generator[list[Launch]]:
    """Set how launches inside run, and collect them.

    Args:
        order: of lanes, simdgroups and threadgroups, between barriers.
        seed: of the random order.
        trace: record accesses and look for races, at a tenth of the speed.
        strict: an operation of the simdgroup that not all its lanes reach is an error.

    Yields:
        The list to which each launch is added.
    """
    options = _Options(order, seed, trace, strict)
    token = _options.set(options)
    try:
        yield options.launches
    finally:
        _options.reset(token)


def metal_kernel(
    name: str,
    input_names: Sequence[str],
    output_names: Sequence[str],
    source: str,
    header: str = "",
    ensure_row_contiguous: bool = True,
    atomic_outputs: bool = False,
) -> Callable[..., list[mx.array]]:
    """A function that runs the kernel; it takes what that of mx.fast.metal_kernel takes.

    Raises:
        KernelError: the source is not ASCII; and the function, for all that Metal would refuse.
    """
    if not (source + header).isascii():
        raise KernelError(f"{name}: the source is not ASCII")

    def call(
        *,
        inputs: Sequence[mx.array | float],
        output_shapes: Sequence[Sequence[int]],
        output_dtypes: Sequence[mx.Dtype],
        grid: Size,
        threadgroup: Size,
        template: Template | None = None,
        init_value: float | None = None,
        verbose: bool = False,
        stream: mx.Stream | mx.Device | None = None,
    ) -> list[mx.array]:
        del stream  # there is one CPU
        arrays = [x if isinstance(x, mx.array) else mx.array(x) for x in inputs]
        if ensure_row_contiguous:
            arrays = [mx.contiguous(x) for x in arrays]
        kernel = generate(
            *(name, input_names, output_names, source, header),
            *([(x.dtype, x.shape) for x in arrays], output_dtypes),
            *(template or (), atomic_outputs),
        )
        if verbose:
            print(kernel.source)  # noqa: T201 - verbose asks for it
        grid, threadgroup = (*grid,), (*threadgroup,)
        _check_limits(kernel, grid, threadgroup)
        outputs = list(zip(output_shapes, output_dtypes, strict=True))
        prefilled = [_prefilled(shape, dtype, init_value) for shape, dtype in outputs]
        buffers = [
            GuardedBuffer(p.name, _contents(p, arrays, prefilled), p.role == "output")
            for p in kernel.buffers
        ]
        _run(name, kernel, buffers, grid, threadgroup)
        written = [b.contents for b in buffers if b.writable]
        return [_array(b, *output) for b, output in zip(written, outputs, strict=True)]

    return call


def _check_limits(kernel: Kernel, grid: Size, threadgroup: Size) -> None:
    if len(kernel.buffers) > _MAX_BUFFERS:
        count = len(kernel.buffers)
        raise KernelError(f"{kernel.name}: {count} buffers, of which Metal allows {_MAX_BUFFERS}")
    threads = math.prod(threadgroup)
    if threads > _MAX_THREADS:
        limit = f"of which Metal allows {_MAX_THREADS}"
        raise KernelError(f"{kernel.name}: {threads} threads in a threadgroup, {limit}")
    if min(*grid, *threadgroup) < 1:
        raise KernelError(f"{kernel.name}: an empty grid {grid} or threadgroup {threadgroup}")


def _run(
    name: str, kernel: Kernel, buffers: list[GuardedBuffer], grid: Size, threadgroup: Size
) -> None:
    options = _options.get() or _Options()
    outcome: Outcome = execute(
        compiler.build(to_cpp(kernel), options.trace),
        buffers,
        grid,
        threadgroup,
        order=_ORDERS.index(options.order),
        seed=options.seed,
        strict=options.strict,
        trace=options.trace,
    )
    launch = Launch(
        *(name, kernel.source, grid, threadgroup, outcome.threadgroup_bytes, outcome.seconds),
        *(outcome.buffers, outcome.problems, outcome.sites),
    )
    options.launches.append(launch)
    if outcome.error:
        raise KernelError("\n".join([f"{name}: {outcome.error}", *outcome.problems]))


def _contents(parameter: Parameter, inputs: list[mx.array], outputs: list[Bytes]) -> Bytes:
    """The bytes that a buffer holds when the launch begins."""
    if parameter.role == "output":
        return outputs[parameter.of]
    array = inputs[parameter.of]
    values = _numpy(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)
    strides = [s // values.itemsize for s in values.strides]
    if parameter.role == "shape":
        return _bytes(np.array(values.shape, np.int32))
    if parameter.role == "strides":
        return _bytes(np.array(strides, np.int64))
    if parameter.role == "ndim":
        return _bytes(np.array([values.ndim], np.int32))
    span = 1 + sum((n - 1) * s for n, s in zip(values.shape, strides, strict=True))
    memory = np.lib.stride_tricks.as_strided(
        values, (span if values.size else 0,), (values.itemsize,), writeable=False
    )
    return _bytes(memory)


def _numpy(array: mx.array) -> NDArray[np.generic]:
    """The same memory, with its strides."""
    return cast("NDArray[np.generic]", np.asarray(array))


def _bytes(values: NDArray[np.generic]) -> Bytes:
    return np.frombuffer(values.tobytes(), np.uint8)


def _prefilled(shape: Sequence[int], dtype: mx.Dtype, init_value: float | None) -> Bytes:
    size = math.prod(shape)
    if init_value is None:
        return np.full(size * dtype.size, UNTOUCHED, np.uint8)
    return _bytes(_numpy(mx.full((size,), init_value, dtype).view(mx.uint8)))


def _array(contents: Bytes, shape: Sequence[int], dtype: mx.Dtype) -> mx.array:
    return mx.array(contents).view(dtype).reshape(shape)
