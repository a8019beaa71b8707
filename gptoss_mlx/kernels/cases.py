"""Random inputs for every kernel, at the widths of gpt-oss-20b: what check.py tries them with.

A case is a few calls that a kernel and its twin are both given. The numbers are drawn from keys of
their own, so that whoever samples with MLX's random state draws the same with and without a trial.

Axes: H hidden, I intermediate, E experts, D = 64 head size.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from gptoss_mlx.kernels import metal, plain
from gptoss_mlx.kernels.types import KV, Matrix, Rotary, Routing

__all__ = ["Call", "Case", "Widths", "make_case"]

Result = mx.array | tuple[mx.array, ...] | Routing
_LIMIT = 7.0  # of SwiGLU
_TOP = 4  # experts a token


@dataclass(frozen=True)
class Widths:
    """The sizes of the matrices; by default those of gpt-oss-20b.

    `head_rows` of the output matrix are tried: a layer's share of the 201,088.
    """

    hidden: int = 2880
    intermediate: int = 2880
    heads: int = 64
    kv_heads: int = 8
    experts: int = 32
    head_rows: int = 8384


class Call(NamedTuple):
    """A kernel, its twin, and what both are given."""

    kernel: Callable[..., Result]
    twin: Callable[..., Result]
    arguments: tuple[Any, ...]

    def run_kernel(self) -> list[mx.array]:
        """What the kernel gives."""
        return _arrays(self.kernel(*map(_fresh, self.arguments)))

    def run_twin(self) -> list[mx.array]:
        """What MLX gives."""
        return _arrays(self.twin(*map(_fresh, self.arguments)))

    def compared(self, *, on_cpu: bool = False) -> list[tuple[mx.array, mx.array]]:
        """What the kernel gives, and its twin (there, if so) from the same numbers in float32."""
        ours = self.kernel(*map(_fresh, self.arguments))
        with mx.stream(mx.cpu) if on_cpu else nullcontext():
            exact = self.twin(*map(_in_float32, self.arguments))
        if isinstance(ours, Routing):
            given = self.arguments[0].shape[-1]
            return [(_by_expert(ours, given), _by_expert(exact, given))]
        return list(zip(_arrays(ours), _arrays(exact), strict=True))


Case = Callable[[int, mx.Dtype], list[Call]]  # size, dtype of the activations -> what is called


def make_case(name: str, widths: Widths) -> Case:
    """The case of one of `choice.CHOICES`; its weights are drawn now, the rest for each size."""
    stem, _, kind = name.rpartition("_")
    make = {"qkv": _qkv, "qmv": _qmv}.get(stem)
    return make(_Draw(), widths, kind) if make else _MAKERS[name](_Draw(), widths)


class _Draw:
    """Random numbers, the same ones in each run."""

    def __init__(self) -> None:
        self._key = mx.random.key(0)

    def key(self) -> mx.array:
        self._key, key = mx.random.split(self._key)
        return key

    def normal(self, *shape: int, scale: float = 1.0, dtype: mx.Dtype = mx.bfloat16) -> mx.array:
        return mx.random.normal(shape, scale=scale, key=self.key()).astype(dtype)

    def dense(self, kind: str, rows: int, width: int) -> Matrix:
        """A matrix in bf16, q8 or q4."""
        weight = self.normal(rows, width, scale=0.05)
        if kind == "bf16":
            return Matrix(weight)
        bits = int(kind[1:])
        packed, scales, biases = mx.quantize(weight, group_size=64, bits=bits)
        return Matrix(packed, scales, biases, 64, bits, "affine")

    def experts(self, number: int, rows: int, width: int) -> Matrix:
        """A matrix for each expert, in MXFP4: any codes, scales of 2^-8 to 2^-5."""
        shape = (number, rows, width // 4)
        halves = mx.random.randint(0, 1 << 16, shape, dtype=mx.uint16, key=self.key())
        shape = (number, rows, width // 32)
        scales = mx.random.randint(119, 123, shape, dtype=mx.uint8, key=self.key())
        return Matrix(halves.view(mx.uint32), scales, None, 32, 4, "mxfp4")

    def routing(self, tokens: int, experts: int) -> Routing:
        """Distinct experts for each token."""
        order = mx.argsort(mx.random.uniform(shape=(tokens, experts), key=self.key()), axis=-1)
        scores = self.normal(tokens, _TOP, dtype=mx.float32)
        return Routing(order[:, :_TOP].astype(mx.uint32), mx.softmax(scores, axis=-1))


def _qmv(draw: _Draw, widths: Widths, kind: str) -> Case:
    """A layer's dense products: after attention, the router, a share of the output matrix."""
    H, Q = widths.hidden, widths.heads * metal.HEAD
    out, router = draw.dense(kind, H, Q), draw.dense(kind, widths.experts, H)
    head = draw.dense(kind, widths.head_rows, H)

    def calls(n: int, dtype: mx.Dtype) -> list[Call]:
        def vectors(*shape: int) -> mx.array:
            return draw.normal(*shape, dtype=dtype)

        x = vectors(n, H)
        given = (
            (vectors(n, Q), _stored_for(dtype, out), vectors(H), vectors(n, H)),
            (x, _stored_for(dtype, router), vectors(widths.experts)),
            (x, _stored_for(dtype, head)),
        )
        return [Call(metal.qmv, plain.linear, arguments) for arguments in given]

    return calls


def _qkv(draw: _Draw, widths: Widths, kind: str) -> Case:
    rows = (widths.heads + 2 * widths.kv_heads) * metal.HEAD
    matrix = draw.dense(kind, rows, widths.hidden)
    frequencies = 150_000.0 ** -np.linspace(0, 1, metal.HEAD // 2, dtype=np.float32)
    rotary = Rotary.of(frequencies)

    def calls(n: int, dtype: mx.Dtype) -> list[Call]:
        rotation = rotary.at([77 + 3 * i for i in range(n)], 1)
        x, bias = draw.normal(n, 1, widths.hidden, dtype=dtype), draw.normal(rows, dtype=dtype)
        stored = _stored_for(dtype, matrix)
        arguments = (x, stored, bias, rotation, widths.heads, widths.kv_heads)
        return [Call(metal.qkv, plain.qkv, arguments)]

    return calls


def _router(draw: _Draw, widths: Widths) -> Case:
    E = widths.experts

    def calls(n: int, dtype: mx.Dtype) -> list[Call]:
        order = mx.argsort(mx.random.uniform(shape=(n, E), key=draw.key()), axis=-1)
        logits = (order.astype(mx.float32) / 4).astype(dtype)  # exact in bf16: no two are equal
        return [Call(metal.router_topk, plain.router_topk, (logits, min(_TOP, E)))]

    return calls


def _gate_up(draw: _Draw, widths: Widths, *, grouped: bool) -> Case:
    E, I, H = widths.experts, widths.intermediate, widths.hidden  # noqa: E741
    gate, up = draw.experts(E, I, H), draw.experts(E, I, H)
    kernel = metal.moe_gemm_gate_up if grouped else metal.moe_gate_up_swiglu

    def calls(n: int, dtype: mx.Dtype) -> list[Call]:
        gate_bias, up_bias = draw.normal(E, I, dtype=dtype), draw.normal(E, I, dtype=dtype)
        x, routing = draw.normal(n, H, dtype=dtype), draw.routing(n, E)
        arguments = (x, routing, gate, gate_bias, up, up_bias, _LIMIT)
        return [Call(kernel, plain.moe_gate_up_swiglu, arguments)]

    return calls


def _down(draw: _Draw, widths: Widths, *, grouped: bool) -> Case:
    E, I, H = widths.experts, widths.intermediate, widths.hidden  # noqa: E741
    down = draw.experts(E, H, I)
    kernel = metal.moe_gemm_down if grouped else metal.moe_down_combine

    def calls(n: int, dtype: mx.Dtype) -> list[Call]:
        y, routing = draw.normal(n, _TOP, I, dtype=dtype), draw.routing(n, E)
        bias, residual = draw.normal(E, H, dtype=dtype), draw.normal(n, H, dtype=dtype)
        return [Call(kernel, plain.moe_down_combine, (y, routing, down, bias, residual))]

    return calls


def _attention(draw: _Draw, widths: Widths) -> Case:
    """The size is the number of positions, which lie in a longer cache."""

    def calls(n: int, dtype: mx.Dtype) -> list[Call]:
        q = draw.normal(1, widths.heads, 1, metal.HEAD, scale=2.0, dtype=dtype)
        k, v = (draw.normal(1, widths.kv_heads, n + 64, metal.HEAD, dtype=dtype) for _ in "kv")
        sinks = draw.normal(widths.heads, dtype=dtype)
        arguments = (q, k[..., :n, :], v[..., :n, :], sinks, metal.HEAD**-0.5)
        return [Call(_decode, _attend_to_all, arguments)]

    return calls


def _decode(q: mx.array, k: mx.array, v: mx.array, sinks: mx.array, scale: float) -> mx.array:
    return metal.attention_decode(q, [KV(k, v)], sinks, scale)


def _attend_to_all(
    q: mx.array, k: mx.array, v: mx.array, sinks: mx.array, scale: float
) -> mx.array:
    return plain.attention(q, [KV(k, v)], sinks, scale, None)


_MAKERS: dict[str, Callable[[_Draw, Widths], Case]] = {
    "attention_decode": _attention,
    "moe_down_combine": lambda draw, widths: _down(draw, widths, grouped=False),
    "moe_gate_up_swiglu": lambda draw, widths: _gate_up(draw, widths, grouped=False),
    "moe_gemm_down": lambda draw, widths: _down(draw, widths, grouped=True),
    "moe_gemm_gate_up": lambda draw, widths: _gate_up(draw, widths, grouped=True),
    "router_topk": _router,
}


def _stored_for(dtype: mx.Dtype, matrix: Matrix) -> Matrix:
    """A model keeps the scales of dense matrices in the dtype of its activations."""
    if matrix.scales is None or matrix.biases is None:
        return matrix
    scales, biases = matrix.scales.astype(dtype), matrix.biases.astype(dtype)
    return replace(matrix, scales=scales, biases=biases)


def _arrays(result: Result) -> list[mx.array]:
    if isinstance(result, Routing):
        return [result.ids, result.scores]
    return [result] if isinstance(result, mx.array) else list(result)


def _by_expert(routing: Result, experts: int) -> mx.array:
    """Each expert's score (N, E), whatever the order of the chosen and whatever their ids."""
    assert isinstance(routing, Routing)
    chosen = routing.ids[..., None] == mx.arange(experts)
    return (chosen * routing.scores[..., None]).sum(axis=-2)


def _fresh(argument: Any) -> Any:
    """Routings remember what was made of them, and each call shall make it itself."""
    return Routing(argument.ids, argument.scores) if isinstance(argument, Routing) else argument


def _in_float32(argument: Any) -> Any:
    if isinstance(argument, mx.array) and mx.issubdtype(argument.dtype, mx.floating):
        return argument.astype(mx.float32)
    return _fresh(argument)
