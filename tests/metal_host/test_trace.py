"""Traced launches: planted bugs are reported with their line, and accesses are counted."""

from __future__ import annotations

import mlx.core as mx
import pytest

from .errors import KernelError
from .launch import Launch, metal_kernel, running

pytestmark = pytest.mark.usefixtures("compiler", "line_numbers")

BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"


def traced(body: str, threads: int = 128, header: str = "", size: int = 0) -> Launch:
    """The launch of one threadgroup; x and o have an element for each thread, i."""
    kernel = metal_kernel(
        "test", ["x"], ["o"], f"uint i = thread_position_in_grid.x;\n{body}", header
    )
    with running(trace=True) as launches:
        kernel(
            inputs=[mx.arange(size or threads, dtype=mx.float32)],
            output_shapes=[(size or threads,)],
            output_dtypes=[mx.float32],
            grid=(threads, 1, 1),
            threadgroup=(threads, 1, 1),
        )
    return launches[0]


REVERSED = "threadgroup float s[128];\ns[i] = x[i];\n{}\no[i] = s[127 - i];"
PAIRS = "threadgroup float s[32];\ns[i] = x[i];\n{}\no[i] = s[i ^ 1];"


@pytest.mark.parametrize(
    ("body", "threads"),
    [
        (REVERSED.format(BARRIER), 128),
        (PAIRS.format(BARRIER), 32),
        (PAIRS.format("simdgroup_barrier(mem_flags::mem_threadgroup);"), 32),
    ],
)
def test_no_problems(body: str, threads: int) -> None:
    """A barrier of the threadgroup, or of the simdgroup within one, orders accesses."""
    assert traced(body, threads).problems == []


BUGS = {
    "race": (REVERSED.format(""), 5, "race in threadgroup memory: read by thread"),
    "race in a simdgroup": (PAIRS.format(""), 5, "race in threadgroup memory: read by thread"),
    "simd_sum is no barrier": (
        PAIRS.format("if (simd_sum(x[i]) < 0) return;"),
        5,
        "race in threadgroup memory: read by thread",
    ),
    "two writers": ("threadgroup float s;\ns = x[i];", 3, "race in threadgroup memory: write"),
    "uninitialised": ("threadgroup float s;\no[i] = s;", 3, "threadgroup memory: read before"),
    "overrun": (
        "threadgroup float s[32];\ns[i + 1] = x[i];",
        3,
        "threadgroup memory: write out of bounds",
    ),
    "read": ("o[i] = x[i + 1];", 2, "x: read of 4 bytes out of bounds, at byte 128 of 128"),
    "read before": ("o[i] = x[int(i) - 1];", 2, "x: read of 4 bytes out of bounds, at byte -4"),
    "write": ("\n\no[i + 1] = x[i];", 4, "o: write of 4 bytes out of bounds, at byte 128 of 128"),
    "misaligned": (
        "const device float4* p = (const device float4*)(x + 1);\nfloat4 v = p[i / 8];",
        3,
        "x: misaligned access at byte 4",
    ),
    "write to an input": ("*(device float*)(x + i) = 1;", 2, "x: write to an input"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs(bug: str) -> None:
    """Each is reported, once, at its line."""
    body, line, what = BUGS[bug]
    threads = 128 if "127" in body else 32
    problems = traced(body, threads).problems
    found = [p for p in problems if p.startswith(f"source:{line}: {what}")]
    assert len(found) == 1, problems


def test_lines_are_those_of_the_header() -> None:
    """A bug in a helper is reported where #line says that it stands, however it is inlined."""
    header = (
        '#line 12 "ops/load.h"\ntemplate <class P> float load(P p, uint i) {\n  return p[i];\n}\n'
    )
    [problem] = traced("o[i] = load(x, i + 1);", 32, header).problems
    assert problem.startswith("ops/load.h:13: x: read of 4 bytes out of bounds")


def test_matrix_accesses_have_the_kernels_line() -> None:
    """What the shim does for a kernel is charged to the kernel."""
    body = "simdgroup_float8x8 m;\nsimdgroup_load(m, x, 8);\n simdgroup_store(m, o + 1, 8);"
    launch = traced(body, 32, size=64)
    assert [p.partition(" of ")[0] for p in launch.problems] == ["source:4: o: write"]
    assert launch.loads("x").lines.keys() == {"source:3"}
    assert (launch.loads("x").segments, launch.loads("x").ideal) == (4, 4)


def test_a_write_far_out_ends_the_launch() -> None:
    """Where nothing is mapped, the report comes with the error."""
    with pytest.raises(KernelError, match=r"(?s)not mapped.*source:2: .*write of 4 bytes out of"):
        traced("o[1ul << 44] = 1;", 32)


def test_bytes_of_buffers() -> None:
    """Requested bytes count for each thread, unique bytes once."""
    launch = traced("o[i] = x[i / 2];\nif (i == 0) o[i] = 1;", 64, size=128)
    x, o = launch.buffers
    assert (x.name, x.bytes, x.requested_read, x.unique_read) == ("x", 512, 256, 128)
    assert (x.requested_written, x.unique_written) == (0, 0)
    assert (o.name, o.bytes, o.requested_written, o.unique_written) == ("o", 512, 260, 256)
    assert (o.requested_read, o.unique_read) == (0, 0)


SEGMENTS = {
    "a float a lane": ("o[i] = x[i];", 2, 2),
    "a float4 a lane": ("o[i] = ((const device float4*)x)[i].y;", 8, 2),
    "whole float4": ("float4 v = ((const device float4*)x)[i];\no[i] = v.x + v.w;", 8, 8),
    "one float for all": ("o[i] = x[0];", 1, 2),
    "a row a lane": ("o[i] = x[i * 16];", 32, 2),
    "twice": ("float s = 0;\nfor (uint k = 0; k < 2; k++) s += x[i + 32 * k];\no[i] = s;", 4, 4),
}


@pytest.mark.parametrize("case", SEGMENTS)
def test_segments(case: str) -> None:
    """64-byte segments that the 32 lanes touch together, and how many their bytes would fill."""
    body, segments, ideal = SEGMENTS[case]
    launch = traced(body, 32, size=512)
    loads = launch.loads("x")
    assert (loads.segments, loads.ideal) == (segments, ideal)
    assert sum(line.segments for line in loads.lines.values()) == segments
    assert launch.stores("o").segments == 2
    assert launch.loads("o").segments == launch.stores("x").segments == 0
