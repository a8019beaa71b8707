"""How many launches a layer takes at decode."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import pytest
from helpers import random_model

from gptoss_mlx.convert.synthetic import GPT_OSS_20B

from .launches import launches


@pytest.mark.parametrize(("context", "splits"), [(100, 1), (600, 8)])
def test_a_layer_takes_at_most_12_launches(
    monkeypatch: pytest.MonkeyPatch, context: int, splits: int
) -> None:
    """Two norms, seven kernels, two cache updates; a long context's splits take one more."""
    counted = [_launches_of_layers(monkeypatch, layers, context) for layers in (2, 4)]
    assert (counted[1] - counted[0]) / 2 == 11 + (splits > 1) / 2


def _launches_of_layers(monkeypatch: pytest.MonkeyPatch, layers: int, context: int) -> int:
    """All launches of a decode step of a random model with so many layers."""
    model = random_model(replace(SMALL, num_hidden_layers=layers))
    cache = model.new_cache()
    monkeypatch.setenv("GPTOSS_MLX_KERNELS", "off")
    mx.eval(model.hidden_states(mx.zeros((1, context), mx.int32), cache), cache.arrays)
    monkeypatch.setenv("GPTOSS_MLX_KERNELS", "all")
    return launches(lambda ids: [model.hidden_states(ids, cache), *cache.arrays]).total()


SMALL = replace(
    GPT_OSS_20B,
    vocab_size=96,
    hidden_size=64,
    intermediate_size=64,
    num_experts=4,
    num_attention_heads=8,
    num_key_value_heads=1,
)
