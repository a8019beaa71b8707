"""The Metal standard library as it runs here, against numpy and MLX."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from .errors import CompileError
from .launch import metal_kernel

pytestmark = pytest.mark.usefixtures("compiler")

LANE = np.arange(32)
# Ties to even, the largest numbers, infinities, NaN.
EDGES = np.array([0x3F808000, 0x3F818000, 0x7F7FFFFF, 0x7F800000, 0xFF800000], np.uint32)


def run(
    body: str, inputs: Sequence[mx.array], outputs: Sequence[mx.Dtype], size: int, width: int = 1
) -> list[mx.array]:
    """Outputs o0, o1, ... (size * width,) of a kernel with `size` threads, i, and inputs x0, ..."""
    kernel = metal_kernel(
        "test",
        [f"x{i}" for i in range(len(inputs))],
        [f"o{i}" for i in range(len(outputs))],
        "uint i = thread_position_in_grid.x;\n" + body,
    )
    return kernel(
        inputs=inputs,
        output_shapes=[(size * width,)] * len(outputs),
        output_dtypes=outputs,
        grid=(size, 1, 1),
        threadgroup=(min(size, 256), 1, 1),
    )


def array(x: mx.array) -> NDArray[np.float64]:
    """Any array's values."""
    return np.array(x.astype(mx.float32) if x.dtype == mx.bfloat16 else x).astype(np.float64)


def normal(size: int, dtype: mx.Dtype = mx.float32) -> mx.array:
    """Random numbers."""
    return mx.random.normal((size,), key=mx.random.key(size)).astype(dtype)


def test_reductions() -> None:
    """Sums and extremes over each simdgroup, of scalars and of vectors."""
    x = normal(64)
    rows = array(x).reshape(2, 32)
    body = """
        o0[i] = simd_sum(x0[i]);
        o1[i] = simd_max(x0[i]);
        o2[i] = simd_min(float4(x0[i], 1, 2, 3)).x;
        o3[i] = simd_or(1u << (i % 32 / 2)) + simd_and(i | 8);
    """
    outputs = run(body, [x], [*[mx.float32] * 3, mx.uint32], 64)
    sums, most, least, bits = (array(o).reshape(2, 32) for o in outputs)
    np.testing.assert_allclose(sums, rows.sum(1)[:, None] + 0 * rows, rtol=1e-5)
    np.testing.assert_array_equal(most, rows.max(1)[:, None] + 0 * rows)
    np.testing.assert_array_equal(least, rows.min(1)[:, None] + 0 * rows)
    np.testing.assert_array_equal(bits[:, 0], [0xFFFF + 8, 0xFFFF + 40])


def test_a_sum_adds_neighbours_first() -> None:
    """The order of a simd_sum is a butterfly's, so that float rounding is the same each time."""
    x = normal(32) * 1e4
    [total] = run("o0[i] = simd_sum(x0[i]);", [x], [mx.float32], 32)
    values = array(x).astype(np.float32)
    while values.size > 1:
        values = values[::2] + values[1::2]
    np.testing.assert_array_equal(array(total), np.repeat(values, 32))


def test_shuffles() -> None:
    """Which lane each shuffle reads."""
    expected = {
        "simd_shuffle(v, 5)": 0 * LANE + 5,
        "simd_shuffle(v, (i + 1) % 32)": (LANE + 1) % 32,
        "simd_shuffle_xor(v, 3)": LANE ^ 3,
        "simd_shuffle_down(v, 4)": np.where(LANE < 28, LANE + 4, LANE),
        "simd_shuffle_up(v, 4)": np.where(LANE >= 4, LANE - 4, LANE),
        "simd_broadcast(v, 31)": 0 * LANE + 31,
        "simd_broadcast_first(v)": 0 * LANE,
    }
    lines = [f"o{k}[i] = {call};" for k, call in enumerate(expected)]
    x = normal(64)
    body = "float v = x0[i];\n" + "\n".join(lines)
    outputs = run(body, [x], [mx.float32] * len(lines), 64)
    for output, lanes in zip(outputs, expected.values(), strict=True):
        rows = array(x).reshape(2, 32)[:, lanes]
        np.testing.assert_array_equal(array(output).reshape(2, 32), rows)


def test_votes() -> None:
    """Ballots, any and all."""
    x = normal(32)
    body = """
        o0[i] = uint(ulong(simd_ballot(x0[i] > 0)));
        o1[i] = simd_any(x0[i] > 100) + 2 * simd_any(x0[i] > 0) + 4 * simd_all(x0[i] < 100);
    """
    ballot, votes = run(body, [x], [mx.uint32] * 2, 32)
    bits = int(sum(1 << int(i) for i in np.flatnonzero(array(x) > 0)))
    assert ballot.tolist() == [bits] * 32
    assert votes.tolist() == [6] * 32


def test_bfloat_and_half_round_as_mlx_does() -> None:
    """Conversions round to even, once, and every operation rounds its result."""
    random = np.random.default_rng(0).integers(0, 2**32, 507, dtype=np.uint32)
    x = mx.array(np.concatenate([random, EDGES]).view(np.float32))
    a, b = normal(512, mx.bfloat16), normal(512, mx.float16)
    body = """
        o0[i] = bfloat16_t(x0[i]);
        o1[i] = half(x0[i]);
        o2[i] = x1[i] * x1[i] + x1[i];
        o3[i] = x2[i] * x2[i] + x2[i];
        o4[i] = x1[i] * 3 - 1;
        o5[i] = float(x1[i]) + float(x2[i]);
    """
    dtypes = [mx.bfloat16, mx.float16, mx.bfloat16, mx.float16, mx.bfloat16, mx.float32]
    outputs = run(body, [x, a, b], dtypes, 512)
    expected = [
        *(x.astype(mx.bfloat16), x.astype(mx.float16), a * a + a, b * b + b, a * 3 - 1),
        a.astype(mx.float32) + b.astype(mx.float32),
    ]
    for output, value in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(array(output), array(value))


def test_every_half_is_read_exactly() -> None:
    """All 65536 bit patterns of half, subnormal numbers included."""
    x = np.arange(65536, dtype=np.uint16).view(np.float16)
    [y] = run("o0[i] = float(x0[i]);", [mx.array(x)], [mx.float32], 65536)
    np.testing.assert_array_equal(array(y), x.astype(np.float32))


def test_vectors() -> None:
    """Components, swizzles on both sides, mixed constructors, conversion, as_type, comparison."""
    body = """
        float4 v = float4(x0[0], 1.0, 2, 3);
        v.xy = v.zw;
        v.zw *= 2.0;
        float4 w(v.xy, float2(7));
        w += v * 2 - w.x;
        half4 h = half4(w);
        device float4* out = (device float4*)o0;
        out[0] = v;
        out[1] = w;
        out[2] = float4(h.xyz, dot(v.xyz, float3(1.0f)));
        out[3] = clamp(v, 2.5f, 4.0f);
        out[4] = select(v, float4(9), v > 2.5f);
        out[5] = float4(as_type<half2>(as_type<uint>(h.zw[0] > 0 ? half2(1, 2) : half2(0))), 0, 0);
        out[6] = max(v, 3.0f) + exp2(float4(0.0h, 1.0h, 2, 3)) + float4(uint4(7) >> 1);
        out[7] = float4(bfloat4(v)) * float(any(v == 3.0f)) - float(all(v == 3.0f));
    """
    [out] = run(body, [mx.array([5.0] * 8)], [mx.float32], 1, 32)
    assert array(out).reshape(8, 4).tolist() == [
        [2, 3, 4, 6],
        [4, 7, 13, 17],
        [4, 7, 13, 9],
        [2.5, 3, 4, 4],
        [2, 9, 9, 9],
        [1, 2, 0, 0],
        [7, 8, 11, 17],
        [2, 3, 4, 6],
    ]


def test_scalar_functions() -> None:
    """Arithmetic that kernels use, against numpy; min and max prefer numbers to NaN."""
    x = normal(64)
    body = """
        o0[i] = exp(x0[i]) + precise::tanh(x0[i]) * fast::rsqrt(abs(x0[i]));
        o1[i] = fma(x0[i], 2.0f, floor(x0[i])) + max(NAN, x0[i]) + min(NAN, min(x0[i], INFINITY));
        o2[i] = popcount(i) + 100 * clz(i + 1) + 10000 * extract_bits(i, 1, 2);
        o3[i] = isnan(NAN) + 2 * isinf(-INFINITY) + 4 * isnan(x0[i]) + 8 * signbit(x0[i]);
        o4[i] = 1.5 * x0[i] + .5 + 1e1 + as_type<float>(0x3F800000u);
    """
    outputs = run(body, [x], [mx.float32, mx.float32, mx.uint32, mx.uint32, mx.float32], 64)
    n, i = array(x), np.arange(64)
    expected = [
        np.exp(n) + np.tanh(n) / np.sqrt(np.abs(n)),
        4 * n + np.floor(n),
        np.array([k.bit_count() + 100 * (32 - (k + 1).bit_length()) for k in i.tolist()])
        + 10000 * (i >> 1 & 3),
        3 + 8 * (n < 0),
        1.5 * n + 11.5,
    ]
    for output, value in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(array(output), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["float", "half", "bfloat"])
def test_simdgroup_matrix(kind: str) -> None:
    """a @ b.T + 1 by simdgroup_multiply_accumulate, and where Apple's lanes hold elements."""
    dtype = {"float": mx.float32, "half": mx.float16, "bfloat": mx.bfloat16}[kind]
    a, b = normal(64, dtype), normal(128, dtype)[64:]
    body = f"""
        simdgroup_{kind}8x8 a, b;
        simdgroup_float8x8 c = make_filled_simdgroup_matrix<float, 8, 8>(1.0f);
        simdgroup_load(a, x0, 8);
        simdgroup_load(b, x1, 8, ulong2(0, 0), true);
        simdgroup_multiply_accumulate(c, a, b, c);
        simdgroup_store(c, o0, 8);
        o1[i * 2] = a.thread_elements()[0];
        o1[i * 2 + 1] = a.thread_elements()[1];
        simdgroup_store(simdgroup_float8x8(2.0f), o2);
    """
    outputs = run(body, [a, b], [mx.float32, dtype, mx.float32], 32, 2)
    x, y = (array(v).reshape(8, 8) for v in (a, b))
    product, elements, diagonal = (array(o) for o in outputs)
    np.testing.assert_allclose(product.reshape(8, 8), x @ y.T + 1, rtol=1e-5, atol=1e-5)
    quad = LANE // 4
    row, column = (quad & 4) + (LANE // 2) % 4, (quad & 2) * 2 + (LANE % 2) * 2
    held = np.stack([x[row, column], x[row, column + 1]], axis=1)
    np.testing.assert_array_equal(elements.reshape(32, 2), held)
    np.testing.assert_array_equal(diagonal.reshape(8, 8), 2 * np.eye(8))


@pytest.mark.parametrize(
    "statement",
    ["o0[i] = max(x0[i], 0);", "bfloat b = 1.0f; o0[i] = b;", "float4 v = half4(0); o0[i] = v.x;"],
)
def test_conversions_that_metal_does_not_make(statement: str) -> None:
    """Metal's overloads and vectors do not convert where C++'s numbers would."""
    with pytest.raises(CompileError, match="source:2:"):
        run(statement, [normal(8)], [mx.float32], 8)
