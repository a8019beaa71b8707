"""Logits -> ids, composed of plain functions of one row of logits for each sequence.

It does not know tokens' texts, nor what came before.
"""

from __future__ import annotations

import mlx.core as mx

from gptoss_mlx.config import SamplingParams

__all__ = ["keep_top_p", "sample"]


def sample(logits: mx.array, params: SamplingParams, key: mx.array | None = None) -> mx.array:
    """Draw one id a row.

    Args:
        logits: (B, V).
        params: temperature 0 takes the largest logit, whatever the rest says.
        key: a random key; None uses and advances MLX's global state.

    Returns:
        ids (B,), not yet evaluated.
    """
    if params.temperature == 0:
        return mx.argmax(logits, axis=-1)
    scaled = logits.astype(mx.float32) / params.temperature
    if params.top_p < 1:
        scaled = keep_top_p(scaled, params.top_p)
    return mx.random.categorical(scaled, key=key)


def keep_top_p(logits: mx.array, top_p: float) -> mx.array:
    """Nucleus sampling (arXiv 1904.09751): -inf for all but the likeliest ids that sum to top_p.

    The id that crosses the bound stays, so at least one always does.
    """
    order = mx.argsort(-logits, axis=-1)
    probabilities = mx.softmax(mx.take_along_axis(logits, order, axis=-1), axis=-1)
    before = mx.cumsum(probabilities, axis=-1) - probabilities
    kept = mx.put_along_axis(mx.zeros(logits.shape, mx.bool_), order, before < top_p, axis=-1)
    return mx.where(kept, logits, -mx.inf)
