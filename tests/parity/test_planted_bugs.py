"""Every bug that an implementation of gpt-oss is known to have had, planted in ours: is it seen?

A parity test that passes is worth as much as the bugs it fails on. Each is planted in the model's
own code, the model is run on a case of the golden files, and the verdict must be against it.

Not here, as they change nothing: a softmax over all experts that is renormalised over the chosen
ones (the same function), and clamping the gate from below too (SwiGLU is almost zero there).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from gptoss_mlx import kernels
from gptoss_mlx import model as model_module
from gptoss_mlx.cache import SlidingLayer
from gptoss_mlx.config import ModelConfig
from gptoss_mlx.kernels import Matrix, Rotary, Rotation, Routing
from gptoss_mlx.model import load_model, yarn_frequencies
from gptoss_mlx.weights import Weights

from .checkpoints import CASES, Case, CheckpointOf, logits_of
from .comparison import Figures, compare
from .golden import REFERENCES, load_golden

pytestmark = pytest.mark.slow

_CASE = CASES["32-experts-320-tokens-seed-4"]
_CHUNK = 64

Bug = Callable[[pytest.MonkeyPatch], None]
Frequencies = tuple[NDArray[np.float32], float]


def _window_of(size: int) -> Bug:
    def plant(patch: pytest.MonkeyPatch) -> None:
        attention: Any = kernels.attention

        def misjudged(*args: Any) -> mx.array:
            *others, window = args
            return attention(*others, None if window is None else size)

        patch.setattr(kernels, "attention", misjudged)

    return plant


def _no_sinks(patch: pytest.MonkeyPatch) -> None:
    attention: Any = kernels.attention

    def sinkless(q: mx.array, parts: Any, sinks: mx.array, *rest: Any) -> mx.array:
        return attention(q, parts, mx.full(sinks.shape, -math.inf), *rest)

    patch.setattr(kernels, "attention", sinkless)


def _other_yarn(yarn: Callable[[ModelConfig], Frequencies]) -> Bug:
    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(model_module, "yarn_frequencies", yarn)

    return plant


def _without_concentration(config: ModelConfig) -> Frequencies:
    return yarn_frequencies(config)[0], 1.0


def _with_rounded_range(config: ModelConfig) -> Frequencies:
    """YaRN's ramp from a whole pair to a whole pair, truncate=true."""
    half = config.head_dim // 2
    base = config.rope_theta

    def pair_that_turns(rotations: float) -> float:
        length = config.initial_context_length / (rotations * math.tau)
        return half * math.log(length) / math.log(base)

    low = math.floor(pair_that_turns(config.rope_ntk_beta))
    high = math.ceil(pair_that_turns(config.rope_ntk_alpha))
    plain = base ** (-np.arange(half) / half)
    ramp = np.clip((np.arange(half) - low) / (high - low), 0, 1)
    frequencies = plain * (1 - ramp + ramp / config.rope_scaling_factor)
    return frequencies.astype(np.float32), yarn_frequencies(config)[1]


def _with_bf16_frequencies(config: ModelConfig) -> Frequencies:
    frequencies, concentration = yarn_frequencies(config)
    rounded = mx.array(frequencies).astype(mx.bfloat16).astype(mx.float32)
    return np.asarray(rounded, dtype=np.float32), concentration


def _no_clamp(patch: pytest.MonkeyPatch) -> None:
    gate_up_swiglu: Any = kernels.moe_gate_up_swiglu

    def unclamped(*args: Any) -> mx.array:
        *others, _ = args
        return gate_up_swiglu(*others, math.inf)

    patch.setattr(kernels, "moe_gate_up_swiglu", unclamped)


def _softmax_over_all_experts(patch: pytest.MonkeyPatch) -> None:
    router_topk = kernels.router_topk

    def over_all(logits: mx.array, k: int) -> Routing:
        ids = router_topk(logits, k).ids
        return Routing(ids, mx.take_along_axis(mx.softmax(logits, axis=-1), ids, axis=-1))

    patch.setattr(kernels, "router_topk", over_all)


def _down_bias_outside_the_weighting(patch: pytest.MonkeyPatch) -> None:
    down_combine = kernels.moe_down_combine

    def unweighted(
        y: mx.array, routing: Routing, down: Matrix, bias: mx.array, residual: mx.array
    ) -> mx.array:
        out = down_combine(y, routing, down, mx.zeros_like(bias), residual)
        return out + bias[routing.ids].sum(axis=-2)

    patch.setattr(kernels, "moe_down_combine", unweighted)


def _nibbles_swapped(patch: pytest.MonkeyPatch) -> None:
    take = Weights.matrix

    def swapped(self: Weights, stem: str, *shape: int) -> Matrix:
        matrix = take(self, stem, *shape)
        if matrix.mode != "mxfp4":
            return matrix
        low, high = matrix.weight & 0x0F0F0F0F, (matrix.weight >> 4) & 0x0F0F0F0F
        return replace(matrix, weight=(low << 4) | high)

    patch.setattr(Weights, "matrix", swapped)


def _router_in_bf16(patch: pytest.MonkeyPatch) -> None:
    linear = kernels.linear

    def coarse(
        x: mx.array, matrix: Matrix, bias: mx.array | None = None, *residual: mx.array | None
    ) -> mx.array:
        if bias is None or matrix.weight.shape[0] != _CASE.config.num_experts:
            return linear(x, matrix, bias, *residual)
        logits = linear(x.astype(mx.bfloat16), matrix, bias.astype(mx.bfloat16))
        return logits.astype(x.dtype)

    patch.setattr(kernels, "linear", coarse)


def _epsilon_of_a_tenth(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ModelConfig, "rms_norm_eps", 1e-6)


def _cache_one_position_short(patch: pytest.MonkeyPatch) -> None:
    start = SlidingLayer.__init__

    def short(self: SlidingLayer, window: int, *rest: Any) -> None:
        start(self, window - 1, *rest)

    patch.setattr(SlidingLayer, "__init__", short)


def _positions_restart_with_each_chunk(patch: pytest.MonkeyPatch) -> None:
    at = Rotary.at

    def restarted(self: Rotary, starts: Sequence[int], T: int) -> Rotation:
        return at(self, [0] * len(starts), T)

    patch.setattr(Rotary, "at", restarted)


# The bug, the case it is planted in, and half the relative RMS it is known to cause at least: less,
# and it was not planted. A wrong epsilon moves the usual case by 1.2e-5 only, just out of bounds.
_BUGS: dict[str, tuple[Bug, Case, float]] = {
    "no sinks": (_no_sinks, _CASE, 0.15),
    "no YaRN concentration": (_other_yarn(_without_concentration), _CASE, 0.3),
    "rounded YaRN range": (_other_yarn(_with_rounded_range), _CASE, 0.05),
    "frequencies in bf16": (_other_yarn(_with_bf16_frequencies), _CASE, 0.05),
    "no SwiGLU clamp": (_no_clamp, _CASE, 0.002),
    "softmax over all experts": (_softmax_over_all_experts, _CASE, 0.1),
    "down bias outside the weighting": (_down_bias_outside_the_weighting, _CASE, 0.3),
    "nibbles swapped": (_nibbles_swapped, _CASE, 0.6),
    "router in bf16": (_router_in_bf16, _CASE, 0.005),
    "RMSNorm epsilon of 1e-6": (_epsilon_of_a_tenth, _CASE, 1e-5),
    "the same, small activations": (_epsilon_of_a_tenth, CASES["quiet-320-tokens"], 0.05),
}


@pytest.mark.parametrize(("bug", "case", "least_rms"), _BUGS.values(), ids=_BUGS)
def test_the_bug_is_seen(
    checkpoint_of: CheckpointOf,
    monkeypatch: pytest.MonkeyPatch,
    bug: Bug,
    case: Case,
    least_rms: float,
) -> None:
    """The logits are neither reference's, and as far off as the bug is known to put them."""
    for figures in _figures_with(bug, checkpoint_of, monkeypatch, case=case):
        assert figures.violations
        assert figures.relative_rms > least_rms


@pytest.mark.parametrize(
    ("bug", "first"),
    [(_window_of(127), 127), (_window_of(129), 128)],
    ids=["window of 127", "window of 129"],
)
def test_a_wrong_window_is_seen_at_its_edge(
    checkpoint_of: CheckpointOf, monkeypatch: pytest.MonkeyPatch, bug: Bug, first: int
) -> None:
    """A window one too small first shows at position 127, one too large at 128, and not before."""
    for figures in _figures_with(bug, checkpoint_of, monkeypatch):
        assert figures.violations
        assert figures.first_position == first


@pytest.mark.parametrize(
    ("bug", "first"),
    [(_cache_one_position_short, 128), (_positions_restart_with_each_chunk, 64)],
    ids=["cache one position short", "positions restart with each chunk"],
)
def test_a_bug_of_chunked_prefill_is_seen(
    checkpoint_of: CheckpointOf, monkeypatch: pytest.MonkeyPatch, bug: Bug, first: int
) -> None:
    """A bug that one step cannot have is seen in steps of 64 tokens, and not before it sets in."""
    for figures in _figures_with(bug, checkpoint_of, monkeypatch, chunk=_CHUNK):
        assert figures.violations
        assert figures.first_position is not None
        assert figures.first_position >= first


def test_without_a_bug_there_is_parity(
    checkpoint_of: CheckpointOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same runs without a bug, whole and in chunks, are the references'."""
    for chunk in (None, _CHUNK):
        for figures in _figures_with(lambda _: None, checkpoint_of, monkeypatch, chunk=chunk):
            assert not figures.violations


def _figures_with(
    bug: Bug,
    checkpoint_of: CheckpointOf,
    patch: pytest.MonkeyPatch,
    *,
    case: Case = _CASE,
    chunk: int | None = None,
) -> list[Figures]:
    """How far a model with the bug is from each reference."""
    checkpoint = checkpoint_of(case)
    bug(patch)
    logits = logits_of(load_model(checkpoint.mlx, mx.float32), case.ids, chunk)
    return [compare(logits, load_golden(checkpoint, reference)) for reference in REFERENCES]
