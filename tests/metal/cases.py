"""What every kernel is tried with, and what it must give: its definition in float64 numpy.

The inner widths are those of gpt-oss; how many rows a matrix has is up to the test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import mlx.core as mx
import numpy as np
from helpers import array
from numpy.typing import NDArray

from gptoss_mlx.kernels import metal
from gptoss_mlx.kernels.types import KV, Matrix, Rotary, Routing

from .inputs import TOP, Floats, dense, experts, normal, product, routing

__all__ = ["HIDDEN", "TOKENS", "Case", "Q", "attention", "down", "gate_up", "qkv", "qmv", "router"]

HIDDEN = 2880  # of the intermediate size too
Q = 4096  # 64 heads of 64: what o_proj reads
TOKENS = (1, 2, 5, 16, 33, 128)
_LIMIT = 7.0  # of SwiGLU
_BEFORE = 20  # positions of the buffer before those that attention sees


class Case(NamedTuple):
    """A launch, or two, and what they must give."""

    run: Callable[[], list[mx.array]]
    expected: list[Floats]
    dtype: mx.Dtype


def qmv(
    kind: str, tokens: int, dtype: mx.Dtype, rows: int, width: int = HIDDEN, *, plain: bool = False
) -> Case:
    """A dense product with bias and residual, or without."""
    matrix, x = dense(kind, rows, width, dtype), normal(tokens, width, seed=1, dtype=dtype)
    bias = residual = None
    expected = product(array(x), matrix)
    if not plain:
        bias, residual = (normal(*n, rows, seed=2, dtype=dtype) for n in ((), (tokens,)))
        expected += array(bias) + array(residual)
    return Case(lambda: [metal.qmv(x, matrix, bias, residual)], [expected], dtype)


def qkv(kind: str, batch: int, dtype: mx.Dtype, heads: int, kv_heads: int) -> Case:
    """Queries, keys and values of one token of each sequence."""
    rows = (heads + 2 * kv_heads) * 64
    matrix, bias = dense(kind, rows, HIDDEN, dtype), normal(rows, seed=1, dtype=dtype)
    x = normal(batch, 1, HIDDEN, seed=2, dtype=dtype)
    rotation = Rotary.of(150_000 ** -np.linspace(0, 1, 32, dtype=np.float32)).at(
        [77 + 3 * b for b in range(batch)], 1
    )
    y = product(array(x)[:, 0], matrix) + array(bias)
    y = y.reshape(batch, heads + 2 * kv_heads, 1, 64)
    cosine, sine = np.split(array(rotation.table)[:, None], 2, axis=-1)
    a, b = np.split(y, 2, axis=-1)
    turned = np.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)
    both = heads + kv_heads
    return Case(
        lambda: list(metal.qkv(x, matrix, bias, rotation, heads, kv_heads)),
        [turned[:, :heads], turned[:, heads:both], y[:, both:]],
        dtype,
    )


def router(tokens: int, dtype: mx.Dtype, number: int) -> Case:
    """The best experts of random logits, many of which are equal in bfloat16."""
    logits = normal(tokens, number, scale=3.0, dtype=dtype)
    ids = np.argsort(-array(logits), axis=-1, kind="stable")[:, :TOP]
    weights = np.exp(np.take_along_axis(array(logits), ids, axis=-1))
    scores = weights / weights.sum(axis=-1, keepdims=True)

    def run() -> list[mx.array]:
        found = metal.router_topk(logits, TOP)
        return [found.ids, found.scores]

    return Case(run, [ids.astype(np.float64), scores], mx.float32)  # whose scores they are


def gate_up(
    tokens: int,
    dtype: mx.Dtype,
    number: int,
    rows: int,
    *,
    grouped: bool,
    ids: NDArray[np.int64] | None = None,
    matrices: tuple[Matrix, Matrix] | None = None,
    limit: float = _LIMIT,
    scale: float = 1.0,
) -> Case:
    """The experts' first half; x is drawn with a scale, some of the rest may be given."""
    gate, up = matrices or (experts(number, rows, HIDDEN, seed=s) for s in (1, 2))
    gate_bias, up_bias = (normal(number, rows, seed=s, dtype=dtype) for s in (3, 4))
    x, chosen = (
        normal(tokens, HIDDEN, seed=5, scale=scale, dtype=dtype),
        _Chosen(tokens, number, ids),
    )
    inputs = array(x)[chosen.tokens]
    g = np.minimum(chosen.products(inputs, gate, gate_bias), limit)
    u = np.clip(chosen.products(inputs, up, up_bias), -limit, limit)
    with np.errstate(over="ignore"):  # a gate far below zero is closed
        expected = (g / (1 + np.exp(-1.702 * g)) * (u + 1)).reshape(tokens, TOP, rows)
    kernel = metal.moe_gemm_gate_up if grouped else metal.moe_gate_up_swiglu
    given = (gate, gate_bias, up, up_bias, limit)
    return Case(lambda: [kernel(x, chosen.routing, *given)], [expected], dtype)


def down(
    tokens: int,
    dtype: mx.Dtype,
    number: int,
    rows: int,
    *,
    grouped: bool,
    ids: NDArray[np.int64] | None = None,
    matrix: Matrix | None = None,
    scale: float = 1.0,
) -> Case:
    """The experts' second half, weighted and added to a residual."""
    matrix = matrix or experts(number, rows, HIDDEN, seed=1)
    bias, residual = (normal(n, rows, seed=2, dtype=dtype) for n in (number, tokens))
    y = normal(tokens, TOP, HIDDEN, seed=3, scale=scale, dtype=dtype)
    chosen = _Chosen(tokens, number, ids)
    out = chosen.products(array(y).reshape(-1, HIDDEN), matrix, bias).reshape(tokens, TOP, rows)
    expected = array(residual) + (out * array(chosen.routing.scores)[..., None]).sum(axis=1)
    kernel = metal.moe_gemm_down if grouped else metal.moe_down_combine
    return Case(lambda: [kernel(y, chosen.routing, matrix, bias, residual)], [expected], dtype)


class _Chosen:
    """The pairs of a token and an expert, and their products."""

    def __init__(self, tokens: int, number: int, ids: NDArray[np.int64] | None) -> None:
        drawn = routing(tokens, number, ids)
        self.tokens = np.repeat(np.arange(tokens), TOP)
        self._experts = cast("list[int]", drawn.ids.reshape(-1).tolist())
        self._drawn = drawn

    @property
    def routing(self) -> Routing:
        """A new one: what was made of another is not remembered."""
        return Routing(self._drawn.ids, self._drawn.scores)

    def products(self, x: Floats, matrix: Matrix, bias: mx.array) -> Floats:
        """x (pairs, in) -> each times its expert's matrix, and its bias, (pairs, out)."""
        y = np.zeros((len(x), matrix.rows))
        for expert in sorted(set(self._experts)):
            mine = np.array(self._experts) == expert
            y[mine] = product(x[mine], matrix[expert]) + array(bias)[expert]
        return y


def attention(
    positions: int,
    dtype: mx.Dtype,
    heads: int = 64,
    kv_heads: int = 8,
    *,
    batch: int = 1,
    sinks: mx.array | None = None,
    cuts: Sequence[int] = (),
) -> Case:
    """One token that sees so many positions of a longer buffer, perhaps cut into parts."""
    longer = _BEFORE + positions + 30
    q = normal(batch, heads, 1, 64, seed=1, scale=3.0, dtype=dtype)
    k, v = (normal(batch, kv_heads, longer, 64, seed=seed, dtype=dtype) for seed in (2, 3))
    k, v = (x[..., _BEFORE : _BEFORE + positions, :] for x in (k, v))
    sinks = normal(heads, seed=4, dtype=dtype) if sinks is None else sinks
    keys, values = (np.repeat(array(x), heads // kv_heads, axis=1) for x in (k, v))
    logits = np.einsum("bhtd,bhsd->bhts", array(q), keys) * 0.125
    sink = array(sinks)[:, None, None]
    top = np.maximum(logits.max(axis=-1, keepdims=True), sink)
    weights = np.exp(logits - top)
    mean = np.einsum("bhts,bhsd->bhtd", weights, values)
    expected = mean / (weights.sum(axis=-1, keepdims=True) + np.exp(sink - top))
    bounds = zip([0, *cuts], [*cuts, positions], strict=True)
    parts = [KV(k[..., a:b, :], v[..., a:b, :]) for a, b in bounds]
    return Case(lambda: [metal.attention_decode(q, parts, sinks, 0.125)], [expected], dtype)
