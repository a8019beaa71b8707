"""What every kernel must pass, and the figures of a traced run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import metal_host
import mlx.core as mx
import numpy as np
import pytest
from helpers import array
from metal_host import Launch

from .cases import Case

__all__ = [
    "LIMITS",
    "SEGMENTS",
    "Reads",
    "assert_clean",
    "assert_reads_once",
    "assert_right",
    "assert_same_in_every_order",
    "error_of",
    "traced",
]

# The largest difference from float64 allowed, as a share of the largest number.
LIMITS = {mx.float32: 1e-5, mx.bfloat16: 4e-3}
# 64-byte segments that a load of the simdgroup may touch, for one that its bytes would fill.
SEGMENTS = 1.1


class Reads(NamedTuple):
    """How some buffers of a launch were read: bytes, and segments of the sampled loads."""

    requested: int
    unique: int
    size: int
    segments: float  # for one that would do

    @staticmethod
    def of(launch: Launch, names: Sequence[str]) -> Reads:
        """Those of the buffers with these names together."""
        buffers = [b for b in launch.buffers if b.name in names]
        assert len(buffers) == len(names), f"{launch.name} has no {names}"
        loads = [launch.loads(name) for name in names]
        return Reads(
            sum(b.requested_read for b in buffers),
            sum(b.unique_read for b in buffers),
            sum(b.bytes for b in buffers),
            sum(a.segments for a in loads) / sum(a.ideal for a in loads),
        )


def error_of(results: list[mx.array], case: Case) -> float:
    """The largest difference as a share of the largest number, of any output; NaN is infinite."""
    errors = [0.0]
    for result, expected in zip(results, case.expected, strict=True):
        assert result.shape == expected.shape
        error = np.abs(array(result) - expected).max() / np.abs(expected).max()
        errors.append(float("inf") if np.isnan(error) else float(error))
    return max(errors)


def assert_right(case: Case) -> None:
    """The kernel gives what float64 gives."""
    results = case.run()
    assert all(y.dtype == case.dtype for y in results if y.dtype != mx.uint32)
    assert error_of(results, case) <= LIMITS[case.dtype]


def assert_same_in_every_order(case: Case) -> None:
    """Whatever the order of threads, no bit differs."""
    forward, *others = (_bits(case, order) for order in ("forward", "reverse", "random"))
    assert all(other == forward for other in others)


def _bits(case: Case, order: Any) -> list[bytes]:
    with metal_host.running(order=order, seed=7):
        return [np.array(y.view(mx.uint8)).tobytes() for y in case.run()]


def traced(case: Case) -> list[Launch]:
    """The launches of a case that is right, with no race, and nothing read that is not there."""
    with metal_host.running(trace=True) as launches:
        assert_right(case)
    assert [launch.problems for launch in launches] == [[] for _ in launches]
    return launches


def assert_reads_once(launch: Launch, *names: str) -> None:
    """Every byte of these buffers is read, and asked for by one thread only."""
    for name in names:
        reads = Reads.of(launch, [name])
        assert reads.requested == reads.unique == reads.size, name


def assert_clean(case: Case) -> None:
    """The lint finds nothing in the kernels that a case launches, and there are some."""
    found: list[list[str]] = []

    def factory(**text: Any) -> Callable[..., list[mx.array]]:
        del text["ensure_row_contiguous"]

        def call(**given: Any) -> list[mx.array]:
            shapes, dtypes = given["output_shapes"], given["output_dtypes"]
            found.append(
                metal_host.lint(
                    **text,
                    inputs=[(x.dtype, x.shape) for x in given["inputs"]],
                    output_dtypes=dtypes,
                    template=given["template"],
                )
            )
            return [mx.zeros(*output) for output in zip(shapes, dtypes, strict=True)]

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mx.fast, "metal_kernel", factory)
        case.run()
    assert found
    assert not any(found), found
