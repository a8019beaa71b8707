"""Each operation against its definition in plain numpy, in float64 and with loops."""

from __future__ import annotations

from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest
from helpers import array
from numpy.typing import NDArray

from gptoss_mlx import kernels
from gptoss_mlx.kernels import KV, Matrix, QuantizedKV, Rotary, Routing, cpu, metal, plain

Floats = NDArray[np.float64]
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
FORMATS = ("f32", "bf16", "q8", "q4", "mxfp4")
H, INNER, E = 64, 96, 5
LIMIT = 0.7  # low enough for both clamps to act


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> mx.array:
    """Random floats."""
    values = np.random.default_rng(seed).normal(scale=scale, size=shape)
    return mx.array(values.astype(np.float32))


def make_matrix(kind: str, *shape: int, seed: int = 0) -> Matrix:
    """A random weight (..., out, in), stored in one of the formats."""
    rng = np.random.default_rng(seed)
    if kind == "mxfp4":
        words = rng.integers(0, 1 << 32, (*shape[:-1], shape[-1] // 8), dtype=np.uint32)
        exponents = rng.integers(121, 126, (*shape[:-1], shape[-1] // 32), dtype=np.uint8)
        return Matrix(mx.array(words), mx.array(exponents), None, 32, 4, "mxfp4")
    weight = normal(*shape, seed=seed, scale=0.2)
    if kind in ("q8", "q4"):
        bits = int(kind[1])
        packed, scales, biases = mx.quantize(weight, group_size=64, bits=bits)
        return Matrix(packed, scales, biases, 64, bits, "affine")
    return Matrix(weight.astype(mx.bfloat16) if kind == "bf16" else weight)


def dequantized(matrix: Matrix) -> Floats:
    """The weight (..., out, in) as numbers, low bits first."""
    if matrix.scales is None:
        return array(matrix.weight)
    words = np.array(matrix.weight, dtype=np.uint32)
    shifts = np.arange(0, 32, matrix.bits, dtype=np.uint32)
    codes = (words[..., None] >> shifts) & np.uint32((1 << matrix.bits) - 1)
    codes = codes.reshape(*words.shape[:-1], -1).astype(np.int64)
    scales = np.repeat(array(matrix.scales), matrix.group_size, axis=-1)
    if matrix.biases is None:
        return np.where(codes & 8, -1, 1) * E2M1[codes & 7] * 2.0 ** (scales - 127)
    return codes * scales + np.repeat(array(matrix.biases), matrix.group_size, axis=-1)


def assert_close(result: mx.array, expected: Floats) -> None:
    """Equal up to float32's rounding of sums of this size."""
    assert result.shape == expected.shape
    np.testing.assert_allclose(array(result), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 70])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("kind", FORMATS)
def test_linear(kind: str, biased: bool, rows: int) -> None:
    """x @ weight.T + bias for every format of the weight, over any leading axes."""
    matrix = make_matrix(kind, 48, 128)
    x = normal(2, rows, 128, seed=1)
    bias = normal(48, seed=2) if biased else None
    expected = array(x) @ dequantized(matrix).T + (0 if bias is None else array(bias))
    assert_close(kernels.linear(x, matrix, bias), expected)


@pytest.mark.parametrize("kind", ["f32", "bf16"])
def test_linear_keeps_the_dtype_of_activations(kind: str) -> None:
    """A dense weight's dtype does not decide the result's."""
    for dtype in (mx.float32, mx.bfloat16):
        x = mx.ones((1, 32), dtype)
        assert kernels.linear(x, make_matrix(kind, 4, 32)).dtype == dtype


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("kind", FORMATS)
def test_embed(kind: str, dtype: mx.Dtype) -> None:
    """The rows of the ids, first and last included, dequantized and in the dtype asked for."""
    matrix = make_matrix(kind, 33, 128)
    ids = np.array([[0, 32, 7], [7, 1, 31]])
    rows = kernels.embed(mx.array(ids), matrix, dtype)
    assert rows.dtype == dtype
    tolerance = 1e-6 if dtype == mx.float32 else 2**-8
    np.testing.assert_allclose(array(rows), dequantized(matrix)[ids], rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize(("experts", "k"), [(4, 1), (4, 4), (32, 4), (128, 4)])
def test_router_topk(experts: int, k: int) -> None:
    """The ids of the largest logits, each once, with the softmax over the chosen ones only."""
    logits = normal(50, experts, scale=3.0)
    routing = kernels.router_topk(logits, k)
    ids, scores = array(routing.ids), array(routing.scores)
    assert ids.shape == scores.shape == (50, k)
    for row, found, weights in zip(array(logits), ids, scores, strict=True):
        chosen = found.astype(int)
        assert sorted(chosen.tolist()) == sorted(np.argsort(-row)[:k].tolist())
        expected = np.exp(row[chosen]) / np.exp(row[chosen]).sum()
        np.testing.assert_allclose(weights, expected, rtol=1e-5)


# Pairs of a token and an expert, below and from the number on at which they are sorted.
PAIRS = [(1, 1), (1, 4), (21, 3), (32, 2), (50, 4)]


def routes(tokens: int, k: int) -> NDArray[np.int64]:
    """Distinct experts for each token (N, K); the last expert is never chosen."""
    rng = np.random.default_rng(tokens)
    return np.stack([rng.permutation(E - 1)[:k] for _ in range(tokens)])


@pytest.mark.parametrize(("tokens", "k"), PAIRS)
def test_moe_gate_up_swiglu(tokens: int, k: int) -> None:
    """Each token through the gate and up matrices of its own experts, then clamped SwiGLU."""
    gate, up = (make_matrix("mxfp4", E, INNER, H, seed=seed) for seed in (1, 2))
    gate_bias, up_bias = normal(E, INNER, seed=3), normal(E, INNER, seed=4)
    x, ids = normal(tokens, H, seed=5), routes(tokens, k)
    gates, ups = dequantized(gate), dequantized(up)
    expected = np.zeros((tokens, k, INNER))
    for n, slot in np.ndindex(tokens, k):
        e = ids[n, slot]
        g = np.minimum(gates[e] @ array(x)[n] + array(gate_bias)[e], LIMIT)
        u = np.clip(ups[e] @ array(x)[n] + array(up_bias)[e], -LIMIT, LIMIT)
        expected[n, slot] = g / (1 + np.exp(-1.702 * g)) * (u + 1)
    routing = Routing(mx.array(ids), mx.zeros(ids.shape))
    y = kernels.moe_gate_up_swiglu(x, routing, gate, gate_bias, up, up_bias, LIMIT)
    assert_close(y, expected)


@pytest.mark.parametrize(("tokens", "k"), PAIRS)
def test_moe_down_combine(tokens: int, k: int) -> None:
    """The sum over a token's experts of score * (down @ y + bias): the bias is weighted, too."""
    down, bias = make_matrix("mxfp4", E, H, INNER, seed=1), normal(E, H, seed=2)
    y, ids = normal(tokens, k, INNER, seed=3), routes(tokens, k)
    scores = mx.softmax(normal(tokens, k, seed=4), axis=-1)
    residual = normal(tokens, H, seed=5)
    downs = dequantized(down)
    expected = array(residual)
    for n, slot in np.ndindex(tokens, k):
        e = ids[n, slot]
        out = downs[e] @ array(y)[n, slot] + array(bias)[e]
        expected[n] += array(scores)[n, slot] * out
    routing = Routing(mx.array(ids), scores)
    assert_close(kernels.moe_down_combine(y, routing, down, bias, residual), expected)


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("kind", FORMATS)
def test_qkv(kind: str, tokens: int) -> None:
    """Heads of queries, keys and values; the first two turned by position, pair i with i + D/2."""
    heads, kv_heads, D = 4, 2, 8
    matrix, bias = make_matrix(kind, (heads + 2 * kv_heads) * D, H), normal(64, seed=1)
    x, frequencies = normal(2, tokens, H, seed=2), np.array([1.0, 0.5, 0.1, 0.003])
    rotation = Rotary.of(frequencies.astype(np.float32)).at([7, 30], tokens)
    y = array(x) @ dequantized(matrix).T + array(bias)
    y = y.reshape(2, tokens, -1, D).swapaxes(1, 2)
    positions = np.array([[7], [30]]) + np.arange(tokens)
    turns = np.exp(1j * positions[:, None, :, None] * frequencies)
    turned = (y[..., : D // 2] + 1j * y[..., D // 2 :]) * turns
    turned = np.concatenate([turned.real, turned.imag], axis=-1)
    q, k, v = kernels.qkv(x, matrix, bias, rotation, heads, kv_heads)
    assert_close(q, turned[:, :heads])
    assert_close(k, turned[:, heads : heads + kv_heads])
    assert_close(v, y[:, heads + kv_heads :])


@pytest.mark.parametrize("starts", [(4_000,), (0, 4_000)])
def test_rotations_agree(monkeypatch: pytest.MonkeyPatch, starts: tuple[int, ...]) -> None:
    """MLX's own operation, which a GPU uses, turns as the table does, far out as well."""
    rotary = Rotary.of(150_000 ** -np.linspace(0, 1, 32, dtype=np.float32))
    x = normal(len(starts), 3, 5, 64)
    rotation = rotary.at(starts, 5)
    ours = plain.rotate(x, rotation)
    monkeypatch.setattr(cpu, "is_used", lambda: False)
    np.testing.assert_allclose(array(plain.rotate(x, rotation)), array(ours), atol=2e-3)


def test_residuals_are_added() -> None:
    """What comes in besides is added to the product."""
    x, matrix, residual = normal(3, 128), make_matrix("q8", 48, 128), normal(3, 48, seed=1)
    expected = array(kernels.linear(x, matrix)) + array(residual)
    assert_close(kernels.linear(x, matrix, residual=residual), expected)


def naive_attention(
    q: Floats, k: Floats, v: Floats, sinks: Floats, scale: float, window: int | None
) -> Floats:
    """The definition: a softmax over the visible positions and the sink, whose value is zero."""
    out = np.zeros(q.shape)
    T, S, group = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
    for b, head, t in np.ndindex(*q.shape[:3]):
        at = S - T + t
        first = 0 if window is None else max(0, at - window + 1)
        keys, values = (x[b, head // group, first : at + 1] for x in (k, v))
        weights = np.exp(keys @ q[b, head, t] * scale)
        out[b, head, t] = weights @ values / (weights.sum() + np.exp(sinks[head]))
    return out


@pytest.mark.parametrize("window", [None, 1, 2, 8, 1000])
@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 9), (2, 9), (9, 9), (5, 40), (33, 33)])
@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (8, 1), (3, 3)])
def test_attention(heads: int, kv_heads: int, T: int, S: int, window: int | None) -> None:
    """Grouped queries, the last T of S positions, causal or in a window, with a sink a head."""
    q = normal(2, heads, T, 32, seed=1, scale=2.0)
    k, v = (normal(2, kv_heads, S, 32, seed=seed) for seed in (2, 3))
    sinks = normal(heads, seed=4, scale=2.0)
    expected = naive_attention(array(q), array(k), array(v), array(sinks), 0.3, window)
    assert_close(kernels.attention(q, [KV(k, v)], sinks, 0.3, window), expected)
    cuts = sorted([0, S // 3, S - T, S])
    parts = [KV(k[..., a:b, :], v[..., a:b, :]) for a, b in pairwise(cuts) if a < b]
    assert_close(kernels.attention(q, parts, sinks, 0.3, window), expected)


def test_a_large_sink_takes_all_weight() -> None:
    """A head with a huge sink attends to nothing, and one with a tiny sink as if it had none."""
    q, k, v = (normal(1, 2, 1, 32, seed=seed) for seed in range(3))
    y = kernels.attention(q, [KV(k, v)], mx.array([80.0, -80.0]), 1.0, None)
    assert_close(y[:, 0], np.zeros((1, 1, 32)))
    assert_close(y[:, 1], array(v[:, 1]))


def make_quantized(*shape: int) -> QuantizedKV:
    """Random keys and values (B, kv heads, S, D) in 8 bits."""
    return QuantizedKV(make_matrix("q8", *shape, seed=2), make_matrix("q8", *shape), mx.float32)


def cut(kv: QuantizedKV, *bounds: int) -> list[QuantizedKV]:
    """The same in parts that end there."""
    rows = [(..., slice(a, b), slice(None)) for a, b in pairwise(bounds) if a < b]
    return [QuantizedKV(kv.packed_keys[r], kv.packed_values[r], kv.dtype) for r in rows]


@pytest.mark.parametrize("window", [None, 4, 1000])
@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 9), (1, 300), (2, 9), (9, 9), (5, 40)])
@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (8, 1), (3, 3)])
def test_quantized_attention(heads: int, kv_heads: int, T: int, S: int, window: int | None) -> None:
    """Quantized keys and values give what the numbers do that they stand for, whatever the sinks.

    In one part and in several.
    """
    q = normal(2, heads, T, 64, seed=1, scale=2.0)
    kv = make_quantized(2, kv_heads, S, 64)
    k, v = (dequantized(packed) for packed in (kv.packed_keys, kv.packed_values))
    sinks = mx.concatenate([normal(heads - 2, seed=4, scale=2.0), mx.array([80.0, -80.0])])
    expected = naive_attention(array(q), k, v, array(sinks), 1.5, window)
    for parts in ([kv], cut(kv, *sorted([0, S // 3, S - T, S]))):
        y = kernels.attention(q, parts, sinks, 1.5, window)
        np.testing.assert_allclose(array(y), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("T", [1, 5])
def test_quantized_attention_keeps_the_dtype_of_queries(T: int) -> None:
    """In bfloat16 only what comes in and what goes out is rounded."""
    q, kv = normal(1, 8, T, 64, scale=2.0).astype(mx.bfloat16), make_quantized(1, 1, 100, 64)
    k, v = (dequantized(packed) for packed in (kv.packed_keys, kv.packed_values))
    y = kernels.attention(q, [kv], mx.zeros(8, mx.bfloat16), 1.0, None)
    assert y.dtype == mx.bfloat16
    expected = naive_attention(array(q), k, v, np.zeros(8), 1.0, None)
    np.testing.assert_allclose(array(y), expected, rtol=2**-7, atol=1e-4)


def test_the_attention_kernel_takes_no_quantized_positions() -> None:
    """Of what it fits otherwise."""
    q, kv = normal(1, 8, 1, 64), make_quantized(1, 1, 9, 64)
    assert metal.attention_fits([KV(kv.keys, kv.values)], q)
    assert not metal.attention_fits([kv], q)


def test_pairs_by_expert() -> None:
    """Pairs in the order of their experts, and where each expert's begin."""
    ids = mx.array([[3, 0], [1, 3], [0, 3]])
    routing = Routing(ids, mx.zeros(ids.shape))
    order, inverse, experts = routing.by_expert
    assert experts.tolist() == [0, 0, 1, 3, 3, 3]
    assert ids.reshape(-1)[order].tolist() == experts.tolist()
    assert order[inverse].tolist() == list(range(6))
    assert routing.offsets(5).tolist() == [0, 2, 3, 3, 6, 6]


def test_arrays_of_a_matrix() -> None:
    """A dense matrix is one array, an MXFP4 one two, an affine one three."""
    assert [len(make_matrix(kind, 32, 64).arrays) for kind in FORMATS] == [1, 1, 3, 3, 2]
