"""The lint: clean kernels stay clean, and each mistake is found at its line."""

from __future__ import annotations

import mlx.core as mx
import pytest

from .lint import lint

pytestmark = pytest.mark.usefixtures("clang")


def problems(body: str, header: str = "") -> list[str]:
    """Of a kernel with inputs x (64,) and c (4,) and an output o, all float."""
    return lint(
        *("test", ["x", "c"], ["o"], body, header),
        inputs=[(mx.float32, (64,)), (mx.float32, (4,))],
        output_dtypes=[mx.float32],
        template=[("T", mx.bfloat16), ("N", 3)],
    )


CLEAN = """
    threadgroup T tile[32], one;
    uint i = thread_position_in_grid.x;
    tile[i % 32] = T(x[i]);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float4 v = float4(x[i], 1.0, 2, 3);
    v.xy = v.zw;
    half4 h = half4(v) * 2.0h;
    const device float4* wide = (const device float4*)x;
    v += wide[0] * h.x + float4(h);
    thread float* p = (thread float*)&v;
    p[1] += first(x) + first(c) + first(tile) + table[i % 4] + N;
    v = i > 3 ? v : i > 2 ? wide[0] : -v;
    T least = i > 3 ? tile[0] : T(0);
    least = i > 3 ? least : -least;
    uint4 bits = as_type<uint4>(v);
    Accumulator<T> accumulator;
    accumulator.add(tile);
    simdgroup_float8x8 m;
    simdgroup_load(m, x, 8);
    simdgroup_multiply_accumulate(m, m, m, m);
    simdgroup_store(m, o, 8);
    o[i] = simd_sum(v.x + dot(v.xyz, float3(1.0))) + exp(max(p[0], 0.0f)) + bits.x + least;
"""
HELPERS = """
    constant float table[4] = {0.5, 1, 2, 3};
    template <class P> METAL_FUNC float first(P p) { return float(p[0]); }
    inline void add(thread float& sum, const device float* p) { sum += *p; }
    template <typename T> struct Accumulator {
      simdgroup_float8x8 sum;
      METAL_FUNC void add(const threadgroup T* tile) {
        simdgroup_matrix<T, 8, 8> m;
        simdgroup_load(m, tile, 8);
        simdgroup_multiply_accumulate(sum, m, m, sum);
      }
    };
"""


def test_a_clean_kernel() -> None:
    """What kernels are made of passes: all address spaces, vectors, matrices, templates."""
    assert problems(CLEAN, HELPERS) == []


MISTAKES = {
    "pointer without device": ("\nfloat* p = o;\no[0] = p[0];", "", "source:2: "),
    "helper without device": (
        "o[0] = f(x);",
        '#line 8 "a.h"\ninline float f(const float* p) { return *p; }\n',
        "a.h:8: error: p: no address space",
    ),
    "reference without thread": (
        "float y = 0; f(y); o[0] = y;",
        "\ninline void f(float& y) { y = 1; }\n",
        "header:2: error: y: no address space",
    ),
    "cast without device": ("\n\no[0] = ((const float*)x)[0];", "", "source:3: error: cast: no"),
    "threadgroup as device": ("threadgroup float s[4];\ndevice float* p = s;", "", "source:2:"),
    "constant as device": ("const device float* p = c;", "", "source:1:"),
    "threadgroup in a helper": (
        "o[0] = f();",
        "inline float f() {\nthreadgroup float s[4];\nreturn s[0];\n}\n",
        "header:2: error: threadgroup variable outside of a kernel",
    ),
    "double": ("\ndouble d = 1;", "", "source:2: error: Metal has no double"),
    "double literal": ("\no[0] = 1.0L;", "", "source:2: error: Metal has no double"),
    "write to an input": ("x[0] = 1;", "", "source:1:6: error: read-only"),
    "unlike vectors": ("float4 v = half4(0);", "", "source:1:"),
    "ambiguous max": ("o[0] = max(x[0], 0);", "", "source:1:"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str) -> None:
    """Each is found where it stands."""
    body, header, expected = MISTAKES[mistake]
    found = problems(body, header)
    assert found
    assert found[0].startswith(expected), found
