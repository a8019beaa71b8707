"""Launches: grids, arguments, orders, what is refused and what is caught without a trace."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from .errors import CompileError, KernelError
from .launch import Launch, metal_kernel, running

pytestmark = pytest.mark.usefixtures("compiler")


def run(
    body: str, x: mx.array, size: int = 0, grid: Any = 0, threadgroup: Any = 64, **options: Any
) -> NDArray[np.float64]:
    """The float output o (size,) of a kernel over x, by default with a thread for each element."""
    call = {
        "init_value": options.pop("init_value", None),
        "template": options.pop("template", None),
    }
    kernel = metal_kernel("test", ["x"], ["o"], body, **options)
    grid = grid or size or x.size
    [output] = kernel(
        inputs=[x],
        output_shapes=[(size or x.size,)],
        output_dtypes=[mx.float32],
        grid=grid if isinstance(grid, tuple) else (grid, 1, 1),
        threadgroup=threadgroup if isinstance(threadgroup, tuple) else (threadgroup, 1, 1),
        **call,
    )
    return np.array(output).astype(np.float64)


def counting(size: int) -> mx.array:
    """0, 1, 2, ..."""
    return mx.arange(size, dtype=mx.float32)


def test_threadgroups_at_the_edge_are_smaller() -> None:
    """A grid that its threadgroup does not divide has threads for each element and no more."""
    body = """
        uint3 p = thread_position_in_grid;
        o[(p.z * 5 + p.y) * 7 + p.x] = threads_per_threadgroup.x * 100
            + dispatch_threads_per_threadgroup.x * 10 + threadgroup_position_in_grid.y;
    """
    output = run(body, counting(8), 105, (7, 5, 3), (4, 2, 2))
    width = np.where(np.arange(7) < 4, 4, 3) * 100 + 40
    expected = np.broadcast_to(width + (np.arange(5) // 2)[:, None], (3, 5, 7))
    np.testing.assert_array_equal(output.reshape(3, 5, 7), expected)


def test_indices_of_simdgroups() -> None:
    """Threads are numbered along x first, and 32 in a row are a simdgroup."""
    body = """
        uint i = thread_index_in_threadgroup;
        o[i] = 10000 * simdgroup_index_in_threadgroup + 100 * simdgroups_per_threadgroup
            + thread_index_in_simdgroup;
    """
    output = run(body, counting(8), 48, (8, 3, 2), (8, 3, 2))
    i = np.arange(48)
    np.testing.assert_array_equal(output, 10000 * (i // 32) + 200 + i % 32)


def test_template_and_small_inputs() -> None:
    """Template values and types; a scalar is a reference, a small array constant memory."""
    kernel = metal_kernel(
        "test",
        ["s", "small", "b"],
        ["o", "h"],
        "o[0] = B ? N : 0; o[1] = sizeof(T); o[2] = s; o[3] = small[2]; h[0] = T(b[1] * 2);",
    )
    output, half = kernel(
        inputs=[3.5, mx.array([1, 2, 3]), mx.array([1.0, 1.5], mx.bfloat16)],
        output_shapes=[(4,), (1, 1)],
        output_dtypes=[mx.float32, mx.bfloat16],
        grid=(1, 1, 1),
        threadgroup=(1, 1, 1),
        template=[("T", mx.bfloat16), ("N", -7), ("B", True)],
    )
    assert output.tolist() == [-7, 2, 3.5, 3]
    assert half.dtype == mx.bfloat16
    assert half.tolist() == [[3]]


@pytest.mark.parametrize("contiguous", [True, False])
def test_strides(contiguous: bool) -> None:
    """A transposed input is copied, or else passed as it lies with its strides."""
    x = counting(12).reshape(3, 4).T
    body = "uint e = thread_position_in_grid.x; o[e] = x[%s];"
    place = "e" if contiguous else "elem_to_loc(e, x_shape, x_strides, x_ndim)"
    output = run(body % place, x, ensure_row_contiguous=contiguous)
    np.testing.assert_array_equal(output, np.arange(12).reshape(3, 4).T.reshape(-1))


def test_what_is_not_written() -> None:
    """Elements that no thread writes are NaN, or the initial value."""
    body = "if (thread_position_in_grid.x < 5) o[thread_position_in_grid.x] = 1;"
    assert np.isnan(run(body, counting(8))).tolist() == [False] * 5 + [True] * 3
    assert run(body, counting(8), init_value=2).tolist() == [1] * 5 + [2] * 3


REVERSED = """
    threadgroup float shared[128];
    uint i = thread_position_in_grid.x;
    shared[i] = x[i] * 2;
    {barrier}
    o[i] = shared[127 - i];
"""


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
def test_orders(order: Any) -> None:
    """Every order gives the right result with a barrier, and none without it."""
    for barrier in ("threadgroup_barrier(mem_flags::mem_threadgroup);", ""):
        with running(order=order, seed=3) as launches:
            output = run(REVERSED.format(barrier=barrier), counting(128), threadgroup=128)
        right = np.array_equal(output, 2 * np.arange(128)[::-1])
        assert right == bool(barrier)
        assert [launch.threadgroup_bytes for launch in launches] == [512]


def test_orders_of_threadgroups() -> None:
    """The threadgroup that comes last, where a trace runs them one by one."""
    last: list[float] = []
    for order in ("forward", "reverse", "random"):
        with running(order=order, seed=3, trace=True):
            body = "o[0] = threadgroup_position_in_grid.x; o[i + 1] = i;"
            output = run(f"uint i = thread_position_in_grid.x; {body}", counting(8), 9, 8, 1)
        assert output[1:].tolist() == list(range(8))
        last.append(output[0])
    assert last[:2] == [7, 0]
    assert 0 < last[2] < 7


def test_threadgroups_do_not_see_each_other() -> None:
    """Threadgroup memory of the next threadgroup is NaN again."""
    body = """
        threadgroup float shared;
        o[thread_position_in_grid.x] = shared;
        shared = 1;
    """
    assert np.isnan(run(body, counting(64), threadgroup=1)).all()


def test_launches_are_recorded_where_asked() -> None:
    """A launch inside of running is in its list, with its source and its sizes."""
    with running() as launches:
        run("o[thread_position_in_grid.x] = x[0];", counting(8), threadgroup=4)
    run("o[thread_position_in_grid.x] = x[0];", counting(8), threadgroup=4)
    [launch] = launches
    assert isinstance(launch, Launch)
    assert (launch.name, launch.grid, launch.threadgroup) == ("test", (8, 1, 1), (4, 1, 1))
    assert "[[kernel]] void custom_kernel_test_float_float(" in launch.source
    assert launch.seconds > 0
    assert launch.problems == launch.buffers == []


def test_too_many_buffers() -> None:
    """Metal binds 31 buffers."""
    names = [f"x{i}" for i in range(31)]
    kernel = metal_kernel("test", names, ["o"], "o[0] = 1;")
    with pytest.raises(KernelError, match="32 buffers, of which Metal allows 31"):
        kernel(
            inputs=[1.0] * 31,
            output_shapes=[(1,)],
            output_dtypes=[mx.float32],
            grid=(1, 1, 1),
            threadgroup=(1, 1, 1),
        )


def test_too_many_threads() -> None:
    """A threadgroup has at most 1024."""
    with pytest.raises(KernelError, match="1025 threads"):
        run("o[0] = 1;", counting(8), threadgroup=1025)


def test_too_much_threadgroup_memory() -> None:
    """A threadgroup has 32 KB, all variables together."""
    body = "threadgroup float a[4096], b[%d]; a[0] = b[0] = x[0]; o[0] = a[0];"
    assert run(body % 4096, counting(8))[0] == 0
    with pytest.raises(KernelError, match="32784 bytes of threadgroup memory"):
        run(body % 4100, counting(8))


def test_source_is_ascii() -> None:
    """MLX passes the source on as ASCII."""
    with pytest.raises(KernelError, match="ASCII"):
        metal_kernel("test", ["x"], ["o"], "o[0] = 1; // \N{MULTIPLICATION SIGN}")


def test_compile_errors_name_their_line() -> None:
    """file:line of the header that #line names, or of the body."""
    header = '#line 40 "ops/rope.h"\ninline float f(float x) {\n  return y;\n}\n'
    with pytest.raises(CompileError, match=r"^ops/rope\.h:41:"):
        run("o[0] = f(x[0]);", counting(8), header=header)
    with pytest.raises(CompileError, match=r"^source:3:"):
        run("\n\no[0] = z;", counting(8))


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("inline void f() {\n  threadgroup float a[4];\n}", 2),
        ("constant float pi = 3.14L;", 1),
        ("\n\ninline double f() { return 1; }", 3),
    ],
)
def test_what_metal_forbids_and_cpp_allows(header: str, line: int) -> None:
    """Threadgroup variables outside of the kernel, and double, are errors here, too."""
    with pytest.raises(CompileError, match=rf"^a\.h:{line}: error"):
        run("o[0] = 1;", counting(8), header=f'#line 1 "a.h"\n{header}\n')


@pytest.mark.parametrize("at", [-1, 64, 4000])
def test_writes_out_of_bounds(at: int) -> None:
    """A write just outside of a buffer is found when the launch is over."""
    with pytest.raises(KernelError, match=f"o: written at byte {4 * at} of 256"):
        run(f"o[int(thread_position_in_grid.x) * 0 + {at}] = 1;", counting(64))


def test_wild_addresses() -> None:
    """An access to memory that is not there ends the launch, and not Python."""
    for statement in ("o[1ul << 44] = 1;", "o[0] = x[1ul << 44];"):
        with pytest.raises(KernelError, match=r"not mapped .* thread \(0, 0, 0\)"):
            run(statement, counting(8), grid=1)
    assert run("o[0] = x[1];", counting(8), grid=1)[0] == 1


DIVERGENT = {
    "returned": "if (i >= 32) return;\n BARRIER\n o[i] = 1;",
    "elsewhere": "if (i >= 32) {\n BARRIER\n } else {\n BARRIER\n }\n o[i] = 1;",
}


@pytest.mark.parametrize("case", DIVERGENT)
def test_barriers_that_not_all_threads_reach(case: str) -> None:
    """All threads of a threadgroup arrive at the same barrier, or the launch fails."""
    barrier = "threadgroup_barrier(mem_flags::mem_none);"
    body = "uint i = thread_position_in_grid.x;\n" + DIVERGENT[case].replace("BARRIER", barrier)
    with pytest.raises(KernelError, match=r"source:\d+: barrier that not all threads reach"):
        run(body, counting(64))


def test_simd_operations_that_not_all_lanes_reach() -> None:
    """An error where strict; otherwise the active lanes only, and NaN from others."""
    body = """
        uint i = thread_position_in_grid.x;
        if (i % 2) o[i] = simd_sum(x[i]);
        if (i % 2 == 0) o[i] = simd_shuffle(x[i], 1);
    """
    with pytest.raises(KernelError, match="source:4: simd operation reached by 16 of 32 lanes"):
        run(body, counting(32), threadgroup=32)
    with running(strict=False):
        output = run(body, counting(32), threadgroup=32)
    assert output[1::2].tolist() == [256] * 16
    assert np.isnan(output[::2]).all()
